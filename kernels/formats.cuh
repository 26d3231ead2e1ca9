// Formats: how an array's elements come into registers and go back. Rules know nothing of it.
#pragma once

#include "tables.cuh"

// Storage type -> type in which the rule computes.
template <typename Storage>
struct Format;

template <>
struct Format<float> {
    using Compute = float;
};

template <>
struct Format<double> {
    using Compute = double;
};

// The type of an optional array that a specialisation leaves out; it costs no register and no instruction.
struct Absent {};

template <typename T>
constexpr bool is_present = true;
template <>
constexpr bool is_present<Absent> = false;

// The array at an address of the tensor table. Told that it is global, the compiler emits LDG and STG, not LD and ST.
template <typename Storage>
__device__ __forceinline__ Storage* array_at(uint64 address) {
    auto* array = reinterpret_cast<Storage*>(address);
    __builtin_assume(__isGlobal(array));
    return array;
}

// What a lane holds of one array's tile.
template <typename Storage>
struct Tile {
    static constexpr int WIDE = 16 / sizeof(Storage);  // elements of a 16-byte access

    struct alignas(16) Wide {
        Storage element[WIDE];
    };

    Storage element[LANE_ELEMENTS];

    __device__ __forceinline__ void load_wide(uint64 address, int64 first, int lane) {
        const auto* source = array_at<const Wide>(address) + first / WIDE + lane;
#pragma unroll
        for (int access = 0; access < LANE_ELEMENTS / WIDE; ++access) {
            const Wide wide = source[access * WARP];
#pragma unroll
            for (int i = 0; i < WIDE; ++i) element[access * WIDE + i] = wide.element[i];
        }
    }

    __device__ __forceinline__ void store_wide(uint64 address, int64 first, int lane) const {
        auto* target = array_at<Wide>(address) + first / WIDE + lane;
#pragma unroll
        for (int access = 0; access < LANE_ELEMENTS / WIDE; ++access) {
            Wide wide;
#pragma unroll
            for (int i = 0; i < WIDE; ++i) wide.element[i] = element[access * WIDE + i];
            target[access * WARP] = wide;
        }
    }

    // The edge of a tensor, or one that starts off a 16-byte boundary: one element at a time, lanes side by side.
    __device__ __forceinline__ void load_edge(uint64 address, int64 first, int lane, int count) {
        const auto* source = array_at<const Storage>(address) + first;
#pragma unroll
        for (int i = 0; i < LANE_ELEMENTS; ++i)
            element[i] = i * WARP + lane < count ? source[i * WARP + lane] : Storage(0);
    }

    __device__ __forceinline__ void store_edge(uint64 address, int64 first, int lane, int count) const {
        auto* target = array_at<Storage>(address) + first;
#pragma unroll
        for (int i = 0; i < LANE_ELEMENTS; ++i)
            if (i * WARP + lane < count) target[i * WARP + lane] = element[i];
    }
};

template <>
struct Tile<Absent> {
    Absent element[LANE_ELEMENTS];

    __device__ __forceinline__ void load_wide(uint64, int64, int) {}
    __device__ __forceinline__ void store_wide(uint64, int64, int) const {}
    __device__ __forceinline__ void load_edge(uint64, int64, int, int) {}
    __device__ __forceinline__ void store_edge(uint64, int64, int, int) const {}
};

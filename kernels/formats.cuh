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

// Elements that a lane takes at once: SIZE of them, in 16-byte accesses where there are several.
template <typename Storage, int SIZE>
struct alignas(SIZE == 1 ? sizeof(Storage) : 16) Granule {
    Storage element[SIZE];
};

// Told that memory is global, the compiler emits LDG and STG, not the generic LD and ST.
template <typename T>
__device__ __forceinline__ T* global(T* pointer) {
    __builtin_assume(__isGlobal(pointer));
    return pointer;
}

// An array of the tensor table from some element on, in granules.
template <typename Storage, int SIZE>
struct Array {
    Granule<Storage, SIZE>* granules;

    __device__ __forceinline__ Array(uint64 address, int64 begin)
        : granules(reinterpret_cast<Granule<Storage, SIZE>*>(address + begin * sizeof(Storage))) {}
    __device__ __forceinline__ Granule<Storage, SIZE> load(int i) const { return *global(granules + i); }
    __device__ __forceinline__ void store(int i, const Granule<Storage, SIZE>& granule) const {
        *global(granules + i) = granule;
    }
};

template <int SIZE>
struct Array<Absent, SIZE> {
    __device__ __forceinline__ Array(uint64, int64) {}
    __device__ __forceinline__ Granule<Absent, SIZE> load(int) const { return {}; }
    __device__ __forceinline__ void store(int, const Granule<Absent, SIZE>&) const {}
};

// The smallest granule of a set of formats that is 16 bytes in the narrowest of them.
template <typename... Storages>
__device__ constexpr int wide_granule() {
    int size = 1;
    ((size = !is_present<Storages> || 16 / int(sizeof(Storages)) < size ? size : 16 / int(sizeof(Storages))), ...);
    return size;
}

// Granules: how the elements of an array come into a lane's registers, as numbers, and go back.
#pragma once

#include "formats.cuh"

template <typename T>  // whether a state of this type is rounded at random
constexpr bool draws = is_8_bit<T> || sizeof(T) == sizeof(bfloat16);

constexpr int BLOCK8 = 256;          // elements of an 8-bit state that share a scale
constexpr int SCALE_ALIGNMENT = 64;  // bytes: where the scales begin behind the codes
constexpr int CODES = 256;           // values of each table of codes
constexpr uint32 NAN_BITS = 0x7FC00000;

// Told that memory is global, the compiler emits LDG and STG, not the generic LD and ST.
template <typename T>
__device__ __forceinline__ T* global(T* pointer) {
    __builtin_assume(__isGlobal(pointer));
    return pointer;
}

// Elements that a lane takes at once: SIZE of them.
template <typename Storage, int SIZE>
struct alignas(SIZE * sizeof(Storage) < 16 ? SIZE * sizeof(Storage) : 16) Granule {
    Storage element[SIZE];
};

template <int SIZE>
struct Granule<Absent, SIZE> {
    Absent element[SIZE];
};

// Up to CHUNK elements of an array of the tensor table: the address of the first, and of what belongs to them.
template <typename Storage>
struct Array {
    uint64 elements;

    __device__ __forceinline__ Array(uint64 address, int64, int64 begin)
        : elements(address + begin * sizeof(Storage)) {}
};
template <>
struct Array<Absent> {
    __device__ __forceinline__ Array(uint64, int64, int64) {}
};

// 8-bit codes, whose scales follow them.
template <typename Storage>
struct CodeArray {
    uint64 elements;
    uint64 scales;

    __device__ __forceinline__ CodeArray(uint64 address, int64 numel, int64 begin)
        : elements(address + begin),
          scales(address + (numel + SCALE_ALIGNMENT - 1) / SCALE_ALIGNMENT * SCALE_ALIGNMENT +
                 begin / BLOCK8 * sizeof(float)) {}
};
template <>
struct Array<Signed8> : CodeArray<Signed8> {
    using CodeArray::CodeArray;
};
template <>
struct Array<Unsigned8> : CodeArray<Unsigned8> {
    using CodeArray::CodeArray;
};

// The place of a lane in a chunk: a granule from element `index` on, of which `left` exist. WIDE: all of it exists, and
// it is aligned; the accesses are then of 16 bytes.
template <bool WIDE>
struct Place {
    int index;
    int left;
};

template <typename Storage, int SIZE, bool WIDE>
__device__ __forceinline__ Granule<Storage, SIZE> load(const Array<Storage>& array, const Place<WIDE>& place) {
    Granule<Storage, SIZE> granule{};
    if constexpr (is_present<Storage>) {
        const Storage* elements = reinterpret_cast<const Storage*>(array.elements) + place.index;
        if constexpr (WIDE) {
            granule = *global(reinterpret_cast<const Granule<Storage, SIZE>*>(elements));
        } else {
#pragma unroll
            for (int j = 0; j < SIZE; ++j)
                if (j < place.left) granule.element[j] = global(elements)[j];
        }
    }
    return granule;
}

template <typename Storage, int SIZE, bool WIDE>
__device__ __forceinline__ void store(const Array<Storage>& array, const Place<WIDE>& place,
                                      const Granule<Storage, SIZE>& granule) {
    if constexpr (is_present<Storage>) {
        Storage* elements = reinterpret_cast<Storage*>(array.elements) + place.index;
        if constexpr (WIDE) {
            *global(reinterpret_cast<Granule<Storage, SIZE>*>(elements)) = granule;
        } else {
#pragma unroll
            for (int j = 0; j < SIZE; ++j)
                if (j < place.left) global(elements)[j] = granule.element[j];
        }
    }
}

// A state in registers, as the numbers that it stands for: read from the stored granule, and written back to it.
template <typename Storage, int SIZE>
struct State {
    using Number = typename Format<Storage>::Compute;
    Number value[SIZE];

    template <bool WIDE>
    __device__ __forceinline__ void read(const Array<Storage>& array, const Place<WIDE>& place, const float*) {
        const auto stored = load<Storage, SIZE>(array, place);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) value[j] = Format<Storage>::value(stored.element[j]);
    }
    template <bool WIDE>
    __device__ __forceinline__ void write(const Array<Storage>& array, const Place<WIDE>& place, const float*,
                                          uint64 stream) const {
        Granule<Storage, SIZE> stored;
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            stored.element[j] = Format<Storage>::stochastic(value[j], rounding::draw(stream, place.index + j));
        store(array, place, stored);
    }
};

template <int SIZE>
struct State<Absent, SIZE> {
    Absent value[SIZE];
    template <bool WIDE>
    __device__ __forceinline__ void read(const Array<Absent>&, const Place<WIDE>&, const float*) {}
    template <bool WIDE>
    __device__ __forceinline__ void write(const Array<Absent>&, const Place<WIDE>&, const float*, uint64) const {}
};

// A state of 8 bits: a warp holds a block, a granule a lane, whose scale is the largest magnitude in it.
template <typename Storage, int SIZE, int TABLE, unsigned char CODE(float, const float*, uint32)>
struct BlockState {
    static_assert(SIZE * WARP == BLOCK8);
    float value[SIZE];

    template <bool WIDE>
    __device__ __forceinline__ void read(const Array<Storage>& array, const Place<WIDE>& place, const float* codes) {
        const auto stored = load<Storage, SIZE>(array, place);
        const float scale = place.left > 0 ? *scale_of(array, place) : rounding::ZERO;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) value[j] = codes[TABLE + stored.element[j].code] * scale;
    }
    template <bool WIDE>
    __device__ __forceinline__ void write(const Array<Storage>& array, const Place<WIDE>& place, const float* codes,
                                          uint64 stream) const {
        const float scale = block_scale(place.left);
        Granule<Storage, SIZE> stored;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) {
            const float scaled = scale > rounding::ZERO ? value[j] / scale : rounding::ZERO;
            stored.element[j] = {CODE(scaled, codes + TABLE, rounding::draw(stream, place.index + j))};
        }
        store(array, place, stored);
        __syncwarp();  // a shuffle orders no memory, and other lanes have read the old scale
        if (place.left > 0 && threadIdx.x % WARP == 0) *scale_of(array, place) = scale;
    }
    // The largest magnitude among the lanes; NaN if a value is not finite. Magnitudes have the order of their bits.
    __device__ __forceinline__ float block_scale(int left) const {
        uint32 largest = 0;
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            if (j < left) largest = max(largest, rounding::float_bits(value[j]) & rounding::MAGNITUDE);
#pragma unroll
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, lanes));
        return rounding::bits_float(largest < rounding::INFINITY_BITS ? largest : NAN_BITS);
    }
    template <bool WIDE>
    __device__ static float* scale_of(const Array<Storage>& array, const Place<WIDE>& place) {
        return global(reinterpret_cast<float*>(array.scales) + place.index / BLOCK8);
    }
};

template <int SIZE>
struct State<Signed8, SIZE> : BlockState<Signed8, SIZE, 0, rounding::signed_code> {};
template <int SIZE>
struct State<Unsigned8, SIZE> : BlockState<Unsigned8, SIZE, CODES, rounding::unsigned_code> {};

// Elements that a lane takes at once: 16 bytes of the widest array; with 8-bit states a warp takes a block.
template <typename... Storages>
__device__ constexpr int granule_size() {
    int size = 8;
    ((size = 16 / int(sizeof(Storages)) < size && is_present<Storages> ? 16 / int(sizeof(Storages)) : size), ...);
    return (is_8_bit<Storages> || ...) ? BLOCK8 / WARP : size;
}

// Elements of a tensor from `begin` on that a chunk stands for.
__device__ __forceinline__ int chunk_count(const Tensor& tensor, int64 begin) {
    return tensor.numel - begin < CHUNK ? static_cast<int>(tensor.numel - begin) : CHUNK;
}

// The granules of a chunk, a warp's at a time: all lanes go the same way, since a block of 8-bit states is theirs.
template <int SIZE, typename Visit>
__device__ __forceinline__ void visit_granules(int count, bool wide, const Visit& visit) {
    const int own = static_cast<int>(threadIdx.x % WARP) * SIZE;
    const int whole = wide ? count - count % (WARP * SIZE) : 0;
#pragma unroll 1
    for (int index = own; index < whole; index += WARP * SIZE) visit(Place<true>{index, SIZE});
#pragma unroll 1
    for (int tile = whole; tile < count; tile += WARP * SIZE) visit(Place<false>{tile + own, count - tile - own});
}

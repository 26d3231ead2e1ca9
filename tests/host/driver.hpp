// What the drivers share. Each runs one kernel under a sanitizer, on tables of its own:
//
//   driver library.so            three blocks, one after another
//   driver library.so copy.so    two blocks at the same time: each library has shared memory of its own
//
// Every array and every table is a heap block of exactly its size: AddressSanitizer sees the first byte outside.
// Launches are joined, as a stream orders them. A driver exits with 0 if the outcome is the expected one.
#pragma once

#include <dlfcn.h>

#include <memory>

#include "elements.hpp"
#include "tables.cuh"

constexpr size_t BLOCK8 = 256;          // elements of an 8-bit state that share a scale
constexpr size_t SCALE_ALIGNMENT = 64;  // bytes: where the scales begin behind the codes

inline void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "driver: %s\n", what);
    std::exit(2);  // 1 is AddressSanitizer's
}

using Run = void(const Launch*, unsigned, unsigned, unsigned, unsigned);

struct Library {
    void* handle;
    Run* run;

    explicit Library(const char* path) : handle(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        require(handle, "the library does not load");
        run = reinterpret_cast<Run*>(dlsym(handle, "run"));
        require(run, "the library lacks a symbol");
    }

    template <typename T>
    const T* find(const char* name) const {
        const void* found = dlsym(handle, name);
        require(found, "the library lacks a symbol");
        return static_cast<const T*>(found);
    }
};

inline std::vector<Library> load_libraries(int count, char** paths) {
    std::vector<Library> libraries(paths + 1, paths + count);
    require(!libraries.empty(), "name a library");
    return libraries;
}

// One launch: its chunks are shared among the blocks.
inline void launch_on(const std::vector<Library>& libraries, Launch launch) {
    const unsigned blocks = libraries.size() == 1 ? 3 : static_cast<unsigned>(libraries.size());
    launch.blocks = blocks;
    launch.chunks_per_block = (launch.chunk_count + static_cast<int32>(blocks) - 1) / static_cast<int32>(blocks);
    if (libraries.size() == 1) return libraries[0].run(&launch, blocks, 0, blocks, BLOCK);
    std::vector<std::thread> threads;
    for (unsigned own = 0; own < blocks; ++own)
        threads.emplace_back([&, own] { libraries[own].run(&launch, blocks, own, own + 1, BLOCK); });
    for (auto& thread : threads) thread.join();
}

constexpr size_t element_size(Element kind) {
    switch (kind) {
        case Element::ABSENT: return 0;
        case Element::FLOAT32: return 4;
        case Element::FLOAT64: return 8;
        case Element::CODES: return 1;
        default: return 2;
    }
}

// An array of any format, perhaps one element off the 16-byte boundary at which a heap block starts. 8-bit codes have
// their scales behind them.
class Array {
 public:
    Array(Element kind, size_t numel, bool shifted) : kind_(kind), numel_(kind == Element::ABSENT ? 0 : numel) {
        const size_t offset = shifted && kind != Element::CODES ? element_size(kind) : 0;
        const size_t scales = kind == Element::CODES ? (numel + BLOCK8 - 1) / BLOCK8 * sizeof(float) : 0;
        bytes_.resize(offset + (scales ? scales_at() : numel_ * element_size(kind)) + scales);
        begin_ = bytes_.data() + offset;
    }
    Array(Array&&) = default;  // a copy would point into the original

    uint64 address() const { return kind_ == Element::ABSENT ? 0 : reinterpret_cast<uint64>(begin_); }
    size_t numel() const { return numel_; }
    Element kind() const { return kind_; }
    const std::vector<unsigned char>& bytes() const { return bytes_; }

    // A number that every format can hold.
    void put(size_t i, double number) {
        unsigned bits;
        const float single = static_cast<float>(number);
        std::memcpy(&bits, &single, sizeof(bits));
        const _Float16 half = static_cast<_Float16>(number);
        const unsigned short high = static_cast<unsigned short>(bits >> 16);
        switch (kind_) {
            case Element::FLOAT32: return write(i, single);
            case Element::FLOAT64: return write(i, number);
            case Element::FLOAT16: return write(i, half);
            case Element::BFLOAT16: return write(i, high);
            default: require(number == 0.0, "low bits and codes start as 0");
        }
    }

    void fill(double number) {
        for (size_t i = 0; i < numel_; ++i) put(i, number);
    }

    double operator[](size_t i) const {
        switch (kind_) {
            case Element::FLOAT32: return read<float>(i);
            case Element::FLOAT64: return read<double>(i);
            case Element::FLOAT16: return static_cast<double>(read<_Float16>(i));
            case Element::BFLOAT16: return std::bit_cast<float>(static_cast<unsigned>(read<unsigned short>(i)) << 16);
            case Element::REMAINDER: return read<unsigned short>(i);
            default: return reinterpret_cast<const float*>(begin_ + scales_at())[i / BLOCK8];
        }
    }

 private:
    size_t scales_at() const { return (numel_ + SCALE_ALIGNMENT - 1) / SCALE_ALIGNMENT * SCALE_ALIGNMENT; }

    template <typename T>
    T read(size_t i) const {
        return reinterpret_cast<const T*>(begin_)[i];
    }

    template <typename T>
    void write(size_t i, T value) {
        reinterpret_cast<T*>(begin_)[i] = value;
    }

    Element kind_;
    size_t numel_;
    std::vector<unsigned char> bytes_;
    unsigned char* begin_;
};

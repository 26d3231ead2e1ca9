// A stand-in for CUDA: g++ compiles the kernels' own source with this header preincluded (-include cuda_host.hpp), and
// they run on a machine without a GPU, one std::thread for each CUDA thread of a block.
//
// What differs from a device:
//   - Blocks run one after another. Races between blocks show when two copies of the library run one block each.
//   - A warp never runs in lockstep: whatever counts on that is wrong here, as it should be.
//   - A shuffle waits for the whole warp, so its mask must be full. As on a device it orders no memory: to
//     ThreadSanitizer only __syncwarp does.
//   - __shared__ is `static`: one block at a time in each copy of the library.
#pragma once

#include <math.h>  // not <cmath>: CUDA has sqrt(float) and its like in the global namespace

#include <atomic>
#include <barrier>
#include <bit>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

static_assert(std::is_same_v<decltype(sqrt(1.0f)), float> && std::is_same_v<decltype(floor(1.0f)), float>);
static_assert(std::is_same_v<decltype(fabs(1.0f)), float> && std::is_same_v<decltype(sqrt(1.0)), double>);

#ifndef HOST_TIMEOUT
#define HOST_TIMEOUT 60  // seconds that one block may take: a barrier that some thread never reaches waits for ever
#endif

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __builtin_assume(condition) ((condition) ? void() : host::fail("a __builtin_assume does not hold"))

#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // AddressSanitizer puts no guard around a variable in a section of its own
#else
#define __shared__ static __attribute__((section("cuda_shared")))
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_cuda_shared[], __stop_cuda_shared[];
#endif

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;

#ifdef __SANITIZE_THREAD__
extern "C" void AnnotateIgnoreSyncBegin(const char* file, int line);
extern "C" void AnnotateIgnoreSyncEnd(const char* file, int line);
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

inline thread_local constinit uint3 threadIdx{};
inline uint3 blockIdx{};
inline dim3 blockDim{};
inline dim3 gridDim{};
constexpr int warpSize = 32;

namespace host {

[[noreturn]] inline void fail(const char* reason) {
    std::fprintf(stderr, "cuda_host: block %u of %u: %s\n", blockIdx.x, gridDim.x, reason);
    std::abort();
}

struct Warp {
    std::barrier<> barrier;
    unsigned long long lanes[warpSize];

    explicit Warp(unsigned threads) : barrier(threads) {}
};

// Every thread has left a block: bring on the next one.
struct NextBlock {
    struct Progress {
        std::mutex mutex;
        std::condition_variable changed;
        unsigned blocks = 0;
    };
    Progress* progress;

    // Shared memory starts as garbage: huge as a double, a float or an int, and neither 0 nor -1.
    static void spoil_shared_memory() {
#ifndef __SANITIZE_ADDRESS__
        unsigned char* begin = __start_cuda_shared;
        if (begin) std::memset(begin, 0x7F, static_cast<size_t>(__stop_cuda_shared - begin));
#endif
    }

    void operator()() noexcept {
        ++blockIdx.x;
        spoil_shared_memory();
        const std::lock_guard lock(progress->mutex);
        ++progress->blocks;
        progress->changed.notify_one();
    }
};

struct Block {
    std::barrier<> barrier;
    std::deque<Warp> warps;
    NextBlock::Progress progress;
    std::barrier<NextBlock> left;

    explicit Block(unsigned threads) : barrier(threads), left(threads, NextBlock{&progress}) {
        for (unsigned first = 0; first < threads; first += warpSize)
            warps.emplace_back(threads - first < warpSize ? threads - first : warpSize);
    }

    // A thread that waits for ever cannot be ended alone, so the whole process is.
    void watch(unsigned blocks) {
        std::unique_lock lock(progress.mutex);
        const auto timeout = std::chrono::seconds(HOST_TIMEOUT);
        for (unsigned done = 0; done < blocks; ++done)
            if (!progress.changed.wait_for(lock, timeout, [&] { return progress.blocks > done; }))
                fail("some thread does not come to a barrier (divergent __syncthreads or __syncwarp?)");
    }
};

inline Block* block = nullptr;

inline Warp& warp() {
    return block->warps[threadIdx.x / warpSize];
}

// Run blocks [first, last) of a grid one after another, on threads that are made once.
template <typename Kernel, typename... Arguments>
void run_blocks(Kernel kernel, unsigned grid, unsigned first, unsigned last, unsigned block_size,
                const Arguments&... arguments) {
    Block own(block_size);
    block = &own;
    blockIdx = {first, 0, 0};
    blockDim = {block_size, 1, 1};
    gridDim = {grid, 1, 1};
    NextBlock::spoil_shared_memory();
    std::vector<std::thread> threads;
    for (unsigned index = 0; index < block_size; ++index)
        threads.emplace_back([&, index] {
            threadIdx = {index, 0, 0};
            for (unsigned turn = first; turn < last; ++turn) {
                kernel(arguments...);
                own.left.arrive_and_wait();
            }
        });
    own.watch(last - first);
    for (auto& thread : threads) thread.join();
}

// While one of these lives, ThreadSanitizer takes nothing that its thread does for an ordering, or for a race.
struct Unseen {
#ifdef __SANITIZE_THREAD__
    Unseen() {
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unseen() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    }
#else
    Unseen() {}
    ~Unseen() {}
#endif
    Unseen(const Unseen&) = delete;
};

template <typename T>
T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= sizeof(unsigned long long));
    if (mask != ~0u) fail("a shuffle must name the whole warp");
    const Unseen unseen;
    Warp& own = warp();
    std::memcpy(&own.lanes[threadIdx.x % warpSize], &value, sizeof(T));
    own.barrier.arrive_and_wait();
    std::memcpy(&value, &own.lanes[source], sizeof(T));
    own.barrier.arrive_and_wait();
    return value;
}

}  // namespace host

inline void __syncthreads() {
    host::block->barrier.arrive_and_wait();
}

inline void __syncwarp(unsigned mask = ~0u) {
    if (mask != ~0u) host::fail("__syncwarp must name the whole warp");
    host::warp().barrier.arrive_and_wait();
}

// ThreadSanitizer does not understand fences (g++ refuses to compile one for it). It learns what is ordered from the
// atomics below instead, which is why they acquire and release though those of CUDA are relaxed: a missing
// __threadfence() is therefore the one ordering fault that the stand-in cannot show.
inline void __threadfence() {
#ifndef __SANITIZE_THREAD__
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

template <typename T>
T atomicAdd(T* address, T value) {
    return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_acq_rel);
}

template <typename T>
T atomicOr(T* address, T value) {
    return std::atomic_ref<T>(*address).fetch_or(value, std::memory_order_acq_rel);
}

template <typename T>
T atomicExch(T* address, T value) {
    return std::atomic_ref<T>(*address).exchange(value, std::memory_order_acq_rel);
}

template <typename T>
T atomicMin(T* address, T value) {
    std::atomic_ref<T> target(*address);
    T old = target.load(std::memory_order_acquire);
    while (value < old && !target.compare_exchange_weak(old, value, std::memory_order_acq_rel)) {
    }
    return old;
}

// Memory that several blocks may write at once, all of them the same bits. In C++ only atomics may do that.
template <typename T>
T __ldcg(const T* address) {
    return std::atomic_ref<T>(*const_cast<T*>(address)).load(std::memory_order_relaxed);
}

template <typename T>
void __stcg(T* address, T value) {
    std::atomic_ref<T>(*address).store(value, std::memory_order_relaxed);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
    return host::shuffle(mask, value, static_cast<unsigned>(lane) % warpSize);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return host::shuffle(mask, value, (threadIdx.x % warpSize) ^ static_cast<unsigned>(lanes));
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
    const unsigned own = threadIdx.x % warpSize;
    return host::shuffle(mask, value, own + lanes < warpSize ? own + lanes : own);
}

// Of whole numbers alone: std::min of floats treats NaN in another way than CUDA does.
template <std::integral T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}

template <std::integral T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

inline bool __isGlobal(const void*) {
    return true;
}

inline long long __double_as_longlong(double x) {
    return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
    return std::bit_cast<double>(x);
}
inline int __float_as_int(float x) {
    return std::bit_cast<int>(x);
}
inline float __int_as_float(int x) {
    return std::bit_cast<float>(x);
}
inline unsigned __float_as_uint(float x) {
    return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
    return std::bit_cast<float>(x);
}

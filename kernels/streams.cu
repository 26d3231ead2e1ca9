// What memory gives to a kernel: STREAM's loops (twins of those in bandwidth.py), and a read that empties the L2 cache.
// Four loads of 16 bytes are under way in each thread before the first is used.
//   BLOCK   threads of a block
struct alignas(16) Pair {
    double first, second;
};

constexpr int LOADS = 4;

// Indices of the first of a thread's pairs in every tile that falls to its block; counts are whole tiles.
template <typename Visit>
__device__ __forceinline__ void visit_tiles(long long count, Visit visit) {
    constexpr long long TILE = BLOCK * LOADS;
    for (long long begin = blockIdx.x * TILE; begin < count; begin += gridDim.x * TILE) visit(begin + threadIdx.x);
}

__device__ __forceinline__ void load(Pair (&values)[LOADS], const Pair* source, long long at) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) values[i] = source[at + i * BLOCK];
}

__device__ __forceinline__ void store(Pair* target, const Pair (&values)[LOADS], long long at) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) target[at + i * BLOCK] = values[i];
}

extern "C" __global__ void __launch_bounds__(BLOCK) stream_copy(Pair* target, const Pair* source, long long count) {
    visit_tiles(count, [&](long long at) {
        Pair values[LOADS];
        load(values, source, at);
        store(target, values, at);
    });
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    stream_triad(Pair* target, const Pair* left, const Pair* right, double factor, long long count) {
    visit_tiles(count, [&](long long at) {
        Pair values[LOADS], others[LOADS];
        load(values, left, at);
        load(others, right, at);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            values[i].first += factor * others[i].first;
            values[i].second += factor * others[i].second;
        }
        store(target, values, at);
    });
}

extern "C" __global__ void __launch_bounds__(BLOCK) stream_scale(Pair* target, double factor, long long count) {
    visit_tiles(count, [&](long long at) {
        Pair values[LOADS];
        load(values, target, at);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            values[i].first *= factor;
            values[i].second *= factor;
        }
        store(target, values, at);
    });
}

// Writes only if the numbers have a sum that they have not, which no compiler can know.
extern "C" __global__ void __launch_bounds__(BLOCK)
    stream_read(double* target, const Pair* source, double never, long long count) {
    double sum = 0.0;
    visit_tiles(count, [&](long long at) {
        Pair values[LOADS];
        load(values, source, at);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) sum += values[i].first + values[i].second;
    });
    if (sum == never) *target = sum;
}

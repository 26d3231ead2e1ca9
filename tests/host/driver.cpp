// Runs one specialisation of THE launch under a sanitizer, on tables of its own.
//
//   driver library.so            three blocks, one after another
//   driver library.so copy.so    two blocks at the same time: each library has shared memory of its own
//
// Every array and every table is a heap block of exactly its size: AddressSanitizer sees the first byte outside. Steps
// are joined, as a stream orders launches. Exits with 0 if the outcome is the expected one.
#include <dlfcn.h>

#include <memory>

#include "program.cuh"

namespace {

using Run = void(const Launch*, unsigned, unsigned, unsigned, unsigned);
constexpr unsigned ARRAYS = 5;  // parameter, gradient, states
constexpr int STEPS = 12;       // many, since a race shows only if blocks overlap; a few would do for the rest
constexpr int STALE_STEP = 3;   // the host changes something before this one
constexpr double RATES[] = {0.5, 0.55, 0.6, 0.75};  // one a cohort
constexpr int COHORTS = sizeof(RATES) / sizeof(RATES[0]);
constexpr int COEFFICIENTS = 12;  // as many as the longest rule has

struct Shape {
    size_t numel;
    int32 cohort;
    bool shifted;   // one element off the 16-byte boundary
    bool has_grad;  // else the tensor rests
};

// Seven chunks for each of two blocks. No cohort is in both: ThreadSanitizer remembers only the last few accesses to an
// address, and those of the block that ticks would drive out those of the other, with which its writes may race.
constexpr Shape SHAPES[] = {
    {300, 0, false, false}, {0, 0, false, true},    {1, 0, false, true},    {255, 1, false, true},
    {256, 0, false, true},  {257, 1, false, true},  {1023, 0, false, true}, {1024, 1, false, true},
    {1025, 2, false, true}, {3000, 3, false, true}, {1025, 2, true, true},
};

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "driver: %s\n", what);
    std::exit(2);  // 1 is AddressSanitizer's
}

struct Library {
    Run* run;
    const unsigned* element_sizes;

    explicit Library(const char* path) {
        void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        require(handle, "the library does not load");
        run = reinterpret_cast<Run*>(dlsym(handle, "run"));
        element_sizes = static_cast<const unsigned*>(dlsym(handle, "element_sizes"));
        require(run && element_sizes, "the library lacks a symbol");
    }
};

// An array of float or double, perhaps one element off the 16-byte boundary at which a heap block starts.
class Array {
 public:
    Array(size_t numel, unsigned size, bool shifted, double start)
        : numel_(size ? numel : 0),
          size_(size),
          bytes_((numel + shifted) * size),
          begin_(bytes_.data() + shifted * size) {
        for (size_t i = 0; i < numel_; ++i)
            if (size == sizeof(float))
                reinterpret_cast<float*>(begin_)[i] = static_cast<float>(start);
            else
                reinterpret_cast<double*>(begin_)[i] = start;
    }

    uint64 address() const { return size_ ? reinterpret_cast<uint64>(begin_) : 0; }

    double operator[](size_t i) const {
        return size_ == sizeof(float) ? reinterpret_cast<float*>(begin_)[i] : reinterpret_cast<double*>(begin_)[i];
    }

    size_t numel() const { return numel_; }

 private:
    size_t numel_;
    unsigned size_;
    std::vector<unsigned char> bytes_;
    unsigned char* begin_;
};

struct Program {
    std::vector<Instruction> code;
    std::vector<double> values;

    int value(double x) {
        values.push_back(x);
        return static_cast<int>(values.size()) - 1;
    }

    int end() const { return static_cast<int>(code.size()); }

    void push(Op op, int argument = 0) { code.push_back({op, argument}); }
};

// Coefficients in (0, 1) that depend on the step, the updates and an accumulator, behind a REQUIRE.
Cohort add_cohort(Program& program, double rate, int upper) {
    Cohort cohort{};
    cohort.evaluate_begin = program.end();
    const int start = program.value(rate);
    const int table = program.value(3.0);
    for (double entry : {0.5, 0.25, 0.125}) program.value(entry);
    for (int i = 0; i < COEFFICIENTS; i += 3) {
        program.push(VALUE, start), program.push(ACCUMULATOR), program.push(MULTIPLY);
        program.push(REQUIRE, upper - 1), program.push(OUTPUT, i);
        program.push(STEP), program.push(TABLE, table), program.push(OUTPUT, i + 1);
        program.push(UPDATES), program.push(NEGATE), program.push(EXP), program.push(OUTPUT, i + 2);
    }
    cohort.evaluate_end = program.end();
    program.push(ACCUMULATOR), program.push(VALUE, program.value(0.5)), program.push(MULTIPLY), program.push(OUTPUT);
    cohort.advance_end = program.end();
    cohort.accumulators = 1;
    cohort.active = 1;
    return cohort;
}

struct Case {
    std::deque<Array> arrays;
    std::vector<size_t> moving;  // places in `arrays` of the parameters that have a gradient
    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;
    Program program;
    std::vector<Cohort> cohorts;
    std::vector<Clock> clocks;
    std::vector<double> rows = std::vector<double>(COHORTS * ROW);
    std::unique_ptr<Revision> revision{new Revision{1, COHORTS, 0}};
    std::unique_ptr<Progress> progress{new Progress{0, VALID, 0, 0, 0}};
    int upper;  // place of the upper bound of every REQUIRE

    explicit Case(const unsigned* element_sizes) {
        program.value(0.0);  // the lower bound
        upper = program.value(1.0);
        for (double rate : RATES) cohorts.push_back(add_cohort(program, rate, upper));
        clocks.resize(COHORTS);
        for (Clock& clock : clocks) clock.accumulators[0] = 1.0;
        for (const Shape& shape : SHAPES) add_tensor(shape, element_sizes);
        program.code.shrink_to_fit(), program.values.shrink_to_fit();
        chunks.shrink_to_fit(), tensors.shrink_to_fit(), cohorts.shrink_to_fit();
    }

    void add_tensor(const Shape& shape, const unsigned* element_sizes) {
        Tensor tensor{};
        uint64 addresses[ARRAYS];
        if (shape.has_grad) moving.push_back(arrays.size());
        for (unsigned i = 0; i < ARRAYS; ++i) {
            const double start = i < 2 ? 1.0 : 0.0;
            addresses[i] = arrays.emplace_back(shape.numel, element_sizes[i], shape.shifted, start).address();
        }
        tensor.param = addresses[0];
        tensor.grad = shape.has_grad ? addresses[1] : 0;
        for (unsigned i = 2; i < ARRAYS; ++i) tensor.states[i - 2] = addresses[i];
        tensor.numel = static_cast<int64>(shape.numel);
        tensor.cohort = shape.cohort;
        tensor.wide = !shape.shifted;
        for (size_t begin = 0; begin < shape.numel; begin += CHUNK)
            chunks.push_back({static_cast<int32>(tensors.size()), static_cast<int32>(begin / CHUNK)});
        tensors.push_back(tensor);
    }

    Launch launch(unsigned blocks) {
        Launch launch{};
        launch.tensors = tensors.data();
        launch.chunks = chunks.data();
        launch.cohorts = cohorts.data();
        launch.clocks = clocks.data();
        launch.rows = rows.data();
        launch.program = program.code.data();
        launch.values = program.values.data();
        launch.revision = revision.get();
        launch.progress = progress.get();
        launch.chunk_count = static_cast<int32>(chunks.size());
        launch.chunks_per_block = static_cast<int32>((chunks.size() + blocks - 1) / blocks);
        launch.blocks = blocks;
        return launch;
    }

    // One number that changes whenever an element of a parameter does, or NaN.
    double sum() const {
        double total = 0.0;
        for (size_t place : moving)
            for (size_t i = 0; i < arrays[place].numel(); ++i) total += arrays[place][i];
        return total;
    }

    void check_moved(int64 steps) const {
        for (size_t place : moving)
            for (size_t i = 0; i < arrays[place].numel(); ++i)
                require(arrays[place][i] < 1.0, "an element has not moved downhill");
        for (size_t i = 0; i < SHAPES[0].numel; ++i)
            require(arrays[0][i] == 1.0, "an element without a gradient has moved");
        for (const Clock& clock : clocks)
            require(clock.step == steps && clock.updates == steps, "a clock has not ticked once a step");
        require(progress->ticket == 0 && progress->prepared == revision->number, "the next step is not prepared");
    }
};

void step(const std::vector<Library>& libraries, Case& tables) {
    const unsigned blocks = libraries.size() == 1 ? 3 : static_cast<unsigned>(libraries.size());
    const Launch launch = tables.launch(blocks);
    if (libraries.size() == 1) return libraries[0].run(&launch, blocks, 0, blocks, BLOCK);
    std::vector<std::thread> threads;
    for (unsigned own = 0; own < blocks; ++own)
        threads.emplace_back([&, own] { libraries[own].run(&launch, blocks, own, own + 1, BLOCK); });
    for (auto& thread : threads) thread.join();
}

}  // namespace

int main(int count, char** arguments) {
    std::vector<Library> libraries;
    for (int i = 1; i < count; ++i) libraries.emplace_back(arguments[i]);
    require(!libraries.empty(), "name a library");
    Case tables(libraries[0].element_sizes);
    for (int done = 0; done < STEPS; ++done) {
        if (done == STALE_STEP) ++tables.revision->number;
        step(libraries, tables);
    }
    tables.check_moved(STEPS);

    const double before = tables.sum();
    tables.program.values[static_cast<size_t>(tables.upper)] = ldexp(0.7, -STEPS);  // only the last cohort is above
    ++tables.revision->number;
    for (int held = 0; held < 2; ++held) step(libraries, tables);  // found out by the step, then known before it
    require(tables.sum() == before && tables.clocks[0].step == STEPS, "a step that is out of range was applied");
    require(tables.progress->fault_cohort == COHORTS - 1, "the fault was not reported");
    std::puts("driver: as expected");
}

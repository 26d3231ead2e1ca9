// Runs one specialisation of THE launch (see driver.hpp): steps with fresh and stale rows, one that is skipped, and two
// that are held.
#include "driver.hpp"
#include "program.cuh"

namespace {

constexpr int STEPS = 12;      // many, since a race shows only if blocks overlap; a few would do for the rest
constexpr int STALE_STEP = 3;  // the host changes something before this one
constexpr double RATES[] = {0.5, 0.55, 0.6, 0.75};  // one a cohort
constexpr int COHORTS = sizeof(RATES) / sizeof(RATES[0]);
constexpr int COEFFICIENTS = 15;         // as many as the longest rule has, and those of the recipe
constexpr double NORMS[] = {1e-6, 1e6};  // below and above every threshold; one a scope
constexpr int CODES = 256;               // values of each table of codes
constexpr int SCOPES = sizeof(NORMS) / sizeof(NORMS[0]);

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
    cohort.counts = cohort.ticks = 1;
    return cohort;
}

// The arrays of one tensor.
struct Arrays {
    Array param, grad, companion, ema;
    std::vector<Array> states;

    Arrays(const Library& library, const Shape& shape)
        : param(*library.find<Element>("param_element"), shape.numel, shape.shifted),
          grad(*library.find<Element>("grad_element"), shape.numel, shape.shifted),
          companion(*library.find<Element>("companion_element"), shape.numel, shape.shifted),
          ema(*library.find<Element>("ema_element"), shape.numel, shape.shifted) {
        const Element* kinds = library.find<Element>("state_elements");
        for (int i = 0; i < RULE_STATES; ++i) states.emplace_back(kinds[i], shape.numel, shape.shifted);
        param.fill(1.0), ema.fill(1.0);
        companion.fill(companion.kind() == Element::REMAINDER ? 0.0 : 1.0);
    }

    // Their bytes, those of the gradient left out.
    void append_to(std::vector<unsigned char>& all) const {
        for (const Array* array : {&param, &companion, &ema})
            all.insert(all.end(), array->bytes().begin(), array->bytes().end());
        for (const Array& state : states) all.insert(all.end(), state.bytes().begin(), state.bytes().end());
    }

    void check_moved() const {
        for (size_t i = 0; i < param.numel(); ++i) require(param[i] < 1.0, "an element has not moved downhill");
        for (size_t i = 0; i < ema.numel(); ++i) require(ema[i] < 1.0, "an average has not moved downhill");
        for (const Array& state : states)
            for (size_t i = 0; i < state.numel(); ++i)
                require(state[i] < 0.0 || state[i] > 0.0, "a state has not moved, or is no number");
        if (companion.kind() == Element::REMAINDER) return;
        for (size_t i = 0; i < companion.numel(); ++i) require(companion[i] < 1.0, "a master has not moved downhill");
    }

    void check_resting() const {
        for (size_t i = 0; i < param.numel(); ++i)
            require(param[i] == 1.0 && grad[i] == 1.0, "an element without a gradient has moved");
    }
};

struct Case {
    const bool zeroes_grads;
    std::deque<Arrays> arrays;
    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;
    Program program;
    std::vector<Cohort> cohorts;
    std::vector<Clock> clocks;
    std::vector<double> rows = std::vector<double>(COHORTS * ROW);
    std::vector<double> norms{std::begin(NORMS), std::end(NORMS)};
    std::vector<float> codes = std::vector<float>(2 * CODES);
    std::unique_ptr<Revision> revision{new Revision{1, COHORTS, 0}};
    std::unique_ptr<Scalars> scalars{new Scalars{}};
    std::unique_ptr<Progress> progress{new Progress{0, VALID, 0, 0, 0, 0, 0}};
    int upper;  // place of the upper bound of every REQUIRE

    explicit Case(const Library& library) : zeroes_grads(*library.find<int>("zeroes_grads")) {
        program.value(0.0);  // the lower bound
        upper = program.value(1.0);
        for (double rate : RATES) cohorts.push_back(add_cohort(program, rate, upper));
        clocks.resize(COHORTS);
        for (Clock& clock : clocks) clock.lr_scale = clock.accumulators[0] = 1.0;
        for (const Shape& shape : SHAPES) add_tensor(shape, arrays.emplace_back(library, shape));
        for (int i = 0; i < CODES; ++i) {
            codes[i] = static_cast<float>(2 * i - CODES) / CODES;
            codes[CODES + i] = static_cast<float>(i) / CODES;
        }
        scalars->grad_scale = 2.0;
        program.code.shrink_to_fit(), program.values.shrink_to_fit();
        chunks.shrink_to_fit(), tensors.shrink_to_fit(), cohorts.shrink_to_fit();
    }

    void add_tensor(const Shape& shape, const Arrays& own) {
        Tensor tensor{};
        tensor.param = own.param.address();
        tensor.grad = shape.has_grad ? own.grad.address() : 0;
        for (int i = 0; i < RULE_STATES; ++i) tensor.states[i] = own.states[i].address();
        tensor.companion = own.companion.address();
        tensor.ema = own.ema.address();
        tensor.numel = static_cast<int64>(shape.numel);
        tensor.cohort = shape.cohort;
        tensor.scope = shape.cohort < SCOPES ? shape.cohort : NO_SCOPE;
        tensor.wide = !shape.shifted;
        for (size_t begin = 0; begin < shape.numel; begin += CHUNK)
            chunks.push_back({static_cast<int32>(tensors.size()), static_cast<int32>(begin / CHUNK), 0, 0});
        tensors.push_back(tensor);
    }

    Launch launch() {
        Launch launch{};
        launch.tensors = tensors.data();
        launch.chunks = chunks.data();
        launch.cohorts = cohorts.data();
        launch.clocks = clocks.data();
        launch.rows = rows.data();
        launch.program = program.code.data();
        launch.values = program.values.data();
        launch.codes = codes.data();
        launch.revision = revision.get();
        launch.scalars = scalars.get();
        launch.progress = progress.get();
        launch.norms = norms.data();
        launch.chunk_count = static_cast<int32>(chunks.size());
        return launch;
    }

    void fill_gradients() {
        for (Arrays& own : arrays) own.grad.fill(1.0);
    }

    void check_gradients(double expected) const {
        for (size_t place = 0; place < arrays.size(); ++place)
            for (size_t i = 0; tensors[place].grad && i < SHAPES[place].numel; ++i)
                require(arrays[place].grad[i] == expected, "a gradient is neither kept nor left zero as it should be");
    }

    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> all;
        for (const Arrays& own : arrays) own.append_to(all);
        return all;
    }

    void check_clocks(int64 steps) const {
        for (const Clock& clock : clocks)
            require(clock.step == steps && clock.updates == steps, "a clock has not ticked once a step");
    }

    void check_applied(int64 steps) const {
        arrays[0].check_resting();
        for (size_t place = 1; place < arrays.size(); ++place) arrays[place].check_moved();
        check_clocks(steps);
        require(progress->ticket == 0 && progress->prepared == revision->number, "the next step is not prepared");
    }
};

void step(const std::vector<Library>& libraries, Case& tables, double gradients_after) {
    tables.fill_gradients();
    launch_on(libraries, tables.launch());
    tables.check_gradients(gradients_after);
}

void skip(const std::vector<Library>& libraries, Case& tables) {
    const std::vector<unsigned char> before = tables.bytes();
    const std::unique_ptr<float> found{new float{1.0f}};
    tables.scalars->found_inf_at = reinterpret_cast<uint64>(found.get());
    step(libraries, tables, tables.zeroes_grads ? 0.0 : 1.0);
    tables.scalars->found_inf_at = 0;
    require(tables.bytes() == before, "a step that is to be skipped was applied");
    require(tables.progress->skipped == 1 && tables.progress->overflowed == 0, "the skipped step was not counted");
    tables.check_clocks(STEPS);
}

void hold(const std::vector<Library>& libraries, Case& tables) {
    const std::vector<unsigned char> before = tables.bytes();
    tables.program.values[static_cast<size_t>(tables.upper)] = ldexp(0.7, -STEPS);  // only the last cohort is above
    ++tables.revision->number;
    for (int held = 0; held < 2; ++held) step(libraries, tables, 1.0);  // found out by the step, then known before it
    require(tables.bytes() == before, "a step that is out of range was applied");
    require(tables.progress->fault_cohort == COHORTS - 1, "the fault was not reported");
    tables.check_clocks(STEPS);
}

}  // namespace

int main(int count, char** arguments) {
    const std::vector<Library> libraries = load_libraries(count, arguments);
    Case tables(libraries[0]);
    for (int done = 0; done < STEPS; ++done) {
        if (done == STALE_STEP) ++tables.revision->number;
        step(libraries, tables, tables.zeroes_grads ? 0.0 : 1.0);
    }
    tables.check_applied(STEPS);
    skip(libraries, tables);
    hold(libraries, tables);
    std::puts("driver: as expected");
}

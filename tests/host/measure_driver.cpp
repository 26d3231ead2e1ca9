// Runs the measuring of trust ratios (see driver.hpp) with fresh and stale rows, of a step that is skipped, and of one
// that is held; the ratios against plain sums. Every norm starts as NaN, so whatever is read before it was written
// spoils a ratio. The library is made with parts of LONGEST chunks.
#include "driver.hpp"
#include "program.cuh"

namespace {

constexpr int LAUNCHES = 6;  // many, since a race shows only if blocks overlap
constexpr int STALE = 3;     // the host changes the decay before this one
constexpr int32 LONGEST = 3;
constexpr int CODES = 256;
constexpr double SCALE = 4.0;                 // of the loss
constexpr double DECAYS[] = {0.5, 0.25};      // before and after the change
constexpr double LIMITS[] = {1e6, 0.5, 0.0};  // one a cohort; the last one is not adapted
constexpr int COHORTS = sizeof(LIMITS) / sizeof(LIMITS[0]);

struct Shape {
    size_t numel;
    int32 cohort;
    bool shifted;   // one element off the 16-byte boundary
    bool has_grad;  // else the tensor rests
};

constexpr Shape SHAPES[] = {
    {300, 0, false, false}, {0, 0, false, true},   {1, 0, false, true},   {7000, 0, false, true},
    {255, 1, false, true},  {256, 0, false, true}, {257, 1, false, true}, {3072, 2, false, true},
    {1024, 1, true, true},  {1025, 0, true, true},
};

// Coefficients that make an update of gradient / SCALE + decay * weight: no memory, a denominator of 1.
std::vector<double> coefficients(double limit, double decay) {
    const double infinity = INFINITY;
    return {1.0, 0.5, limit, 1.0, 0.0, 1.0, 1.0, 1.0, decay, infinity, 0.0, infinity};
}

struct Arrays {
    Array param, grad, companion;
    std::vector<Array> states;

    Arrays(const Library& library, const Shape& shape)
        : param(*library.find<Element>("param_element"), shape.numel, shape.shifted),
          grad(*library.find<Element>("grad_element"), shape.numel, shape.shifted),
          companion(*library.find<Element>("companion_element"), shape.numel, shape.shifted) {
        const Element* kinds = library.find<Element>("state_elements");
        for (int i = 0; i < RULE_STATES; ++i) states.emplace_back(kinds[i], shape.numel, shape.shifted);
    }

    // Numbers that every format can hold, whose squares add up without error.
    void fill(int turn) {
        for (size_t i = 0; i < param.numel(); ++i) {
            const double size = static_cast<double>(1 + (5 * i + static_cast<size_t>(turn)) % 7) / 4.0;
            param.put(i, size);
            grad.put(i, i % 2 ? -2.0 * size : size);
            if (companion.kind() != Element::ABSENT)
                companion.put(i, companion.kind() == Element::REMAINDER ? 0.0 : size);
        }
    }

    double expected(double limit, double decay) const {
        double weights = 0.0, updates = 0.0;
        for (size_t i = 0; i < param.numel(); ++i) {
            const double update = grad[i] / SCALE + decay * param[i];
            weights += param[i] * param[i], updates += update * update;
        }
        const double ratio = sqrt(weights / updates);
        return limit == 0.0 ? 1.0 : ratio > limit ? limit : ratio;
    }
};

struct Case {
    std::deque<Arrays> arrays;
    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;
    std::vector<Instruction> program;
    std::vector<double> values;
    std::vector<Cohort> cohorts;
    std::vector<Clock> clocks = std::vector<Clock>(COHORTS);
    std::vector<double> rows = std::vector<double>(COHORTS * ROW, NAN);
    std::vector<float> codes = std::vector<float>(2 * CODES);
    std::vector<double> chunk_norms, part_norms, trusts;
    std::vector<uint32> part_tickets, trust_tickets;
    std::unique_ptr<Revision> revision{new Revision{1, COHORTS, 0}};
    std::unique_ptr<Scalars> scalars{new Scalars{}};
    std::unique_ptr<Progress> progress{new Progress{0, VALID, 0, 0, 0, 0, 0}};
    double decay = DECAYS[0];

    explicit Case(const Library& library) {
        int32 parts = 0;
        for (const Shape& shape : SHAPES) parts = add_tensor(shape, arrays.emplace_back(library, shape), parts);
        put_program();
        scalars->grad_scale = SCALE;
        chunk_norms.resize(2 * chunks.size()), part_norms.resize(2 * static_cast<size_t>(parts));
        trusts.resize(tensors.size()), trust_tickets.resize(tensors.size());
        part_tickets.resize(static_cast<size_t>(parts));
        chunks.shrink_to_fit(), tensors.shrink_to_fit();
    }

    int32 add_tensor(const Shape& shape, const Arrays& own, int32 part) {
        Tensor tensor{};
        tensor.param = own.param.address();
        tensor.grad = shape.has_grad ? own.grad.address() : 0;
        for (int i = 0; i < RULE_STATES; ++i) tensor.states[i] = own.states[i].address();
        tensor.companion = own.companion.address();
        tensor.numel = static_cast<int64>(shape.numel);
        tensor.cohort = shape.cohort;
        tensor.scope = NO_SCOPE;
        tensor.wide = !shape.shifted;
        const int32 count = static_cast<int32>((shape.numel + CHUNK - 1) / CHUNK);
        for (int32 index = 0; index < count; ++index)
            chunks.push_back({static_cast<int32>(tensors.size()), index, 0, part + index / LONGEST});
        tensors.push_back(tensor);
        return part + (count + LONGEST - 1) / LONGEST;
    }

    // The host has changed something: rows are stale until somebody says that they are prepared.
    void put_program() {
        program.clear(), values.clear(), cohorts.clear();
        for (const double limit : LIMITS) {
            Cohort cohort{};
            cohort.evaluate_begin = static_cast<int32>(program.size());
            for (const double number : coefficients(limit, decay)) {
                program.push_back({VALUE, static_cast<int32>(values.size())});
                program.push_back({OUTPUT, static_cast<int32>(program.size() / 2) - cohort.evaluate_begin / 2});
                values.push_back(number);
            }
            cohort.evaluate_end = cohort.advance_end = static_cast<int32>(program.size());
            cohorts.push_back(cohort);
        }
        program.shrink_to_fit(), values.shrink_to_fit(), cohorts.shrink_to_fit();
    }

    Launch launch() {
        Launch launch{};
        launch.tensors = tensors.data();
        launch.chunks = chunks.data();
        launch.cohorts = cohorts.data();
        launch.clocks = clocks.data();
        launch.rows = rows.data();
        launch.program = program.data();
        launch.values = values.data();
        launch.codes = codes.data();
        launch.revision = revision.get();
        launch.scalars = scalars.get();
        launch.progress = progress.get();
        launch.chunk_norms = chunk_norms.data();
        launch.part_norms = part_norms.data();
        launch.trusts = trusts.data();
        launch.part_tickets = part_tickets.data();
        launch.trust_tickets = trust_tickets.data();
        launch.chunk_count = static_cast<int32>(chunks.size());
        return launch;
    }

    void run(const std::vector<Library>& libraries, int turn) {
        for (Arrays& own : arrays) own.fill(turn);
        for (std::vector<double>* sums : {&chunk_norms, &part_norms, &trusts}) sums->assign(sums->size(), NAN);
        launch_on(libraries, launch());
        for (const std::vector<uint32>* tickets : {&part_tickets, &trust_tickets})
            for (uint32 ticket : *tickets) require(ticket == 0, "a ticket was not given back");
        require(progress->ticket == 0, "the ticket of the step was taken");
    }

    void check_ratios() const {
        for (size_t i = 0; i < arrays.size(); ++i) {
            if (!SHAPES[i].numel || !SHAPES[i].has_grad) continue;
            const double expected = arrays[i].expected(LIMITS[SHAPES[i].cohort], decay);
            require(fabs(trusts[i] - expected) <= 1e-12, "a ratio is wrong");
        }
    }

    void check_untouched() const {
        for (double trust : trusts) require(trust != trust, "a step that is not applied was measured");
    }
};

}  // namespace

int main(int count, char** arguments) {
    const std::vector<Library> libraries = load_libraries(count, arguments);
    Case tables(libraries[0]);
    for (int turn = 0; turn < LAUNCHES; ++turn) {
        if (turn == STALE) {
            tables.decay = DECAYS[1];
            tables.put_program();
            ++tables.revision->number;
        }
        tables.run(libraries, turn);
        tables.check_ratios();
        tables.progress->prepared = tables.revision->number;  // as the step does
    }
    tables.scalars->found_inf = 1.0;
    tables.run(libraries, 0);
    tables.check_untouched();
    tables.scalars->found_inf = 0.0;
    tables.progress->fault_cohort = 0;
    tables.run(libraries, 0);
    tables.check_untouched();
    std::puts("driver: as expected");
}

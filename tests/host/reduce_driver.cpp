// Runs the sums over gradients (see driver.hpp): norms of all tensors, of groups and of tensors, against plain sums.
// Every sum starts as NaN, so whatever is read before it was written spoils the norm.
#include "driver.hpp"

namespace {

constexpr int LAUNCHES = 6;         // many, since a race shows only if blocks overlap; each with gradients of its own
constexpr int32 LONGEST = 3;        // chunks of a span: the kernel takes any number, and few make many spans
constexpr double UNTOUCHED = -1.0;  // the norm of a scope without elements
constexpr double SCALE = 4.0;       // of the loss

struct Shape {
    GradFormat format;
    size_t numel;
    int32 group;
    bool shifted;   // one element off the 16-byte boundary
    bool has_grad;  // else the tensor rests
};

// Groups lie mixed, as they do when tensors are sorted by their formats.
constexpr Shape SHAPES[] = {
    {FLOAT32, 5000, 0, false, true}, {FLOAT32, 1025, 1, true, true},  {FLOAT32, 0, 2, false, true},
    {FLOAT64, 1, 0, false, true},    {FLOAT64, 3000, 1, false, true}, {FLOAT64, 1023, 1, true, true},
    {FLOAT16, 2100, 0, false, true}, {FLOAT16, 255, 1, true, true},   {FLOAT32, 700, 0, false, false},
    {BFLOAT16, 257, 0, true, true},  {BFLOAT16, 4096, 1, false, true}};
constexpr int32 TENSORS = sizeof(SHAPES) / sizeof(SHAPES[0]);
constexpr int32 GROUPS = 3;  // the last one has no elements

enum class By { ALL, GROUP, TENSOR };

constexpr Element element_of(GradFormat format) {
    switch (format) {
        case FLOAT32: return Element::FLOAT32;
        case FLOAT64: return Element::FLOAT64;
        case FLOAT16: return Element::FLOAT16;
        default: return Element::BFLOAT16;
    }
}

// Numbers that every format can hold, whose squares add up without error: then the order does not matter.
double gradient(size_t i, int32 tensor, int turn) {
    const double size = static_cast<double>(1 + (5 * i + 3 * static_cast<size_t>(tensor + turn)) % 7) / 4.0;
    return i % 2 ? -size : size;
}

struct Case {
    std::deque<Array> grads;
    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;
    std::vector<Span> spans;
    std::vector<Scope> scopes;
    std::vector<double> chunk_sums, span_sums, norms;
    std::vector<uint32> span_tickets, scope_tickets;
    std::unique_ptr<float> grad_scale{new float{SCALE}};
    std::unique_ptr<Scalars> scalars{new Scalars{}};
    std::unique_ptr<Progress> progress{new Progress{}};

    explicit Case(By by) {
        for (int32 i = 0; i < TENSORS; ++i) add_tensor(i, by == By::ALL ? 0 : by == By::GROUP ? SHAPES[i].group : i);
        scopes.resize(by == By::ALL ? 1 : by == By::GROUP ? GROUPS : TENSORS);
        make_spans();
        chunk_sums.resize(chunks.size()), span_sums.resize(spans.size()), norms.resize(scopes.size());
        span_tickets.resize(spans.size()), scope_tickets.resize(scopes.size());
        scalars->grad_scale_at = reinterpret_cast<uint64>(grad_scale.get());
        tensors.shrink_to_fit(), chunks.shrink_to_fit(), spans.shrink_to_fit();
    }

    void add_tensor(int32 index, int32 scope) {
        const Shape& shape = SHAPES[index];
        const Array& grad = grads.emplace_back(element_of(shape.format), shape.numel, shape.shifted);
        Tensor tensor{};
        tensor.grad = shape.has_grad ? grad.address() : 0;
        tensor.numel = static_cast<int64>(shape.numel);
        tensor.scope = scope;
        tensor.grad_format = shape.format;
        tensor.wide = !shape.shifted;
        for (size_t begin = 0; begin < shape.numel; begin += CHUNK)
            chunks.push_back({index, static_cast<int32>(begin / CHUNK), -1, 0});
        tensors.push_back(tensor);
    }

    int32 scope_of(size_t row) const { return tensors[static_cast<size_t>(chunks[row].tensor)].scope; }

    // Neighbouring chunks of one scope, LONGEST at most; the spans of a scope are neighbours.
    void make_spans() {
        for (int32 scope = 0; scope < static_cast<int32>(scopes.size()); ++scope) {
            scopes[static_cast<size_t>(scope)].first = static_cast<int32>(spans.size());
            for (size_t row = 0; row < chunks.size(); ++row) {
                if (scope_of(row) != scope) continue;
                const bool goes_on = row && scope_of(row - 1) == scope && spans.back().count < LONGEST;
                if (!goes_on) spans.push_back({static_cast<int32>(row), 0, scope, 0});
                ++spans.back().count;
                chunks[row].span = static_cast<int32>(spans.size()) - 1;
            }
            Scope& own = scopes[static_cast<size_t>(scope)];
            own.count = static_cast<int32>(spans.size()) - own.first;
        }
    }

    Launch launch() {
        Launch launch{};
        launch.tensors = tensors.data();
        launch.chunks = chunks.data();
        launch.spans = spans.data();
        launch.scopes = scopes.data();
        launch.scalars = scalars.get();
        launch.progress = progress.get();
        launch.chunk_sums = chunk_sums.data();
        launch.span_sums = span_sums.data();
        launch.norms = norms.data();
        launch.span_tickets = span_tickets.data();
        launch.scope_tickets = scope_tickets.data();
        launch.chunk_count = static_cast<int32>(chunks.size());
        return launch;
    }

    void fill(int turn) {
        for (int32 tensor = 0; tensor < TENSORS; ++tensor)
            for (size_t i = 0; i < grads[static_cast<size_t>(tensor)].numel(); ++i)
                grads[static_cast<size_t>(tensor)].put(i, gradient(i, tensor, turn));
        for (std::vector<double>* sums : {&chunk_sums, &span_sums}) sums->assign(sums->size(), NAN);
        norms.assign(norms.size(), UNTOUCHED);
    }

    // The plain sum of squares of what the gradients were filled with.
    double expected(int32 scope, int turn) const {
        double total = 0.0;
        for (int32 tensor = 0; tensor < TENSORS; ++tensor) {
            if (tensors[static_cast<size_t>(tensor)].scope != scope || !SHAPES[tensor].has_grad) continue;
            for (size_t i = 0; i < SHAPES[tensor].numel; ++i)
                total += gradient(i, tensor, turn) * gradient(i, tensor, turn);
        }
        return sqrt(total) / SCALE;
    }

    void check_norms(int turn) const {
        for (size_t scope = 0; scope < scopes.size(); ++scope) {
            const double norm = scopes[scope].count ? expected(static_cast<int32>(scope), turn) : UNTOUCHED;
            require(fabs(norms[scope] - norm) <= 1e-12 * fabs(norm), "a norm is wrong");
        }
    }

    void check_tickets() const {
        for (const std::vector<uint32>* tickets : {&span_tickets, &scope_tickets})
            for (uint32 ticket : *tickets) require(ticket == 0, "a ticket was not given back");
    }
};

void check_sums(const std::vector<Library>& libraries, Case& tables) {
    for (int turn = 0; turn < LAUNCHES; ++turn) {
        tables.fill(turn);
        launch_on(libraries, tables.launch());
        tables.check_norms(turn);
        tables.check_tickets();
        require(!tables.progress->nonfinite, "finite gradients are said not to be");
    }
}

void check_nonfinite(const std::vector<Library>& libraries, Case& tables, double number) {
    tables.fill(0);
    tables.grads[0].put(SHAPES[0].numel - 1, number);
    launch_on(libraries, tables.launch());
    tables.check_tickets();
    require(!(tables.norms[0] <= 1e300), "the norm of gradients that are not finite is finite");
    require(tables.progress->nonfinite == 1, "gradients that are not finite are said to be");
    tables.progress->nonfinite = 0;
}

}  // namespace

int main(int count, char** arguments) {
    const std::vector<Library> libraries = load_libraries(count, arguments);
    for (By by : {By::ALL, By::GROUP, By::TENSOR}) {
        Case tables(by);
        check_sums(libraries, tables);
        check_nonfinite(libraries, tables, INFINITY);
        check_nonfinite(libraries, tables, NAN);
    }
    std::puts("driver: as expected");
}

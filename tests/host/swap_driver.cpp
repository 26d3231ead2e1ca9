// Runs the exchange of weights and averages of one format (see driver.hpp): once there, once back.
#include "driver.hpp"

namespace {

constexpr double WEIGHT = 1.0, AVERAGE = 3.0;
constexpr size_t NUMELS[] = {300, 1023, 1024, 1025, 3000, 1, 0, 257};
constexpr size_t SHIFTED = 1025, WITHOUT_AVERAGE = 257;  // the sizes of those

struct Arrays {
    Array param, companion, ema;

    Arrays(const Library& library, size_t numel)
        : param(*library.find<Element>("param_element"), numel, numel == SHIFTED),
          companion(*library.find<Element>("companion_element"), numel, numel == SHIFTED),
          ema(param.kind() == Element::FLOAT64 ? Element::FLOAT64 : Element::FLOAT32, numel, numel == SHIFTED) {
        param.fill(WEIGHT), ema.fill(AVERAGE);
        companion.fill(companion.kind() == Element::REMAINDER ? 0.0 : WEIGHT);
    }

    // A 16-bit weight alone cannot hold its average, so nothing would bring it back.
    bool exchanges() const {
        return companion.kind() != Element::ABSENT || param.kind() == Element::FLOAT32 ||
               param.kind() == Element::FLOAT64;
    }

    void check(double weight, double average) const {
        for (size_t i = 0; i < param.numel(); ++i) {
            require(param[i] == weight, "a parameter is not what it should be");
            require(ema[i] == average, "an average is not what it should be");
            if (companion.kind() == Element::FLOAT32) require(companion[i] == weight, "a master is another weight");
        }
    }
};

struct Case {
    std::deque<Arrays> arrays;
    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;

    explicit Case(const Library& library) {
        for (size_t numel : NUMELS) {
            const Arrays& own = arrays.emplace_back(library, numel);
            Tensor tensor{};
            tensor.param = own.param.address();
            tensor.companion = own.companion.address();
            tensor.ema = numel == WITHOUT_AVERAGE ? 0 : own.ema.address();
            tensor.numel = static_cast<int64>(numel);
            tensor.wide = numel != SHIFTED;
            for (size_t begin = 0; begin < numel; begin += CHUNK)
                chunks.push_back({static_cast<int32>(tensors.size()), static_cast<int32>(begin / CHUNK), 0, 0});
            tensors.push_back(tensor);
        }
        tensors.shrink_to_fit(), chunks.shrink_to_fit();
    }

    Launch launch() const {
        Launch launch{};
        launch.tensors = tensors.data();
        launch.chunks = chunks.data();
        launch.chunk_count = static_cast<int32>(chunks.size());
        return launch;
    }

    void check(double weight, double average) const {
        for (const Arrays& own : arrays)
            if (own.param.numel() == WITHOUT_AVERAGE)
                own.check(WEIGHT, AVERAGE);
            else
                own.check(weight, average);
    }
};

}  // namespace

int main(int count, char** arguments) {
    const std::vector<Library> libraries = load_libraries(count, arguments);
    Case tables(libraries[0]);
    const bool exchanges = tables.arrays[0].exchanges();
    launch_on(libraries, tables.launch());
    tables.check(AVERAGE, exchanges ? WEIGHT : AVERAGE);
    launch_on(libraries, tables.launch());
    tables.check(exchanges ? WEIGHT : AVERAGE, AVERAGE);
    std::puts("driver: as expected");
}

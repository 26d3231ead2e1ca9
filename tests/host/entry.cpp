// One kernel as a library for the host (see host_kernels.py). SOURCE is its file, KERNEL its name; the other options of
// that file apply, and cuda_host.hpp is preincluded.
#include SOURCE

#include "elements.hpp"

template <typename Storage>
constexpr Element element_of = Element::ABSENT;
template <>
constexpr Element element_of<float> = Element::FLOAT32;
template <>
constexpr Element element_of<double> = Element::FLOAT64;
template <>
constexpr Element element_of<float16> = Element::FLOAT16;
template <>
constexpr Element element_of<bfloat16> = Element::BFLOAT16;
template <>
constexpr Element element_of<Remainder> = Element::REMAINDER;
template <>
constexpr Element element_of<Signed8> = Element::CODES;
template <>
constexpr Element element_of<Unsigned8> = Element::CODES;

extern "C" {

#ifdef PARAM
extern const Element param_element, companion_element;
const Element param_element = element_of<PARAM>, companion_element = element_of<COMPANION>;
#endif

#ifdef RULE
extern const Element grad_element, ema_element, state_elements[RULE_STATES];
const Element grad_element = element_of<GRAD>, ema_element = element_of<EMA>;
const Element state_elements[RULE_STATES] = {element_of<STATE0>, element_of<STATE1>, element_of<STATE2>};

extern const int zeroes_grads;
const int zeroes_grads = ZERO_GRADS;
#endif

extern const unsigned launch_bytes;
const unsigned launch_bytes = sizeof(Launch);

// Blocks [first, last) of a grid, one after another.
void run(const Launch* launch, unsigned grid, unsigned first, unsigned last, unsigned block) {
    if (block != BLOCK) host::fail("the library was compiled for another block size");
    host::run_blocks(KERNEL, grid, first, last, block, *launch);
}
}

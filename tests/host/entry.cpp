// One specialisation of THE launch as a library for the host (see host_kernels.py). The options of step.cu apply, and
// cuda_host.hpp is preincluded.
#include "step.cu"

// Bytes of an element of the parameter, the gradient and the states; 0: left out.
template <typename Storage>
constexpr unsigned size_of = is_present<Storage> ? sizeof(Storage) : 0;

extern "C" {

extern const unsigned element_sizes[5];
const unsigned element_sizes[5] = {size_of<PARAM>, size_of<GRAD>, size_of<STATE0>, size_of<STATE1>, size_of<STATE2>};

extern const unsigned launch_bytes;
const unsigned launch_bytes = sizeof(Launch);

// Blocks [first, last) of a grid, one after another.
void run(const Launch* launch, unsigned grid, unsigned first, unsigned last, unsigned block) {
    if (block != BLOCK) host::fail("the library was compiled for another block size");
    host::run_blocks(KERNEL, grid, first, last, block, *launch);
}
}

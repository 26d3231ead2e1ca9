// The evaluator of program.cuh for many clocks, as a library.
#include "program.cuh"

extern "C" void evaluate_clocks(const Instruction* program, int begin, int end, const double* values,
                                const Clock* clocks, long long count, double* outputs) {
    double stack[STACK_SIZE * EVALUATORS];
    for (long long i = 0; i < count; ++i) evaluate(program, begin, end, values, clocks[i], Stack{stack}, outputs + i);
}

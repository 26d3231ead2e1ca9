// Programs: what depends on the step alone, as data, and the stack machine that evaluates it (twin of program.py).
#pragma once

#include "exact_math.cuh"
#include "rounding.cuh"
#include "tables.cuh"

constexpr int VALID = -1;
constexpr double MAXIMUM_CYCLES = 4096.0;
constexpr double TWO_TO_MINUS_53 = 1.1102230246251565e-16;

enum Op : int {
    VALUE,
    STEP,
    UPDATES,
    LR_SCALE,
    ACCUMULATOR,
    LOAD,
    STORE,
    NEGATE,
    ABSOLUTE,
    FLOOR,
    SQRT,
    EXP,
    LOG,
    EXPM1,
    LOG1P,
    COSPI,
    SINPI,
    TANH,
    ACOS,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    MINIMUM,
    MAXIMUM,
    POWER,
    UNIFORM,
    LESS,
    LESS_EQUAL,
    EQUAL,
    WHERE,
    CYCLE_INDEX,
    CYCLE_FRACTION,
    TABLE,
    OUTPUT,
    REQUIRE,
};

// One column of the block's stack: neighbouring evaluators lie side by side, so that they do not collide in a bank.
struct Stack {
    double* column;

    __device__ double& operator[](int slot) const { return column[slot * EVALUATORS]; }
};

__device__ inline double minimum(double a, double b) {
    return a < b || a != a ? a : b;
}

__device__ inline double maximum(double a, double b) {
    return a > b || a != a ? a : b;
}

// Cycle by repeated addition (never by logarithm, which is wrong at boundaries), or by an exact floor division.
__device__ inline double cycle(double step, double first, double multiplier, bool fraction) {
    double index = 0.0;
    double begin = 0.0;
    double length = first;
    if (multiplier == 1.0) {
        index = floor(step / first);
        begin = index * first;
    } else {
        while (step >= begin + length && index < MAXIMUM_CYCLES) {
            begin += length;
            length *= multiplier;
            index += 1.0;
        }
    }
    if (!fraction) return index;
    return minimum(maximum((step - begin) / length, 0.0), 1.0);  // fractional lengths round
}

// Entry floor(index) of a table, the first before it and the last after it; NaN for NaN.
__device__ inline double table(const double* values, int start, double index) {
    if (index != index) return index;
    return values[start + 1 + static_cast<int>(minimum(maximum(index, 0.0), values[start] - 1.0))];
}

// A random number of 53 bits, from 0 to below 1: a hash of the bits of both, -0 being 0; NaN for NaN.
__device__ inline double uniform(double seed, double index) {
    if (seed != seed || index != index) return exact::nan;
    rounding::uint64 key = rounding::absorbed(0, rounding::uint64(exact::bits_of(seed + 0.0)));
    key = rounding::absorbed(key, rounding::uint64(exact::bits_of(index + 0.0)));
    return static_cast<double>(rounding::int64(key >> 11)) * TWO_TO_MINUS_53;
}

__device__ inline double unary(int op, double x) {
    switch (op) {
        case NEGATE: return -x;
        case ABSOLUTE: return fabs(x);
        case FLOOR: return floor(x);
        case SQRT: return sqrt(x);
        case EXP: return exact::exp(x);
        case LOG: return exact::log(x);
        case EXPM1: return exact::expm1(x);
        case LOG1P: return exact::log1p(x);
        case COSPI: return exact::cospi(x);
        case SINPI: return exact::sinpi(x);
        case TANH: return exact::tanh(x);
        default: return exact::acos(x);
    }
}

__device__ inline double binary(int op, double a, double b) {
    switch (op) {
        case ADD: return a + b;
        case SUBTRACT: return a - b;
        case MULTIPLY: return a * b;
        case DIVIDE: return a / b;
        case MINIMUM: return minimum(a, b);
        case MAXIMUM: return maximum(a, b);
        case POWER: return exact::power(a, b);
        case UNIFORM: return uniform(a, b);
        case LESS: return a < b ? 1.0 : 0.0;
        case LESS_EQUAL: return a <= b ? 1.0 : 0.0;
        default: return a == b ? 1.0 : 0.0;
    }
}

__device__ inline double ternary(int op, double a, double b, double c) {
    if (op == WHERE) return c != 0.0 ? b : a;
    return cycle(a, b, c, op == CYCLE_FRACTION);
}

// Run instructions [begin, end) for one clock. Returns VALID, or the index of the first instruction whose REQUIRE
// failed; the outputs are written all the same.
__device__ __forceinline__ int evaluate(const Instruction* program, int begin, int end, const double* values,
                                        const Clock& clock, Stack stack, double* outputs) {
    int fault = VALID;
    int top = -1;
    for (int index = begin; index < end; ++index) {
        const int op = program[index].op;
        const int argument = program[index].argument;
        if (op <= LOAD) {
            ++top;
            switch (op) {
                case VALUE: stack[top] = values[argument]; break;
                case STEP: stack[top] = static_cast<double>(clock.step); break;
                case UPDATES: stack[top] = static_cast<double>(clock.updates + 1); break;
                case LR_SCALE: stack[top] = clock.lr_scale; break;
                case ACCUMULATOR: stack[top] = clock.accumulators[argument]; break;
                default: stack[top] = stack[argument];
            }
        } else if (op == STORE) {
            stack[argument] = stack[top];
        } else if (op <= ACOS) {
            stack[top] = unary(op, stack[top]);
        } else if (op <= EQUAL) {
            --top;
            stack[top] = binary(op, stack[top], stack[top + 1]);
        } else if (op <= CYCLE_FRACTION) {
            top -= 2;
            stack[top] = ternary(op, stack[top], stack[top + 1], stack[top + 2]);
        } else if (op == TABLE) {
            stack[top] = table(values, argument, stack[top]);
        } else if (op == OUTPUT) {
            __stcg(outputs + argument, stack[top]);  // through L2: several blocks may put out the same row
            --top;
        } else if (!(values[argument] <= stack[top] && stack[top] <= values[argument + 1]) && fault == VALID) {
            fault = index;
        }
    }
    return fault;
}

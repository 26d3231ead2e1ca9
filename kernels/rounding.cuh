// Numbers of 16 and 8 bits and the random numbers to round with: see gpuadam/rounding.py, whose text this is, line for
// line. Compile it without flush to zero (-ftz=false), and edit both together.
#pragma once

namespace rounding {

using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;
using int64 = long long;
using float32 = float;

constexpr uint32 SIGN = uint32(0x80000000);
constexpr uint32 MAGNITUDE = uint32(0x7FFFFFFF);
constexpr uint32 INFINITY_BITS = uint32(0x7F800000);
constexpr uint32 HALF = uint32(0x80000000);  // the random number that takes x up from the middle between two codes on
constexpr uint32 BFLOAT16_LARGEST = uint32(0x7F7F0000);  // as bits of a float32, as are those of float16
constexpr uint32 FLOAT16_LARGEST = uint32(0x477FE000);   // 65504
constexpr uint32 FLOAT16_BEYOND = uint32(0x47800000);    // 2^16, the first power of two that is too large
constexpr uint32 FLOAT16_NORMAL = uint32(0x38800000);    // 2^-14, the smallest normal
constexpr uint32 REBIAS = uint32(0x38000000);            // the difference of the exponents' biases, 112
constexpr uint32 REBIAS_TWICE = uint32(0x70000000);
constexpr uint32 FLOAT16_INFINITY = uint32(0x7C00);
constexpr uint32 BFLOAT16_NAN = uint32(0x7FC0);
constexpr uint32 FLOAT16_NAN = uint32(0x7E00);
constexpr float32 TWO_TO_MINUS_24 = float32(5.9604644775390625e-08f);
constexpr float32 ZERO = float32(0.0f);

__device__ inline uint32 float_bits(float32 x) {
    return __float_as_uint(x);
}

__device__ inline float32 bits_float(uint32 bits) {
    return __uint_as_float(bits);
}

template <typename T>
__device__ inline T select(bool condition, T first, T second) {
    return condition ? first : second;
}

__device__ inline uint32 smaller(uint32 a, uint32 b) {
    return uint32(select(a < b, a, b));
}

__device__ inline uint32 larger(uint32 a, uint32 b) {
    return uint32(select(a > b, a, b));
}

__device__ inline bool is_nan(uint32 bits) {
    return bool(uint32(bits & MAGNITUDE) > INFINITY_BITS);
}

__device__ inline float32 bfloat16_value(uint16 code) {
    return bits_float(uint32(uint32(code) << uint32(16)));
}

// The nearest bfloat16; of two the even one.
__device__ inline uint16 bfloat16_nearest(float32 x) {
    const uint32 bits = float_bits(x);
    const uint32 odd = uint32(uint32(bits >> uint32(16)) & uint32(1));
    const uint32 code = uint32(uint32(bits + uint32(0x7FFF) + odd) >> uint32(16));
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code));
}

// The bfloat16 next to x on either side, each the likelier the nearer; beyond the largest one the nearest.
__device__ inline uint16 bfloat16_stochastic(float32 x, uint32 random) {
    const uint32 bits = float_bits(x);
    const uint32 dither = uint32(select(uint32(bits & MAGNITUDE) > BFLOAT16_LARGEST, HALF, random));
    const uint32 code = uint32(uint32(bits + uint32(dither >> uint32(16))) >> uint32(16));
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code));
}

// A subnormal is a count of 2^-24; the exponent of the rest is made that of a float32, twice for infinity.
__device__ inline float32 float16_value(uint16 code) {
    const uint32 magnitude = uint32(uint32(code) & uint32(0x7FFF));
    const uint32 rebias = uint32(select(magnitude < FLOAT16_INFINITY, REBIAS, REBIAS_TWICE));
    const uint32 normal = uint32(uint32(magnitude << uint32(13)) + rebias);
    const uint32 subnormal = float_bits(float32(magnitude) * TWO_TO_MINUS_24);
    const uint32 bits = uint32(select(magnitude < uint32(0x400), subnormal, normal));
    const uint32 sign = uint32(uint32(uint32(code) & uint32(0x8000)) << uint32(16));
    return bits_float(uint32(bits | sign));
}

// A code from the magnitude that rounding gave, and the sign of the float32 that it came from.
__device__ inline uint16 float16_joined(uint32 bits, uint32 magnitude) {
    const uint32 code = uint32(smaller(magnitude, FLOAT16_INFINITY) | uint32(uint32(bits & SIGN) >> uint32(16)));
    return uint16(select(is_nan(bits), FLOAT16_NAN, code));
}

// The nearest float16; of two the even one.
__device__ inline uint16 float16_nearest(float32 x) {
    // the sum of x and 2^13 times the power of two below it ends with the last bit that a float16 has: one rounding
    const uint32 bits = float_bits(x);
    const uint32 magnitude = uint32(bits & MAGNITUDE);
    const uint32 power = smaller(larger(uint32(bits & INFINITY_BITS), FLOAT16_NORMAL), FLOAT16_BEYOND);
    const uint32 anchor = uint32(power + uint32(13 << 23));
    const uint32 significand = uint32(float_bits(bits_float(magnitude) + bits_float(anchor)) - anchor);
    const uint32 exponent = uint32(uint32(power - FLOAT16_NORMAL) >> uint32(13));
    return float16_joined(bits, uint32(significand + exponent));
}

// The float16 next to x on either side, each the likelier the nearer; beyond the largest one the nearest.
__device__ inline uint16 float16_stochastic(float32 x, uint32 random) {
    // dropped: how many bits of the significand go, 13 of a normal; from 31 on the first ones go without a draw
    const uint32 bits = float_bits(x);
    const uint32 magnitude = uint32(bits & MAGNITUDE);
    uint32 dither = uint32(select(magnitude > FLOAT16_LARGEST, HALF, random));
    uint32 exponent = uint32(magnitude >> uint32(23));
    const uint32 normal = larger(exponent, uint32(113));
    const uint32 shift = uint32(uint32(normal - exponent) + uint32(13));
    const uint32 dropped = smaller(shift, uint32(31));
    uint32 significand = uint32(uint32(bits & uint32(0x007FFFFF)) | uint32(0x00800000));
    significand = uint32(significand >> smaller(uint32(shift - dropped), uint32(31)));
    dither = uint32(uint32(dither >> uint32(1)) >> uint32(uint32(31) - dropped));
    significand = uint32(uint32(significand + dither) >> dropped);
    exponent = uint32(uint32(normal - uint32(113)) << uint32(10));
    return float16_joined(bits, uint32(significand + exponent));
}

// The nearest bfloat16, of two the larger in magnitude: with `remainder_low` it is all of x.
__device__ inline uint16 remainder_high(float32 x) {
    const uint32 bits = float_bits(x);
    const uint32 code = uint32(uint32(bits + uint32(0x8000)) >> uint32(16));
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code));
}

// The low bits of x: a whole number of two's complement, to be added to those of `remainder_high`.
__device__ inline uint16 remainder_low(float32 x) {
    const uint32 bits = float_bits(x);
    return uint16(select(is_nan(bits), uint32(0), uint32(bits & uint32(0xFFFF))));
}

// The float32 of which these are the parts. A low that is not of this high stays within half its last bit.
__device__ inline float32 remainder_join(uint16 high, uint16 low) {
    // such a low would take 0 or infinity beyond the magnitudes that are numbers: there the high is all
    const uint32 whole = uint32(uint32(uint32(high) & uint32(0x7FFF)) << uint32(16));
    const uint32 offset = uint32(uint32(uint32(low) ^ uint32(0x8000)) - uint32(0x8000));
    uint32 magnitude = uint32(whole + offset);
    magnitude = uint32(select(magnitude > INFINITY_BITS, whole, magnitude));
    const uint32 sign = uint32(uint32(uint32(high) & uint32(0x8000)) << uint32(16));
    return bits_float(uint32(magnitude | sign));
}

// The finaliser of SplitMix64 (Steele, Lea & Flood 2014; shifts and factors are Stafford's variant 13).
__device__ inline uint64 mixed(uint64 x) {
    x = uint64(uint64(x ^ uint64(x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9));
    x = uint64(uint64(x ^ uint64(x >> uint64(27))) * uint64(0x94D049BB133111EB));
    return uint64(x ^ uint64(x >> uint64(31)));
}

// A key that depends on one number more: the step of SplitMix64 is 2^64 over the golden ratio.
__device__ inline uint64 absorbed(uint64 key, uint64 word) {
    return mixed(uint64(uint64(key ^ word) + uint64(0x9E3779B97F4A7C15)));
}

// The key of all random numbers that one chunk of a tensor draws in one step.
__device__ inline uint64 chunk_key(uint64 seed, int64 step, int64 tensor, int64 chunk) {
    const uint64 key = absorbed(absorbed(uint64(0), uint64(seed)), uint64(step));
    return absorbed(absorbed(key, uint64(tensor)), uint64(chunk));
}

// The stream of one array of a chunk, to be made outside the loop over elements.
__device__ inline uint64 slot_key(uint64 key, uint32 slot) {
    return absorbed(key, uint64(slot));
}

// The random number of an element: 32 bits, from its index alone and not from the draw before.
__device__ inline uint32 draw(uint64 stream, uint32 index) {
    // the best finaliser of two rounds that hash-prospector (Wellons) has found; a half of the stream enters each
    uint32 x = uint32(uint32(stream) + uint32(uint32(index) * uint32(0x9E3779B9)));
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x21F0AAAD));
    x = uint32(x ^ uint32(x >> uint32(15)) ^ uint32(stream >> uint64(32)));
    x = uint32(x * uint32(0xD35A2D97));
    return uint32(x ^ uint32(x >> uint32(15)));
}

// From 0 to below 1, by the upper 24 bits.
__device__ inline float32 unit(uint32 random) {
    return float32(uint32(random >> uint32(8))) * TWO_TO_MINUS_24;
}

// The code of a table whose value is next to x, |x| <= 1, on either side, each the likelier the nearer.
//
// Nothing above 0 gets code 0: of unsigned values that is 0, by which the rule would divide. Of NaN it is any code.
__device__ inline uint8 quantise(float32 x, const float32* codes, uint32 random) {
    uint32 lower = uint32(0);
    uint32 stride = uint32(128);
    while (stride > uint32(0)) {
        lower = uint32(lower + select(codes[uint32(lower + stride)] <= x, stride, uint32(0)));
        stride = uint32(stride >> uint32(1));
    }
    const uint32 upper = smaller(uint32(lower + uint32(1)), uint32(255));
    const bool is_upper = unit(random) * (codes[upper] - codes[lower]) < x - codes[lower];
    const uint32 code = uint32(select(is_upper, upper, lower));
    return uint8(larger(code, uint32(select(x > ZERO, uint32(1), uint32(0)))));
}

}  // namespace rounding

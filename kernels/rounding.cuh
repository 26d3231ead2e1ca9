// Numbers of 16 and 8 bits and the random numbers to round with: see gpuadam/rounding.py, whose text this is, line for
// line. Compile it without flush to zero (-ftz=false), and edit both together.
#pragma once

namespace rounding {

using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;
using int16 = short;
using int32 = int;
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
constexpr uint32 FLOAT16_INFINITY = uint32(0x7C00);
constexpr uint32 BFLOAT16_NAN = uint32(0x7FC0);
constexpr uint32 FLOAT16_NAN = uint32(0x7E00);
constexpr float32 TWO_TO_MINUS_24 = float32(5.9604644775390625e-08f);
constexpr float32 TWO_TO_112 = float32(5.192296858534828e33f);  // 127 - 15, the exponents' biases
constexpr float32 FLOAT16_END = float32(65536.0f);              // what would follow the largest one
constexpr float32 TWO_TO_23 = float32(8388608.0f);              // the last bit of a sum with it counts ones
constexpr float32 TREE_RISE = float32(142.22222900390625f);     // 128 / 0.9
constexpr float32 TREE_START = float32(113.77777862548828f);    // 128 * 0.8 / 0.9
constexpr float32 FIVE = float32(5.0f);
constexpr float32 ONE_HALF = float32(0.5f);
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

// Neither is NaN.
__device__ inline float32 least(float32 a, float32 b) {
    return fminf(a, b);
}

__device__ inline float32 absolute(float32 x) {
    return fabsf(x);
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

// Its bits are moved to where a float32 has them; a product makes up for the exponents' biases, exactly.
__device__ inline float32 float16_value(uint16 code) {
    const uint32 extended = uint32(int32(int16(code)));
    const float32 value = bits_float(uint32(uint32(extended << uint32(13)) & uint32(0x8FFFFFFF))) * TWO_TO_112;
    const uint32 bits = float_bits(value);
    return bits_float(select(absolute(value) < FLOAT16_END, bits, uint32(bits | INFINITY_BITS)));
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

// Where x >= 0 lies among the values of the unsigned codes: at c + 1.5 if it is that of code c.
//
// Values of one power of ten lie on a line. Each line is steeper than that of the power above and crosses it at the
// power, so the least of all is the one that counts.
__device__ inline float32 tree_place(float32 x) {
    float32 rise = x * TREE_RISE;
    float32 start = TREE_START;
    float32 place = rise + start;
    uint32 zeros = uint32(0);
    while (zeros < uint32(6)) {
        rise = rise * FIVE;
        start = start * ONE_HALF;
        place = least(place, rise + start);
        zeros = uint32(zeros + uint32(1));
    }
    return place;
}

// The nearest whole number from 0 to 255.
__device__ inline uint32 whole(float32 x) {
    return uint32(float_bits(x + TWO_TO_23) & uint32(0xFF));
}

// A code from 1 to 254; that x lies between the values of its two neighbours is sure, whatever was rounded here.
__device__ inline uint32 signed_place(float32 x) {
    const uint32 place = whole(least(tree_place(absolute(x)) * ONE_HALF, float32(126.5)) + float32(127.5));
    return uint32(place ^ uint32(select(x < ZERO, uint32(0xFF), uint32(0))));
}

// The same of a table without negative values, for x >= 0.
__device__ inline uint32 unsigned_place(float32 x) {
    return whole(least(tree_place(x), float32(255.25)) - float32(1.25));
}

// The code whose value is next to x on either side, each the likelier the nearer. Of NaN it is any code.
__device__ inline uint32 quantise(float32 x, const float32* codes, uint32 place, uint32 random) {
    const float32 near = codes[place];
    const bool is_below = x < near;
    const uint32 beyond = uint32(select(is_below, uint32(place - uint32(1)), uint32(place + uint32(1))));
    const float32 far = codes[beyond];
    const float32 lower = select(is_below, far, near);
    const bool is_upper = unit(random) * absolute(far - near) < x - lower;
    return uint32(select(is_upper != is_below, beyond, place));
}

// The code of x, |x| <= 1, rounded at random.
__device__ inline uint8 signed_code(float32 x, const float32* codes, uint32 random) {
    return uint8(quantise(x, codes, signed_place(x), random));
}

// The code of x <= 1, rounded at random; 0 of what is below 0.
//
// Nothing above 0 gets code 0, by which the rule would divide.
__device__ inline uint8 unsigned_code(float32 x, const float32* codes, uint32 random) {
    x = select(x > ZERO, x, ZERO);
    return uint8(larger(quantise(x, codes, unsigned_place(x), random), smaller(float_bits(x), uint32(1))));
}

}  // namespace rounding

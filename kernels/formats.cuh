// Formats: how an array's elements come into registers and go back (twin of formats.py). Rules know nothing of it.
#pragma once

#include "rounding.cuh"
#include "tables.cuh"

// The type of an optional array that a specialisation leaves out; it costs no register and no instruction.
struct Absent {};

// Stored elements that are no numbers of C++: a type each, so that a type says how to read it.
struct float16 {
    unsigned short code;
};
struct bfloat16 {
    unsigned short code;
};
struct Remainder {  // the low bits of a float32 whose high ones are a bfloat16
    unsigned short code;
};
struct Signed8 {  // a code of a block with a scale
    unsigned char code;
};
struct Unsigned8 {
    unsigned char code;
};

template <typename T>
constexpr bool is_present = true;
template <>
constexpr bool is_present<Absent> = false;
template <typename T>
constexpr bool is_8_bit = false;
template <>
constexpr bool is_8_bit<Signed8> = true;
template <>
constexpr bool is_8_bit<Unsigned8> = true;

// Storage type -> the type in which a rule computes, the number that is stored, and how one is stored.
template <typename Storage>
struct Format;

template <>
struct Format<float> {
    using Compute = float;
    __device__ static float value(float stored) { return stored; }
    __device__ static float nearest(float value) { return value; }
    __device__ static float stochastic(float value, uint32) { return value; }
};

template <>
struct Format<double> {
    using Compute = double;
    __device__ static double value(double stored) { return stored; }
    __device__ static double nearest(double value) { return value; }
    __device__ static double stochastic(double value, uint32) { return value; }
};

template <>
struct Format<float16> {
    using Compute = float;
    __device__ static float value(float16 stored) { return rounding::float16_value(stored.code); }
    __device__ static float16 nearest(float value) { return {rounding::float16_nearest(value)}; }
    __device__ static float16 stochastic(float value, uint32 random) {
        return {rounding::float16_stochastic(value, random)};
    }
};

template <>
struct Format<bfloat16> {
    using Compute = float;
    __device__ static float value(bfloat16 stored) { return rounding::bfloat16_value(stored.code); }
    __device__ static bfloat16 nearest(float value) { return {rounding::bfloat16_nearest(value)}; }
    __device__ static bfloat16 stochastic(float value, uint32 random) {
        return {rounding::bfloat16_stochastic(value, random)};
    }
};

// How a weight is read from a parameter and its companion, and how a new one is put into them.
template <typename Param, typename Companion, bool AT_RANDOM>
struct Weight;

template <typename Param, bool AT_RANDOM>
struct Weight<Param, Absent, AT_RANDOM> {
    using Compute = typename Format<Param>::Compute;
    __device__ static Compute read(Param param, Absent) { return Format<Param>::value(param); }
    __device__ static void write(Compute weight, uint32 random, Param& param, Absent&) {
        param = AT_RANDOM ? Format<Param>::stochastic(weight, random) : Format<Param>::nearest(weight);
    }
};

// A float32 master; the parameter itself where somebody has written to it.
template <typename Param>
struct Weight<Param, float, false> {
    __device__ static float read(Param param, float master) {
        return Format<Param>::nearest(master).code == param.code ? master : Format<Param>::value(param);
    }
    __device__ static void write(float weight, uint32, Param& param, float& master) {
        param = Format<Param>::nearest(weight);
        master = weight;
    }
};

template <>
struct Weight<bfloat16, Remainder, false> {
    __device__ static float read(bfloat16 param, Remainder remainder) {
        return rounding::remainder_join(param.code, remainder.code);
    }
    __device__ static void write(float weight, uint32, bfloat16& param, Remainder& remainder) {
        param = {rounding::remainder_high(weight)};
        remainder = {rounding::remainder_low(weight)};
    }
};

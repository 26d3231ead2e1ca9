"""Numbers of 16 and 8 bits: what a code stands for, the code of a float32, and the random numbers to round with.

Whole numbers, + - * of float32, comparisons and bit casts alone, so that every device gives the same bits; selects in
place of branches, so that loops over elements vectorise. The text is that of `kernels/rounding.cuh` line for line: edit
both together. In Numba a sum of two uint32 is a uint64, hence the cast around each operation; no double occurs.

Every NaN becomes one and the same NaN: the sign and payload that arithmetic gives to a NaN differ between processors.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import float32, int64, uint8, uint16, uint32, uint64

from .jit import inlined

SIGN = uint32(0x80000000)
MAGNITUDE = uint32(0x7FFFFFFF)
INFINITY_BITS = uint32(0x7F800000)
HALF = uint32(0x80000000)  # the random number that takes x up from the middle between two codes on

BFLOAT16_LARGEST = uint32(0x7F7F0000)  # as bits of a float32, as are those of float16
FLOAT16_LARGEST = uint32(0x477FE000)  # 65504
FLOAT16_BEYOND = uint32(0x47800000)  # 2^16, the first power of two that is too large
FLOAT16_NORMAL = uint32(0x38800000)  # 2^-14, the smallest normal
REBIAS = uint32(0x38000000)  # the difference of the exponents' biases, 112
REBIAS_TWICE = uint32(0x70000000)
FLOAT16_INFINITY = uint32(0x7C00)
BFLOAT16_NAN = uint32(0x7FC0)
FLOAT16_NAN = uint32(0x7E00)

TWO_TO_MINUS_24 = float32(5.9604644775390625e-08)
ZERO = float32(0.0)


@inlined
def float_bits(x: float32) -> uint32:
    return float32(x).view(uint32)


@inlined
def bits_float(bits: uint32) -> float32:
    return uint32(bits).view(float32)


@inlined
def select(condition: Any, first: Any, second: Any) -> Any:
    return first if condition else second


@inlined
def smaller(a: uint32, b: uint32) -> uint32:
    return uint32(select(a < b, a, b))


@inlined
def larger(a: uint32, b: uint32) -> uint32:
    return uint32(select(a > b, a, b))


@inlined
def is_nan(bits: uint32) -> bool:
    return bool(uint32(bits & MAGNITUDE) > INFINITY_BITS)


@inlined
def bfloat16_value(code: uint16) -> float32:
    return bits_float(uint32(uint32(code) << uint32(16)))


@inlined
def bfloat16_nearest(x: float32) -> uint16:
    """The nearest bfloat16; of two the even one."""
    bits = float_bits(x)
    odd = uint32(uint32(bits >> uint32(16)) & uint32(1))
    code = uint32(uint32(bits + uint32(0x7FFF) + odd) >> uint32(16))
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code))


@inlined
def bfloat16_stochastic(x: float32, random: uint32) -> uint16:
    """The bfloat16 next to x on either side, each the likelier the nearer; beyond the largest one the nearest."""
    bits = float_bits(x)
    dither = uint32(select(uint32(bits & MAGNITUDE) > BFLOAT16_LARGEST, HALF, random))
    code = uint32(uint32(bits + uint32(dither >> uint32(16))) >> uint32(16))
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code))


@inlined
def float16_value(code: uint16) -> float32:
    """A subnormal is a count of 2^-24; the exponent of the rest is made that of a float32, twice for infinity."""
    magnitude = uint32(uint32(code) & uint32(0x7FFF))
    rebias = uint32(select(magnitude < FLOAT16_INFINITY, REBIAS, REBIAS_TWICE))
    normal = uint32(uint32(magnitude << uint32(13)) + rebias)
    subnormal = float_bits(float32(magnitude) * TWO_TO_MINUS_24)
    bits = uint32(select(magnitude < uint32(0x400), subnormal, normal))
    sign = uint32(uint32(uint32(code) & uint32(0x8000)) << uint32(16))
    return bits_float(uint32(bits | sign))


@inlined
def float16_joined(bits: uint32, magnitude: uint32) -> uint16:
    """A code from the magnitude that rounding gave, and the sign of the float32 that it came from."""
    code = uint32(smaller(magnitude, FLOAT16_INFINITY) | uint32(uint32(bits & SIGN) >> uint32(16)))
    return uint16(select(is_nan(bits), FLOAT16_NAN, code))


@inlined
def float16_nearest(x: float32) -> uint16:
    """The nearest float16; of two the even one."""
    # the sum of x and 2^13 times the power of two below it ends with the last bit that a float16 has: one rounding
    bits = float_bits(x)
    magnitude = uint32(bits & MAGNITUDE)
    power = smaller(larger(uint32(bits & INFINITY_BITS), FLOAT16_NORMAL), FLOAT16_BEYOND)
    anchor = uint32(power + uint32(13 << 23))
    significand = uint32(float_bits(bits_float(magnitude) + bits_float(anchor)) - anchor)
    exponent = uint32(uint32(power - FLOAT16_NORMAL) >> uint32(13))
    return float16_joined(bits, uint32(significand + exponent))


@inlined
def float16_stochastic(x: float32, random: uint32) -> uint16:
    """The float16 next to x on either side, each the likelier the nearer; beyond the largest one the nearest."""
    # dropped: how many bits of the significand go, 13 of a normal; from 31 on the first ones go without a draw
    bits = float_bits(x)
    magnitude = uint32(bits & MAGNITUDE)
    dither = uint32(select(magnitude > FLOAT16_LARGEST, HALF, random))
    exponent = uint32(magnitude >> uint32(23))
    normal = larger(exponent, uint32(113))
    shift = uint32(uint32(normal - exponent) + uint32(13))
    dropped = smaller(shift, uint32(31))
    significand = uint32(uint32(bits & uint32(0x007FFFFF)) | uint32(0x00800000))
    significand = uint32(significand >> smaller(uint32(shift - dropped), uint32(31)))
    dither = uint32(uint32(dither >> uint32(1)) >> uint32(uint32(31) - dropped))
    significand = uint32(uint32(significand + dither) >> dropped)
    exponent = uint32(uint32(normal - uint32(113)) << uint32(10))
    return float16_joined(bits, uint32(significand + exponent))


@inlined
def remainder_high(x: float32) -> uint16:
    """The nearest bfloat16, of two the larger in magnitude: with `remainder_low` it is all of x."""
    bits = float_bits(x)
    code = uint32(uint32(bits + uint32(0x8000)) >> uint32(16))
    return uint16(select(is_nan(bits), BFLOAT16_NAN, code))


@inlined
def remainder_low(x: float32) -> uint16:
    """The low bits of x: a whole number of two's complement, to be added to those of `remainder_high`."""
    bits = float_bits(x)
    return uint16(select(is_nan(bits), uint32(0), uint32(bits & uint32(0xFFFF))))


@inlined
def remainder_join(high: uint16, low: uint16) -> float32:
    """The float32 of which these are the parts. A low that is not of this high stays within half its last bit."""
    # such a low would take 0 or infinity beyond the magnitudes that are numbers: there the high is all
    whole = uint32(uint32(uint32(high) & uint32(0x7FFF)) << uint32(16))
    offset = uint32(uint32(uint32(low) ^ uint32(0x8000)) - uint32(0x8000))
    magnitude = uint32(whole + offset)
    magnitude = uint32(select(magnitude > INFINITY_BITS, whole, magnitude))
    sign = uint32(uint32(uint32(high) & uint32(0x8000)) << uint32(16))
    return bits_float(uint32(magnitude | sign))


@inlined
def mixed(x: uint64) -> uint64:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014; shifts and factors are Stafford's variant 13)."""
    x = uint64(uint64(x ^ uint64(x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    x = uint64(uint64(x ^ uint64(x >> uint64(27))) * uint64(0x94D049BB133111EB))
    return uint64(x ^ uint64(x >> uint64(31)))


@inlined
def absorbed(key: uint64, word: uint64) -> uint64:
    """A key that depends on one number more: the step of SplitMix64 is 2^64 over the golden ratio."""
    return mixed(uint64(uint64(key ^ word) + uint64(0x9E3779B97F4A7C15)))


@inlined
def chunk_key(seed: uint64, step: int64, tensor: int64, chunk: int64) -> uint64:
    """The key of all random numbers that one chunk of a tensor draws in one step."""
    key = absorbed(absorbed(uint64(0), uint64(seed)), uint64(step))
    return absorbed(absorbed(key, uint64(tensor)), uint64(chunk))


@inlined
def slot_key(key: uint64, slot: uint32) -> uint64:
    """The stream of one array of a chunk, to be made outside the loop over elements."""
    return absorbed(key, uint64(slot))


@inlined
def draw(stream: uint64, index: uint32) -> uint32:
    """The random number of an element: 32 bits, from its index alone and not from the draw before."""
    # the best finaliser of two rounds that hash-prospector (Wellons) has found; a half of the stream enters each
    x = uint32(uint32(stream) + uint32(uint32(index) * uint32(0x9E3779B9)))
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x21F0AAAD))
    x = uint32(x ^ uint32(x >> uint32(15)) ^ uint32(stream >> uint64(32)))
    x = uint32(x * uint32(0xD35A2D97))
    return uint32(x ^ uint32(x >> uint32(15)))


@inlined
def unit(random: uint32) -> float32:
    """From 0 to below 1, by the upper 24 bits."""
    return float32(uint32(random >> uint32(8))) * TWO_TO_MINUS_24


@inlined
def quantise(x: float32, codes: Any, random: uint32) -> uint8:
    """The code of a table whose value is next to x, |x| <= 1, on either side, each the likelier the nearer.

    Nothing above 0 gets code 0: of unsigned values that is 0, by which the rule would divide. Of NaN it is any code.
    """
    lower = uint32(0)
    stride = uint32(128)
    while stride > uint32(0):
        lower = uint32(lower + select(codes[uint32(lower + stride)] <= x, stride, uint32(0)))
        stride = uint32(stride >> uint32(1))
    upper = smaller(uint32(lower + uint32(1)), uint32(255))
    is_upper = unit(random) * (codes[upper] - codes[lower]) < x - codes[lower]
    code = uint32(select(is_upper, upper, lower))
    return uint8(larger(code, uint32(select(x > ZERO, uint32(1), uint32(0)))))


def tree_values(fraction_bits: int) -> npt.NDArray[np.float64]:
    """The positive values of dynamic tree quantisation (Dettmers 2016, Dettmers et al. 2022, section 1.3), rising.

    A code begins with k zeros and a one, k = 0 to 6; the bits that are left number equal parts of [0.1, 1], and the
    middle of the part times 10^-k is the value. Where the sign is not needed, its bit is one more for the fraction.
    """
    values = []
    for zeros in range(6, -1, -1):
        count = 2 ** (fraction_bits - zeros)
        values.append((0.1 + 0.9 * (np.arange(count) + 0.5) / count) * 10.0**-zeros)
    return np.concatenate(values)


def signed_codes() -> npt.NDArray[np.float32]:
    """Codes c and 255 - c have opposite values, 0 included.

    The published map has 1 but not -1, to which a block is scaled as often. Here 1 stands in place of the largest
    fraction, 0.993, on both sides; the code that this leaves over is a second 0, the negative one.
    """
    positive = np.concatenate([[0.0], tree_values(6)[:-1], [1.0]])
    return np.concatenate([-positive[::-1], positive]).astype(np.float32)


def unsigned_codes() -> npt.NDArray[np.float32]:
    """0, the fractions, 1: as published."""
    return np.concatenate([[0.0], tree_values(7), [1.0]]).astype(np.float32)


SIGNED_CODES = signed_codes()
UNSIGNED_CODES = unsigned_codes()

"""Numbers of 16 and 8 bits: what a code stands for, the code of a float32, and the random numbers to round with.

Whole numbers, + - * of float32, comparisons and bit casts alone, so that every device gives the same bits; selects in
place of branches, so that loops over elements vectorise. The text is that of `kernels/rounding.cuh` line for line: edit
both together. In Numba a sum of two uint32 is a uint64, hence the cast around each operation; no double occurs.

Every NaN becomes one and the same NaN: the sign and payload that arithmetic gives to a NaN differ between processors.
"""

from typing import Any

from numpy import float32, int16, int32, int64, uint8, uint16, uint32, uint64

from .jit import inlined

SIGN = uint32(0x80000000)
MAGNITUDE = uint32(0x7FFFFFFF)
INFINITY_BITS = uint32(0x7F800000)
HALF = uint32(0x80000000)  # the random number that takes x up from the middle between two codes on

BFLOAT16_LARGEST = uint32(0x7F7F0000)  # as bits of a float32, as are those of float16
FLOAT16_LARGEST = uint32(0x477FE000)  # 65504
FLOAT16_BEYOND = uint32(0x47800000)  # 2^16, the first power of two that is too large
FLOAT16_NORMAL = uint32(0x38800000)  # 2^-14, the smallest normal
FLOAT16_INFINITY = uint32(0x7C00)
BFLOAT16_NAN = uint32(0x7FC0)
FLOAT16_NAN = uint32(0x7E00)

TWO_TO_MINUS_24 = float32(5.9604644775390625e-08)
TWO_TO_112 = float32(5.192296858534828e33)  # 127 - 15, the exponents' biases
FLOAT16_END = float32(65536.0)  # what would follow the largest one
TWO_TO_23 = float32(8388608.0)  # the last bit of a sum with it counts ones
TREE_RISE = float32(142.22222900390625)  # 128 / 0.9
TREE_START = float32(113.77777862548828)  # 128 * 0.8 / 0.9
FIVE = float32(5.0)
ONE_HALF = float32(0.5)
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
def least(a: float32, b: float32) -> float32:
    """Neither is NaN."""
    return float32(select(a < b, a, b))


@inlined
def absolute(x: float32) -> float32:
    return bits_float(uint32(float_bits(x) & MAGNITUDE))


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
    """Its bits are moved to where a float32 has them; a product makes up for the exponents' biases, exactly."""
    extended = uint32(int32(int16(code)))
    value = bits_float(uint32(uint32(extended << uint32(13)) & uint32(0x8FFFFFFF))) * TWO_TO_112
    bits = float_bits(value)
    return bits_float(select(absolute(value) < FLOAT16_END, bits, uint32(bits | INFINITY_BITS)))


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
def tree_place(x: float32) -> float32:
    """Where x >= 0 lies among the values of the unsigned codes: at c + 1.5 if it is that of code c.

    Values of one power of ten lie on a line. Each line is steeper than that of the power above and crosses it at the
    power, so the least of all is the one that counts.
    """
    rise = x * TREE_RISE
    start = TREE_START
    place = rise + start
    zeros = uint32(0)
    while zeros < uint32(6):
        rise = rise * FIVE
        start = start * ONE_HALF
        place = least(place, rise + start)
        zeros = uint32(zeros + uint32(1))
    return place


@inlined
def whole(x: float32) -> uint32:
    """The nearest whole number from 0 to 255."""
    return uint32(float_bits(x + TWO_TO_23) & uint32(0xFF))


@inlined
def signed_place(x: float32) -> uint32:
    """A code from 1 to 254; that x lies between the values of its two neighbours is sure, whatever was rounded here."""
    place = whole(least(tree_place(absolute(x)) * ONE_HALF, float32(126.5)) + float32(127.5))
    return uint32(place ^ uint32(select(x < ZERO, uint32(0xFF), uint32(0))))


@inlined
def unsigned_place(x: float32) -> uint32:
    """The same of a table without negative values, for x >= 0."""
    return whole(least(tree_place(x), float32(255.25)) - float32(1.25))


@inlined
def quantise(x: float32, codes: Any, place: uint32, random: uint32) -> uint32:
    """The code whose value is next to x on either side, each the likelier the nearer. Of NaN it is any code."""
    near = codes[place]
    is_below = x < near
    beyond = uint32(select(is_below, uint32(place - uint32(1)), uint32(place + uint32(1))))
    far = codes[beyond]
    lower = select(is_below, far, near)
    is_upper = unit(random) * absolute(far - near) < x - lower
    return uint32(select(is_upper != is_below, beyond, place))


@inlined
def signed_code(x: float32, codes: Any, random: uint32) -> uint8:
    """The code of x, |x| <= 1, rounded at random."""
    return uint8(quantise(x, codes, signed_place(x), random))


@inlined
def unsigned_code(x: float32, codes: Any, random: uint32) -> uint8:
    """The code of x <= 1, rounded at random; 0 of what is below 0.

    Nothing above 0 gets code 0, by which the rule would divide.
    """
    x = select(x > ZERO, x, ZERO)
    return uint8(larger(quantise(x, codes, unsigned_place(x), random), smaller(float_bits(x), uint32(1))))

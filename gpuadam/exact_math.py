"""Elementary functions that give the same bits on every device.

Built from + - * /, square root, floor, comparisons, integers and bit casts alone: IEEE 754 defines these to the last
bit, whereas one library's exp differs from the next one's. The text is that of `kernels/exact_math.cuh` line for line,
and compiled without fused multiply-add: edit both together. Errors are in ulp of the exact result, over all the range.
"""

from math import copysign, fabs, inf, nan, sqrt
from typing import NamedTuple

from numpy import float64, floor, int64

from .jit import inlined

LN2_HI = 0.6931471805598903  # 42 bits, so that k * LN2_HI is exact for |k| < 2^11
LN2_LO = 5.497923018708371e-14
PI_HI = 3.141592653589793
HALF_PI_HI = 1.5707963267948966
HALF_PI_LO = 6.123233995736766e-17


class Pair(NamedTuple):
    """A number of twice the precision: hi + lo, not evaluated, with lo below the last bit of hi."""

    hi: float
    lo: float


@inlined
def bits_of(x: float) -> int64:
    return float64(x).view(int64)


@inlined
def float_of(n: int64) -> float64:
    return int64(n).view(float64)


@inlined
def clamped(x: float, bound: float) -> float:
    if fabs(x) > bound:
        return copysign(bound, x)
    return x


@inlined
def scaled(x: float, k: float) -> float:
    """x * 2^k, |k| <= 2000: in two steps, as 2^k may overflow where the product does not."""
    half = floor(0.5 * k)
    return x * float_of(int64(half + 1023.0) << 52) * float_of(int64(k - half + 1023.0) << 52)


@inlined
def exponent(x: float) -> float:
    """The k that takes x > 0 to x / 2^k in [sqrt(1/2), sqrt(2)); the integer is the bits of sqrt(1/2)."""
    lift = 0.0
    if x < 2.2250738585072014e-308:
        lift = 54.0
        x = x * 18014398509481984.0
    return float64((bits_of(x) - 4604544271217802189) >> 52) - lift


@inlined
def two_sum(a: float, b: float) -> Pair:
    """a + b without error."""
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


@inlined
def two_product(a: float, b: float) -> Pair:
    """a * b without error, short of underflow and of 2^996: by halves of 26 bits, whose products are exact."""
    p = a * b
    ah = 134217729.0 * a
    bh = 134217729.0 * b
    ah = ah - (ah - a)
    bh = bh - (bh - b)
    return Pair(p, ((ah * bh - p) + ah * (b - bh) + (a - ah) * bh) + (a - ah) * (b - bh))


@inlined
def product(a: Pair, b: Pair) -> Pair:
    p = two_product(a.hi, b.hi)
    return two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi))


@inlined
def quotient(a: Pair, b: Pair) -> Pair:
    q = a.hi / b.hi
    p = two_product(q, b.hi)
    return two_sum(q, (((a.hi - p.hi) - p.lo) + (a.lo - q * b.lo)) / b.hi)


@inlined
def over_two_plus(a: Pair) -> Pair:
    """a / (2 + a), which is tanh(x) for a = exp(2x) - 1, and tanh(log(1 + a) / 2)."""
    d = two_sum(2.0, a.hi)
    return quotient(a, Pair(d.hi, d.lo + a.lo))


@inlined
def exp_minus(x: Pair, one: float) -> Pair:
    """exp(x) - one, where one is 0, or is 1 and x > -44; |x| <= 800."""
    # exp(x) = 2^k exp(r), |r| <= ln(2) / 2: series to r^14, off by 2^-63; from 2^k = 2^64 on the 1 no longer counts
    if not (fabs(x.hi) <= inf):
        return x
    k = floor(x.hi * 1.4426950408889634 + 0.5)
    r = two_sum(x.hi - k * LN2_HI, x.lo - k * LN2_LO)
    t = r.hi
    p = 2.08767569878681e-09 + t * (1.6059043836821613e-10 + t * 1.1470745597729725e-11)
    p = 2.7557319223985893e-06 + t * (2.755731922398589e-07 + t * (2.505210838544172e-08 + t * p))
    p = 0.001388888888888889 + t * (0.0001984126984126984 + t * (2.48015873015873e-05 + t * p))
    p = t * (0.16666666666666666 + t * (0.041666666666666664 + t * (0.008333333333333333 + t * p)))
    h = two_product(0.5 * t, t)
    b = two_sum(1.0, -one * scaled(1.0, -clamped(k, 64.0)))
    s = two_sum(b.hi, t)
    y = two_sum(s.hi, s.lo + (b.lo + (h.hi + (h.lo + (r.lo + t * (r.lo + t * p))))))
    return Pair(scaled(y.hi, k), scaled(y.lo, k))


@inlined
def log_of(x: Pair) -> Pair:
    """log(x), its relative error near 2^-65 for the sake of `power`."""
    # x = 2^k (1 + f), s = f / (2 + f), u = s^2 < 0.0295: log(1 + f) = 2 atanh(s) = 2s (1 + u (1/3 + u/5 + ...)),
    # series to u^12, off by 2^-70; only the first terms are large enough to need pairs
    if x.hi == 0.0:
        return Pair(-inf, 0.0)
    if x.hi < 0.0:
        return Pair(nan, 0.0)
    if not (x.hi < inf):
        return x
    k = exponent(x.hi)
    s = over_two_plus(two_sum(scaled(x.hi, -k) - 1.0, scaled(x.lo, -k)))
    u = product(s, s)
    t = u.hi
    p = 0.047619047619047616 + t * (0.043478260869565216 + t * 0.04)
    p = 0.06666666666666667 + t * (0.058823529411764705 + t * (0.05263157894736842 + t * p))
    p = 0.1111111111111111 + t * (0.09090909090909091 + t * (0.07692307692307693 + t * p))
    p = t * (0.2 + t * (0.14285714285714285 + t * p))
    c = two_sum(0.3333333333333333, p)
    q = product(s, product(u, Pair(c.hi, c.lo + 1.850371707708594e-17)))
    m = two_sum(s.hi, q.hi)
    y = two_sum(k * LN2_HI, 2.0 * m.hi)
    return two_sum(y.hi, y.lo + (k * LN2_LO + 2.0 * (m.lo + (s.lo + q.lo))))


@inlined
def exp(x: float) -> float:
    """Error < 0.8 ulp."""
    return exp_minus(Pair(clamped(x, 746.0), 0.0), 0.0).hi


@inlined
def expm1(x: float) -> float:
    """exp(x) - 1, error < 0.9 ulp."""
    if x < -40.0:
        return -1.0
    return copysign(exp_minus(Pair(clamped(x, 746.0), 0.0), 1.0).hi, x)


@inlined
def tanh(x: float) -> float:
    """Error < 0.8 ulp."""
    e = exp_minus(Pair(clamped(2.0 * fabs(x), 44.0), 0.0), 1.0)
    return copysign(over_two_plus(e).hi, x)


@inlined
def log(x: float) -> float:
    """Error < 0.51 ulp."""
    return log_of(Pair(x, 0.0)).hi


@inlined
def log1p(x: float) -> float:
    """log(1 + x), error < 0.51 ulp."""
    if fabs(x) < 5.551115123125783e-17:
        return x
    return log_of(two_sum(1.0, x)).hi


@inlined
def whole_power(x: float, y: float) -> float:
    """x^y by squaring x / 2^k over and over, which neither overflows nor underflows, in pairs."""
    k = exponent(x)
    n = int64(fabs(y))
    b = Pair(scaled(x, -k), 0.0)
    p = Pair(1.0, 0.0)
    while n > 0:
        if (n & 1) == 1:
            p = product(p, b)
        b = product(b, b)
        n = n >> 1
    if y < 0.0:
        p = quotient(Pair(1.0, 0.0), p)
    return scaled(p.hi, clamped(k * y, 2000.0))


@inlined
def power(x: float, y: float) -> float:
    """x^y: by squaring for whole |y| <= 1024, error < 0.8 ulp, or else exp(y log x), error < 0.9 ulp."""
    if x == 1.0 or y == 0.0:
        return 1.0
    a = fabs(x)
    whole = floor(y) == y
    if not (a <= inf and fabs(y) <= inf) or (x < 0.0 and a < inf and not whole):
        return nan
    sign = 1.0
    if whole and floor(0.5 * y) != 0.5 * y:
        sign = copysign(1.0, x)
    if whole and a == 1.0:
        return sign
    if whole and fabs(y) <= 1024.0 and a > 0.0 and a < inf:
        return sign * whole_power(a, y)
    z = log_of(Pair(a, 0.0))
    if fabs(y * z.hi) > 800.0:
        return sign * exp(y * z.hi)
    p = two_product(y, z.hi)
    return sign * exp_minus(Pair(p.hi, p.lo + y * z.lo), 0.0).hi


@inlined
def sin_quarter(x: float) -> float:
    """sin(pi x), |x| <= 1/4: series to x^17, off by 2^-63."""
    p = two_product(x, PI_HI)
    u = x * x
    s = 0.00046630280576761255 + u * (-2.1915353447830217e-05 + u * 7.952054001475513e-07)
    s = -0.5992645293207921 + u * (0.08214588661112823 + u * (-0.0073704309457143504 + u * s))
    return p.hi + (p.lo + x * (1.2246467991473532e-16 + u * (-5.16771278004997 + u * (2.5501640398773455 + u * s))))


@inlined
def cos_quarter(x: float) -> float:
    """cos(pi x), |x| <= 1/4: series to x^16, off by 2^-58; the term in x^2 as a pair."""
    u = two_product(x, x)
    t = u.hi
    c = 0.0019295743094039231 + t * (-0.0001046381049248457 + t * 4.303069587032947e-06)
    c = -1.3352627688545895 + t * (0.2353306303588932 + t * (-0.02580689139001406 + t * c))
    h = product(u, Pair(4.934802200544679, 3.1326477543698557e-16))
    s = two_sum(1.0, -h.hi)
    return s.hi + (s.lo + (t * t * (4.0587121264167685 + t * c) - h.lo))


@inlined
def sin_turn(x: float, quarters: float) -> float:
    """sin(pi (x + quarters / 2)), x >= 0, from the distance t to the nearest whole q / 2, which is exact."""
    r = x - 2.0 * floor(0.5 * x)
    q = floor(0.5 * floor(4.0 * r) + 0.5)
    t = r - 0.5 * q
    half = floor(0.5 * (q + quarters))
    s = cos_quarter(t)
    if q + quarters == 2.0 * half:
        s = sin_quarter(t)
    if half == 1.0:
        return 0.0 - s
    return s


@inlined
def sinpi(x: float) -> float:
    """sin(pi x), error < 0.9 ulp; zeros are exact, and have the sign of x."""
    if fabs(x) < 1e-270:
        return x * PI_HI
    return copysign(1.0, x) * sin_turn(fabs(x), 0.0)


@inlined
def cospi(x: float) -> float:
    """cos(pi x), error < 0.9 ulp; zeros are exact, and are +0."""
    return sin_turn(fabs(x), 1.0)


@inlined
def acos(x: float) -> float:
    """pi/2 - asin(x), or beyond 1/2 from 2 asin(s), s = sqrt((1 - |x|) / 2); error < 0.9 ulp."""
    # asin(s) / s - 1: z = s^2 times a polynomial, interpolated at the 13 Chebyshev nodes of [0, 1/4], off by 2^-57
    a = fabs(x)
    if not (a <= 1.0):
        return nan
    s = x
    z = x * x
    c = 0.0
    if a > 0.5:
        z = 0.5 * (1.0 - a)
        s = sqrt(z)
        q = two_product(s, s)
        if s > 0.0:
            c = ((z - q.hi) - q.lo) / (2.0 * s)
    p = 0.01740087944269402 + z * (-0.014851887071247204 + z * 0.028757851367421566)
    p = 0.011479177415184906 + z * (0.01032281435018578 + z * (0.005457506718640358 + z * p))
    p = 0.02237217294214989 + z * (0.017352392720869973 + z * (0.013971212973552933 + z * p))
    p = 0.07499999999998433 + z * (0.04464285714635543 + z * (0.030381944138531247 + z * p))
    w = c + s * (z * (0.16666666666666669 + z * p))
    y = HALF_PI_HI - (s - (HALF_PI_LO - w))
    if a <= 0.5:
        return y
    if x < 0.0:
        return 2.0 * y
    return 2.0 * (s + w)

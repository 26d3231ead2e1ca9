// Elementary functions that give the same bits on every device: see gpuadam/exact_math.py, whose text this is, line for
// line. Compile it without fused multiply-add (-fmad=false, -ffp-contract=off), and edit both together.
#pragma once

namespace exact {

using int64 = long long;
using float64 = double;

constexpr double inf = __builtin_bit_cast(double, 0x7FF0000000000000);
constexpr double nan = __builtin_bit_cast(double, 0x7FF8000000000000);

constexpr double LN2_HI = 0.6931471805598903;  // 42 bits, so that k * LN2_HI is exact for |k| < 2^11
constexpr double LN2_LO = 5.497923018708371e-14;
constexpr double PI_HI = 3.141592653589793;
constexpr double HALF_PI_HI = 1.5707963267948966;
constexpr double HALF_PI_LO = 6.123233995736766e-17;

struct Pair {
    double hi, lo;
    __device__ Pair(double hi, double lo) : hi(hi), lo(lo) {}
};

__device__ inline int64 bits_of(double x) {
    return __double_as_longlong(x);
}

__device__ inline double float_of(int64 n) {
    return __longlong_as_double(n);
}

__device__ inline double clamped(double x, double bound) {
    if (fabs(x) > bound) {
        return copysign(bound, x);
    }
    return x;
}

// x * 2^k, |k| <= 2000: in two steps, as 2^k may overflow where the product does not.
__device__ inline double scaled(double x, double k) {
    double half = floor(0.5 * k);
    return x * float_of(int64(half + 1023.0) << 52) * float_of(int64(k - half + 1023.0) << 52);
}

// The k that takes x > 0 to x / 2^k in [sqrt(1/2), sqrt(2)); the integer is the bits of sqrt(1/2).
__device__ inline double exponent(double x) {
    double lift = 0.0;
    if (x < 2.2250738585072014e-308) {
        lift = 54.0;
        x = x * 18014398509481984.0;
    }
    return float64((bits_of(x) - 4604544271217802189) >> 52) - lift;
}

// a + b without error.
__device__ inline Pair two_sum(double a, double b) {
    double s = a + b;
    double t = s - a;
    return Pair(s, (a - (s - t)) + (b - t));
}

// a * b without error, short of underflow and of 2^996: by halves of 26 bits, whose products are exact.
__device__ inline Pair two_product(double a, double b) {
    double p = a * b;
    double ah = 134217729.0 * a;
    double bh = 134217729.0 * b;
    ah = ah - (ah - a);
    bh = bh - (bh - b);
    return Pair(p, ((ah * bh - p) + ah * (b - bh) + (a - ah) * bh) + (a - ah) * (b - bh));
}

__device__ inline Pair product(Pair a, Pair b) {
    Pair p = two_product(a.hi, b.hi);
    return two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

__device__ inline Pair quotient(Pair a, Pair b) {
    double q = a.hi / b.hi;
    Pair p = two_product(q, b.hi);
    return two_sum(q, (((a.hi - p.hi) - p.lo) + (a.lo - q * b.lo)) / b.hi);
}

// a / (2 + a), which is tanh(x) for a = exp(2x) - 1, and tanh(log(1 + a) / 2).
__device__ inline Pair over_two_plus(Pair a) {
    Pair d = two_sum(2.0, a.hi);
    return quotient(a, Pair(d.hi, d.lo + a.lo));
}

// exp(x) - one, where one is 0, or is 1 and x > -44; |x| <= 800.
__device__ inline Pair exp_minus(Pair x, double one) {
    // exp(x) = 2^k exp(r), |r| <= ln(2) / 2: series to r^14, off by 2^-63; from 2^k = 2^64 on the 1 no longer counts
    if (!(fabs(x.hi) <= inf)) {
        return x;
    }
    double k = floor(x.hi * 1.4426950408889634 + 0.5);
    Pair r = two_sum(x.hi - k * LN2_HI, x.lo - k * LN2_LO);
    double t = r.hi;
    double p = 2.08767569878681e-09 + t * (1.6059043836821613e-10 + t * 1.1470745597729725e-11);
    p = 2.7557319223985893e-06 + t * (2.755731922398589e-07 + t * (2.505210838544172e-08 + t * p));
    p = 0.001388888888888889 + t * (0.0001984126984126984 + t * (2.48015873015873e-05 + t * p));
    p = t * (0.16666666666666666 + t * (0.041666666666666664 + t * (0.008333333333333333 + t * p)));
    Pair h = two_product(0.5 * t, t);
    Pair b = two_sum(1.0, -one * scaled(1.0, -clamped(k, 64.0)));
    Pair s = two_sum(b.hi, t);
    Pair y = two_sum(s.hi, s.lo + (b.lo + (h.hi + (h.lo + (r.lo + t * (r.lo + t * p))))));
    return Pair(scaled(y.hi, k), scaled(y.lo, k));
}

// log(x), its relative error near 2^-65 for the sake of `power`.
__device__ inline Pair log_of(Pair x) {
    // x = 2^k (1 + f), s = f / (2 + f), u = s^2 < 0.0295: log(1 + f) = 2 atanh(s) = 2s (1 + u (1/3 + u/5 + ...)),
    // series to u^12, off by 2^-70; only the first terms are large enough to need pairs
    if (x.hi == 0.0) {
        return Pair(-inf, 0.0);
    }
    if (x.hi < 0.0) {
        return Pair(nan, 0.0);
    }
    if (!(x.hi < inf)) {
        return x;
    }
    double k = exponent(x.hi);
    Pair s = over_two_plus(two_sum(scaled(x.hi, -k) - 1.0, scaled(x.lo, -k)));
    Pair u = product(s, s);
    double t = u.hi;
    double p = 0.047619047619047616 + t * (0.043478260869565216 + t * 0.04);
    p = 0.06666666666666667 + t * (0.058823529411764705 + t * (0.05263157894736842 + t * p));
    p = 0.1111111111111111 + t * (0.09090909090909091 + t * (0.07692307692307693 + t * p));
    p = t * (0.2 + t * (0.14285714285714285 + t * p));
    Pair c = two_sum(0.3333333333333333, p);
    Pair q = product(s, product(u, Pair(c.hi, c.lo + 1.850371707708594e-17)));
    Pair m = two_sum(s.hi, q.hi);
    Pair y = two_sum(k * LN2_HI, 2.0 * m.hi);
    return two_sum(y.hi, y.lo + (k * LN2_LO + 2.0 * (m.lo + (s.lo + q.lo))));
}

// Error < 0.8 ulp.
__device__ inline double exp(double x) {
    return exp_minus(Pair(clamped(x, 746.0), 0.0), 0.0).hi;
}

// exp(x) - 1, error < 0.9 ulp.
__device__ inline double expm1(double x) {
    if (x < -40.0) {
        return -1.0;
    }
    return copysign(exp_minus(Pair(clamped(x, 746.0), 0.0), 1.0).hi, x);
}

// Error < 0.8 ulp.
__device__ inline double tanh(double x) {
    Pair e = exp_minus(Pair(clamped(2.0 * fabs(x), 44.0), 0.0), 1.0);
    return copysign(over_two_plus(e).hi, x);
}

// Error < 0.51 ulp.
__device__ inline double log(double x) {
    return log_of(Pair(x, 0.0)).hi;
}

// log(1 + x), error < 0.51 ulp.
__device__ inline double log1p(double x) {
    if (fabs(x) < 5.551115123125783e-17) {
        return x;
    }
    return log_of(two_sum(1.0, x)).hi;
}

// x^y by squaring x / 2^k over and over, which neither overflows nor underflows, in pairs.
__device__ inline double whole_power(double x, double y) {
    double k = exponent(x);
    int64 n = int64(fabs(y));
    Pair b = Pair(scaled(x, -k), 0.0);
    Pair p = Pair(1.0, 0.0);
    while (n > 0) {
        if ((n & 1) == 1) {
            p = product(p, b);
        }
        b = product(b, b);
        n = n >> 1;
    }
    if (y < 0.0) {
        p = quotient(Pair(1.0, 0.0), p);
    }
    return scaled(p.hi, clamped(k * y, 2000.0));
}

// x^y: by squaring for whole |y| <= 1024, error < 0.8 ulp, or else exp(y log x), error < 0.9 ulp.
__device__ inline double power(double x, double y) {
    if (x == 1.0 || y == 0.0) {
        return 1.0;
    }
    double a = fabs(x);
    bool whole = floor(y) == y;
    if (!(a <= inf && fabs(y) <= inf) || (x < 0.0 && a < inf && !whole)) {
        return nan;
    }
    double sign = 1.0;
    if (whole && floor(0.5 * y) != 0.5 * y) {
        sign = copysign(1.0, x);
    }
    if (whole && a == 1.0) {
        return sign;
    }
    if (whole && fabs(y) <= 1024.0 && a > 0.0 && a < inf) {
        return sign * whole_power(a, y);
    }
    Pair z = log_of(Pair(a, 0.0));
    if (fabs(y * z.hi) > 800.0) {
        return sign * exp(y * z.hi);
    }
    Pair p = two_product(y, z.hi);
    return sign * exp_minus(Pair(p.hi, p.lo + y * z.lo), 0.0).hi;
}

// sin(pi x), |x| <= 1/4: series to x^17, off by 2^-63.
__device__ inline double sin_quarter(double x) {
    Pair p = two_product(x, PI_HI);
    double u = x * x;
    double s = 0.00046630280576761255 + u * (-2.1915353447830217e-05 + u * 7.952054001475513e-07);
    s = -0.5992645293207921 + u * (0.08214588661112823 + u * (-0.0073704309457143504 + u * s));
    return p.hi + (p.lo + x * (1.2246467991473532e-16 + u * (-5.16771278004997 + u * (2.5501640398773455 + u * s))));
}

// cos(pi x), |x| <= 1/4: series to x^16, off by 2^-58; the term in x^2 as a pair.
__device__ inline double cos_quarter(double x) {
    Pair u = two_product(x, x);
    double t = u.hi;
    double c = 0.0019295743094039231 + t * (-0.0001046381049248457 + t * 4.303069587032947e-06);
    c = -1.3352627688545895 + t * (0.2353306303588932 + t * (-0.02580689139001406 + t * c));
    Pair h = product(u, Pair(4.934802200544679, 3.1326477543698557e-16));
    Pair s = two_sum(1.0, -h.hi);
    return s.hi + (s.lo + (t * t * (4.0587121264167685 + t * c) - h.lo));
}

// sin(pi (x + quarters / 2)), x >= 0, from the distance t to the nearest whole q / 2, which is exact.
__device__ inline double sin_turn(double x, double quarters) {
    double r = x - 2.0 * floor(0.5 * x);
    double q = floor(0.5 * floor(4.0 * r) + 0.5);
    double t = r - 0.5 * q;
    double half = floor(0.5 * (q + quarters));
    double s = cos_quarter(t);
    if (q + quarters == 2.0 * half) {
        s = sin_quarter(t);
    }
    if (half == 1.0) {
        return 0.0 - s;
    }
    return s;
}

// sin(pi x), error < 0.9 ulp; zeros are exact, and have the sign of x.
__device__ inline double sinpi(double x) {
    if (fabs(x) < 1e-270) {
        return x * PI_HI;
    }
    return copysign(1.0, x) * sin_turn(fabs(x), 0.0);
}

// cos(pi x), error < 0.9 ulp; zeros are exact, and are +0.
__device__ inline double cospi(double x) {
    return sin_turn(fabs(x), 1.0);
}

// pi/2 - asin(x), or beyond 1/2 from 2 asin(s), s = sqrt((1 - |x|) / 2); error < 0.9 ulp.
__device__ inline double acos(double x) {
    // asin(s) / s - 1: z = s^2 times a polynomial, interpolated at the 13 Chebyshev nodes of [0, 1/4], off by 2^-57
    double a = fabs(x);
    if (!(a <= 1.0)) {
        return nan;
    }
    double s = x;
    double z = x * x;
    double c = 0.0;
    if (a > 0.5) {
        z = 0.5 * (1.0 - a);
        s = sqrt(z);
        Pair q = two_product(s, s);
        if (s > 0.0) {
            c = ((z - q.hi) - q.lo) / (2.0 * s);
        }
    }
    double p = 0.01740087944269402 + z * (-0.014851887071247204 + z * 0.028757851367421566);
    p = 0.011479177415184906 + z * (0.01032281435018578 + z * (0.005457506718640358 + z * p));
    p = 0.02237217294214989 + z * (0.017352392720869973 + z * (0.013971212973552933 + z * p));
    p = 0.07499999999998433 + z * (0.04464285714635543 + z * (0.030381944138531247 + z * p));
    double w = c + s * (z * (0.16666666666666669 + z * p));
    double y = HALF_PI_HI - (s - (HALF_PI_LO - w));
    if (a <= 0.5) {
        return y;
    }
    if (x < 0.0) {
        return 2.0 * y;
    }
    return 2.0 * (s + w);
}

}  // namespace exact

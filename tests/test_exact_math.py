"""exact_math: errors below the stated bounds, IEEE special cases, and one text with kernels/exact_math.cuh."""

import ctypes
import functools
import inspect
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from gpuadam import exact_math

mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
Doubles = NDArray[np.float64]
Loop = Callable[..., Doubles]

HEADER = Path(__file__).parents[1] / "kernels" / "exact_math.cuh"
UNARY = ("exp", "log", "expm1", "log1p", "cospi", "sinpi", "tanh", "acos")
NAMES = (*UNARY, "power")
PRELUDE = r"""
#include <cmath>
#include <cstring>
#define __device__
#define __forceinline__ inline
static inline double __longlong_as_double(long long n) { double x; std::memcpy(&x, &n, 8); return x; }
static inline long long __double_as_longlong(double x) { long long n; std::memcpy(&n, &x, 8); return n; }
#define LOOP(name, value) extern "C" void name##_loop(const double* x, [[maybe_unused]] const double* y, double* z, \
    long n) { for (long i = 0; i < n; ++i) z[i] = value; }
"""
INF, NAN, TINY, HUGE = math.inf, math.nan, 5e-324, 1.7976931348623157e308
NORMAL = 2.2250738585072014e-308  # the smallest


def bounds_of(name: str) -> list[float]:
    """The errors that a function's docstring owns up to; none may exceed 1 ulp."""
    bounds = [float(bound) for bound in re.findall(r"rror < ([\d.]+) ulp", getattr(exact_math, name).__doc__)]
    assert bounds
    assert max(bounds) <= 1
    return bounds


def loop_of(name: str) -> Loop:
    """The function over arrays, compiled as the package compiles it."""
    function = getattr(exact_math, name)
    one = numba.njit(error_model="numpy")(function if name == "power" else lambda x, _: function(x))

    @numba.njit(error_model="numpy")
    def loop(x: Doubles, y: Doubles) -> Doubles:
        result = np.empty_like(x)
        for i in range(x.size):
            result[i] = one(x[i], y[i])
        return result

    return lambda x, *rest: loop(x, *(rest or (x,)))


LOOPS = {name: loop_of(name) for name in NAMES}


def bit_patterns(rng: np.random.Generator, count: int) -> Doubles:
    return rng.integers(-(2**63), 2**63, count).view(np.float64)


def log_spaced(rng: np.random.Generator, low: float, high: float, count: int = 500) -> Doubles:
    """Of either sign, with magnitudes 2^low to 2^high."""
    return rng.choice([-1.0, 1.0], count) * 2.0 ** rng.uniform(low, high, count)


def around(*centres: float) -> Doubles:
    """Each centre, the doubles next to it, and points at distances 2^-52 to 2^-1 relative to it."""
    steps = np.concatenate([np.arange(-8, 9) * 2.0**-53, 2.0 ** -np.arange(1.0, 53), -(2.0 ** -np.arange(1.0, 53))])
    return np.outer(centres, 1 + steps).ravel()


# Where the functions switch branches, where they turn, overflow, underflow or vanish.
CENTRES = {
    "exp": (0.34657359027997264, -0.34657359027997264, 1.0397207708399179, 709.782712893384, -708.4, -745.1332, -746.0),
    "log": (1.0, 0.7071067811865476, 1.4142135623730951, 2.0, NORMAL, HUGE / 2),
    "expm1": (0.34657359027997264, -0.34657359027997264, -1.0397207708399179, 709.782712893384, -40.0, 44.3, 2.0**-54),
    "log1p": (-1.0, -0.2928932188134524, 0.41421356237309503, 1.0, 2.0**-54, -(2.0**-54), 2.0**53, HUGE / 2),
    "cospi": (0.25, 0.5, -0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 1000.25, 2.0**51, 2.0**52, 2.0**53),
    "sinpi": (0.25, 0.5, -0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 1000.25, 2.0**51, 2.0**52, 2.0**53, 1e-270),
    "tanh": (0.17328679513998632, 0.5198603854199589, 22.0, -19.0, 2.0**-28),
    "acos": (0.5, -0.5, 1.0, -1.0, 0.7071067811865476),
}
LINEAR = {"exp": (-746, 710), "expm1": (-42, 710), "log1p": (-1, 1), "tanh": (-23, 23), "acos": (-1, 1)}


def points(name: str) -> Doubles:
    rng = np.random.default_rng(1)
    low, high = LINEAR.get(name, (-3, 3))
    parts = [around(*CENTRES[name]), rng.uniform(low, high, 1000), rng.uniform(-2, 2, 1000), bit_patterns(rng, 500)]
    parts += [log_spaced(rng, -1074, 1023.9, 300), log_spaced(rng, -1074, -1020, 200), log_spaced(rng, -60, 10)]
    x = np.concatenate(parts)
    x = x[np.isfinite(x)]
    domain = {"log": x > 0, "log1p": x > -1, "acos": np.abs(x) <= 1}
    return x[domain.get(name, slice(None))]


@functools.cache
def cases_of(name: str) -> dict[str, tuple[Doubles, ...]]:
    """The arguments to try; of power by kind: "full" results spread over all exponents, "edge" ones lie at the ends."""
    if name != "power":
        return {name: (points(name),)}
    rng = np.random.default_rng(2)
    near = np.concatenate([np.abs(around(1.0)), 1 + log_spaced(rng, -52, -0.1, 1000), rng.uniform(0.5, 2, 1000)])
    x = np.concatenate([np.abs(log_spaced(rng, -1074, 1023.9, 1000)), near[near != 1]])
    n = x.size
    full = rng.uniform(-746, 710, n) / np.log(x)
    signed = rng.choice([-1.0, 1.0], n) * x
    decay = 1 - 2.0 ** rng.uniform(-30, -1, n)
    return {
        "whole": (signed, np.clip(np.round(full), -1024, 1024)),
        "whole small": (signed, rng.integers(-8, 9, n).astype(np.float64)),
        "whole decay": (decay, rng.integers(-1024, 1025, n).astype(np.float64)),
        "large": (-x[1000:], np.round(full[1000:]) + 1025 * np.sign(full[1000:])),
        "steps": (decay, np.round(10.0 ** rng.uniform(3.1, 7, n))),
        "full": (x, full),
        "edge": (x, rng.choice([-745.13, -708.4, 709.78], n) / np.log(x)),
        "roots": (x, rng.uniform(-1, 1, n)),
    }


def ulps(got: float, exact: Any) -> float:
    """|got - exact| in units of the last bit of exact; infinity counts as 2^1024."""
    if math.isnan(got):
        return INF
    if exact == 0:
        return 0.0 if got == 0 else INF
    if abs(exact) >= mpmath.ldexp(1, 1024):
        exact = mpmath.sign(exact) * mpmath.ldexp(1, 1024)
    value = mpmath.sign(got) * mpmath.ldexp(1, 1024) if math.isinf(got) else mpmath.mpf(got)
    last = min(max(mpmath.mag(exact) - 1, -1022), 1023) - 52
    return float(mpmath.ldexp(abs(value - exact), -last))


def exact_power(x: float, y: float) -> Any:
    size = mpmath.exp(mpmath.mpf(y) * mpmath.log(abs(mpmath.mpf(x))))
    return -size if x < 0 and math.fmod(y, 2) != 0 else size


def worst(loop: Loop, reference: Callable[..., Any], *arguments: Doubles) -> float:
    with mpmath.workprec(200):
        exact = (reference(*map(mpmath.mpf, row)) for row in zip(*arguments, strict=True))
        return max(map(ulps, map(float, loop(*arguments)), exact))


@pytest.mark.parametrize("name", NAMES)
def test_error_within_stated_bound(name: str) -> None:
    reference = exact_power if name == "power" else getattr(mpmath, name)
    for kind, arguments in cases_of(name).items():
        assert arguments[0].size > 2000
        bound = bounds_of(name)[0 if kind.startswith("whole") else -1]  # power states that of whole exponents first
        assert worst(LOOPS[name], reference, *arguments) < bound, kind
        assert worst(lambda *rows: LOOPS[name](*rows) * (1 + 2**-50), reference, *arguments) > 2  # or it is blind


HALF_PI, PI = 1.5707963267948966, 3.141592653589793
SPECIAL: dict[str, Any] = {
    "exp": [
        (-INF, 0.0),
        (INF, INF),
        (0.0, 1.0),
        (-0.0, 1.0),
        (TINY, 1.0),
        (709.782712893385, INF),
        (1e308, INF),
        (-745.1332191019412, 0.0),
        (-745.1332191019411, TINY),
        (-1e308, 0.0),
    ],
    "log": [(0.0, -INF), (-0.0, -INF), (-TINY, NAN), (-1.0, NAN), (-INF, NAN), (INF, INF), (1.0, 0.0)],
    "expm1": [
        (-INF, -1.0),
        (INF, INF),
        (0.0, 0.0),
        (-0.0, -0.0),
        (TINY, TINY),
        (-TINY, -TINY),
        (NORMAL, NORMAL),
        (-1e-300, -1e-300),
        (-1e308, -1.0),
        (-50.0, -1.0),
        (709.782712893385, INF),
    ],
    "log1p": [
        (-1.0, -INF),
        (INF, INF),
        (-1.5, NAN),
        (-INF, NAN),
        (0.0, 0.0),
        (-0.0, -0.0),
        (TINY, TINY),
        (-TINY, -TINY),
        (-1.0000000000000002, NAN),
        (3 * TINY, 3 * TINY),
        (-1e-300, -1e-300),
    ],
    "cospi": [
        (INF, NAN),
        (-INF, NAN),
        (0.0, 1.0),
        (-0.0, 1.0),
        (TINY, 1.0),
        (0.5, 0.0),
        (-0.5, 0.0),
        (1.5, 0.0),
        (-1.5, 0.0),
        (1.0, -1.0),
        (-1.0, -1.0),
        (2.0, 1.0),
        (2.0**51 + 0.5, 0.0),
        (2.0**52 + 1, -1.0),
        (2.0**53 - 1, -1.0),
        (2.0**53, 1.0),
        (1e300, 1.0),
        (-HUGE, 1.0),
    ],
    "sinpi": [
        (INF, NAN),
        (-INF, NAN),
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.0, 0.0),
        (-1.0, -0.0),
        (2.0, 0.0),
        (-2.0, -0.0),
        (0.5, 1.0),
        (-0.5, -1.0),
        (1.5, -1.0),
        (-1.5, 1.0),
        (2.5, 1.0),
        (TINY, 3 * TINY),
        (-TINY, -3 * TINY),
        (2.0**51 + 0.5, 1.0),
        (2.0**51 + 1.5, -1.0),
        (2.0**52 + 1, 0.0),
        (2.0**53, 0.0),
        (-1e300, -0.0),
        (HUGE, 0.0),
    ],
    "tanh": [
        (INF, 1.0),
        (-INF, -1.0),
        (0.0, 0.0),
        (-0.0, -0.0),
        (TINY, TINY),
        (-TINY, -TINY),
        (3 * TINY, 3 * TINY),
        (NORMAL, NORMAL),
        (1e-300, 1e-300),
        (20.0, 1.0),
        (-1e308, -1.0),
    ],
    "acos": [
        (1.0, 0.0),
        (-1.0, PI),
        (0.0, HALF_PI),
        (-0.0, HALF_PI),
        (TINY, HALF_PI),
        (1.0000000000000002, NAN),
        (-1.0000000000000002, NAN),
        (INF, NAN),
        (-INF, NAN),
    ],
}
ODD, EVEN = 2.0**53 - 1, 2.0**53
SPECIAL["power"] = [
    *((x, y, 1.0) for x in (0.0, -0.0, 2.5, -3.0, INF, -INF, NAN) for y in (0.0, -0.0)),
    *((1.0, y, 1.0) for y in (NAN, INF, -INF, 0.5, HUGE, -TINY)),
    *((x, y, NAN) for x, y in ((NAN, 1.0), (NAN, -0.5), (NAN, INF), (0.0, NAN), (2.0, NAN), (-1.0, NAN), (INF, NAN))),
    *((-1.0, y, 1.0) for y in (INF, -INF, 2.0, EVEN, EVEN + 2, HUGE, -EVEN)),
    *((-1.0, y, -1.0) for y in (1.0, -1.0, 1023.0, 1025.0, ODD, -ODD)),
    *((x, y, NAN) for x in (-1.0, -2.0, -TINY, -HUGE) for y in (0.5, -1.5, TINY, 1e-5)),
    *((x, INF, 0.0) for x in (0.5, -0.5, 0.0, -0.0, TINY)),
    *((x, -INF, INF) for x in (0.5, -0.5, 0.0, -0.0, TINY)),
    *((x, INF, INF) for x in (2.0, -2.0, 1.0000000000000002, INF, -INF)),
    *((x, -INF, 0.0) for x in (2.0, -2.0, 1.0000000000000002, INF, -INF)),
    *((0.0, y, 0.0) for y in (1.0, 2.0, 0.5, TINY, ODD, HUGE)),
    *((0.0, y, INF) for y in (-1.0, -2.0, -0.5, -TINY, -ODD, -HUGE)),
    *((-0.0, y, -0.0) for y in (1.0, 3.0, ODD)),
    *((-0.0, y, 0.0) for y in (2.0, 0.5, EVEN, TINY)),
    *((-0.0, y, -INF) for y in (-1.0, -3.0, -ODD)),
    *((-0.0, y, INF) for y in (-2.0, -0.5, -EVEN)),
    *((INF, y, INF) for y in (1.0, 0.5, 2.0, TINY, HUGE)),
    *((INF, y, 0.0) for y in (-1.0, -0.5, -2.0, -HUGE)),
    *((-INF, y, -INF) for y in (1.0, 3.0, ODD)),
    *((-INF, y, INF) for y in (2.0, 0.5, EVEN)),
    *((-INF, y, -0.0) for y in (-1.0, -3.0, -ODD)),
    *((-INF, y, 0.0) for y in (-2.0, -0.5, -EVEN)),
    *((-1.5, ODD, -INF), (-1.5, EVEN, INF), (-0.5, ODD, -0.0), (-0.5, -ODD, -INF), (-0.5, EVEN, 0.0)),
    *((2.0, 10.0, 1024.0), (-2.0, 3.0, -8.0), (-2.0, -3.0, -0.125), (3.0, 2.0, 9.0), (10.0, 22.0, 1e22)),
    *((2.0, 1023.0, 2.0**1023), (2.0, 1024.0, INF), (-2.0, 1025.0, -INF), (2.0, -1022.0, NORMAL)),
    *((2.0, -1074.0, TINY), (2.0, -1075.0, 0.0), (0.5, 1074.0, TINY), (0.5, -1024.0, INF), (-0.5, 1073.0, -2 * TINY)),
    *((TINY, 1.0, TINY), (-TINY, 1.0, -TINY), (TINY, -1.0, INF), (TINY, 2.0, 0.0), (TINY, 0.5, 2.0**-537)),
    *((HUGE, 1.0, HUGE), (HUGE, 2.0, INF), (2.0, TINY, 1.0), (HUGE, -TINY, 1.0), (4.0, 0.5, 2.0), (4.0, -1.5, 0.125)),
    *((0.9, 1e300, 0.0), (1.1, -1e300, 0.0), (0.9999999999999999, -HUGE, INF), (1.0000000000000002, HUGE, INF)),
]


def same(a: Doubles, b: Doubles) -> NDArray[np.bool_]:
    """Bit for bit, but any NaN is as good as another."""
    equal: NDArray[np.bool_] = (a.view(np.int64) == b.view(np.int64)) | (np.isnan(a) & np.isnan(b))
    return equal


@pytest.mark.parametrize("name", NAMES)
def test_special_cases(name: str) -> None:
    rows = np.array([*SPECIAL[name], (NAN,) * len(SPECIAL[name][0])])
    *arguments, expected = rows.T.copy()
    got = LOOPS[name](*arguments)
    right = same(got, expected)
    assert right.all(), np.column_stack([rows, got])[~right]


def test_whole_arguments_give_exact_values() -> None:
    n = np.random.default_rng(3).integers(-(2**51), 2**51, 10000).astype(np.float64)
    sign = 1.0 - 2.0 * (n % 2)
    assert same(LOOPS["sinpi"](n), np.copysign(0.0, n)).all()
    assert same(LOOPS["cospi"](n), sign).all()
    assert same(LOOPS["sinpi"](n + 0.5), sign).all()
    assert same(LOOPS["cospi"](n + 0.5), 0.0 * n * n).all()


def test_symmetry_to_the_bit() -> None:
    x = np.concatenate([bit_patterns(np.random.default_rng(4), 10000), points("tanh")])
    for name in ("sinpi", "tanh"):
        assert same(LOOPS[name](-x), -LOOPS[name](x)).all()
    assert same(LOOPS["cospi"](-x), LOOPS["cospi"](x)).all()


@pytest.mark.parametrize("name", ["exp", "log", "expm1", "log1p", "tanh", "acos"])
def test_monotonic_where_branches_meet(name: str) -> None:
    for centre in CENTRES[name]:
        x = np.sort((np.float64(centre).view(np.int64) + np.arange(-5000, 5000)).view(np.float64))
        y = LOOPS[name](x[np.abs(x) < 1] if name in ("log1p", "acos") else x)
        assert (y[1:] <= y[:-1] if name == "acos" else y[1:] >= y[:-1]).all()


@pytest.fixture(scope="module")
def header_loops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loop]:
    """The functions of the header over arrays, through the host compiler."""
    folder = tmp_path_factory.mktemp("exact_math")
    source, library = folder / "loops.cpp", folder / "loops.so"
    loops = "".join(f"LOOP({name}, exact::{name}(x[i]{', y[i]' * (name == 'power')}))\n" for name in NAMES)
    source.write_text(f'{PRELUDE}#include "{HEADER}"\n{loops}')
    flags = ["-O2", "-ffp-contract=off", "-std=c++20", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
    compiled = ctypes.CDLL(str(library))

    def loop(name: str, x: Doubles, *rest: Doubles) -> Doubles:
        result = np.empty_like(x)
        rows = (row.ctypes.data_as(ctypes.c_void_p) for row in (x, *(rest or (x,)), result))
        compiled[f"{name}_loop"](*rows, ctypes.c_long(x.size))
        return result

    return {name: functools.partial(loop, name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_header_gives_the_same_bits(name: str, header_loops: dict[str, Loop]) -> None:
    rng = np.random.default_rng(5)
    n = 150_000
    x, near, middle = bit_patterns(rng, n), 1 + log_spaced(rng, -52, -1, n), log_spaced(rng, -60, 11, n)
    rows: list[Any] = [(x,), (middle,), (rng.uniform(-2, 2, n),)]
    if name == "power":
        whole, large = rng.integers(-2000, 2001, n).astype(np.float64), np.round(log_spaced(rng, 10, 62, n))
        rows = [(x, bit_patterns(rng, n)), (x, whole), (-near, large), (middle, whole), (np.abs(middle), near)]
    rows += [*cases_of(name).values(), np.array(SPECIAL[name]).T[:-1]]
    arguments = [np.concatenate(column) for column in zip(*rows, strict=True)]
    different = ~same(LOOPS[name](*arguments), header_loops[name](*arguments))
    assert not different.any(), np.column_stack(arguments)[different][:5]


def test_header_compiles_for_the_device_without_fused_multiply_add() -> None:
    nvrtc = pytest.importorskip(
        "cupy_backends.cuda.libs.nvrtc",
        reason="CuPy, which has the binding of NVRTC, is not installed",
        exc_type=ImportError,
    )
    stores = "".join(f"y[{i}] = exact::{name}(x[0]); " for i, name in enumerate(UNARY))
    kernel = f'extern "C" __global__ void all(double* x, double* y) {{ {stores} y[8] = exact::power(x[0], x[1]); }}'
    program = nvrtc.createProgram(f"{HEADER.read_text()}\n{kernel}", "all.cu", (), ())
    nvrtc.compileProgram(program, ("-arch=sm_90", "-fmad=false", "--std=c++17"))
    ptx = nvrtc.getPTX(program)
    text = ptx if isinstance(ptx, str) else ptx.decode()
    assert "mul.rn.f64" in text
    assert "fma" not in text


def python_texts() -> dict[str, list[str]]:
    """Of each function the signature in C++ spelling and the lines of its body, without comments."""
    texts = {}
    pattern = re.compile(r"^def (\w+)\((.*?)\) -> (\w+):\n(.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
    for name, arguments, result, body in pattern.findall(inspect.getsource(exact_math)):
        head = re.sub(r"(\w+): (\w+)", r"\2 \1", f"{name}: {result}({arguments})")
        head = re.sub(r"\bfloat(64)?\b", "double", head)
        texts[name] = [head, *(line for line in body.splitlines() if not re.match(r'\s*("""|#)', line))]
    return texts


def header_texts(source: str) -> dict[str, list[str]]:
    """The same, from C++ into Python spelling."""
    texts = {}
    pattern = re.compile(r"^__device__ inline (\w+ (\w+)\([^\n]*\)) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    for head, name, body in pattern.findall(source):
        body = re.sub(r"^ *(//.*|\})\n", "", body, flags=re.MULTILINE)
        body = re.sub(r"^( *)(double|Pair|int64|bool) (?=\w+ = )", r"\1", body, flags=re.MULTILINE)
        body = re.sub(r"(if|while) \((.*)\) \{$", r"\1 \2:", body, flags=re.MULTILINE)
        body = re.sub(r"!(?!=)", "not ", body.replace(";\n", "\n").replace("&&", "and").replace("||", "or"))
        texts[name] = [head, *body.splitlines()]
    return texts


def test_both_texts_are_the_same() -> None:
    source = HEADER.read_text()
    python, header = python_texts(), header_texts(source)
    assert {*NAMES} < python.keys() == header.keys()
    casts = {"bits_of", "float_of"}  # which each language spells in its own way
    for name in python.keys() - casts:
        assert python[name] == header[name]
    constants = re.findall(r"^([A-Z]\w+) = (\S+)", inspect.getsource(exact_math), re.MULTILINE)
    assert constants == re.findall(r"^constexpr double ([A-Z]\w+) = (\S+);", source, re.MULTILINE)


def test_text_check_sees_a_difference() -> None:
    source = HEADER.read_text()
    for old, new in (("t * 0.04)", "t * 0.05)"), ("(b - t)", "(b + t)"), ("a <= 1.0", "a < 1.0"), ("n >> 1", "n >> 2")):
        changed = header_texts(source.replace(old, new))
        assert sum(changed[name] != text for name, text in header_texts(source).items()) == 1

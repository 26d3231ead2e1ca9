"""rounding: right by NumPy's float16 and ml_dtypes' bfloat16, unbiased, and one text with kernels/rounding.cuh."""

import ast
import ctypes
import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host_kernels
import numba
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from optional import missing

from gpuadam import nvrtc, rounding
from gpuadam.codes import SIGNED_CODES, UNSIGNED_CODES

HEADER = Path(__file__).parents[1] / "kernels" / "rounding.cuh"
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
NANS = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00000], np.uint32)
TABLES = {"signed": SIGNED_CODES, "unsigned": UNSIGNED_CODES}
DRAWS = 1_000_000
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")  # NumPy's, of NaN and infinity
formats = pytest.mark.parametrize("name", DTYPES)
tables = pytest.mark.parametrize("table", TABLES)


def types_of(function: Callable[..., Any]) -> list[Any]:
    """Of the arguments, then of the result."""
    signature = inspect.signature(function)
    return [*(p.annotation for p in signature.parameters.values()), signature.return_annotation]


def vectorised(function: Callable[..., Any], types: list[Any]) -> Any:
    *arguments, result = (numba.from_dtype(np.dtype(t)) for t in types)
    return numba.vectorize([result(*arguments)])(function)


COMPILED = {
    name: f for name, f in vars(rounding).items() if inspect.isfunction(f) and f.__module__ == rounding.__name__
}
NUMBERS = (np.generic, bool)
FUNCTIONS = {  # those of numbers alone
    name: f for name, f in COMPILED.items() if all(inspect.isclass(t) and issubclass(t, NUMBERS) for t in types_of(f))
}
LOOPS = {name: vectorised(function, types_of(function)) for name, function in FUNCTIONS.items()}
CODE_TYPES = [np.float32, np.uint32, np.uint8]
QUANTISE = {
    "signed": vectorised(lambda x, random: rounding.signed_code(x, SIGNED_CODES, random), CODE_TYPES),
    "unsigned": vectorised(lambda x, random: rounding.unsigned_code(x, UNSIGNED_CODES, random), CODE_TYPES),
}


def randoms(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


def all_values(name: str) -> Any:
    """Of all 65,536 codes, by the reference."""
    return np.arange(65536, dtype=np.uint16).view(DTYPES[name])


def to_double(codes: Any, name: str) -> Any:
    return codes.view(DTYPES[name]).astype(np.float64)


def boundaries(name: str) -> Any:
    """Every value, every middle between two, the float32 on either side of these, and what lies beyond the largest."""
    values = np.sort(all_values(name)[np.isfinite(all_values(name))].astype(np.float64))
    ulp = values[-1] - values[-2]
    ends = np.multiply.outer([-1, 1], [values[-1] + ulp / 2, values[-1] + ulp, 3e38, 3.4028234663852886e38, np.inf])
    exact = np.concatenate([values, (values[1:] + values[:-1]) / 2, ends.ravel()]).astype(np.float32)
    return np.concatenate([exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))])


def float32_patterns(name: str = "float16") -> Any:
    return np.concatenate([randoms(2**20).view(np.float32), boundaries(name), NANS.view(np.float32)])


# ---- 16 bits


@formats
def test_value_of_every_code(name):
    got, expected = LOOPS[f"{name}_value"](np.arange(65536, dtype=np.uint16)), all_values(name).astype(np.float32)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    there = ~np.isnan(expected)
    assert np.array_equal(got.view(np.uint32)[there], expected.view(np.uint32)[there])


@formats
def test_nearest(name):
    x = float32_patterns(name)
    got, expected = LOOPS[f"{name}_nearest"](x), x.astype(DTYPES[name]).view(np.uint16)
    there = ~np.isnan(x)
    assert np.array_equal(got[there], expected[there])
    assert np.isnan(to_double(got[~there], name)).all()


@formats
@pytest.mark.parametrize("kind", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", NANS, ids=lambda bits: f"{bits:08x}")
def test_nan_payload_7fffffff_stays_nan(name, kind, bits):
    """An increment carries out of 0x7fffffff: elsewhere this NaN became -0.0."""
    x = np.full(1000, bits, np.uint32).view(np.float32)
    more = [np.append(randoms(998), [0, 0xFFFFFFFF]).astype(np.uint32)] if kind == "stochastic" else []
    got = LOOPS[f"{name}_{kind}"](x, *more)
    assert np.isnan(to_double(got, name)).all()
    assert len(np.unique(got)) == 1


def neighbours(x: float, name: str) -> tuple[float, float]:
    """The values of the format on either side of x, or x twice."""
    values = np.unique(to_double(np.arange(65536, dtype=np.uint16), name))
    values = values[np.isfinite(values)]
    return values[values <= x][-1], values[values >= x][0]


VALUES = {
    "float16": (
        *(1.0003, -1.0003, 3.14159, -2049.7, 65503.0, -65473.1),
        *(6.1035e-05, 6.0975e-05, 3.3e-05, -1.01e-05, 5.96e-08, 1.1e-07, -3e-08, 2e-08, 1e-10),
    ),
    "bfloat16": (1.001, -1.001, 3.14159, -2049.7, 3.389e38, -3.38e38, 1.1755e-38, -1.1e-38, 1e-40, 5e-41, -1.4e-45),
}


@pytest.mark.parametrize(("name", "x"), [(name, np.float32(x)) for name in DTYPES for x in VALUES[name]])
def test_stochastic_rounding_is_unbiased(name, x):
    lower, upper = neighbours(float(x), name)
    assert lower < x < upper
    got = to_double(LOOPS[f"{name}_stochastic"](x, randoms(DRAWS)), name)
    assert np.isin(got, [lower, upper]).all()
    p = (float(x) - lower) / (upper - lower)
    error = ((got - lower) / (upper - lower)).mean() - p
    assert abs(error) < 4 * np.sqrt(p * (1 - p) / DRAWS)


@pytest.mark.parametrize("exponent", [0, 5, -14, -15, -16, -17])
def test_stochastic_rounding_to_float16_has_exact_probabilities(exponent):
    """All random numbers that differ in what is read of them: as many go up as the distance is large."""
    dropped = 13 + max(0, -14 - exponent)
    every = np.arange(2**dropped, dtype=np.uint32) << np.uint32(32 - dropped)
    for below in (1, 2, 1000, 2 ** (dropped - 1), 2**dropped - 1):
        x = np.float32(2.0**exponent * (1 + below * 2.0**-23))
        lower, upper = neighbours(float(x), "float16")
        got = to_double(LOOPS["float16_stochastic"](x, every), "float16")
        assert (got == upper).sum() == below
        assert (got == lower).sum() == 2**dropped - below


def test_stochastic_rounding_to_bfloat16_has_exact_probabilities():
    every = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    for start in (0x3F800000, 0x7F7E0000, 0x00000000, 0x00800000):
        for below in (1, 1000, 2**15, 2**16 - 1):
            got = LOOPS["bfloat16_stochastic"](np.uint32(start + below).view(np.float32), every)
            assert (got == (start >> 16) + 1).sum() == below
            assert (got == start >> 16).sum() == 2**16 - below


@formats
def test_stochastic_rounding_keeps_exact_values_and_infinity(name):
    codes = np.arange(65536, dtype=np.uint16)
    codes = codes[~np.isnan(to_double(codes, name))]
    for random in (*randoms(20), np.uint32(0), np.uint32(0xFFFFFFFF)):
        assert np.array_equal(LOOPS[f"{name}_stochastic"](LOOPS[f"{name}_value"](codes), random), codes)


@formats
def test_stochastic_rounding_is_symmetric_in_sign(name):
    x = float32_patterns(name)
    x = x[~np.isnan(x)]
    stochastic, random = LOOPS[f"{name}_stochastic"], randoms(len(x), 1)
    assert np.array_equal(stochastic(-x, random), stochastic(x, random) ^ np.uint16(0x8000))


@formats
def test_stochastic_rounding_beyond_the_largest_value_is_nearest(name):
    largest = np.float32(ml_dtypes.finfo(DTYPES[name]).max).view(np.uint32)
    x = np.concatenate([np.arange(largest + 1, largest + 40_000), randoms(40_000) % (0x7F800001 - largest) + largest])
    x = np.concatenate([x, x | 0x80000000]).astype(np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    for random in (randoms(len(x), 1), np.uint32(0), np.uint32(0xFFFFFFFF)):
        assert np.array_equal(LOOPS[f"{name}_stochastic"](x, random), LOOPS[f"{name}_nearest"](x))


# ---- a float32 in two halves


def halves(x: Any) -> tuple[Any, Any]:
    return LOOPS["remainder_high"](x), LOOPS["remainder_low"](x)


def remainder_patterns() -> Any:
    highs = np.arange(65536, dtype=np.uint32) << np.uint32(16)
    lows = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return np.concatenate([randoms(2**22), np.add.outer(highs, lows).ravel(), NANS])


def test_remainder_restores_every_float32():
    bits = remainder_patterns()
    x = bits.view(np.float32)
    joined = LOOPS["remainder_join"](*halves(x))
    there = ~np.isnan(x)
    assert np.array_equal(joined.view(np.uint32)[there], bits[there])
    assert np.isnan(joined[~there]).all()


def test_remainder_high_is_the_nearest_bfloat16():
    bits = remainder_patterns()
    bits = bits[~np.isnan(bits.view(np.float32))]
    high, nearest = halves(bits.view(np.float32))[0], bits.view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    is_tie = (bits & 0xFFFF) == 0x8000
    assert np.array_equal(high[~is_tie], nearest[~is_tie])
    assert np.array_equal(high[is_tie], (bits[is_tie] >> 16) + 1)  # away from 0


@pytest.mark.parametrize("bits", NANS, ids=lambda bits: f"{bits:08x}")
def test_nan_payload_7fffffff_stays_nan_in_two_halves(bits):
    """High and low alone would be 0x8000 and -1: elsewhere the bfloat16 became -0.0."""
    high, low = halves(np.array([bits]).view(np.float32))
    assert np.isnan(to_double(high, "bfloat16")).all()
    assert np.array_equal(low, [0])
    assert np.isnan(LOOPS["remainder_join"](high, low)).all()


def test_a_changed_high_with_a_stale_low_stays_within_half_an_ulp():
    """Above all 0 and infinity, from which a low of the other sign would lead to NaN."""
    lows = np.concatenate([randoms(60).astype(np.uint16), np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint16)])
    high, low = (part.ravel() for part in np.meshgrid(np.arange(65536, dtype=np.uint16), lows))
    joined, own = LOOPS["remainder_join"](high, low).astype(np.float64), to_double(high, "bfloat16")
    there = ~np.isnan(own)
    assert np.array_equal(np.isnan(joined), ~there)
    magnitudes = to_double(np.arange(0x7F81, dtype=np.uint16), "bfloat16")
    magnitudes[-1] = 2.0**128  # infinity is where the next number would be
    gaps = np.diff(magnitudes, append=2 * magnitudes[-1] - magnitudes[-2])
    joined, own = (np.clip(part[there], -(2.0**128), 2.0**128) for part in (joined, own))
    assert (np.abs(joined - own) <= gaps[high[there] & 0x7FFF] / 2).all()
    assert (np.signbit(joined) == np.signbit(own)).all()


# ---- random numbers


@numba.njit
def draws(streams, count):
    result = np.empty((len(streams), count), np.uint32)
    for i in range(len(streams)):
        for j in range(count):
            result[i, j] = rounding.draw(streams[i], j)
    return result


@numba.njit
def weak_draws(streams, count):
    result = np.empty((len(streams), count), np.uint32)
    for i in range(len(streams)):
        for j in range(count):
            result[i, j] = np.uint32(streams[i]) + np.uint32(j * 0x9E3779B9)
    return result


AXES = {"seed": 0, "step": 1, "tensor": 2, "chunk": 3, "slot": 4}


def streams_of(varied: str, places: Any) -> Any:
    """Streams that differ along one axis."""
    numbers: list[Any] = [np.uint64(7), np.int64(3), np.int64(5), np.int64(2), np.uint32(1)]
    numbers[AXES[varied]] = places.astype(numbers[AXES[varied]].dtype)
    return LOOPS["slot_key"](LOOPS["chunk_key"](*numbers[:4]), numbers[4])


def require_uniform(drawn: Any) -> None:
    """Mean, each bit and the top byte, each within 4 standard errors."""
    n = drawn.size
    assert n >= DRAWS
    assert abs(drawn.mean() / 2**32 - 0.5) < 4 * np.sqrt(1 / 12 / n)
    for bit in range(32):
        assert abs((drawn >> np.uint32(bit) & np.uint32(1)).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    counts = np.bincount((drawn >> np.uint32(24)).ravel(), minlength=256)
    assert abs(((counts - n / 256) ** 2).sum() / (n / 256) - 255) < 4 * np.sqrt(2 * 255)


def require_independent(a: Any, b: Any) -> None:
    """Their correlation, how often each bit agrees, and the pairs of upper four bits, within 4 standard errors."""
    n = a.size
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(n)
    for bit in range(32):
        assert abs(((a ^ b) >> np.uint32(bit) & np.uint32(1)).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    counts = np.bincount(((a >> np.uint32(28) << np.uint32(4)) | (b >> np.uint32(28))).ravel(), minlength=256)
    assert abs(((counts - n / 256) ** 2).sum() / (n / 256) - 255) < 4 * np.sqrt(2 * 255)


@pytest.mark.parametrize("varied", AXES)
def test_draws_are_uniform_and_neighbours_independent(varied):
    """2^20 draws, of 1,024 elements in streams next to one another."""
    places = np.arange(1025)
    drawn = draws(streams_of(varied, places), 1024)
    require_uniform(drawn[:-1])
    require_independent(drawn[:-1], drawn[1:])
    require_independent(drawn[:, :-1], drawn[:, 1:])


@pytest.mark.parametrize("lag", 2 ** np.arange(1, 10))
def test_draws_far_apart_in_a_chunk_are_independent(lag):
    drawn = draws(streams_of("chunk", np.arange(2048)), 1024)
    require_independent(drawn[:, :-lag], drawn[:, lag:])


def variance_of_means(drawn: Any) -> float:
    """Of the means of streams, in standard errors from that of independent draws."""
    count, length = drawn.shape
    means = (drawn / 2.0**32).mean(1)
    return (means.var(ddof=1) * 12 * length - 1) / np.sqrt(2 / count)


@pytest.mark.parametrize("length", [2, 16, 128, 1024])
def test_a_chunk_as_a_whole_is_neither_too_even_nor_too_uneven(length):
    """A sequence that fills the range evenly would pass each test of pairs."""
    assert abs(variance_of_means(draws(streams_of("chunk", np.arange(4096)), length))) < 4
    assert abs(variance_of_means(weak_draws(streams_of("chunk", np.arange(4096)), length))) > 4


def test_both_halves_of_a_stream_enter_its_draws():
    streams = LOOPS["chunk_key"](np.uint64(1), np.int64(1), np.int64(1), np.arange(100))
    drawn = draws(streams, 1024)
    for changed in (streams ^ np.uint64(1 << 63), streams ^ np.uint64(1 << 31)):
        assert (draws(changed, 1024) == drawn).mean() < 1e-4


def test_those_tests_see_a_weak_generator():
    drawn = weak_draws(streams_of("chunk", np.arange(1025)), 1024)
    with pytest.raises(AssertionError):
        require_independent(drawn[:, :-1], drawn[:, 1:])
    same = draws(streams_of("chunk", np.arange(1025) // 2), 1024)  # a key that one number does not enter
    with pytest.raises(AssertionError):
        require_independent(same[:-1], same[1:])
    with pytest.raises(AssertionError):
        require_uniform(drawn | np.uint32(4))


def test_keys_do_not_repeat_nor_confuse_their_numbers():
    places = np.array([0, 1, 2, 3, 1000, 2**31, 2**32, 2**32 + 1, 2**40])
    grid = [part.ravel() for part in np.meshgrid(places.astype(np.uint64), places, places, places)]
    assert len(np.unique(LOOPS["chunk_key"](*grid))) == len(places) ** 4


def test_unit():
    random = np.append(randoms(10_000), [0, 255, 256, 0xFFFFFFFF]).astype(np.uint32)
    got = LOOPS["unit"](random)
    assert np.array_equal(got, np.floor(random / 256.0) / 2.0**24)
    assert got.min() == 0.0
    assert got.max() < 1.0


# ---- 8 bits


def test_tables_are_those_of_dynamic_tree_quantisation():
    """Middles of equal parts of [0.1, 1], as many as the bits behind the leading one can number, times 10^-zeros."""
    for table, bits in (("signed", 6), ("unsigned", 7)):
        expected = []
        for zeros in range(7):
            ends = np.linspace(0.1, 1.0, 2 ** (bits - zeros) + 1)
            expected += list((ends[1:] + ends[:-1]) / 2 / 10**zeros)
        positive = TABLES[table][TABLES[table] > 0]
        if table == "signed":
            assert positive[-1] == 1.0
            positive, expected = positive[:-1], sorted(expected)[:-1]  # 1 is in the place of 0.993
        else:
            expected = [*expected, 1.0]
        np.testing.assert_allclose(positive, sorted(expected), rtol=1e-7)
    assert TABLES["unsigned"][0] == 0.0
    assert np.array_equal(TABLES["signed"], -TABLES["signed"][::-1])


@tables
def test_tables_rise_and_hold_256_floats(table):
    codes = TABLES[table]
    assert codes.dtype == np.float32
    assert codes.shape == (256,)
    assert (np.diff(codes) > 0).sum() == (254 if table == "signed" else 255)
    assert (np.diff(codes) >= 0).all()
    assert {0.0, 1.0} < set(codes.tolist())


def bracket(x: Any, codes: Any) -> tuple[Any, Any]:
    values = np.unique(codes)
    return values[np.searchsorted(values, x, "right") - 1], values[np.searchsorted(values, x, "left")]


@tables
def test_quantise_takes_a_code_next_to_x_and_keeps_exact_ones(table):
    codes, rng = TABLES[table], np.random.default_rng(3)
    scale = 10.0 ** rng.uniform(-8, 0, 200_000)
    x = (scale * rng.choice([-1.0, 1.0] if table == "signed" else [1.0], scale.size)).astype(np.float32)
    got = codes[QUANTISE[table](x, randoms(x.size))]
    lower, upper = bracket(x, codes)
    lower[(lower == 0) & (table == "unsigned")] = codes[1]
    assert ((got == lower) | (got == upper)).all()
    for random in (*randoms(20), np.uint32(0), np.uint32(0xFFFFFFFF)):
        assert np.array_equal(codes[QUANTISE[table](codes, random)], codes)


def searched_codes(x: Any, codes: Any, random: Any) -> Any:
    """By the last value that is not above x, wherever it is, and the one after it."""
    lower = np.maximum(np.searchsorted(codes, x, "right") - 1, 0)
    upper = np.minimum(lower + 1, 255)
    unit = (random >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    is_upper = unit * (codes[upper] - codes[lower]) < x - codes[lower]
    return np.maximum(np.where(is_upper, upper, lower), x > 0)


def near_codes(codes: Any) -> Any:
    """Every value, what lies between two and the powers of ten, with three float32 on either side, and random ones."""
    powers = 10.0 ** -np.arange(45)
    x = np.concatenate([codes, (codes[1:] + codes[:-1]) / 2, powers, -powers]).astype(np.float32)
    x = np.add.outer(x.view(np.int32), np.arange(-3, 4)).astype(np.int32).ravel().view(np.float32)
    drawn = np.random.default_rng(6).uniform(-1, 1, 2**20)
    steep = np.sign(drawn) * 10.0 ** (-9 * np.abs(drawn))
    x = np.concatenate([x, drawn, steep, [0.0, -0.0, np.inf, -np.inf]]).astype(np.float32)
    x = np.concatenate([x, randoms(2**22, 7).view(np.float32)])
    return x[~np.isnan(x)]


@tables
def test_codes_are_those_that_a_search_finds(table):
    x = near_codes(TABLES[table])
    for random in (randoms(len(x), 8), np.uint32(0), np.uint32(0xFFFFFFFF)):
        assert np.array_equal(QUANTISE[table](x, random), searched_codes(x, TABLES[table], random))


@tables
def test_places_have_neighbours_in_the_table_even_those_of_nan(table):
    x = np.concatenate([near_codes(TABLES[table]), NANS.view(np.float32)])
    places = LOOPS[f"{table}_place"](x if table == "signed" else np.abs(x))
    assert (places.min(), places.max()) == (1, 254)


@tables
@pytest.mark.parametrize("x", [0.98, 0.994, 0.5, 0.0123, 3.3e-4, 2e-6, 4e-7, -1e-7, -0.3, -0.99])
def test_quantise_is_unbiased(table, x):
    x = np.float32(x)
    if table == "unsigned":
        x = abs(x)
    lower, upper = (float(end) for end in bracket(x, TABLES[table]))
    if table == "unsigned" and lower == 0:
        return
    got = TABLES[table][QUANTISE[table](x, randoms(DRAWS))]
    p = (float(x) - lower) / (upper - lower)
    error = (got.astype(np.float64).mean() - float(x)) / (upper - lower)
    assert abs(error) < 4 * np.sqrt(p * (1 - p) / DRAWS)


def test_unsigned_values_above_0_never_become_0():
    x = np.array([1e-45, 1e-38, 1e-20, 1e-9, 1e-7, 3.2e-7, 4e-7], np.float32)[:, None]
    random = np.append(randoms(1000), [0, 0xFFFFFFFF]).astype(np.uint32)
    assert (QUANTISE["unsigned"](x, random) >= 1).all()
    assert (QUANTISE["unsigned"](np.float32(0), random) == 0).all()


@tables
def test_quantise_of_what_division_may_round_beyond_1(table):
    above = np.nextafter(np.float32(1), np.float32(2))
    assert (TABLES[table][QUANTISE[table](above, randoms(100))] == 1.0).all()
    assert (TABLES[table][QUANTISE[table](-above, randoms(100))] == TABLES[table][0]).all()


# ---- machine code


def machine_code(function: Callable[..., Any], types: list[Any]) -> str:
    """The LLVM of a function alone."""
    signature = tuple(numba.typeof(t) if isinstance(t, np.ndarray) else numba.from_dtype(np.dtype(t)) for t in types)
    compiled = numba.njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return re.search(r"^define .*?^}", compiled.inspect_llvm(compiled.signatures[0]), re.MULTILINE | re.DOTALL)[0]


CODE = {**FUNCTIONS, **{name: getattr(rounding, name) for name in ("quantise", "signed_code", "unsigned_code")}}


@pytest.mark.parametrize("name", CODE)
def test_no_double_and_no_branch_in_the_machine_code(name):
    types = types_of(CODE[name])[:-1]
    code = machine_code(CODE[name], [SIGNED_CODES if t is Any else t for t in types])
    assert not re.search(r"\bdouble\b|\bfpext\b", code)
    assert "br i1" not in code


def test_that_test_sees_a_double_and_a_branch():
    assert "fpext" in machine_code(lambda x: x * 0.5, [np.float32])
    assert "br i1" in machine_code(lambda x, y: x if x > 0 else x // y, [np.int32, np.int32])


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith(("float16", "bfloat16", "remainder"))])
def test_loops_vectorise(name):
    function = numba.njit(FUNCTIONS[name])
    many = len(types_of(function.py_func)) > 2

    @numba.njit
    def loop(x, y, result):
        for i in range(len(x)):
            result[i] = function(x[i], y[i]) if many else function(x[i])

    first, *rest, result = (numba.from_dtype(np.dtype(t))[::1] for t in types_of(function.py_func))
    loop.compile((first, rest[0] if rest else first, result))
    assert re.search(r"<\d+ x i32>", loop.inspect_llvm(loop.signatures[0]))


# ---- the twin


PRELUDE = r"""
#include <cmath>
#include <cstring>
#define __device__
static inline float __uint_as_float(unsigned n) { float x; std::memcpy(&x, &n, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned n; std::memcpy(&n, &x, 4); return n; }
"""
BUILDS = {"plain": ["-O2", "-Werror"], "undefined": ["-O1", "-fsanitize=undefined"]}


def header_loops(folder: Path, build: str, text: str) -> ctypes.CDLL:
    """Each function of the header over arrays, through the host compiler."""
    if host_kernels.COMPILER is None:
        missing("g++ is not there to compile the kernels")
    loops = []
    for name, function in CODE.items():
        *arguments, result = types_of(function)
        given = ["const float* codes" if t is Any else f"const {c_type(t)}* a{i}" for i, t in enumerate(arguments)]
        passed = ["codes" if t is Any else f"a{i}[i]" for i, t in enumerate(arguments)]
        loops.append(
            f'extern "C" void {name}_loop({", ".join(given)}, {c_type(result)}* z, long n) '
            f"{{ for (long i = 0; i < n; ++i) z[i] = rounding::{name}({', '.join(passed)}); }}"
        )
    source, library = folder / "loops.cpp", folder / "loops.so"
    (folder / "rounding.cuh").write_text(text)
    source.write_text("\n".join([PRELUDE, '#include "rounding.cuh"', *loops]))
    flags = ["-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", *BUILDS[build]]
    subprocess.run([str(host_kernels.COMPILER), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def c_type(kind: Any) -> str:
    return "bool" if kind is bool else f"rounding::{np.dtype(kind).name}"


def run_loop(library: ctypes.CDLL, name: str, *arrays: Any) -> Any:
    """A loop of the library over arrays of one length; a table of codes is taken whole."""
    arrays = tuple(np.ascontiguousarray(array) for array in arrays)
    result = np.empty(len(arrays[0]), types_of(CODE[name])[-1])
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (*arrays, result))
    library[f"{name}_loop"](*pointers, ctypes.c_long(len(result)))
    return result


def patterns(kind: Any, count: int, seed: int) -> Any:
    """Random bits of a type, and after them its edges."""
    dtype = np.dtype(kind)
    bits = np.random.default_rng(seed).bytes(count * dtype.itemsize)
    if dtype != np.float32:
        return np.frombuffer(bits, dtype)
    edges = np.concatenate([boundaries("float16"), boundaries("bfloat16"), NANS.view(np.float32)])
    return np.concatenate([np.frombuffer(bits, dtype)[: count - len(edges)], edges])


def as_bits(array: Any) -> Any:
    return array if array.dtype == bool else array.view(f"u{array.itemsize}")


@pytest.fixture(scope="module", params=BUILDS)
def twin(request, tmp_path_factory):
    return header_loops(tmp_path_factory.mktemp("rounding"), request.param, HEADER.read_text())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_header_gives_the_same_bits(name, twin, capfd):
    arguments = [patterns(t, 2**20, seed) for seed, t in enumerate(types_of(FUNCTIONS[name])[:-1])]
    if name == "least":
        there = ~np.isnan(arguments).any(0)
        arguments = [argument[there] for argument in arguments]
    assert np.array_equal(as_bits(run_loop(twin, name, *arguments)), as_bits(LOOPS[name](*arguments)))
    assert "runtime error" not in capfd.readouterr().err


@tables
def test_header_quantises_to_the_same_codes(table, twin, capfd):
    x = np.concatenate([patterns(np.float32, 2**20, 0), np.random.default_rng(4).uniform(-1, 1, 2**18)])
    x = np.append(x, TABLES[table]).astype(np.float32)
    random = randoms(len(x), 5)
    assert np.array_equal(run_loop(twin, f"{table}_code", x, TABLES[table], random), QUANTISE[table](x, random))
    assert "runtime error" not in capfd.readouterr().err


def test_that_test_sees_undefined_behaviour(tmp_path, capfd):
    text = HEADER.read_text()
    planted = text.replace("uint32(31) - dropped", "uint32(63) - dropped")
    assert planted != text
    library = header_loops(tmp_path, "undefined", planted)
    run_loop(library, "float16_stochastic", patterns(np.float32, 2**20, 0), randoms(2**20))
    assert "runtime error: shift exponent" in capfd.readouterr().err


OWN = {"float_bits", "bits_float", "select", "least", "absolute"}  # which each language spells in its own way


def python_texts() -> dict[str, str]:
    """Of each compiled function the signature and the body, as Python spells a syntax tree."""
    texts = {}
    for name, function in COMPILED.items():
        (node,) = ast.parse(inspect.getsource(function)).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            head = f"{name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
            texts[name] = "\n".join([head, ast.unparse(body)])
    return texts


def header_texts(source: str) -> dict[str, str]:
    """The same, from C++."""
    texts = {}
    pattern = re.compile(r"^__device__ inline (\w+) (\w+)\((.*?)\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    for result, name, arguments, body in pattern.findall(re.sub(r"//.*", "", source)):
        lines, depth = [], 0
        for statement, end in re.findall(r"([^;{}]*)([;{}])", body):
            statement = re.sub(r"^(const )?(uint32|uint64|float32|bool) (?=\w+ = )", "", " ".join(statement.split()))
            loop = "    " * depth + re.sub(r"^while \((.*)\)$", r"while \1:", statement)
            lines += [loop] if statement else []
            depth += {"{": 1, "}": -1, ";": 0}[end]
        head = re.sub(r"(\w+) (\w+)", r"\2: \1", arguments.replace("const float32*", "Any"))
        text = "\n".join(lines)
        texts[name] = f"{name}({head}) -> {result}\n{text if name in OWN else ast.unparse(ast.parse(text))}"
    return texts


def test_both_texts_are_the_same():
    source = HEADER.read_text()
    python, header = python_texts(), header_texts(source)
    assert {*CODE, "select"} == python.keys() == header.keys()
    for name in python.keys() - OWN:
        assert python[name] == header[name]
    constants = re.findall(r"^([A-Z]\w+) = (u?\w+32)\((\S+)\)", inspect.getsource(rounding), re.MULTILINE)
    spelled = re.findall(r"^constexpr (\w+) ([A-Z]\w+) = \w+\((\S+?)f?\);", source, re.MULTILINE)
    assert constants == [(name, kind, value) for kind, name, value in spelled]
    assert len(constants) == source.count("constexpr ")


@pytest.mark.parametrize(
    ("old", "new"),
    [("x > ZERO", "x >= ZERO"), ("uint32(31) - dropped", "uint32(30) - dropped"), ("bits + uint32(0x8000)", "bits")],
)
def test_text_check_sees_a_difference(old, new):
    source = HEADER.read_text()
    assert source.count(old) == 1
    changed = header_texts(source.replace(old, new))
    assert sum(changed[name] != text for name, text in header_texts(source).items()) == 1


@pytest.mark.parametrize("architecture", [75, 90])
def test_header_compiles_for_the_device_without_double_and_without_branches(architecture):
    pytest.importorskip("cupy", reason="CuPy, which has the binding of NVRTC, is not installed")
    compiler = nvrtc.load_nvrtc()
    stores = []
    for name, function in CODE.items():
        *arguments, result = types_of(function)
        passed = [
            f"static_cast<const float*>(in[{i}])"
            if t is Any
            else f"static_cast<const {c_type(t)}*>(in[{i}])[threadIdx.x]"
            for i, t in enumerate(arguments)
        ]
        stores.append(
            f"static_cast<{c_type(result)}*>(out[{len(stores)}])[threadIdx.x] = rounding::{name}({', '.join(passed)});"
        )
    kernel = '#include "rounding.cuh"\nextern "C" __global__ void all(const void** in, void** out) {'
    source = "\n".join([kernel, *stores, "}"])
    program = compiler.createProgram(source, "all.cu", [HEADER.read_bytes()], [b"rounding.cuh"])
    compiler.compileProgram(program, (f"-arch=sm_{architecture}", *nvrtc.OPTIONS))
    ptx = compiler.getPTX(program).decode()
    assert ".entry all(" in ptx
    assert not re.search(r"\.f64|\.ftz|\bfma\.|\bbra\b|\bcall\b", ptx)
    assert compiler.getCUBIN(program).startswith(b"\x7fELF")

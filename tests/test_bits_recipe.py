"""The CUDA source against Numba, bit for bit, with the whole recipe: formats, clipping, averages, skipped steps.

A subset, whose names end in "sanitized_subset", has every value of every factor: `test_bits_sanitized` runs it.
"""

import itertools

import host_backend
import host_kernels
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from cases import LR, assert_same_bits, gradients, parameters
from host_backend import optimizer_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_cases import CASES, DTYPES, FACTORS, SUBSET, allows, make, name_of

import gpuadam
from gpuadam import cpu

pytestmark = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")

BOTH = [cpu, host_backend]
SIZES = [0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 2049]
SPECIAL = [0.0, -0.0, 1e-45, -3e-39, 5.9e-8, -6.2e-5, 65504.0, -7e4, 1e19, 3.4e38, -3.4e38]
NOT_FINITE = [np.inf, -np.inf, np.nan]
FOUND_AT = 4  # the step of which somebody says that it overflows


def array_of(values, dtype, is_aligned):
    """A row of numbers in memory that begins on a cache line, or one element beyond."""
    raw = np.zeros(len(values) + 65, dtype)
    begin = -raw.ctypes.data // dtype.itemsize % (64 // dtype.itemsize) + (0 if is_aligned else 1)
    found = raw[begin : begin + len(values)]
    with np.errstate(all="ignore"):
        found[:] = values
    return found.reshape(1, -1)


def finite(values, dtype):
    """What overflows in a narrower format becomes its largest number."""
    largest = float(ml_dtypes.finfo(dtype).max)
    return np.clip(values, -largest, largest)


def with_special(values, special, seed):
    """The numbers with some of them replaced at random places."""
    values, generator = values.astype(np.float64), np.random.default_rng(seed)
    places = generator.permutation(len(values))[: 2 * len(special)]
    values[places] = np.resize(special, len(places))
    return values


def parameters_of(case):
    """Rows of every size; one of them holds special values from the start."""
    dtype, found = DTYPES[case["weights"][0]], []
    for i, numel in enumerate(SIZES):
        values = parameters(numel, np.float64, seed=i)
        values = with_special(values, SPECIAL + NOT_FINITE, i) if numel == 255 else values
        found.append(array_of(values, dtype, case["aligned"] or i % 2 == 0))
    return found


def gradients_of(case, step):
    """Step 2 has special values, step 3 some that are not finite, in each step other tensors rest."""
    dtype, found = DTYPES[case["grad"]], []
    for i, numel in enumerate(SIZES):
        values = gradients(1, numel, np.float64, seed=100 * step + i, decades=8)[0]
        if step == 2 and numel in (257, 2049):
            values = finite(with_special(values, SPECIAL, i), dtype)
        if step == 3 and numel in (256, 1025):
            values = with_special(values, NOT_FINITE, i)
        rests = step == 1 and i % 5 == 4
        found.append(None if rests else array_of(values, dtype, case["aligned"] or i % 2 == 1))
    return found


def scalars_of(case, step):
    kind = case["scalars"]
    return {
        "none": {},
        "scale": {"grad_scale": 3.0 + step},
        "scale array": {"grad_scale": np.array([3.0 + step], np.float32)},
        "found": {"found_inf": step == FOUND_AT},
        "found array": {"found_inf": np.array(float(step == FOUND_AT))},
    }[kind]


def step_of(optimizer, grads, **scalars):
    """What the step says: nothing, or that a gradient is not finite."""
    try:
        optimizer.step(grads, **scalars)
    except FloatingPointError as error:
        return str(error)
    return "no error"


def picture(optimizer, params, grads=(), said=""):
    """All that can be seen of a run, arrays copied."""
    has_norms = optimizer._engine.tensors.scope_count
    return {
        "parameters": [param.copy() for param in params],
        "gradients": [None if grad is None else grad.copy() for grad in grads],
        "norms": np.array(optimizer.gradient_norms() if has_norms else []),
        "said": said,
        "state": None if optimizer._engine.is_swapped else optimizer.state_dict(),
    }


def run(case, backend, monkeypatch, steps=6):
    """Pictures after each step of a case, and with the averages in place of the parameters."""
    params = parameters_of(case)
    half = len(params) // 2
    groups = [{"params": params[:half]}, {"params": params[half:], "lr": 0.03}]
    optimizer = optimizer_on(backend, monkeypatch, make, case, groups)
    found = []
    for step in range(steps):
        grads = gradients_of(case, step)
        said = step_of(optimizer, grads, **scalars_of(case, step))
        found.append(picture(optimizer, params, grads, said))
    for _ in range(2 * case["ema"]):
        optimizer.swap_ema()
        found.append(picture(optimizer, params))
    return found


def assert_equal(ours, theirs, what):
    """Nested dicts and lists alike, arrays to the bit."""
    assert type(ours) is type(theirs), what
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), what
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{what} {key}")
    elif isinstance(ours, list):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{what} {i}")
    elif isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), what
        assert_same_bits(ours, theirs, what)
    else:
        assert repr(ours) == repr(theirs), what


def assert_both_equal(case, monkeypatch):
    ours, theirs = (run(case, backend, monkeypatch) for backend in BOTH)
    assert_equal(ours, theirs, "step")
    return ours


# ---- the covering array


def test_every_pair_of_values_occurs():
    for (first, ones), (second, others) in itertools.combinations(FACTORS.items(), 2):
        for pair in itertools.product(ones, others):
            is_there = any((case[first], case[second]) == pair for case in CASES)
            assert is_there == allows(dict(zip((first, second), pair, strict=True))), (first, second, pair)
    for name, values in FACTORS.items():
        assert {case[name] for case in SUBSET} == set(values)
    assert len(SUBSET) <= 12


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_recipe(case, monkeypatch):
    pictures = assert_both_equal(case, monkeypatch)
    skipped = [picture["state"]["skipped_steps"] for picture in pictures[:6]]
    expected = np.zeros(6, int)
    expected[3] = case["nonfinite"] != "propagate"
    expected[FOUND_AT] = "found" in case["scalars"]
    assert skipped == np.cumsum(expected).tolist()
    assert ("not finite" in pictures[3]["said"]) == (case["nonfinite"] == "raise")
    clears = [all(np.all(grad == 0) for grad in picture["gradients"] if grad is not None) for picture in pictures[:6]]
    assert clears == [case["zero_grads"]] * 6


# ---- several formats in one optimizer


def mixed(monkeypatch, backend, steps=5):
    """Parameters, gradients and states of several formats: several launches, one clock, one norm."""
    forms = [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("float64", "float64"), ("float16", "float32")]
    kinds = [*forms, ("float32", "float32")]
    params = [
        array_of(parameters(700 + i, np.float64, seed=i), DTYPES[form], True) for i, (form, _) in enumerate(kinds)
    ]
    params[-1] = params[-1].ravel()  # of one axis, so its states stay as they are
    recipe = {"clip_norm": 0.1, "ema_decay": 0.5, "state_dtype": "int8", "int8_from": 0, "master": "float32"}
    optimizer = optimizer_on(backend, monkeypatch, gpuadam.AdamW, params, lr=LR, **recipe)
    found = []
    for step in range(steps):
        shift = step % 2  # formats of gradients change between steps, so the chunks are sorted anew
        grads = []
        for i, (param, (_, form)) in enumerate(zip(params, kinds, strict=True)):
            own = "float16" if shift and form == "bfloat16" else form
            values = gradients(1, param.size, np.float64, seed=10 * step + i)[0]
            grads.append(array_of(values, DTYPES[own], True).reshape(param.shape))
        optimizer.step(grads)
        found.append(picture(optimizer, params, grads))
    return found


def test_formats_in_one_optimizer_share_clock_and_norm(monkeypatch):
    ours, theirs = (mixed(monkeypatch, backend) for backend in BOTH)
    assert_equal(ours, theirs, "step")
    assert ours[-1]["state"]["groups"][0]["step"] == 5
    total = sum(float(np.sum(np.square(grad.astype(np.float64)))) for grad in ours[-1]["gradients"])
    assert ours[-1]["norms"][0] == pytest.approx(np.sqrt(total), rel=1e-12)


# ---- any values


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_and_shapes(data, monkeypatch):
    case = data.draw(st.sampled_from(SUBSET))
    shapes = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=3))
    values = st.sampled_from(SPECIAL + NOT_FINITE) | st.floats(width=32)
    numbers = data.draw(st.lists(values, min_size=8, max_size=24))
    scale = data.draw(st.sampled_from([1.0, 3.0, 65536.0, 1e-30]))
    found = []
    for backend in BOTH:
        rows = [np.roll(np.resize(numbers, m * n), m).reshape(m, n) for m, n in shapes]
        with np.errstate(all="ignore"):
            params = [row.astype(DTYPES[case["weights"][0]]) for row in rows]
            grads = [row[::-1].astype(DTYPES[case["grad"]]) for row in rows]
        optimizer = optimizer_on(backend, monkeypatch, make, case, [{"params": params}])
        found.append([])
        for _ in range(3):
            said = step_of(optimizer, grads, grad_scale=scale)
            found[-1].append(picture(optimizer, params, grads, said))
    assert_equal(*found, "step")


# ---- planted faults


def case_with(**values):
    """A case of the array with these values."""
    return next(case for case in CASES if all(case[name] == value for name, value in values.items()))


WRITE = "Weights::write(weight, rounding::draw(stream, place.index + j), param.element[j], companion.element[j]);"
MOVE = "move_average(ema.element[j], Weights::read(param.element[j], companion.element[j]), c.ema_weight);"
FAULTS = {
    "the average's operations in another order": (
        {"ema": True, "weights": ("float32", "plain")},
        ("step.cu", "average + share * (weight - average)", "(average - share * average) + share * weight"),
    ),
    "the average moved ahead of the update": (
        {"ema": True},
        ("step.cu", f"{WRITE}\n        {MOVE}", f"{MOVE}\n        {WRITE}"),
    ),
    "an element compared with the wrong bound": (
        {"clip": "value"},
        ("walk.cuh", "grad < -c.clip_value ?", "grad < c.clip_value ?"),
    ),
    "a norm that is NaN taken for a small one": (
        {"clip": "tensor", "nonfinite": "propagate"},
        ("scalars.cuh", "norm <= clip_norm ?", "!(norm > clip_norm) ?"),
    ),
    "gradients left in the scale of the loss": (
        {"scalars": "scale"},
        ("scalars.cuh", "const double factor = inverse_scale(launch)", "const double factor = 1.0"),
    ),
    "a scalar read as a double": (
        {"scalars": "scale array"},
        ("scalars.cuh", "return is_double ?", "return !is_double ?"),
    ),
    "the random number of the next element": (
        {"weights": ("bfloat16", "stochastic")},
        ("step.cu", "rounding::draw(stream, place.index + j)", "rounding::draw(stream, place.index + j + 1)"),
    ),
    "two states with the same random numbers": (
        {"states": "bfloat16", "rule": "amsgrad"},
        ("step.cu", "rounding::slot_key(key, 2)", "rounding::slot_key(key, 1)"),
    ),
    "the scale of another block": (
        {"states": "int8"},
        ("granules.cuh", "place.index / BLOCK8", "place.index / BLOCK8 / 2"),
    ),
    "a remainder without its sign": (
        {"weights": ("bfloat16", "remainder")},
        ("rounding.cuh", "uint32(uint32(uint32(low) ^ uint32(0x8000)) - uint32(0x8000))", "uint32(low)"),
    ),
    "a master that outlives what somebody has written": (
        {"weights": ("bfloat16", "master")},
        ("formats.cuh", "nearest(master).code == param.code ?", "nearest(master).code != param.code ?"),
    ),
    "gradients that a skipped step does not clear": (
        {"zero_grads": True, "nonfinite": "skip"},
        ("step.cu", "else if (ZERO_GRADS && found == SKIP)", "else if (false)"),
    ),
    "an exchange that keeps the average": (
        {"ema": True, "weights": ("float32", "plain")},
        ("swap.cu", "if constexpr (ELEMENT::EXCHANGES) beside.element[j] = weight;", ""),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_planted_in_the_cuda_source_is_seen(name, monkeypatch):
    values, fault = FAULTS[name]
    monkeypatch.setattr(host_backend, "PATCH", host_kernels.planted(*fault))
    with pytest.raises(AssertionError):
        assert_both_equal(case_with(**values), monkeypatch)

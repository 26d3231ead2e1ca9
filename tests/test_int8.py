"""States of 8 bits: who has them, what they cost in memory and in accuracy, and what a NaN does to a block."""

import math

import numpy as np
import oracle_recipe
import pytest
from cases import parameters
from oracle_recipe import Group, Recipe
from recipe_checks import BF16, F32, F64, adamw, adamw_settings, deviation, memory

import gpuadam

BLOCK = 256
SHAPE = (3, 1700)  # 5,100 elements: 20 blocks, of which the last has 236
# The widest gaps of the codes, relative to the largest of a block. Unsigned: [0.1, 1] in 128 parts. Signed: in 64, of
# which 1 replaces the middle of the last, so that the gap below it is one part and a half.
SIGNED_GAP, UNSIGNED_GAP = 1.5 * 0.9 / 64, 0.9 / 128


def made(shape=SHAPE, dtype=F32, **settings):
    param = parameters(math.prod(shape), F64, 5).reshape(shape).astype(dtype)
    return adamw([param], **{"state_dtype": "int8", "lr": 0.01, **settings}), param


def random_grads(steps, shape=SHAPE, dtype=F32, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(dtype) for _ in range(steps)]


def decoded(own, name):
    """Codes of dynamic tree quantisation, worked out anew from its definition, times their block's scale.

    Leading zeros are a power of ten, the bits after the first one a fraction of [0.1, 1] (Dettmers et al. 2022).
    Signed codes are mirrored: 127 and 128 are 0, 0 and 255 are -1 and 1.
    """
    bits = 7 if name == "exp_avg_sq" else 6
    positive = [
        10.0 ** (exponent) * (0.1 + 0.9 * (part + 0.5) / 2 ** (bits + exponent))
        for exponent in range(-6, 1)
        for part in range(2 ** (bits + exponent))
    ]
    table = (
        [0.0, *positive, 1.0] if bits == 7 else [-1.0, *(-x for x in positive[-2::-1]), 0.0, 0.0, *positive[:-1], 1.0]
    )
    codes, scales = own[name].ravel(), own[f"{name}_scale"]
    assert len(table) == 256
    return np.array(table)[codes] * np.repeat(scales.astype(F64), BLOCK)[: codes.size]


def test_two_bytes_a_parameter_and_scales():
    optimizer, _ = made()
    own = optimizer.state_dict()["state"][0]
    arrays = {name: value for name, value in own.items() if isinstance(value, np.ndarray)}
    assert {name: value.dtype for name, value in arrays.items()} == {
        "exp_avg": np.uint8, "exp_avg_scale": F32, "exp_avg_sq": np.uint8, "exp_avg_sq_scale": F32,
    }  # fmt: skip
    assert sum(value.nbytes for value in arrays.values()) == 2 * 5_100 + 2 * 4 * 20
    assert own["exp_avg"].shape == SHAPE


@pytest.mark.parametrize(
    ("shape", "settings", "has_codes"),
    [
        ((64, 64), {}, True),
        ((64, 63), {}, False),
        ((4096,), {}, False),
        ((100_000,), {}, False),
        ((1, 4096), {}, True),
        ((2, 2), {"int8_from": 4}, True),
        ((2, 2), {"int8_from": 5}, False),
        ((0, 9), {"int8_from": 0}, True),
        ((), {"int8_from": 0}, False),
    ],
)
def test_small_and_one_dimensional_tensors_keep_float32(shape, settings, has_codes):
    optimizer, _ = made(shape, **settings)
    own = optimizer.state_dict()["state"][0]
    assert (own["exp_avg"].dtype, "exp_avg_scale" in own) == ((np.uint8, True) if has_codes else (F32, False))
    optimizer.step(random_grads(1, shape))


def test_the_signed_codes_and_the_unsigned_ones():
    """A second moment is never negative, so its codes have a bit more; a moment of SGD is."""
    kept = made()[0].state_dict()["state"][0]
    assert not np.any(decoded(kept, "exp_avg"))
    assert not np.any(decoded(kept, "exp_avg_sq"))
    started = gpuadam.RMSprop([np.ones((64, 64), F32)], state_dtype="int8", initial_square_avg=1.0)
    own = started.state_dict()["state"][0]
    assert np.all((own["square_avg"] == 255) & (own["square_avg_scale"][0] == 1.0))


def test_states_are_within_a_gap_of_the_codes():
    """After each step, against the exact rule from the states as they were stored before it."""
    optimizer, _ = made()
    before = {"exp_avg": np.zeros(5_100), "exp_avg_sq": np.zeros(5_100)}
    for grad in random_grads(6):
        optimizer.step([grad])
        g, own = grad.astype(F64).ravel(), optimizer.state_dict()["state"][0]
        exact = {
            "exp_avg": 0.9 * before["exp_avg"] + 0.1 * g,
            "exp_avg_sq": 0.999 * before["exp_avg_sq"] + 0.001 * g * g,
        }
        for name, gap in (("exp_avg", SIGNED_GAP), ("exp_avg_sq", UNSIGNED_GAP)):
            before[name] = decoded(own, name)
            largest = np.maximum.reduceat(np.abs(exact[name]), np.arange(0, 5_100, BLOCK))
            assert np.allclose(own[f"{name}_scale"], largest, rtol=1e-6)
            error = np.abs(before[name] - exact[name])
            bound = gap * np.repeat(largest, BLOCK)[:5_100] * 1.001
            assert np.all(error <= bound)
            assert np.max(error / bound) > 0.5, "the bound is not idle"
            # near 0 codes are closer: a tenth of the gap for each power of ten
            small = np.abs(exact[name]) < 0.01 * np.repeat(largest, BLOCK)[:5_100]
            assert np.all(error[small] <= bound[small] / 5)


def test_quantisation_is_unbiased():
    """The mean error of 5,000 elements after one step: within four standard errors of 0."""
    optimizer, _ = made()
    grad = random_grads(1)[0]
    optimizer.step([grad])
    own = optimizer.state_dict()["state"][0]
    for name, exact in (("exp_avg", 0.1 * grad.astype(F64)), ("exp_avg_sq", 0.001 * grad.astype(F64) ** 2)):
        error = decoded(own, name) - exact.ravel()
        assert abs(np.mean(error)) < 4 * np.std(error) / math.sqrt(error.size)


def test_a_run_is_close_to_that_of_float32():
    """A quadratic: both end at the same place, to within a tenth of the way."""
    optimizer, param = made(weight_decay=0.0, lr=0.05)
    start = param.astype(F64).copy()
    expected = Recipe(oracle_recipe.adam, [Group([param.copy()], adamw_settings(weight_decay=0.0, lr=0.05))])
    for _ in range(30):
        grads = expected.tensors[0].weight.astype(F32)
        expected.step([grads])
        optimizer.step([param.copy()])
    way = np.abs(expected.tensors[0].weight - start)
    assert np.mean(np.abs(param - expected.tensors[0].weight)) < 0.1 * np.mean(way)


def test_no_positive_second_moment_is_stored_as_zero():
    """By a 0 the rule would divide: elements of 1e-6 of the largest and below keep the smallest code."""
    optimizer, param = made((64, 64), eps=0.0)
    grad = np.full((64, 64), 1e-8, F32)
    grad[:, 0] = 1.0
    before = param.copy()
    for _ in range(3):
        optimizer.step([grad])
    own = optimizer.state_dict()["state"][0]
    assert np.all(own["exp_avg_sq"] > 0)
    assert np.all(np.isfinite(param))
    assert np.max(np.abs(param - before)) < 1.0


# ---- NaN


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_nan_takes_its_block_and_no_other(value):
    """The scale of the block is NaN: nothing hides it, and no single element is passed over."""
    optimizer, param = made()
    grads = random_grads(3)
    grads[1].ravel()[2 * BLOCK + 7] = value
    for grad in grads:
        optimizer.step([grad])
    hit = np.zeros(5_100, bool)
    hit[2 * BLOCK : 3 * BLOCK] = True
    own = optimizer.state_dict()["state"][0]
    assert np.array_equal(np.isnan(param.ravel()), hit)
    for name in ("exp_avg", "exp_avg_sq"):
        assert np.array_equal(np.isnan(decoded(own, name)), hit)


def test_a_nan_is_skipped_whole_or_not_at_all():
    optimizer, param = made(nonfinite="skip")
    for k, grad in enumerate(random_grads(4)):
        before = memory(optimizer, [param])
        if k == 2:
            grad[1, 1] = math.nan
        optimizer.step([grad])
        assert (memory(optimizer, [param]) == before) == (k == 2)
    assert optimizer.skipped_steps == 1


# ---- the rest of the recipe with it


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_the_first_update_is_exact(dtype):
    """The rule sees what it has worked out; only what it keeps is rounded."""
    optimizer, param = made(dtype=dtype, clip_norm=1.0, clip_value=0.01)
    group = Group([param.copy()], adamw_settings(), clip_norm=1.0, clip_value=0.01)
    expected = Recipe(oracle_recipe.adam, [group])
    grad = random_grads(1, dtype=dtype)[0]
    optimizer.step([grad], grad_scale=8.0)
    expected.step([grad], grad_scale=8.0)
    assert deviation(param, expected.tensors[0].stored) < (1e-5 if dtype == F32 else 2.0**-7)


def test_a_run_goes_on_from_a_file(tmp_path):
    optimizer, param = made()
    grads = random_grads(6)
    for grad in grads[:3]:
        optimizer.step([grad])
    optimizer.save(tmp_path / "run")
    other, resumed = made()
    other.load(tmp_path / "run")
    for grad in grads[3:]:
        optimizer.step([grad])
        other.step([grad])
    assert memory(other, [resumed]) == memory(optimizer, [param])


@pytest.mark.parametrize("int8_from", [-1, 1.5, "4096"])
def test_thresholds_that_are_refused(int8_from):
    with pytest.raises((TypeError, ValueError), match="int8_from"):
        made(int8_from=int8_from)

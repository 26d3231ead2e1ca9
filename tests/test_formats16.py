"""Weights and states of 16 bits: what a master or a remainder keeps, and rounding at random that loses nothing."""

import itertools
import math

import numpy as np
import oracle_recipe
import pytest
from cases import LR, ORACLE_LR, assert_same_bits
from oracle_recipe import Group, Recipe, neighbours
from recipe_checks import BF16, F16, F32, F64, adamw, adamw_settings, gradient_steps, memory, run, tensors

import gpuadam
from gpuadam import schedules

STANDARD_ERRORS = 4  # of a right mean, one in 16,000 is further away; seeds are fixed


def joined(high, low):
    """The float32 of a bfloat16 and its remainder: bits of the first, then a signed count of last bits."""
    whole = high.view(np.uint16).astype(np.int64) << 16
    return (whole + low.view(np.int16)).astype(np.uint32).view(F32)


# ---- what a companion keeps


@pytest.mark.parametrize(("dtype", "master"), [(BF16, "remainder"), (BF16, "float32"), (F16, "float32")])
def test_a_thousand_steps_are_those_of_float32_bit_for_bit(dtype, master):
    """Weights, states and averages are those of a float32 run with the same gradients; the parameter is rounded."""
    params, whole = tensors(dtype), [param.astype(F32) for param in tensors(dtype)]
    settings = {"lr": LR, "ema_decay": 0.99, "clip_norm": 2.0}
    optimizer, reference = adamw(params, master=master, **settings), adamw(whole, **settings)
    grads = gradient_steps(25, dtype)
    for now in itertools.islice(itertools.cycle(grads), 1000):
        optimizer.step(now)
        reference.step(now)
    expected = reference.state_dict()["state"]
    for i, own in optimizer.state_dict()["state"].items():
        weight = own["master"] if master == "float32" else joined(params[i], own["remainder"])
        assert_same_bits(weight, whole[i], f"weight {i}")
        for name in ("exp_avg", "exp_avg_sq", "ema"):
            assert_same_bits(own[name], expected[i][name], f"{name} of {i}")
        if master == "float32":
            assert_same_bits(params[i], whole[i].astype(dtype), f"parameter {i}")


def test_a_remainder_takes_two_bytes_and_a_master_four():
    kept = {master: adamw(tensors(BF16), master=master).state_dict()["state"][2] for master in ("remainder", "float32")}
    assert kept["remainder"]["remainder"].nbytes == 2 * 700
    assert kept["float32"]["master"].nbytes == 4 * 700


def test_small_steps_reach_a_weight_with_a_companion_only():
    """Half of the last bit of 1 is 2^-9: steps of 2^-12 are lost in bfloat16, all of them."""
    for master, expected in ((None, 1.0), ("float32", 1 - 2.0**-4), ("remainder", 1 - 2.0**-4)):
        param = np.ones(3, BF16)
        optimizer = gpuadam.SGD([param], lr=2.0**-12, master=master)
        for _ in range(256):
            optimizer.step([np.ones(3, BF16)])
        assert np.all(param.astype(F32) == expected), master


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_a_master_follows_a_parameter_that_somebody_writes(dtype):
    """Elements that were written begin anew at what was written, the others keep their low bits."""
    param = np.ones(3, dtype)
    optimizer = gpuadam.SGD([param], lr=2.0**-13, master="float32")
    grad = np.ones(3, dtype)
    optimizer.step([grad])
    param[1] = 5.0
    optimizer.step([grad])
    master = optimizer.state_dict()["state"][0]["master"]
    assert np.array_equal(master, np.array([1 - 2.0**-12, 5 - 2.0**-13, 1 - 2.0**-12], F32))
    assert np.array_equal(param, master.astype(dtype))


def test_a_remainder_leaves_what_somebody_writes_within_half_its_last_bit():
    param = np.ones(2, BF16)
    optimizer = gpuadam.SGD([param], lr=2.0**-12, master="remainder")
    optimizer.step([np.ones(2, BF16)])
    param[:] = 4.0, 0.0
    optimizer.step([np.zeros(2, BF16)])
    assert np.array_equal(param, np.array([4.0, 0.0], BF16))


@pytest.mark.parametrize(("dtype", "largest", "beyond"), [(F16, 65504.0, 32.0), (BF16, 255 * 2.0**120, 2.0**119)])
def test_beyond_the_largest_is_infinite_and_a_master_comes_back(dtype, largest, beyond):
    param = np.full(2, largest, dtype)
    optimizer = gpuadam.SGD([param], lr=1.0, master="float32")
    optimizer.step([np.full(2, -beyond, dtype)])
    assert np.all(np.isposinf(param))
    optimizer.step([np.full(2, beyond, dtype)])
    assert np.all(param.astype(F64) == largest)


REFUSED = [
    (F16, {"master": "remainder"}, "float16, whose exponent is too short"),
    (BF16, {"master": "float32", "rounding": "stochastic"}, "allowed is one of them"),
    (BF16, {"master": "float16"}, "master is 'float16'; allowed are"),
    (BF16, {"master": True}, "master is True; allowed are"),
    (BF16, {"rounding": "up"}, "rounding is 'up'; allowed are"),
    (BF16, {"state_dtype": "float16"}, "state_dtype is 'float16'; allowed are"),
]


@pytest.mark.parametrize(("dtype", "storage", "text"), REFUSED)
def test_modes_that_are_refused(dtype, storage, text):
    with pytest.raises((TypeError, ValueError), match=text):
        adamw(tensors(dtype), **storage)


# ---- rounding at random


def rounded_at_random(dtype, seed, size=30_000, steps=1):
    """SGD from 1 with rate 1, so that the exact weight is 1 - gradient; gradients are float32."""
    exact = 1.0 + np.random.default_rng(3).uniform(-0.4, 0.9, size).astype(F32)
    params = [np.ones(size, dtype), np.ones(size, dtype)]
    optimizer = gpuadam.SGD(params, lr=1.0, rounding="stochastic", seed=seed)
    grads = [F32(1) - exact] * 2
    ups = []
    for _ in range(steps):
        for param in params:
            param[:] = 1.0
        optimizer.step([grad.copy() for grad in grads])
        ups.append([param.copy() for param in params])
    return exact.astype(F64), ups


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_the_mean_is_unbiased(dtype):
    """Every weight goes to a neighbour of the exact one, upwards as often as the distance says: in all, in tenths of
    the distance, over seeds, tensors and steps."""
    total, variance, tenths = 0.0, 0.0, np.zeros((10, 2))
    for seed in range(5):
        exact, ups = rounded_at_random(dtype, seed, steps=2)
        low, high, probability = neighbours(exact, dtype)
        for values in itertools.chain(*ups):
            is_high = values.astype(F64) == high
            assert np.all(is_high | (values.astype(F64) == low))
            uncertain = probability * (1 - probability)
            total, variance = total + np.sum(is_high - probability), variance + np.sum(uncertain)
            tenth = np.minimum((probability * 10).astype(int), 9)
            np.add.at(tenths, tenth, np.stack([is_high - probability, uncertain], 1))
    assert abs(total) < STANDARD_ERRORS * math.sqrt(variance)
    assert np.all(np.abs(tenths[:, 0]) < STANDARD_ERRORS * np.sqrt(tenths[:, 1]))
    nearest = (exact.astype(dtype).astype(F64) == high)[tenth == 2] - probability[tenth == 2]
    assert abs(np.sum(nearest)) > STANDARD_ERRORS * math.sqrt(tenths[2, 1]), "which this test would not pass"


def test_elements_tensors_steps_and_seeds_are_independent():
    exact, ups = rounded_at_random(BF16, 0, steps=2)
    low, _, probability = neighbours(exact, BF16)
    spread = np.sqrt(np.maximum(probability * (1 - probability), 1e-9))

    def standardised(values):
        return ((values.astype(F64) > low) - probability) / spread

    first, second, later = map(standardised, (*ups[0], ups[1][0]))
    other = standardised(rounded_at_random(BF16, 1)[1][0][0])
    for partner in (second, later, other, np.roll(first, 1), np.roll(first, 256), np.roll(first, 4096)):
        assert abs(np.mean(first * partner)) < STANDARD_ERRORS / math.sqrt(len(first))


@pytest.mark.parametrize("settings", [{"rounding": "stochastic"}, {"state_dtype": "bfloat16"}])
def test_a_seed_says_every_bit(settings, tmp_path):
    """The same seed, the same run; another one, another run; a run goes on from a file as it would have."""

    def start(seed):
        params = tensors(BF16)
        return params, adamw(params, lr=0.1, seed=seed, **settings)

    (params, optimizer), (others, same), (strange, other) = start(7), start(7), start(8)
    grads = gradient_steps(6, BF16)
    for now in grads[:3]:
        for each in (optimizer, same, other):
            each.step(now)
    assert memory(optimizer, params) == memory(same, others)
    assert memory(optimizer, params) != memory(other, strange)
    optimizer.save(tmp_path / "run")
    resumed, later = start(7)
    later.load(tmp_path / "run")
    for now in grads[3:]:
        same.step(now)
        later.step(now)
    assert memory(later, resumed) == memory(same, others)


def test_small_steps_arrive_on_average():
    """256 steps of 2^-12, each an eighth of the last bit: 1 - 2^-4, which nearest rounding would leave at 1."""
    param = np.ones(2_000, BF16)
    optimizer = gpuadam.SGD([param], lr=2.0**-12, rounding="stochastic")
    for _ in range(256):
        optimizer.step([np.ones(2_000, BF16)])
    spread = math.sqrt(256 * (1 / 16) * (15 / 16)) * 2.0**-8
    assert abs(np.mean(param.astype(F64)) - (1 - 2.0**-4)) < STANDARD_ERRORS * spread / math.sqrt(2_000)


# ---- states of bfloat16


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_states_go_to_a_neighbour_of_the_exact_one(dtype):
    """After one step from 0; within the last bit plus what float32 loses. Weights are computed from exact states."""
    params = tensors(dtype)
    optimizer = adamw(params, lr=LR, state_dtype="bfloat16")
    expected = Recipe(oracle_recipe.adam, [Group(tensors(dtype), adamw_settings(lr=ORACLE_LR))])
    found = run(optimizer, params, expected, gradient_steps(1, dtype))
    assert found["weights"] <= 1.0
    for own, tensor in zip(optimizer.state_dict()["state"].values(), expected.tensors, strict=True):
        for name, exact in tensor.states.items():
            assert own[name].dtype == BF16
            low, high, _ = neighbours(exact, BF16)
            assert np.all(np.abs(own[name].astype(F64) - exact) <= (high - low) + 1e-6 * np.abs(exact))


def test_float64_parameters_keep_float64_states():
    kept = adamw([np.ones((70, 70))], state_dtype="bfloat16").state_dict()["state"][0]
    assert kept["exp_avg"].dtype == F64


def test_the_rate_is_free_to_move():
    """A schedule in a run with 16-bit weights, states and a mean: nothing of it is lost in the formats."""
    params = [np.zeros((40, 50), BF16)]
    optimizer = gpuadam.SGD(params, lr=1.0 / (1 + schedules.step), rounding="stochastic", momentum=0.5,
                            state_dtype="bfloat16")  # fmt: skip
    for _ in range(3):
        optimizer.step([np.full((40, 50), 1.0, F32)])
    exact = -(1.0 + 1.5 / 2 + 1.75 / 3)
    assert abs(np.mean(params[0].astype(F64)) - exact) < STANDARD_ERRORS * 2.0**-7 / math.sqrt(2_000)

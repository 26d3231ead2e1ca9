"""Defects that were found in other optimizers, each as a test of ours."""

import math

import numpy as np
import oracle
import oracle_momentum
import pytest
from recipe_checks import BF16, F16, F32, F64, adamw, deviation, last_bits, memory

import gpuadam
from gpuadam import schedules

DTYPES = [F16, BF16, F32, F64]
RULES = {
    "adam": (gpuadam.Adam, {"amsgrad": True}),
    "nadam": (gpuadam.NAdam, {}),
    "rmsprop": (gpuadam.RMSprop, {"momentum": 0.9, "centered": True, "eps": 1e-3}),
    "sgd": (gpuadam.SGD, {"momentum": 0.9}),
    "lion": (gpuadam.Lion, {}),
    "radam": (gpuadam.RAdam, {}),
    "qhadam": (gpuadam.QHAdam, {"nus": (0.7, 0.9)}),
    "adamax": (gpuadam.Adamax, {}),
    "adagrad": (gpuadam.Adagrad, {}),
    "adadelta": (gpuadam.Adadelta, {}),
}
NANS = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FC00000, 0x7FFF8000, 0x7F80FFFF], np.uint32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_every_element_is_updated_whatever_the_size(dtype, offset):
    """PyTorch's fused SGD on the CPU left 16-bit parameters as they were in full vectors (pytorch#191763).

    Here with views that begin anywhere, in case wide loads are assumed; nothing beside them is written.
    """
    buffers = [np.full(size + offset + 1, 3.0, dtype) for size in range(258)]
    params = [buffer[offset:-1] for buffer in buffers]
    grads = [np.full(size + offset, 1.0, dtype)[offset:] for size in range(258)]
    gpuadam.SGD(params, lr=1.0).step(grads)
    for buffer in buffers:
        assert np.all(buffer[offset:-1] == 2.0)
        assert np.all(buffer[:offset] == 3.0)
        assert buffer[-1] == 3.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_updates_every_element_whatever_the_size(dtype):
    """As above: the first step of Adam is lr against the sign."""
    params = [np.ones(size, dtype) for size in range(258)]
    adam = gpuadam.Adam(params, lr=0.25, eps=0.0)
    adam.step([np.full(size, 2.0, dtype) for size in range(258)])
    assert all(np.all(param == 0.75) for param in params)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_are_updated(dtype):
    param = np.ones((), dtype)
    gpuadam.Adam([param], lr=0.25, eps=0.0).step([np.ones((), dtype)])
    assert param == 0.75


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("skip", [{"found_inf": 1.0}, {}])
def test_an_overflow_in_the_first_step_leaves_no_momentum_behind(dampening, skip):
    """PyTorch's fused SGD then kept a buffer of uninitialised memory and took it for a momentum (LibreYOLO#771)."""
    param = np.ones(300, F64)
    optimizer = gpuadam.SGD([param], lr=0.1, momentum=0.9, dampening=dampening, nonfinite="skip")
    optimizer.step([np.full(300, math.inf)], **skip)
    assert not np.any(optimizer.state_dict()["state"][0]["momentum_buffer"])
    grads = [np.full(300, value) for value in (1.0, -2.0, 0.5)]
    for grad in grads:
        optimizer.step([grad], found_inf=0.0)
    expected = oracle_momentum.sgd(np.ones(300), grads, lr=0.1, momentum=0.9, dampening=dampening)
    assert deviation(param, expected.param) < 1e-13


@pytest.mark.parametrize("place", ["outside", "hat", "inside"])
@pytest.mark.parametrize("lr", [0.0, 1e-3 * schedules.step])
def test_a_rate_of_zero_with_a_gradient_of_zero(place, lr):
    """PyTorch's capturable Adam divided by lr: NaN weights at the first step of a warm-up (pytorch PR #186444)."""
    param = np.ones(3, F32)
    optimizer = gpuadam.Adam([param], lr=lr, eps_placement=place)
    optimizer.step([np.array([0.0, 1.0, -1.0], F32)])
    assert np.all(param == 1)
    optimizer.step([np.array([0.0, 1.0, -1.0], F32)])
    assert np.all(np.isfinite(param))
    assert param[0] == 1


@pytest.mark.parametrize("grad", [0.0, 1e-7, 1e-5, 1e-4, -1e-3, 1.0])
def test_float16_with_zero_and_small_gradients(grad):
    """PyTorch's Adam in float16: eps and squares vanish; NaN of a 0, -inf of 1e-4 (pytorch#147437)."""
    param, grads = np.ones(4, F16), [np.full(4, grad, F16)] * 3
    optimizer = gpuadam.Adam([param], lr=0.125)
    for now in grads:
        optimizer.step([now])
    expected = oracle.adam(np.ones(4), [now.astype(F64) for now in grads], lr=0.125)
    assert last_bits(param, expected.param.astype(F16)) <= 2, "in each step half of one may be lost"


def test_a_second_moment_of_bfloat16_decays():
    """Rounded to the nearest it never does: 0.999 v is v again (PyTorch, TransformerEngine, optax).

    2,000 steps with a gradient of 0 leave exp(2000 log 0.999) = 0.135 of it. One step's rounding is off by at most a
    last bit, 2^-8 of the value; 2,000 of them come to some 5 % of an element, and 0.1 % of the mean of 4,096.
    """
    size, steps = 4_096, 2_000
    param = np.zeros(size, F32)
    optimizer = gpuadam.Adam([param], lr=0.0, betas=(0.9, 0.999), state_dtype="bfloat16")
    optimizer.step([np.full(size, math.sqrt(1000.0), F32)])
    start = optimizer.state_dict()["state"][0]["exp_avg_sq"].astype(F64)
    assert np.allclose(start, 1.0, rtol=2.0**-7)
    optimizer.bind([np.zeros(size, F32)])
    for _ in range(steps):
        optimizer.step()
    left = optimizer.state_dict()["state"][0]["exp_avg_sq"].astype(F64)
    assert abs(np.mean(left) / np.mean(start) / 0.999**steps - 1.0) < 0.01
    assert np.std(left) < 0.1 * np.mean(left)
    nearest = start.astype(BF16)
    for _ in range(steps):
        nearest = (nearest.astype(F32) - F32(0.001) * nearest.astype(F32)).astype(BF16)
    assert np.array_equal(nearest.astype(F64), start), "to the nearest, it stays"


@pytest.mark.parametrize("places", [[0], [39], [17], [35, 36], [0, 1, 38, 39], list(range(0, 40, 2)), list(range(40))])
def test_empty_tensors_anywhere(places):
    """An empty last tensor made apex drop the whole launch in silence; in slot 36 it wrote out of bounds
    (apex, DeepSpeed; mended in pytorch#94865 and TransformerEngine#3212)."""
    for make, options in RULES.values():
        params = [np.ones((0, 3) if i in places else 5, F32) for i in range(40)]
        optimizer = make(params, lr=0.125, clip_norm=1e6, **options)
        for _ in range(2):
            before = [param.copy() for param in params]
            optimizer.step([np.ones_like(param) for param in params])
            assert all(np.all(a < b) for a, b in zip(params, before, strict=True))
        updates = [own["updates"] for own in optimizer.state_dict()["state"].values()]
        assert updates == [2] * 40


def test_a_tensor_whose_gradients_begin_late_has_its_own_bias_correction():
    """With one count for a group (apex, TransformerEngine#1986) its first update is too small: here by 1 - 0.9^100."""
    params = [np.zeros(3), np.zeros(3)]
    optimizer = gpuadam.Adam(params, lr=0.01, eps=0.0)
    for _ in range(99):
        optimizer.step([np.ones(3), None])
    optimizer.step([np.ones(3), np.full(3, 0.5)])
    assert np.allclose(params[1], -0.01, rtol=1e-12)
    assert [own["updates"] for own in optimizer.state_dict()["state"].values()] == [100, 1]


def test_dtypes_in_one_group_count_each_step_once():
    """DeepSpeed's FusedAdam counted once for each dtype, and for the last parameter alone (DeepSpeed#8471)."""
    params = [np.ones(5, dtype) for dtype in DTYPES * 2]
    grads = [np.full(5, 2.0, param.dtype) for param in params]
    optimizer = gpuadam.Adam(params, lr=0.01)
    for k in range(4):
        optimizer.step([None if k == 1 and i == 5 else grad for i, grad in enumerate(grads)])
    state = optimizer.state_dict()
    assert [own["step"] for own in state["state"].values()] == [4] * 8
    assert [own["updates"] for own in state["state"].values()] == [4, 4, 4, 4, 4, 3, 4, 4]
    assert (state["groups"][0]["step"], state["groups"][0]["updates"]) == (4, 4)
    for i, param in enumerate(params):
        expected = oracle.adam(np.ones(5), [np.full(5, 2.0)] * (3 if i == 5 else 4), lr=0.01).param
        assert np.allclose(param.astype(F64), expected, rtol=2 * np.finfo(F32).eps if i % 4 > 1 else 2.0**-7)


def test_states_of_float16_parameters_do_not_vanish():
    """DeepSpeed keeps them in float16, where the square of 1e-4 is 0: then the step is 1e-4 / eps."""
    param = np.zeros(4, F16)
    optimizer = gpuadam.Adam([param], lr=0.01)
    optimizer.step([np.full(4, 1e-4, F16)])
    own = optimizer.state_dict()["state"][0]
    assert np.allclose(own["exp_avg_sq"], 1e-3 * float(F16(1e-4)) ** 2, rtol=1e-6)
    assert np.all(np.abs(param.astype(F64) + 0.01) < 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lion_takes_the_sign_of_zero_for_zero(dtype):
    """DeepSpeed's Lion moved weights whose gradients are 0 by lr a step, up on GPUs and down on the CPU."""
    for zero in (0.0, -0.0):
        param = np.ones(300, dtype)
        optimizer = gpuadam.Lion([param], lr=0.25)
        for _ in range(3):
            optimizer.step([np.full(300, zero, dtype)])
        assert np.all(param == 1)
    optimizer.step([np.resize([1.0, -1.0, math.nan], 300).astype(dtype)])
    moved = np.resize([0.75, 1.25, math.nan], 300)
    assert np.array_equal(param.astype(F64), moved, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_of_zero_does_not_drift_and_a_nan_is_not_hidden(rule):
    """DeepSpeed's Lion took the sign of 0 for 1 on GPUs and for -1 on the CPU, and that of NaN for 1."""
    make, options = RULES[rule]
    param = np.ones(3, F32)
    optimizer = make([param], lr=0.1, **options)
    for grad in ([0.0, 0.0, math.nan], [0.0, 0.0, 0.0]):
        optimizer.step([np.array(grad, F32)])
    assert np.array_equal(param, np.array([1.0, 1.0, math.nan], F32), equal_nan=True)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
def test_elements_that_are_not_finite_are_not_passed_over(state_dtype):
    """bitsandbytes' 8-bit Adam skips such elements, and zeroes their states, without a word."""
    param = np.ones((64, 64), F32)
    optimizer = adamw([param], state_dtype=state_dtype)
    optimizer.step([np.ones((64, 64), F32)])
    grad = np.ones((64, 64), F32)
    grad[3, 5] = math.nan
    optimizer.step([grad])
    assert math.isnan(param[3, 5])
    own = optimizer.state_dict()["state"][0]
    if state_dtype == "int8":
        hit = (3 * 64 + 5) // 256
        assert np.array_equal(np.flatnonzero(np.isnan(own["exp_avg_scale"])), [hit])
    else:
        assert math.isnan(own["exp_avg"][3, 5])
        assert np.count_nonzero(np.isnan(own["exp_avg"].astype(F32))) == 1
    assert optimizer.skipped_steps == 0


@pytest.mark.parametrize("storage", [{"master": "remainder"}, {"master": "float32"}, {}, {"rounding": "stochastic"}])
def test_a_nan_stays_one_in_16_bits(storage):
    """Rounding adds to the bits, and 0x7FFFFFFF + 0x8000 is those of -0: of TransformerEngine's remainders and
    torchao's stochastic rounding the model gets a 0 for a weight that is NaN."""
    assert ((NANS[0] + np.uint32(0x8000)) >> np.uint32(16)) << np.uint32(16) == F32(-0.0).view(np.uint32)
    count = 100_000 if "rounding" in storage else 70
    grad = np.resize(NANS, count).view(F32)
    param = np.ones(count, BF16)
    optimizer = gpuadam.SGD([param], lr=1.0, **storage)
    for _ in range(2):
        optimizer.step([grad])
        assert np.all(np.isnan(param.astype(F32)))
    param = np.resize((NANS >> 16).astype(np.uint16) | np.uint16(1), count).view(BF16)
    optimizer = gpuadam.SGD([param], lr=1.0, **storage)
    for _ in range(2):
        optimizer.step([np.zeros(count, F32)])
        assert np.all(np.isnan(param.astype(F32)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_has_one_of_three_policies(rule, bad):
    """PyTorch lets it into weights and moments for ever; a whole step is skipped here, or raised, if one asks."""
    make, options = RULES[rule]
    grads = [np.ones(3, F32), np.array([1.0, bad, 1.0], F32)]
    for policy in ("propagate", "skip", "raise"):
        params = [np.ones(3, F32), np.ones(3, F32)]
        optimizer = make(params, lr=0.1, nonfinite=policy, **options)
        before = memory(optimizer, params)
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="gradient of 1 is not finite"):
                optimizer.step(grads)
        else:
            optimizer.step(grads)
        if policy == "propagate":
            assert np.all(params[0] < 1)
            has_a_sign = rule == "lion" and bad == math.inf
            reached = optimizer.state_dict()["state"][1]["exp_avg"] if has_a_sign else params[1]
            assert not np.isfinite(reached[1])
        else:
            assert memory(optimizer, params) == before
        assert optimizer.skipped_steps == (policy != "propagate")

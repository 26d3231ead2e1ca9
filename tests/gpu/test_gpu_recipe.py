"""CPU against CUDA, bit for bit: the training recipe, on awkward numbers: formats, norms, averages, skipped steps."""

from itertools import product

import numpy as np
import pytest
from cases import LR, assert_same_bits
from recipe_modes import BF16, F16, F32, F64, MODES
from twins import MARKS, Twins, awkward, cupy, to_device, to_host

import gpuadam
from gpuadam import ema_warmup, schedules

pytestmark = MARKS
STEPS = 8
FEW = ["float32", "bfloat16", "float16, master", "bfloat16, remainder, states int8"]  # each compiles more kernels


def tensors(dtype, seed):
    """Around the edges of chunks, off a 16-byte boundary, and enough for 8-bit states in either order."""
    found = [awkward(shape, dtype, seed + i) for i, shape in enumerate([(0,), (), (1024,), (3001,), (67, 71)])]
    return [*found, awkward(1032, dtype, seed + 8)[1:], np.asfortranarray(awkward((64, 65), dtype, seed + 9))]


def tame(dtype, seed, shapes=((1500,), (70, 70), (7,))):
    """Finite numbers, whose norm is one."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def tamed(grads):
    """Without what makes a norm, and with it every gradient, NaN or next to nothing."""
    for grad in grads:
        with np.errstate(invalid="ignore"):
            grad[...] = np.where(np.abs(grad.astype(F64)) < 10, grad, np.ones_like(grad))


def two_groups(members):
    return [{"params": members[:3]}, {"params": members[3:], "lr": 0.02, "lr_scale": 0.5}]


def check_swap(twins):
    """Averages in the place of the parameters, and back."""
    before = [to_host(mirror) for mirror in twins.mirrors]
    twins.both("swap_ema")
    twins.check_params()
    twins.both("swap_ema")
    for mirror, old in zip(twins.mirrors, before, strict=True):
        assert_same_bits(to_host(mirror), old)


@pytest.mark.parametrize(("make", "mode"), [*product([gpuadam.AdamW], MODES), *product([gpuadam.LAMB], FEW)])
def test_every_format_of_parameters_gradients_and_states(make, mode):
    dtype, grad_dtype, settings = MODES[mode]
    twins = Twins(make, tensors(dtype, 0), two_groups, lr=LR, **settings)
    for k in range(STEPS):
        grads = tensors(grad_dtype, 1000 + 50 * k)
        if "clip_norm" in settings:
            tamed(grads)
        mirrors = twins.step([None if i == k else grad for i, grad in enumerate(grads)])
        left = [mirror for mirror in mirrors if mirror is not None and mirror.size]
        assert any((to_host(mirror) != 0).any() for mirror in left) != ("zero_grads" in settings)
    twins.check()
    if "ema_decay" in settings:
        check_swap(twins)
        twins.check()


@pytest.mark.parametrize("mode", FEW)
def test_schedule_free_weights_show_their_average_and_come_back(mode):
    dtype, grad_dtype, settings = MODES[mode]
    settings = {name: value for name, value in settings.items() if name != "ema_decay"}
    twins = Twins(gpuadam.AdamWScheduleFree, tensors(dtype, 0), two_groups, lr=LR, **settings)
    for k in range(STEPS):
        grads = tensors(grad_dtype, 1000 + 50 * k)
        if "clip_norm" in settings:
            tamed(grads)
        twins.step([None if i == k else grad for i, grad in enumerate(grads)])
        twins.both("eval")
        twins.check_params()
        twins.both("train")
    twins.check()


@pytest.mark.parametrize(("scope", "dtype"), [*product(("global", "group", "tensor"), (F32, BF16))])
def test_norms_of_every_scope(scope, dtype):
    """Several spans in a scope, more blocks than one, and one format beside another."""
    shapes = [(5,), (700_001,), (3, 1000), (1024 * 256,), (1024 * 256 + 1,)]
    twins = Twins(gpuadam.AdamW, tame(dtype, 0, shapes), two_groups, lr=LR, clip_norm=1.0, clip_scope=scope)
    for k in range(3):
        grads = tame(dtype, 10 + k, shapes)
        grads[1] = grads[1].astype(F32)
        twins.step(grads, grad_scale=4.0)
        norms = twins.device.gradient_norms()
        assert norms == twins.host.gradient_norms()
        assert len(norms) == {"global": 1, "group": 2, "tensor": 5}[scope]
        squares = np.array([np.square(grad.astype(F64)).sum() for grad in grads]) / 16
        sums = {"global": [squares.sum()], "group": [squares[:3].sum(), squares[3:].sum()], "tensor": squares}[scope]
        assert np.allclose(norms, np.sqrt(sums), rtol=1e-12)
    twins.check()


@pytest.mark.parametrize("form", [F32, F64])
def test_scalars_of_mixed_precision_as_arrays_and_as_numbers(form):
    twins = Twins(gpuadam.AdamW, tame(F32, 0), lr=LR, clip_norm=1.0, zero_grads=True, ema_decay=0.9)
    for k, (scale, found) in enumerate([(8.0, 0), (2.0**16, 1), (0.1, 0), (3.0, 0.5), (1.0, 0)]):
        twins.step(tame(F32, 10 + k), grad_scale=np.full(1, scale, form), found_inf=np.full(1, found, form))
        twins.step(tame(F32, 50 + k), grad_scale=scale, found_inf=found)
        twins.check()
    assert twins.device.skipped_steps == 4


def test_gradients_that_are_not_finite_are_skipped():
    twins = Twins(gpuadam.AdamW, tame(BF16, 0), lr=LR, nonfinite="skip", master="remainder", zero_grads=True)
    for k, bad in enumerate([None, np.inf, None, np.nan, -np.inf, None]):
        grads = tame(BF16, 10 + k)
        if bad is not None:
            grads[1][69, 69] = bad
        mirrors = twins.step(grads)
        assert not any((to_host(mirror) != 0).any() for mirror in mirrors)
        twins.check()
    assert twins.device.skipped_steps == 3


def step_until_told(optimizer, count):
    for _ in range(count):
        optimizer.step()
        cupy.cuda.Device().synchronize()


def test_gradients_that_are_not_finite_raise():
    twins = Twins(gpuadam.AdamW, tame(F32, 0), lr=LR, nonfinite="raise")
    twins.step(tame(F32, 1))
    before = [to_host(mirror) for mirror in twins.mirrors]
    grads = tame(F32, 2)
    grads[1][3, 3] = np.nan
    twins.device.bind([to_device(grad) for grad in grads])
    with pytest.raises(FloatingPointError, match="gradient of 1 is not finite"):
        step_until_told(twins.device, 4)
    for mirror, old in zip(twins.mirrors, before, strict=True):
        assert_same_bits(to_host(mirror), old)


def test_gradients_of_another_format_than_before():
    shapes = [(3000,), (5,), (70, 70), (300_000,)]
    twins = Twins(gpuadam.AdamW, tame(BF16, 0, shapes), lr=LR, clip_norm=1.0, clip_scope="tensor")
    for k, kinds in enumerate([(BF16,) * 4, (F32, BF16, F32, BF16), (F16, F32, BF16, F32), (BF16,) * 4]):
        grads = tame(F32, 10 + k, shapes)
        twins.step([grad.astype(kind) for grad, kind in zip(grads, kinds, strict=True)])
        twins.check()
        assert twins.device.gradient_norms() == twins.host.gradient_norms()


def test_a_captured_graph_replays_the_whole_recipe():
    """Gradients and scalars change where they lie; the norm, its threshold and the average follow."""
    recipe = {"clip_norm": schedules.linear_warmup(1.0, 9, 0.1), "ema_decay": ema_warmup(0.9), "nonfinite": "skip"}
    twins = Twins(gpuadam.AdamW, tame(F32, 0), lr=LR, **recipe)
    grads, scale, found = tame(F32, 1), np.full(1, 4.0, F32), np.zeros(1, F32)
    mirrors, theirs = [to_device(grad) for grad in grads], (to_device(scale), to_device(found))
    twins.host.bind(grads, grad_scale=scale, found_inf=found)
    twins.device.bind(mirrors, grad_scale=theirs[0], found_inf=theirs[1])
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        twins.device.step()
        stream.begin_capture()
        try:
            twins.device.step()
        finally:
            graph = stream.end_capture()
    twins.host.step()
    for k in range(12):
        scale[...], found[...] = 2.0**k, k == 5
        for grad, values in zip(grads, tame(F32, 20 + k), strict=True):
            grad[...] = values
        if k == 7:
            grads[0][7] = np.inf
        with stream:
            for mine, other in zip([*grads, scale, found], [*mirrors, *theirs], strict=True):
                other.set(mine)
            graph.launch()
        stream.synchronize()
        twins.host.step()
        twins.check()
    assert twins.device.skipped_steps == 2


def test_a_group_that_is_added_and_a_file_that_goes_across(tmp_path):
    settings = {"lr": LR, "clip_norm": 1.0, "master": "remainder", "state_dtype": "int8", "ema_decay": 0.9}
    twins = Twins(gpuadam.AdamW, tame(BF16, 0), **settings)
    twins.step(tame(BF16, 1))
    new = tame(BF16, 2, [(65, 70), (9,)])
    mirrors = [to_device(array) for array in new]
    twins.host.add_group({"params": new, "lr": 0.3})
    twins.device.add_group({"params": mirrors, "lr": 0.3})
    twins.params, twins.mirrors = [*twins.params, *new], [*twins.mirrors, *mirrors]
    for k in range(3):
        twins.step([*tame(BF16, 10 + k), *tame(BF16, 20 + k, [(65, 70), (9,)])])
    twins.check()
    twins.host.save(tmp_path / "host")
    twins.device.save(tmp_path / "device")
    assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()
    twins.host.load(tmp_path / "device")
    twins.device.load(tmp_path / "host")
    twins.step([*tame(BF16, 30), *tame(BF16, 31, [(65, 70), (9,)])])
    twins.check()

"""The whole recipe against its oracle: every feature, many together, and faults that must be seen."""

import math

import numpy as np
import oracle_recipe
import pytest
from cases import LR, ORACLE_LR
from oracle_recipe import Group, Recipe
from recipe_checks import (
    BF16,
    F16,
    F32,
    F64,
    adamw,
    adamw_settings,
    assert_agree,
    gradient_steps,
    run,
    tensors,
)

import gpuadam
from gpuadam import ema_warmup, schedules

STEPS = 10
FALLING = 20.0 / (1 + schedules.step), lambda t: 20.0 / (1 + t)  # begins above all norms
RISING = 1.0 - 1.0 / (2 + schedules.step), lambda t: 1.0 - 1.0 / (2 + t)


def both(dtype=F32, lr=(0.01, 0.01), norm=None, value=None, ema=None, warms_up=False, master=None, **policy):
    """AdamW and its oracle; of each pair the first is ours, the second the oracle's."""
    given = {"clip_norm": norm, "clip_value": value, "ema_decay": ema}
    ours = {name: pair[0] for name, pair in given.items() if pair}
    theirs = {name: pair[1] for name, pair in given.items() if pair}
    if warms_up:
        ours["ema_decay"] = ema_warmup(ours["ema_decay"])
    params = tensors(dtype)
    optimizer = adamw(params, lr=lr[0], master=master, **ours, **policy)
    group = Group(tensors(dtype), adamw_settings(lr=lr[1]), has_companion=bool(master), warms_up=warms_up, **theirs)
    known = {name: policy[name] for name in ("clip_scope", "per_tensor_step") if name in policy}
    skips = policy.get("nonfinite", "propagate") != "propagate"
    return optimizer, params, Recipe(oracle_recipe.adam, [group], skips_nonfinite=skips, **known)


FEATURES = {
    "nothing": {},
    "norm": {"norm": (2.0, 2.0)},
    "norm never reached": {"norm": (1e6, 1e6)},
    "norm by tensor": {"norm": (0.5, 0.5), "clip_scope": "tensor"},
    "norm by group": {"norm": (2.0, 2.0), "clip_scope": "group"},
    "falling norm": {"norm": FALLING},
    "value": {"value": (0.1, 0.1)},
    "falling value": {"value": FALLING},
    "norm and value": {"norm": (2.0, 2.0), "value": (0.05, 0.05)},
    "average": {"ema": (0.9, 0.9)},
    "scheduled average": {"ema": RISING},
    "warmed-up average": {"ema": (0.5, 0.5), "warms_up": True},
    "average of nothing but the last": {"ema": (0.0, 0.0)},
    "average that stays": {"ema": (1.0, 1.0)},
    "everything": {"lr": (LR, ORACLE_LR), "norm": FALLING, "value": (0.05, 0.05), "ema": RISING, "warms_up": True,
                   "clip_scope": "tensor", "nonfinite": "skip"},
}  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES)
def test_float32(feature):
    optimizer, params, expected = both(**FEATURES[feature])
    run(optimizer, params, expected, gradient_steps(STEPS), grad_scale=512.0)
    assert_agree(optimizer, params, expected)


STORED = [
    *((dtype, None) for dtype in (F16, BF16, F64)),
    *((F16, "float32"), (BF16, "float32"), (BF16, "remainder")),
]


@pytest.mark.parametrize(("dtype", "master"), STORED)
@pytest.mark.parametrize("feature", ["norm and value", "everything"])
def test_formats(dtype, master, feature):
    """16-bit weights to their last bit, what a master keeps to that of float32."""
    optimizer, params, expected = both(dtype, master=master, **{"ema": (0.9, 0.9), **FEATURES[feature]})
    run(optimizer, params, expected, gradient_steps(STEPS, dtype), grad_scale=8.0)
    assert_agree(optimizer, params, expected)


@pytest.mark.parametrize("grad", [F16, BF16])
def test_gradients_of_another_format_than_their_parameter(grad):
    optimizer, params, expected = both(norm=(2.0, 2.0))
    run(optimizer, params, expected, gradient_steps(STEPS, grad), grad_scale=8.0)
    assert_agree(optimizer, params, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_sgd(momentum, scope):
    params, settings = tensors(), {"lr": 0.05, "momentum": momentum, "weight_decay": 0.01}
    optimizer = gpuadam.SGD(params, clip_norm=1.0, clip_scope=scope, clip_value=0.05, **settings)
    group = Group(tensors(), settings, clip_norm=1.0, clip_value=0.05)
    expected = Recipe(oracle_recipe.sgd, [group], clip_scope=scope)
    run(optimizer, params, expected, gradient_steps(STEPS), grad_scale=0.5)
    assert_agree(optimizer, params, expected)


def test_late_gradients_skips_and_loss_scales_that_change():
    optimizer, params, expected = both(**FEATURES["everything"])
    for k, now in enumerate(gradient_steps(16)):
        grads = [None if (k + i) % 3 == 0 or (i == 2 and k < 6) else grad for i, grad in enumerate(now)]
        if k in (1, 10):
            grads[3][0] = math.inf
        scalars = {"grad_scale": 2.0 ** (10 - k), "found_inf": float(k in (5, 6))}
        expected.step(grads, **scalars)
        optimizer.step(grads, **scalars)
        assert_agree(optimizer, params, expected)
    assert expected.skipped_steps == 4


def test_tensors_that_rest_altogether():
    optimizer, params, expected = both(lr=(LR, ORACLE_LR), norm=FALLING, ema=RISING, per_tensor_step=True)
    for k, now in enumerate(gradient_steps(12)):
        grads = [grad if (k + i) % (i + 1) == 0 else None for i, grad in enumerate(now)]
        expected.step(grads)
        optimizer.step(grads)
    assert_agree(optimizer, params, expected)
    assert len({tensor.t for tensor in expected.tensors}) > 2


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
def test_groups_with_thresholds_of_their_own(scope):
    """A group without clip_norm counts in the global norm, but is not clipped."""
    params, own = tensors(), tensors()
    optimizer = adamw(
        [{"params": params[:1], "clip_norm": 0.5}, {"params": params[1:3]}, {"params": params[3:], "ema_decay": 0.5}],
        clip_scope=scope,
    )
    groups = [
        Group(own[:1], adamw_settings(), clip_norm=0.5),
        Group(own[1:3], adamw_settings()),
        Group(own[3:], adamw_settings(), ema_decay=0.5),
    ]
    expected = Recipe(oracle_recipe.adam, groups, clip_scope=scope)
    run(optimizer, params, expected, gradient_steps(STEPS))
    assert_agree(optimizer, params, expected)
    assert np.allclose(optimizer.gradient_norms(), expected.norms, rtol=1e-12)


# ---- planted faults


class WithoutLastChunk(Recipe):
    def norm(self, grads):
        return super().norm([g[:256] for g in grads])


class NotUnscaled(Recipe):
    def unscale(self, g, grad_scale):
        return g


class NormOfTheScaled(Recipe):
    def clip(self, g, norm, group, t):
        return super().clip(g, norm * 4.0, group, t)


class ClippedTwice(Recipe):
    def clip_to_norm(self, g, norm, threshold):
        return super().clip_to_norm(super().clip_to_norm(g, norm, threshold), norm, threshold)


class ValueBeforeNorm(Recipe):
    def clip(self, g, norm, group, t):
        return self.clip_to_norm(self.clip_elements(g, group.clip_value), norm, group.clip_norm(t))


class AverageBeforeUpdate(Recipe):
    def update(self, group, tensor, g):
        before = tensor.average.copy()
        old = tensor.weight
        super().update(group, tensor, g)
        tensor.average = group.ema_decay * before + (1.0 - group.ema_decay) * old


class DecaySwapped(Recipe):
    def move_average(self, tensor, decay):
        super().move_average(tensor, 1.0 - decay)


class SkipThatCounts(Recipe):
    def skip(self):
        super().skip()
        for tensor in self.tensors:
            tensor.k += 1


class SkipThatTicks(Recipe):
    def skip(self):
        super().skip()
        for tensor in self.tensors:
            tensor.t += 1


class SkipThatIsNotCounted(Recipe):
    def skip(self):
        pass


class LowBitsLost(Recipe):
    """What a master that is not written, or a remainder without its sign, comes to."""

    def store(self, group, tensor, weight):
        super().store(group, tensor, weight)
        tensor.weight = tensor.stored.astype(F64)


class SignOfRemainderLost(Recipe):
    def store(self, group, tensor, weight):
        super().store(group, tensor, weight)
        stored = tensor.stored.astype(F64)
        tensor.weight = stored + np.abs(tensor.weight - stored)


ANYWHERE = (
    *(WithoutLastChunk, NotUnscaled, NormOfTheScaled, ClippedTwice, ValueBeforeNorm),
    *(AverageBeforeUpdate, DecaySwapped, SkipThatCounts, SkipThatTicks, SkipThatIsNotCounted),
)
FAULTS = dict.fromkeys(ANYWHERE, (F32, None))
FAULTS |= {LowBitsLost: (BF16, "float32"), SignOfRemainderLost: (BF16, "remainder")}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_planted_fault_is_seen(fault):
    """The oracle with a fault differs by ten times what the tests above allow, the one without it does not."""
    dtype, master = FAULTS.get(fault, (F32, None))
    optimizer, params, expected = both(
        dtype, lr=(LR, ORACLE_LR), norm=FALLING, value=(0.5, 0.5), ema=(0.8, 0.8), master=master, nonfinite="skip"
    )
    if fault:
        expected.__class__ = fault
    grads = gradient_steps(60 if master else STEPS, dtype)
    grads[3][1][0] = math.nan
    found = run(optimizer, params, expected, grads, grad_scale=4.0)
    if fault:
        assert max(found.values()) > 10, found
    else:
        assert max(found.values()) <= 1, found

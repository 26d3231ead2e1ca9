"""The rules with all their options, once: what the tests run, on which backend ever, is a product over this list."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import cases_adaptive
import numpy as np
import oracle
import oracle_lamb
import oracle_momentum
import oracle_schedule_free

import gpuadam
from gpuadam import (
    adam_rules,
    adam_variant_rules,
    adaptive_rules,
    l1_rules,
    layerwise_rules,
    momentum_rules,
    schedule_free_rules,
    schedules,
    sign_rules,
)
from gpuadam.rules import Decay, Rule


@dataclass(frozen=True)
class Case:
    """One optimizer with options: how we make it, and what the oracle calls it."""

    name: str
    make: Any
    reference: Any
    options: dict[str, Any]
    lr: float = 0.05

    def optimizer(self, params: Any, **settings: Any) -> gpuadam.Optimizer:
        return self.make(params, **{"lr": self.lr, **self.options, **settings})

    def oracle(self, param: np.ndarray, grads: list, **settings: Any) -> oracle.Result:
        return self.reference(param, grads, **{"lr": self.lr, **self.options, **settings})


def _adam() -> list[Case]:
    cases = []
    for amsgrad, place in itertools.product((False, "raw", "corrected"), ("outside", "hat", "inside")):
        options = {"amsgrad": amsgrad, "eps_placement": place, "eps": 1e-3, "betas": (0.8, 0.95)}
        cases.append(Case(f"adam-{amsgrad}-{place}", gpuadam.Adam, oracle.adam, options))
    for decay, maximize in itertools.product(get_args(Decay), (False, True)):
        options = {"decay": decay, "maximize": maximize, "weight_decay": 0.05}
        cases.append(Case(f"adam-{decay}-{maximize}", gpuadam.Adam, oracle.adam, options))
        cases.append(Case(f"adam_l1-{decay}-{maximize}", gpuadam.Adam, oracle.adam, options | {"l1_decay": 0.03}))
    cases.append(Case("adam_l1-raw", gpuadam.Adam, oracle.adam, {"l1_decay": 0.03, "amsgrad": "raw", "eps": 1e-3}))
    defaults = {"weight_decay": 0.01, "decay": "decoupled"}
    return [*cases, Case("adamw", gpuadam.AdamW, oracle.adam, defaults)]


def _rmsprop() -> list[Case]:
    cases = []
    for centered, momentum, place, lr_place in itertools.product(
        (False, True), (0.0, 0.9), ("outside", "inside"), ("outside", "inside")
    ):
        options = {"centered": centered, "momentum": momentum, "eps_placement": place, "lr_placement": lr_place}
        name = f"rmsprop-{'centered' if centered else 'plain'}-{momentum}-{place}-{lr_place}"
        cases.append(Case(name, gpuadam.RMSprop, oracle.rmsprop, {**options, "eps": 1e-2, "alpha": 0.9}))
    for extra in (
        {"initial_square_avg": 1.0},
        {"bias_correction": True},
        {"maximize": True, "weight_decay": 0.05},
        {"weight_decay": 0.05, "decay": "decoupled"},
        {"weight_decay": 0.05, "decay": "scheduled"},
    ):
        name = "rmsprop-" + "-".join(map(str, extra.values()))
        cases.append(Case(name, gpuadam.RMSprop, oracle.rmsprop, {**extra, "eps": 1e-3}))
    return cases


def _nadam() -> list[Case]:
    every = {"betas": (0.8, 0.95), "eps": 1e-3, "momentum_decay": 0.5}
    options = [
        {"momentum_decay": 4e-3},
        *({"eps_placement": place} for place in ("outside", "hat", "inside")),
        *({"weight_decay": 0.05, "decay": decay} for decay in get_args(Decay)),
        {"weight_decay": 0.05, "decoupled_weight_decay": True, "maximize": True},
        {"momentum_schedule": "constant", "eps_placement": "hat"},
        {"momentum_schedule": "keras-adamw", "eps_placement": "inside"},
    ]
    cases = [("nadam-" + "-".join(map(str, own.values())), own) for own in options]
    cases += [(f"nadam_l1-{decay}", {"l1_decay": 0.03, "decay": decay}) for decay in get_args(Decay)]
    return [Case(name, gpuadam.NAdam, oracle_momentum.nadam, {**every, **own}) for name, own in cases]


def _sgd() -> list[Case]:
    cases = []
    for (momentum, dampening, nesterov), lr_place in itertools.product(
        ((0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.3, False), (0.9, 0.0, True)), ("outside", "inside")
    ):
        options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "lr_placement": lr_place}
        name = f"sgd-{momentum}-{dampening}-{'nesterov' if nesterov else 'plain'}-{lr_place}"
        cases.append(Case(name, gpuadam.SGD, oracle_momentum.sgd, options))
    for momentum, decay, maximize in itertools.product((0.0, 0.9), get_args(Decay), (False, True)):
        options = {"momentum": momentum, "decay": decay, "maximize": maximize, "weight_decay": 0.05}
        cases.append(Case(f"sgd-{momentum}-{decay}-{maximize}", gpuadam.SGD, oracle_momentum.sgd, options))
    for decay, momentum in itertools.product(get_args(Decay), (0.9, 0.0)):
        options = {"decay": decay, "l1_decay": 0.03, "momentum": momentum, "lr_placement": "inside"}
        cases.append(Case(f"sgd_l1-{decay}-{momentum}", gpuadam.SGD, oracle_momentum.sgd, options))
    return cases


def _lamb() -> list[Case]:
    every = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}
    options = [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.0, "always_adapt": False},
        {"bias_correction": False, "maximize": True},
        {"trust_clip": 1.5, "always_adapt": False},
    ]
    return [
        Case("lamb-" + "-".join(map(str, own.values())), gpuadam.LAMB, oracle_lamb.lamb, {**every, **own})
        for own in options
    ]


def _schedule_free() -> list[Case]:
    warm = {"warmup_steps": 5, "weight_decay": 0.05}
    adamw = {"betas": (0.8, 0.95), "eps": 1e-3}
    forms = {"plain": {}, "warm": warm, "powers": {**warm, "r": 0.5, "weight_lr_power": 1.0, "maximize": True}}
    cases = []
    for name, own in forms.items():
        made = gpuadam.AdamWScheduleFree, oracle_schedule_free.adamw_schedule_free
        cases.append(Case(f"adamw_schedule_free-{name}", *made, {**adamw, **own}))
        made = gpuadam.SGDScheduleFree, oracle_schedule_free.sgd_schedule_free
        cases.append(Case(f"sgd_schedule_free-{name}", *made, own))
    return cases


ADAM, NADAM, RMSPROP, SGD = _adam(), _nadam(), _rmsprop(), _sgd()
ADAPTIVE = [Case(*row) for row in cases_adaptive.ROWS]
LAMB, SCHEDULE_FREE = _lamb(), _schedule_free()
CASES = ADAM + NADAM + RMSPROP + SGD + LAMB + SCHEDULE_FREE + ADAPTIVE
IDS = [case.name for case in CASES]
RULES = {
    rule.name: rule
    for module in (
        adam_rules,
        momentum_rules,
        l1_rules,
        adam_variant_rules,
        adaptive_rules,
        sign_rules,
        layerwise_rules,
        schedule_free_rules,
    )
    for rule in vars(module).values()
    if isinstance(rule, Rule)
}

# Cases that one optimizer can hold, a group each. With an L1 decay it is another rule.
TOGETHER: dict[str, list[Case]] = {}
for _case in CASES:
    TOGETHER.setdefault(_case.make.__name__ + ("_l1" if "l1_decay" in _case.options else ""), []).append(_case)


def groups_of(cases: Sequence[Case], params: Sequence[Any]) -> list[dict[str, Any]]:
    """A group for each case, with its options."""
    return [{"params": [param], **case.options} for case, param in zip(cases, params, strict=True)]


# A schedule for lr, and the same for the oracle: any hyperparameter may be one.
LR = schedules.warmup_cosine_decay(0.0, 0.05, 3, 12)
ORACLE_LR = oracle.warmup_cosine_decay(0.0, 0.05, 3, 12)


def gradients(count: int, numel: int, dtype: Any, seed: int = 0, decades: float = 2.0) -> list[np.ndarray]:
    """Gradients whose sizes spread over some decades."""
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-decades, decades / 4, numel)
    return [(scale * generator.standard_normal(numel)).astype(dtype) for _ in range(count)]


def parameters(numel: int, dtype: Any, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(numel).astype(dtype)


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of an array, every NaN the same."""
    return np.where(np.isnan(array), np.nan, array).astype(array.dtype).view(f"u{array.dtype.itemsize}")


def assert_same_bits(ours: Any, theirs: Any, what: str = "") -> None:
    a, b = bits(np.asarray(ours)), bits(np.asarray(theirs))
    different = np.flatnonzero((a != b).ravel())
    assert not len(different), f"{what}: {len(different)} of {a.size} differ, first at {different[0]}: {ours} {theirs}"

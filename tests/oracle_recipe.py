"""Float64 oracle of the training recipe: what happens around a rule, step by step, for many tensors.

It imports nothing from the package under test. The rules are one step of `oracle.adam` and `oracle_momentum.sgd`; t and
k count as there, each tensor its own. Every stage is a method, so that a test can plant a fault in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from oracle import Scalar, _adam_direction, _correction, _decay, _value

HALVES = ("float16", "bfloat16")


class Tensor:
    """A parameter and what is kept beside it: `stored` as it lies in memory, `weight` what it stands for."""

    def __init__(self, param: np.ndarray, lr_scale: float = 1.0) -> None:
        self.stored = param.copy()
        self.weight = param.astype(np.float64)
        self.average = self.weight.copy()
        self.states: dict[str, np.ndarray] = {}
        self.lr_scale = lr_scale
        self.t = self.k = 0

    def state(self, name: str) -> np.ndarray:
        return self.states.get(name, np.zeros_like(self.weight))


def adam(tensor: Tensor, g: np.ndarray, *, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
         weight_decay: float = 0.0, decay: str = "coupled") -> np.ndarray:  # fmt: skip
    """One update of Adam (Kingma & Ba 2015) or, with decoupled decay, AdamW; the new weight."""
    p, g = _decay(tensor.weight, g, weight_decay, lr, decay)
    m, v = tensor.state("exp_avg"), tensor.state("exp_avg_sq")
    m = betas[0] * m + (1.0 - betas[0]) * g
    v = betas[1] * v + (1.0 - betas[1]) * g * g
    tensor.states = {"exp_avg": m, "exp_avg_sq": v}
    corrections = [_correction(beta, tensor.k) for beta in betas]
    return p - lr * _adam_direction(m, v, *corrections, eps, "outside")


def sgd(tensor: Tensor, g: np.ndarray, *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0,
        decay: str = "coupled") -> np.ndarray:  # fmt: skip
    """One update of torch.optim.SGD, whose buffer starts as the first gradient; the new weight."""
    p, g = _decay(tensor.weight, g, weight_decay, lr, decay)
    if momentum:
        g = g if tensor.k == 1 else momentum * tensor.state("momentum_buffer") + g
        tensor.states = {"momentum_buffer": g}
    return p - lr * g


@dataclass
class Group:
    """Tensors with settings of their own; numbers may be functions of t."""

    params: Sequence[np.ndarray]
    settings: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: Scalar = math.inf
    clip_value: Scalar = math.inf
    ema_decay: Scalar | None = None
    warms_up: bool = False  # the decay is min(ema_decay, (1 + k) / (10 + k))
    has_companion: bool = False  # a 16-bit parameter is only the rounded weight
    lr_scale: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        scales = [self.lr_scale] * len(self.params) if np.isscalar(self.lr_scale) else self.lr_scale
        self.tensors = [Tensor(param, scale) for param, scale in zip(self.params, scales, strict=True)]

    def at(self, tensor: Tensor) -> dict[str, Any]:
        """The settings of the rule for the update that comes next."""
        now = {
            name: tuple(_value(part, tensor.t) for part in value) if isinstance(value, tuple) else value
            for name, value in self.settings.items()
        }
        now = {name: value(tensor.t) if callable(value) else value for name, value in now.items()}
        return {**now, "lr": now["lr"] * tensor.lr_scale}


class Recipe:
    """Unscale, clip, update, round, average; or skip.

    Args:
        rule: `adam` or `sgd`.
        groups: Tensors and their settings.
        clip_scope: Over what a norm goes: "global", "group" or "tensor".
        skips_nonfinite: A gradient that is not finite skips the step.
        per_tensor_step: A tensor without gradient stands still altogether.
    """

    def __init__(self, rule: Callable[..., np.ndarray], groups: Sequence[Group], *, clip_scope: str = "global",
                 skips_nonfinite: bool = False, per_tensor_step: bool = False) -> None:  # fmt: skip
        self.rule, self.groups = rule, list(groups)
        self.clip_scope, self.skips_nonfinite, self.per_tensor_step = clip_scope, skips_nonfinite, per_tensor_step
        self.skipped_steps = 0
        self.norms: list[float] = []

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for group in self.groups for tensor in group.tensors]

    def add_group(self, group: Group) -> None:
        self.groups.append(group)

    def step(self, grads: Sequence[np.ndarray | None], grad_scale: float = 1.0, found_inf: float = 0.0) -> bool:
        """One step; whether it was applied."""
        unscaled = [None if g is None else self.unscale(g.astype(np.float64), grad_scale) for g in grads]
        scopes = self.scopes()
        self.norms = [self.norm([unscaled[i] for i in scope if unscaled[i] is not None]) for scope in scopes]
        norm_of = {i: norm for scope, norm in zip(scopes, self.norms, strict=True) for i in scope}
        if found_inf or (self.skips_nonfinite and not np.all(np.isfinite(self.norms))):
            self.skip()
            return False
        members = [(group, tensor) for group in self.groups for tensor in group.tensors]
        for i, (group, tensor) in enumerate(members):
            if unscaled[i] is not None:
                self.update(group, tensor, self.clip(unscaled[i], norm_of[i], group, tensor.t))
            tensor.t += unscaled[i] is not None or not self.per_tensor_step
        return True

    def scopes(self) -> list[list[int]]:
        """The tensors, by position, of each norm."""
        everything = range(len(self.tensors))
        ends = np.cumsum([0, *(len(group.tensors) for group in self.groups)])
        by_group = [list(range(a, b)) for a, b in itertools.pairwise(ends)]
        return {"global": [list(everything)], "group": by_group, "tensor": [[i] for i in everything]}[self.clip_scope]

    def unscale(self, g: np.ndarray, grad_scale: float) -> np.ndarray:
        return g / grad_scale

    def norm(self, grads: Sequence[np.ndarray]) -> float:
        """The norm over all elements of some gradients."""
        with np.errstate(over="ignore"):
            return math.sqrt(sum(float(np.sum(g * g)) for g in grads))

    def clip(self, g: np.ndarray, norm: float, group: Group, t: int) -> np.ndarray:
        """To a norm (Pascanu et al. 2013, Algorithm 1), then each element; neither hides a NaN."""
        return self.clip_elements(self.clip_to_norm(g, norm, _value(group.clip_norm, t)), _value(group.clip_value, t))

    def clip_to_norm(self, g: np.ndarray, norm: float, threshold: float) -> np.ndarray:
        if math.isinf(threshold) or norm <= threshold:
            return g
        with np.errstate(invalid="ignore"):
            return g * (threshold / norm)

    def clip_elements(self, g: np.ndarray, threshold: float) -> np.ndarray:
        return np.clip(g, -threshold, threshold)

    def update(self, group: Group, tensor: Tensor, g: np.ndarray) -> None:
        tensor.k += 1
        weight = self.rule(tensor, g, **group.at(tensor))
        self.store(group, tensor, weight)
        if group.ema_decay is not None:
            self.move_average(tensor, self.decay(group, tensor))

    def store(self, group: Group, tensor: Tensor, weight: np.ndarray) -> None:
        """Round to the parameter's format; without a companion a 16-bit weight is what is left of it."""
        tensor.stored = weight.astype(tensor.stored.dtype)
        is_rounded = tensor.stored.dtype.name in HALVES and not group.has_companion
        tensor.weight = tensor.stored.astype(np.float64) if is_rounded else weight

    def decay(self, group: Group, tensor: Tensor) -> float:
        decay = _value(group.ema_decay, tensor.t)
        return min(decay, (1 + tensor.k) / (10 + tensor.k)) if group.warms_up else decay

    def move_average(self, tensor: Tensor, decay: float) -> None:
        tensor.average = decay * tensor.average + (1.0 - decay) * tensor.weight

    def skip(self) -> None:
        self.skipped_steps += 1


def neighbours(exact: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of a format on either side of each number, and the probability of the upper one in stochastic
    rounding without bias; where the format has the number itself, all three say so."""
    near = exact.astype(dtype)
    integer = near.view(np.uint16).astype(np.int64)
    value = near.astype(np.float64)
    away = np.where(np.abs(exact) > np.abs(value), 1, -1)  # codes grow with the magnitude
    other = np.where(value == exact, integer, integer + away).astype(np.uint16).view(dtype).astype(np.float64)
    low, high = np.minimum(value, other), np.maximum(value, other)
    gap = np.where(high > low, high - low, 1.0)
    return low, high, (exact - low) / gap

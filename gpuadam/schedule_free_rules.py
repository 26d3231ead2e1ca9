"""The schedule-free rules: AdamW and SGD without a schedule of the rate (twins in rules.cuh).

Defazio et al. 2024: z takes the steps, x, a weighted average of all z, is what is evaluated, and gradients are those at
y = (1 - beta) z + beta x. The parameter holds y; x is not kept, as it follows from y and z. z begins, at a tensor's
first update, as the parameter that this finds: as a 0 to which `start`, 1 there and then 0, adds the distance.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .expressions import Expr, accumulator, as_expr, equal, maximum, minimum, sqrt, updates, where
from .jit import inlined
from .rules import FINITE, FRACTION, Hyperparameters, Range, Rule, bias_correction

MIXING = Range(5e-324, FRACTION.high, "a number > 0 and < 1")


@dataclass(frozen=True)
class ScheduleFreeOptions:
    """How long the rate rises, and the sign of the gradient."""

    warmup_steps: int = 0
    maximize: bool = False

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


class Sizes(NamedTuple):
    """What both rules have: how far y and z go in this step."""

    start: Any
    average: Any
    y_size: Any
    y_decay: Any
    lr: Any
    decay: Any


def sizes(h: Hyperparameters, beta: Expr, options: ScheduleFreeOptions) -> Sizes:
    """Coefficients of Defazio et al. 2024, equations 3 to 5, as the package `schedulefree` has them.

    lr_k = lr min(1, k / warmup_steps); the weight of z_k in x is w_k = k**r max(lr_1 ... lr_k)**weight_lr_power, so
    x moves by c_k = w_k / (w_1 + ... + w_k), and y, from which x was eliminated, by
    c_k (z - y) - lr_k (1 - beta (1 - c_k)) u, u being the update of which z takes lr_k. As long as all weights are 0,
    c_k is 0.
    """
    lr = h["lr"] * minimum(1.0, updates / float(options.warmup_steps)) if options.warmup_steps else h["lr"]
    largest = accumulator("lr_max", 0.0, lambda before: maximum(before, lr))
    weight = updates ** h["r"] * maximum(largest, lr) ** h["weight_lr_power"]
    total = accumulator("weight_sum", 0.0, lambda before: before + weight) + weight
    average = where(equal(total, 0.0), 0.0, weight / total)
    y_size = lr * (1.0 - beta * (1.0 - average))
    return Sizes(
        start=where(updates <= 1, 1.0, 0.0),
        average=average,
        y_size=y_size,
        y_decay=y_size * h["weight_decay"],
        lr=lr,
        decay=lr * h["weight_decay"],
    )


class AdamWScheduleFreeCoefficients(NamedTuple):
    """Coefficients of `adamw_schedule_free`: expressions when a program is made, numbers when it runs."""

    grad_factor: Any
    start: Any
    average: Any
    y_size: Any
    y_decay: Any
    lr: Any
    decay: Any
    weight2: Any
    denominator_factor: Any
    eps: Any


@inlined
def adamw_schedule_free(param: Any, grad: Any, z: Any, exp_avg_sq: Any, c: Any) -> Any:
    z = z + c.start * (param - z)
    exp_avg_sq = exp_avg_sq + c.weight2 * (grad * grad - exp_avg_sq)
    update = grad / (math.sqrt(exp_avg_sq) * c.denominator_factor + c.eps)
    new_z = z - (c.lr * update + c.decay * param)
    param = param + c.average * (z - param) - (c.y_size * update + c.y_decay * param)
    return param, new_z, exp_avg_sq


def adamw_schedule_free_coefficients(h: Hyperparameters, options: ScheduleFreeOptions) -> AdamWScheduleFreeCoefficients:
    """Coefficients of schedule-free AdamW: its beta1 mixes, and there is no first moment."""
    return AdamWScheduleFreeCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        **sizes(h, h["beta1"], options)._asdict(),
        weight2=1.0 - h["beta2"],
        denominator_factor=1.0 / sqrt(bias_correction(h["beta2"])),
        eps=h["eps"],
    )


class SGDScheduleFreeCoefficients(NamedTuple):
    """Coefficients of `sgd_schedule_free`."""

    grad_factor: Any
    start: Any
    average: Any
    y_size: Any
    y_decay: Any
    lr: Any
    decay: Any


@inlined
def sgd_schedule_free(param: Any, grad: Any, z: Any, c: Any) -> Any:
    z = z + c.start * (param - z)
    new_z = z - (c.lr * grad + c.decay * param)
    param = param + c.average * (z - param) - (c.y_size * grad + c.y_decay * param)
    return param, new_z


def sgd_schedule_free_coefficients(h: Hyperparameters, options: ScheduleFreeOptions) -> SGDScheduleFreeCoefficients:
    """Coefficients of schedule-free SGD: its momentum mixes."""
    grad_factor = as_expr(-1.0 if options.maximize else 1.0)
    return SGDScheduleFreeCoefficients(grad_factor, *sizes(h, h["momentum"], options))


SHARED = {"lr": FINITE, "weight_decay": FINITE, "r": FINITE, "weight_lr_power": FINITE}
ADAMW_SCHEDULE_FREE = Rule(
    element=adamw_schedule_free,
    states=("z", "exp_avg_sq"),
    hyperparameters={**SHARED, "beta1": MIXING, "beta2": FRACTION, "eps": FINITE},
    options=ScheduleFreeOptions,
    coefficients=adamw_schedule_free_coefficients,
    row=AdamWScheduleFreeCoefficients,
    nonnegative=frozenset({"exp_avg_sq"}),
    mixing="beta1",
)
SGD_SCHEDULE_FREE = Rule(
    element=sgd_schedule_free,
    states=("z",),
    hyperparameters={**SHARED, "momentum": MIXING},
    options=ScheduleFreeOptions,
    coefficients=sgd_schedule_free_coefficients,
    row=SGDScheduleFreeCoefficients,
    mixing="momentum",
)

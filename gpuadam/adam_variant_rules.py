"""Rules that weigh Adam's moments otherwise: RAdam, QHAdam (twins in rules.cuh; RAdam's is `adam`)."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .adam_rules import ADAM, AdamCoefficients, AdamOptions, adam_coefficients
from .expressions import Expr, expm1, log1p, sqrt, updates, where
from .jit import inlined
from .rules import (
    FINITE,
    FRACTION,
    SHARE,
    Decay,
    EpsPlacement,
    Hyperparameters,
    Rule,
    bias_correction,
    weight_decays,
)

LOWEST_THRESHOLD = 4.0  # at a lower one the rectification would be the root of a negative number


@dataclass(frozen=True)
class RAdamOptions:
    """How this RAdam differs from the others of that name."""

    decoupled_weight_decay: bool = False  # PyTorch's word for the decay "decoupled"
    maximize: bool = False
    eps_placement: EpsPlacement = "hat"
    threshold: float = 5.0
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset({"max_exp_avg_sq"})


def langevin(y: Expr) -> tuple[Expr, Expr]:
    """coth(y) - 1/y, and 1 less it, for y > 0; by its series where the difference would cancel."""
    z = y * y
    series = y / 3.0 * (1.0 - z / 15.0 * (1.0 - z * (2.0 / 21.0) * (1.0 - z / 10.0 * (1.0 - z * (10.0 / 99.0)))))
    rest = 1.0 / y - 2.0 / expm1(2.0 * y)
    is_small = y < 0.125
    return where(is_small, series, 1.0 - rest), where(is_small, 1.0 - series, rest)


def length_of_average(beta2: Expr) -> Expr:
    """rho_k = 2 / (1 - beta2) - 1 - 2 k beta2**k / (1 - beta2**k), the length of the average so far.

    Written so, terms of size 2 / (1 - beta2) leave a difference as small as k. With L = -log(beta2) and Langevin's
    h(y) = coth(y) - 1/y it is k (1 - h(k L / 2)) + h(L / 2), in which nothing cancels.
    """
    half = -0.5 * log1p(beta2 - 1.0)
    return updates * langevin(updates * half)[1] + langevin(half)[0]


def radam_coefficients(h: Hyperparameters, options: RAdamOptions) -> AdamCoefficients:
    """Coefficients of RAdam (Liu et al. 2020, Algorithm 2): those of Adam, times the rectification.

    While the average of squares is too short for its variance to be known, the denominator is 1: 0 * sqrt(v) + 1.
    """
    if options.threshold < LOWEST_THRESHOLD:
        raise ValueError(f"threshold is {options.threshold!r}; allowed are numbers >= {LOWEST_THRESHOLD}")
    is_decoupled = options.decoupled_weight_decay and options.decay == "coupled"
    decay: Decay = "decoupled" if is_decoupled else options.decay
    plain = adam_coefficients(h, AdamOptions(False, options.maximize, options.eps_placement, decay))
    rho, limit = length_of_average(h["beta2"]), 2.0 / (1.0 - h["beta2"]) - 1.0
    is_rectified = rho > options.threshold
    rectification = sqrt((rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho))
    return plain._replace(
        eps_inside=where(is_rectified, plain.eps_inside, 0.0),
        denominator_factor=where(is_rectified, plain.denominator_factor, 0.0),
        eps_outside=where(is_rectified, plain.eps_outside, 1.0),
        step_size=plain.step_size * where(is_rectified, rectification, 1.0),
    )


class QHAdamCoefficients(NamedTuple):
    """Coefficients of `qhadam`: expressions when a program is made, numbers of the computing type when it runs."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight1: Any
    weight2: Any
    square_share: Any
    exp_avg_sq_share: Any
    eps: Any
    grad_size: Any
    exp_avg_size: Any


@dataclass(frozen=True)
class QHAdamOptions:
    """How this QHAdam differs from the others of that name."""

    decouple_weight_decay: bool = False  # its authors' word for the decay "decoupled"
    maximize: bool = False
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def qhadam(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    square = grad * grad
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    exp_avg_sq = exp_avg_sq + c.weight2 * (square - exp_avg_sq)
    denominator = math.sqrt(c.square_share * square + c.exp_avg_sq_share * exp_avg_sq) + c.eps
    param = param - (c.grad_size * grad + c.exp_avg_size * exp_avg) / denominator
    return param, exp_avg, exp_avg_sq


def qhadam_coefficients(h: Hyperparameters, options: QHAdamOptions) -> QHAdamCoefficients:
    """Coefficients of QHAdam (Ma & Yarats 2019, Algorithm 2): averages of each moment and of what joined it last."""
    is_decoupled = options.decouple_weight_decay and options.decay == "coupled"
    l2, decay = weight_decays(h, "decoupled" if is_decoupled else options.decay)
    return QHAdamCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight1=1.0 - h["beta1"],
        weight2=1.0 - h["beta2"],
        square_share=1.0 - h["nu2"],
        exp_avg_sq_share=h["nu2"] / bias_correction(h["beta2"]),
        eps=h["eps"],
        grad_size=h["lr"] * (1.0 - h["nu1"]),
        exp_avg_size=h["lr"] * h["nu1"] / bias_correction(h["beta1"]),
    )


RADAM = Rule(
    element=ADAM.element,
    states=ADAM.states,
    hyperparameters={"lr": FINITE, "beta1": FRACTION, "beta2": FRACTION, "eps": FINITE, "weight_decay": FINITE},
    options=RAdamOptions,
    coefficients=radam_coefficients,
    row=AdamCoefficients,
    nonnegative=ADAM.nonnegative,
    own_name="radam",
)
QHADAM = Rule(
    element=qhadam,
    states=("exp_avg", "exp_avg_sq"),
    hyperparameters={
        "lr": FINITE,
        "beta1": FRACTION,
        "beta2": FRACTION,
        "nu1": SHARE,
        "nu2": SHARE,
        "eps": FINITE,
        "weight_decay": FINITE,
    },
    options=QHAdamOptions,
    coefficients=qhadam_coefficients,
    row=QHAdamCoefficients,
    nonnegative=frozenset({"exp_avg_sq"}),
)

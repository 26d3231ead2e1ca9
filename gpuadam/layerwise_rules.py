"""Rules whose steps depend on norms of whole tensors: LAMB (twin in rules.cuh; the norms: measures.py, measure.cu)."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .expressions import minimum, sqrt, where
from .jit import inlined
from .rules import FINITE, FRACTION, Hyperparameters, Range, Rule, bias_correction

RATIO = Range(math.ulp(0.0), math.inf, "a number > 0")


class LAMBCoefficients(NamedTuple):
    """Coefficients of `lamb`; the limit of the trust ratio is 0 where a tensor is not adapted."""

    grad_factor: Any
    step_size: Any
    trust_limit: Any
    weight1: Any
    weight2: Any
    mean_factor: Any
    denominator_factor: Any
    eps: Any
    weight_decay: Any


@dataclass(frozen=True)
class LAMBOptions:
    """How this LAMB differs from the others of that name."""

    bias_correction: bool = True
    always_adapt: bool = True
    maximize: bool = False

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def lamb_direction(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, c: Any) -> Any:
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    exp_avg_sq = exp_avg_sq + c.weight2 * (grad * grad - exp_avg_sq)
    denominator = math.sqrt(exp_avg_sq) * c.denominator_factor + c.eps
    return exp_avg * c.mean_factor / denominator + c.weight_decay * param, exp_avg, exp_avg_sq


@inlined
def lamb(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, c: Any) -> Any:
    update, exp_avg, exp_avg_sq = lamb_direction(param, grad, exp_avg, exp_avg_sq, c)
    return param - c.step_size * update, exp_avg, exp_avg_sq


def lamb_coefficients(h: Hyperparameters, options: LAMBOptions) -> LAMBCoefficients:
    """Coefficients of LAMB (You et al. 2020, Algorithm 2); without bias correction that of its version 1."""
    limit = minimum(h["trust_clip"], FINITE.high)
    corrects = options.bias_correction
    return LAMBCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        step_size=h["lr"],
        trust_limit=limit if options.always_adapt else where(h["weight_decay"] > 0, limit, 0.0),
        weight1=1.0 - h["beta1"],
        weight2=1.0 - h["beta2"],
        mean_factor=1.0 / bias_correction(h["beta1"]) if corrects else 1.0,
        denominator_factor=1.0 / sqrt(bias_correction(h["beta2"])) if corrects else 1.0,
        eps=h["eps"],
        weight_decay=h["weight_decay"],
    )


LAMB = Rule(
    element=lamb,
    states=("exp_avg", "exp_avg_sq"),
    hyperparameters={
        "lr": FINITE,
        "beta1": FRACTION,
        "beta2": FRACTION,
        "eps": FINITE,
        "weight_decay": FINITE,
        "trust_clip": RATIO,
    },
    options=LAMBOptions,
    coefficients=lamb_coefficients,
    row=LAMBCoefficients,
    nonnegative=frozenset({"exp_avg_sq"}),
    measure=lamb_direction,
)

"""Adam, NAdam and SGD with an L1 decay beside the other one, and keras-adamw's form of both (twins in rules.cuh).

They are rules of their own, as it would cost those without it registers and time.
"""

import math
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .adam_rules import ADAM, NADAM, AdamOptions, NAdamOptions, adam, nadam
from .expressions import Expr, as_expr, as_number
from .jit import inlined
from .momentum_rules import SGD, SGDOptions, sgd
from .rules import FINITE, Decay, Hyperparameters, Rule, weight_decays, with_sign_of

OWN = ("l1", "shrink", "zero")
AdamL1Coefficients = namedtuple("AdamL1Coefficients", (*ADAM.row._fields, *OWN))  # type: ignore[attr-defined, misc]
NAdamL1Coefficients = namedtuple("NAdamL1Coefficients", (*NADAM.row._fields, *OWN))  # type: ignore[attr-defined, misc]
SGDL1Coefficients = namedtuple("SGDL1Coefficients", (*SGD.row._fields, *OWN))  # type: ignore[attr-defined, misc]


@inlined
def adam_l1(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any, c: Any) -> Any:
    shrunk = with_sign_of(c.shrink, param, c.zero)
    grad = grad + with_sign_of(c.l1, param, c.zero)
    param, exp_avg, exp_avg_sq, max_exp_avg_sq = adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, c)
    param = param - shrunk
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


@inlined
def nadam_l1(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, c: Any) -> Any:
    shrunk = with_sign_of(c.shrink, param, c.zero)
    grad = grad + with_sign_of(c.l1, param, c.zero)
    param, exp_avg, exp_avg_sq = nadam(param, grad, exp_avg, exp_avg_sq, c)
    param = param - shrunk
    return param, exp_avg, exp_avg_sq


@inlined
def sgd_l1(param: Any, grad: Any, momentum_buffer: Any, c: Any) -> Any:
    shrunk = with_sign_of(c.shrink, param, c.zero)
    grad = grad + with_sign_of(c.l1, param, c.zero)
    param, momentum_buffer = sgd(param, grad, momentum_buffer, c)
    param = param - shrunk
    return param, momentum_buffer


def own_coefficients(h: Hyperparameters, decay: Decay) -> tuple[Any, Any, Any]:
    """What the sign adds to the gradient, what it takes from the parameter, and the zero with which both compare."""
    return *weight_decays(h, decay, "l1_decay"), as_expr(0.0)


def adam_l1_coefficients(h: Hyperparameters, options: AdamOptions) -> Any:
    return AdamL1Coefficients._make((*ADAM.coefficients(h, options), *own_coefficients(h, options.decay)))


def nadam_l1_coefficients(h: Hyperparameters, options: NAdamOptions) -> Any:
    return NAdamL1Coefficients._make((*NADAM.coefficients(h, options), *own_coefficients(h, options.placement)))


def sgd_l1_coefficients(h: Hyperparameters, options: SGDOptions) -> Any:
    return SGDL1Coefficients._make((*SGD.coefficients(h, options), *own_coefficients(h, options.decay)))


def with_l1(rule: Rule, element: Any, coefficients: Any, row: Any) -> Rule:
    ranges = {**rule.hyperparameters, "l1_decay": FINITE}
    return replace(rule, element=element, hyperparameters=ranges, coefficients=coefficients, row=row)


ADAM_L1 = with_l1(ADAM, adam_l1, adam_l1_coefficients, AdamL1Coefficients)
NADAM_L1 = with_l1(NADAM, nadam_l1, nadam_l1_coefficients, NAdamL1Coefficients)
SGD_L1 = with_l1(SGD, sgd_l1, sgd_l1_coefficients, SGDL1Coefficients)


def choose(rule: Rule, with_l1: Rule, settings: Mapping[str, Any], l1_decay: Any) -> tuple[Rule, dict[str, Any]]:
    """The rule that has an L1 decay, unless that is None, and its settings."""
    return (rule, {**settings}) if l1_decay is None else (with_l1, {**settings, "l1_decay": l1_decay})


def product_of(**factors: Any) -> Any:
    """Of numbers a number, which can be rewritten, else a schedule."""
    return math.prod(value if isinstance(value, Expr) else as_number(value, name) for name, value in factors.items())


def normalised(eta: Any, total_iterations: int, l1: Any, l2: Any) -> dict[str, Any]:
    """The decay of keras-adamw as ours: scheduled, and smaller in longer runs (Loshchilov & Hutter 2019, appendix B.1).

    Theirs is off where `total_iterations` is 1 or less.
    """
    is_whole = isinstance(total_iterations, int | np.integer) and not isinstance(total_iterations, bool)
    if not is_whole or total_iterations < 2:
        raise ValueError(f"total_iterations is {total_iterations!r}; allowed are whole numbers >= 2")
    share = math.sqrt(1 / total_iterations)
    l1_decay = None if l1 is None else product_of(eta=eta, share=share, l1=l1)
    return {"weight_decay": product_of(eta=eta, share=share, l2=l2), "l1_decay": l1_decay, "decay": "scheduled"}

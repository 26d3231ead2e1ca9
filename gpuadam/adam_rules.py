"""The rules of the Adam family: Adam, AdamW, AMSGrad, NAdam (twins in rules.cuh)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .expressions import Expr, accumulator, sqrt, updates
from .jit import inlined
from .rules import (
    FINITE,
    FRACTION,
    Decay,
    EpsPlacement,
    Hyperparameters,
    Rule,
    bias_correction,
    weight_decays,
)

MomentumSchedule = Literal["dozat", "constant", "keras-adamw"]


def denominator_coefficients(
    eps: Expr, correction: Expr, placement: EpsPlacement, is_corrected: bool = False
) -> tuple[Any, Any, Any]:
    """(inside, factor, outside) of the denominator sqrt(v + inside) * factor + outside.

    With c2 = 1 - beta2**k, it is sqrt(v/c2) + eps (PyTorch), sqrt(v/c2) + eps/sqrt(c2) (epsilon-hat: Kingma's last
    lines of section 2, TensorFlow) or sqrt(v/c2 + eps) (optax's eps_root); a v that is corrected stands for v/c2.
    """
    outside = {"outside": eps, "hat": eps / sqrt(correction), "inside": 0.0}
    inside = eps if is_corrected else eps * correction
    factor = 1.0 if is_corrected else 1.0 / sqrt(correction)
    return inside if placement == "inside" else 0.0, factor, outside[placement]


class AdamCoefficients(NamedTuple):
    """Coefficients of `adam`: expressions when a program is made, numbers of the computing type when it runs."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight1: Any
    weight2: Any
    candidate_factor: Any
    eps_inside: Any
    denominator_factor: Any
    eps_outside: Any
    step_size: Any


@dataclass(frozen=True)
class AdamOptions:
    """How this Adam differs from the others of that name."""

    amsgrad: Literal[False, True, "raw", "corrected"] = False  # True is "raw"
    maximize: bool = False
    eps_placement: EpsPlacement = "outside"
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset() if self.amsgrad else frozenset({"max_exp_avg_sq"})


@inlined
def adam(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    exp_avg_sq = exp_avg_sq + c.weight2 * (grad * grad - exp_avg_sq)
    second = exp_avg_sq
    if max_exp_avg_sq is not None:
        candidate = second * c.candidate_factor
        max_exp_avg_sq = max_exp_avg_sq if max_exp_avg_sq > candidate else candidate
        second = max_exp_avg_sq
    denominator = math.sqrt(second + c.eps_inside) * c.denominator_factor + c.eps_outside
    param = param - c.step_size * (exp_avg / denominator)
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


def adam_coefficients(h: Hyperparameters, options: AdamOptions) -> AdamCoefficients:
    """Coefficients of Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi et al. 2018).

    AMSGrad keeps the maximum of the raw v (PyTorch, Keras) or of v / (1 - beta2**k) (optax), which then needs no
    correction.
    """
    correction = bias_correction(h["beta2"])
    is_corrected = options.amsgrad == "corrected"
    l2, decay = weight_decays(h, options.decay)
    inside, factor, outside = denominator_coefficients(h["eps"], correction, options.eps_placement, is_corrected)
    return AdamCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight1=1.0 - h["beta1"],
        weight2=1.0 - h["beta2"],
        candidate_factor=1.0 / correction if is_corrected else 1.0,
        eps_inside=inside,
        denominator_factor=factor,
        eps_outside=outside,
        step_size=h["lr"] / bias_correction(h["beta1"]),
    )


class NAdamCoefficients(NamedTuple):
    """Coefficients of `nadam`."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight1: Any
    weight2: Any
    eps_inside: Any
    denominator_factor: Any
    eps_outside: Any
    grad_size: Any
    exp_avg_size: Any


@dataclass(frozen=True)
class NAdamOptions:
    """How this NAdam differs from the others of that name."""

    decoupled_weight_decay: bool = False  # PyTorch's word for the decay "decoupled"
    maximize: bool = False
    eps_placement: EpsPlacement = "outside"
    momentum_schedule: MomentumSchedule = "dozat"
    decay: Decay = "coupled"

    @property
    def placement(self) -> Decay:
        return "decoupled" if self.decoupled_weight_decay and self.decay == "coupled" else self.decay

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def nadam(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    exp_avg_sq = exp_avg_sq + c.weight2 * (grad * grad - exp_avg_sq)
    denominator = math.sqrt(exp_avg_sq + c.eps_inside) * c.denominator_factor + c.eps_outside
    param = param - (c.grad_size * grad + c.exp_avg_size * exp_avg) / denominator
    return param, exp_avg, exp_avg_sq


def lookahead(h: Hyperparameters, schedule: MomentumSchedule) -> tuple[Expr, Expr]:
    """The factors of the gradient and of the first moment in what NAdam moves by, their biases corrected.

    mu_k = beta1 * (1 - 0.96**(k * momentum_decay) / 2); the bias of the first moment is 1 - mu_1 ... mu_k, and that of
    the momentum that looks ahead 1 - mu_1 ... mu_(k+1). Their product has no closed form, so it is an accumulator.
    """
    if schedule == "constant":
        now = h["beta1"]
        return (1.0 - now) / bias_correction(now), now / bias_correction(now, updates + 1)

    def mu(k: Expr) -> Expr:
        return h["beta1"] * (1.0 - 0.5 * 0.96 ** (k * h["momentum_decay"]))

    now, ahead = mu(updates), mu(updates + 1)
    product = now * accumulator("mu_product", 1.0, lambda before: before * now)
    factor = ahead if schedule == "dozat" else now
    return (1.0 - now) / (1.0 - product), factor / (1.0 - product * ahead)


def nadam_coefficients(h: Hyperparameters, options: NAdamOptions) -> NAdamCoefficients:
    """Coefficients of NAdam (Dozat 2016, Algorithm 2, with the momentum schedule of its section 3.1 as PyTorch has it).

    optax has no momentum schedule; keras-adamw has mu_k where the others have mu_(k+1).
    """
    grad_part, exp_avg_part = lookahead(h, options.momentum_schedule)
    l2, decay = weight_decays(h, options.placement)
    inside, factor, outside = denominator_coefficients(h["eps"], bias_correction(h["beta2"]), options.eps_placement)
    return NAdamCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight1=1.0 - h["beta1"],
        weight2=1.0 - h["beta2"],
        eps_inside=inside,
        denominator_factor=factor,
        eps_outside=outside,
        grad_size=h["lr"] * grad_part,
        exp_avg_size=h["lr"] * exp_avg_part,
    )


ADAM = Rule(
    element=adam,
    states=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    hyperparameters={"lr": FINITE, "beta1": FRACTION, "beta2": FRACTION, "eps": FINITE, "weight_decay": FINITE},
    options=AdamOptions,
    coefficients=adam_coefficients,
    row=AdamCoefficients,
    nonnegative=frozenset({"exp_avg_sq", "max_exp_avg_sq"}),
)
NADAM = Rule(
    element=nadam,
    states=("exp_avg", "exp_avg_sq"),
    hyperparameters={
        "lr": FINITE,
        "beta1": FRACTION,
        "beta2": FRACTION,
        "eps": FINITE,
        "weight_decay": FINITE,
        "momentum_decay": FINITE,
    },
    options=NAdamOptions,
    coefficients=nadam_coefficients,
    row=NAdamCoefficients,
    nonnegative=frozenset({"exp_avg_sq"}),
)

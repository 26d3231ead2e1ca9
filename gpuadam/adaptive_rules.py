"""The rules that scale the gradient by its past: Adamax, Adagrad, Adadelta (twins in rules.cuh)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .expressions import updates
from .jit import inlined
from .rules import FINITE, FRACTION, Decay, Hyperparameters, Rule, bias_correction, weight_decays

Placement = Literal["outside", "inside"]


class AdamaxCoefficients(NamedTuple):
    """Coefficients of `adamax`: expressions when a program is made, numbers of the computing type when it runs."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight1: Any
    beta2: Any
    eps_inside: Any
    eps_outside: Any
    step_size: Any


@dataclass(frozen=True)
class AdamaxOptions:
    """How this Adamax differs from the others of that name."""

    maximize: bool = False
    eps_placement: Placement = "inside"
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def adamax(param: Any, grad: Any, exp_avg: Any, exp_inf: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    size = abs(grad) + c.eps_inside
    exp_inf = exp_inf * c.beta2
    exp_inf = exp_inf if exp_inf > size else size
    param = param - c.step_size * (exp_avg / (exp_inf + c.eps_outside))
    return param, exp_avg, exp_inf


def adamax_coefficients(h: Hyperparameters, options: AdamaxOptions) -> AdamaxCoefficients:
    """Coefficients of Adamax (Kingma & Ba 2015, Algorithm 2); epsilon joins the maximum (PyTorch) or u (Keras)."""
    l2, decay = weight_decays(h, options.decay)
    is_inside = options.eps_placement == "inside"
    return AdamaxCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight1=1.0 - h["beta1"],
        beta2=h["beta2"],
        eps_inside=h["eps"] if is_inside else 0.0,
        eps_outside=0.0 if is_inside else h["eps"],
        step_size=h["lr"] / bias_correction(h["beta1"]),
    )


class AdagradCoefficients(NamedTuple):
    """Coefficients of `adagrad`."""

    grad_factor: Any
    l2: Any
    decay: Any
    eps_inside: Any
    eps_outside: Any
    step_size: Any


@dataclass(frozen=True)
class AdagradOptions:
    """How this Adagrad differs from the others of that name."""

    initial_accumulator_value: float = 0.0
    maximize: bool = False
    eps_placement: Placement = "outside"
    decay: Decay = "coupled"

    @property
    def initial_sum(self) -> float:
        return self.initial_accumulator_value

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def adagrad(param: Any, grad: Any, square_sum: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    square_sum = square_sum + grad * grad
    param = param - c.step_size * (grad / (math.sqrt(square_sum + c.eps_inside) + c.eps_outside))
    return param, square_sum


def adagrad_coefficients(h: Hyperparameters, options: AdagradOptions) -> AdagradCoefficients:
    """Coefficients of Adagrad (Duchi et al. 2011); epsilon outside the root (PyTorch) or inside (Keras, optax)."""
    l2, decay = weight_decays(h, options.decay)
    is_inside = options.eps_placement == "inside"
    return AdagradCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        eps_inside=h["eps"] if is_inside else 0.0,
        eps_outside=0.0 if is_inside else h["eps"],
        step_size=h["lr"] / (1.0 + (updates - 1.0) * h["lr_decay"]),
    )


class AdadeltaCoefficients(NamedTuple):
    """Coefficients of `adadelta`."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight: Any
    eps: Any
    step_size: Any


@dataclass(frozen=True)
class AdadeltaOptions:
    """How this Adadelta differs from the others of that name."""

    maximize: bool = False
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def adadelta(param: Any, grad: Any, square_avg: Any, acc_delta: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    square_avg = square_avg + c.weight * (grad * grad - square_avg)
    delta = math.sqrt(acc_delta + c.eps) / math.sqrt(square_avg + c.eps) * grad
    acc_delta = acc_delta + c.weight * (delta * delta - acc_delta)
    param = param - c.step_size * delta
    return param, square_avg, acc_delta


def adadelta_coefficients(h: Hyperparameters, options: AdadeltaOptions) -> AdadeltaCoefficients:
    """Coefficients of Adadelta (Zeiler 2012, Algorithm 1), with a learning rate; all libraries have this form."""
    l2, decay = weight_decays(h, options.decay)
    return AdadeltaCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight=1.0 - h["rho"],
        eps=h["eps"],
        step_size=h["lr"],
    )


ADAMAX = Rule(
    element=adamax,
    states=("exp_avg", "exp_inf"),
    hyperparameters={"lr": FINITE, "beta1": FRACTION, "beta2": FRACTION, "eps": FINITE, "weight_decay": FINITE},
    options=AdamaxOptions,
    coefficients=adamax_coefficients,
    row=AdamaxCoefficients,
    nonnegative=frozenset({"exp_inf"}),
)
ADAGRAD = Rule(
    element=adagrad,
    states=("sum",),
    hyperparameters={"lr": FINITE, "lr_decay": FINITE, "weight_decay": FINITE, "eps": FINITE},
    options=AdagradOptions,
    coefficients=adagrad_coefficients,
    row=AdagradCoefficients,
    nonnegative=frozenset({"sum"}),
)
ADADELTA = Rule(
    element=adadelta,
    states=("square_avg", "acc_delta"),
    hyperparameters={"lr": FINITE, "rho": FRACTION, "eps": FINITE, "weight_decay": FINITE},
    options=AdadeltaOptions,
    coefficients=adadelta_coefficients,
    row=AdadeltaCoefficients,
    nonnegative=frozenset({"square_avg", "acc_delta"}),
)

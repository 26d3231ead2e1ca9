"""THE list of rules: what each optimizer does to one element, and what it needs for that (twin of rules.cuh).

A rule is an element function, the names of its states, the ranges of its hyperparameters, and its coefficients as
expressions: everything that depends on the step alone is worked out once a step, in double, and rounded once to the
type in which the rule computes. Options are values of coefficients, never branches: to multiply by 1 or to add 0 is
"off". An element function holds no literal (in Numba, as in C++, it would be a double) and no minimum or maximum; an
optional state is None where the options leave it out, and Numba prunes what asks for it.

Moments are moved by `m + w * (g - m)` with w = 1 - beta made in double, which stays within 5e-6 of float64 after 10,000
steps, where `beta * m + (1 - beta) * g` in float is off by 1e-4.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .expressions import Expr, Parameter, as_expr, expm1, log1p, sqrt, updates
from .jit import inlined

Hyperparameters = Mapping[str, Expr]
EpsPlacement = Literal["outside", "hat", "inside"]
Decay = Literal["coupled", "decoupled", "scheduled"]


class Range(NamedTuple):
    """The values that a hyperparameter may take, both ends included, and how an error message puts it."""

    low: float
    high: float
    text: str


FINITE = Range(0.0, float(np.finfo(np.float32).max), "a number from 0 to 3.4e38")
FRACTION = Range(0.0, math.nextafter(1.0, 0.0), "a number >= 0 and < 1")


def bias_correction(beta: Expr) -> Expr:
    """1 - beta**k after k updates (Kingma & Ba 2015, Algorithm 1), without the cancellation of the naive form."""
    return -expm1(updates * log1p(beta - 1.0))


def weight_decays(h: Hyperparameters, decay: Decay) -> tuple[Expr, Expr]:
    """The factor of the parameter in the gradient (coupled: L2), and the one that shrinks it directly.

    Decoupled decay is lr * weight_decay (PyTorch, Keras, optax); a scheduled one is weight_decay as it stands, a
    schedule of its own (Loshchilov & Hutter 2019, Algorithm 2, where it is eta * lambda).
    """
    none = as_expr(0.0)
    if decay == "coupled":
        return h["weight_decay"], none
    return none, h["lr"] * h["weight_decay"] if decay == "decoupled" else h["weight_decay"]


def is_zero(h: Expr) -> bool:
    """Whether a hyperparameter is the number 0, not a schedule that may leave it."""
    return isinstance(h.payload, Parameter) and h.payload.value == 0


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
    grad = grad * c.grad_factor + c.l2 * param
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

    With c2 = 1 - beta2**k, the denominator is sqrt(v/c2) + eps (PyTorch), sqrt(v/c2) + eps/sqrt(c2) (epsilon-hat:
    Kingma's last lines of section 2, TensorFlow) or sqrt(v/c2 + eps) (optax's eps_root). AMSGrad keeps the maximum of
    the raw v (PyTorch, Keras) or of v/c2 (optax), which then needs no correction.
    """
    correction = bias_correction(h["beta2"])
    is_corrected = options.amsgrad == "corrected"
    l2, decay = weight_decays(h, options.decay)
    outside = {"outside": h["eps"], "hat": h["eps"] / sqrt(correction), "inside": 0.0}
    inside = h["eps"] if is_corrected else h["eps"] * correction
    return AdamCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight1=1.0 - h["beta1"],
        weight2=1.0 - h["beta2"],
        candidate_factor=1.0 / correction if is_corrected else 1.0,
        eps_inside=inside if options.eps_placement == "inside" else 0.0,
        denominator_factor=1.0 if is_corrected else 1.0 / sqrt(correction),
        eps_outside=outside[options.eps_placement],
        step_size=h["lr"] / bias_correction(h["beta1"]),
    )


class RMSpropCoefficients(NamedTuple):
    """Coefficients of `rmsprop`."""

    grad_factor: Any
    l2: Any
    decay: Any
    weight: Any
    second_factor: Any
    mean_factor: Any
    zero: Any
    eps_inside: Any
    eps_outside: Any
    momentum: Any
    lr_inside: Any
    lr_outside: Any


@dataclass(frozen=True)
class RMSpropOptions:
    """How this RMSprop differs from the others of that name."""

    centered: bool = False
    maximize: bool = False
    eps_placement: Literal["outside", "inside"] = "outside"
    lr_placement: Literal["outside", "inside"] = "outside"
    initial_square_avg: float = 0.0
    bias_correction: bool = False
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        kept = {"grad_avg": self.centered, "momentum_buffer": not is_zero(h["momentum"])}
        return frozenset(name for name, is_kept in kept.items() if not is_kept)


@inlined
def rmsprop(param: Any, grad: Any, square_avg: Any, grad_avg: Any, momentum_buffer: Any, c: Any) -> Any:
    grad = grad * c.grad_factor + c.l2 * param
    param = param - c.decay * param
    square_avg = square_avg + c.weight * (grad * grad - square_avg)
    second = square_avg * c.second_factor
    if grad_avg is not None:
        grad_avg = grad_avg + c.weight * (grad - grad_avg)
        mean = grad_avg * c.mean_factor
        second = second - mean * mean
        second = c.zero if second < c.zero else second
    update = c.lr_inside * (grad / (math.sqrt(second + c.eps_inside) + c.eps_outside))
    if momentum_buffer is not None:
        momentum_buffer = c.momentum * momentum_buffer + update
        update = momentum_buffer
    param = param - c.lr_outside * update
    return param, square_avg, grad_avg, momentum_buffer


def rmsprop_coefficients(h: Hyperparameters, options: RMSpropOptions) -> RMSpropCoefficients:
    """Coefficients of RMSprop (Tieleman & Hinton 2012, lecture 6.5; centered: Graves 2013, equation 38).

    PyTorch: epsilon outside the root, lr outside the momentum buffer. TensorFlow 1 and Keras: both inside. Rounding may
    make the centered variance slightly negative, so it is clamped at 0. The optional bias correction divides both
    averages by 1 - alpha**k, as Adam's.
    """
    l2, decay = weight_decays(h, options.decay)
    is_inside = options.eps_placement == "inside"
    lr_is_inside = options.lr_placement == "inside"
    factor = 1.0 / bias_correction(h["alpha"]) if options.bias_correction else as_expr(1.0)
    return RMSpropCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        weight=1.0 - h["alpha"],
        second_factor=factor,
        mean_factor=factor,
        zero=0.0,
        eps_inside=h["eps"] if is_inside else 0.0,
        eps_outside=0.0 if is_inside else h["eps"],
        momentum=h["momentum"],
        lr_inside=h["lr"] if lr_is_inside else 1.0,
        lr_outside=1.0 if lr_is_inside else h["lr"],
    )


@dataclass(frozen=True, eq=False)
class Rule:
    """All there is to know of an optimizer.

    Attributes:
        element: One element's update: (param, grad, *states, coefficients) -> (param, *states).
        states: Their names, as PyTorch has them, in the order of `element`.
        hyperparameters: Their ranges.
        options: The dataclass of its options; `absent_states(hyperparameters)` names the states left out.
        coefficients: (hyperparameters, options) -> the coefficients, as expressions.
        row: The named tuple of the coefficients.
    """

    element: Callable[..., Any]
    states: tuple[str, ...]
    hyperparameters: Mapping[str, Range]
    options: Callable[..., Any]
    coefficients: Callable[[Hyperparameters, Any], Any]
    row: type[tuple[Any, ...]]

    @property
    def name(self) -> str:
        return self.element.__name__

    def initial(self, state: str, options: Any) -> float:
        """The value with which every element of a state starts."""
        return float(getattr(options, f"initial_{state}", 0.0))


ADAM = Rule(
    element=adam,
    states=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    hyperparameters={"lr": FINITE, "beta1": FRACTION, "beta2": FRACTION, "eps": FINITE, "weight_decay": FINITE},
    options=AdamOptions,
    coefficients=adam_coefficients,
    row=AdamCoefficients,
)
RMSPROP = Rule(
    element=rmsprop,
    states=("square_avg", "grad_avg", "momentum_buffer"),
    hyperparameters={"lr": FINITE, "alpha": FRACTION, "eps": FINITE, "weight_decay": FINITE, "momentum": FINITE},
    options=RMSpropOptions,
    coefficients=rmsprop_coefficients,
    row=RMSpropCoefficients,
)
RULES = {rule.name: rule for rule in (ADAM, RMSPROP)}

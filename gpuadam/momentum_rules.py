"""The rules with a momentum buffer: SGD, RMSprop (twins in rules.cuh)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .expressions import as_expr, updates, where
from .jit import inlined
from .rules import (
    FINITE,
    FRACTION,
    SHARE,
    Decay,
    Hyperparameters,
    Rule,
    bias_correction,
    is_number,
    is_zero,
    weight_decays,
)

LrPlacement = Literal["outside", "inside"]


class SGDCoefficients(NamedTuple):
    """Coefficients of `sgd`: expressions when a program is made, numbers of the computing type when it runs."""

    grad_factor: Any
    l2: Any
    decay: Any
    lr_inside: Any
    momentum: Any
    undamped: Any
    grad_share: Any
    buffer_share: Any
    lr_outside: Any


@dataclass(frozen=True)
class SGDOptions:
    """How this SGD differs from the others of that name."""

    nesterov: bool = False
    maximize: bool = False
    lr_placement: LrPlacement = "outside"
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset({"momentum_buffer"} if is_zero(h["momentum"]) else ())


@inlined
def sgd(param: Any, grad: Any, momentum_buffer: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    update = c.lr_inside * grad
    if momentum_buffer is not None:
        momentum_buffer = c.momentum * momentum_buffer + c.undamped * update
        update = c.grad_share * update + c.buffer_share * momentum_buffer
    param = param - c.lr_outside * update
    return param, momentum_buffer


def sgd_coefficients(h: Hyperparameters, options: SGDOptions) -> SGDCoefficients:
    """Coefficients of SGD with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013, in PyTorch's form).

    A tensor's first gradient is not dampened (PyTorch). PyTorch and optax have lr outside the momentum buffer, the
    paper, TensorFlow and Keras inside.
    """
    if options.nesterov:
        check_nesterov(h)
    l2, decay = weight_decays(h, options.decay)
    lr_is_inside = options.lr_placement == "inside"
    return SGDCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        lr_inside=h["lr"] if lr_is_inside else 1.0,
        momentum=h["momentum"],
        undamped=where(updates <= 1, 1.0, 1.0 - h["dampening"]),
        grad_share=1.0 if options.nesterov else 0.0,
        buffer_share=h["momentum"] if options.nesterov else 1.0,
        lr_outside=1.0 if lr_is_inside else h["lr"],
    )


def check_nesterov(h: Hyperparameters) -> None:
    """Nesterov's momentum is defined for a momentum that there is, without dampening; schedules see to that alone."""
    momentum, dampening = h["momentum"], h["dampening"]
    if is_zero(momentum):
        raise ValueError(f"nesterov is True, but {momentum.payload.name} is 0; allowed is one > 0, or a schedule")
    if is_number(dampening) and not is_zero(dampening):
        number = dampening.payload
        raise ValueError(f"nesterov is True, but {number.name} is {number.value!r}; allowed is 0, or a schedule")


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
    lr_placement: LrPlacement = "outside"
    initial_square_avg: float = 0.0
    bias_correction: bool = False
    decay: Decay = "coupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        kept = {"grad_avg": self.centered, "momentum_buffer": not is_zero(h["momentum"])}
        return frozenset(name for name, is_kept in kept.items() if not is_kept)


@inlined
def rmsprop(param: Any, grad: Any, square_avg: Any, grad_avg: Any, momentum_buffer: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
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


SGD = Rule(
    element=sgd,
    states=("momentum_buffer",),
    hyperparameters={"lr": FINITE, "momentum": FINITE, "dampening": SHARE, "weight_decay": FINITE},
    options=SGDOptions,
    coefficients=sgd_coefficients,
    row=SGDCoefficients,
)
RMSPROP = Rule(
    element=rmsprop,
    states=("square_avg", "grad_avg", "momentum_buffer"),
    hyperparameters={"lr": FINITE, "alpha": FRACTION, "eps": FINITE, "weight_decay": FINITE, "momentum": FINITE},
    options=RMSpropOptions,
    coefficients=rmsprop_coefficients,
    row=RMSpropCoefficients,
    nonnegative=frozenset({"square_avg"}),
)

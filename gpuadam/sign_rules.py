"""The rule that moves by the sign alone: Lion (twin in rules.cuh)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from .jit import inlined
from .rules import FINITE, FRACTION, Decay, Hyperparameters, Rule, weight_decays, with_sign_of


class LionCoefficients(NamedTuple):
    """Coefficients of `lion`: expressions when a program is made, numbers of the computing type when it runs."""

    grad_factor: Any
    l2: Any
    decay: Any
    beta1: Any
    weight1: Any
    beta2: Any
    weight2: Any
    zero: Any
    step_size: Any


@dataclass(frozen=True)
class LionOptions:
    """How this Lion differs from the others of that name."""

    maximize: bool = False
    decay: Decay = "decoupled"

    def absent_states(self, h: Hyperparameters) -> frozenset[str]:
        return frozenset()


@inlined
def lion(param: Any, grad: Any, exp_avg: Any, c: Any) -> Any:
    grad = grad + c.l2 * param
    param = param - c.decay * param
    update = c.beta1 * exp_avg + c.weight1 * grad
    exp_avg = c.beta2 * exp_avg + c.weight2 * grad
    param = param - with_sign_of(c.step_size, update, c.zero)
    return param, exp_avg


def lion_coefficients(h: Hyperparameters, options: LionOptions) -> LionCoefficients:
    """Coefficients of Lion (Chen et al. 2023, Algorithm 2): beta1 makes the update, beta2 the average that is kept.

    The averages have its authors' form: m + w * (g - m) would make NaN of an infinite one, whose sign is known, and the
    sign has no use for the digits that it saves.
    """
    l2, decay = weight_decays(h, options.decay)
    return LionCoefficients(
        grad_factor=-1.0 if options.maximize else 1.0,
        l2=l2,
        decay=decay,
        beta1=h["beta1"],
        weight1=1.0 - h["beta1"],
        beta2=h["beta2"],
        weight2=1.0 - h["beta2"],
        zero=0.0,
        step_size=h["lr"],
    )


LION = Rule(
    element=lion,
    states=("exp_avg",),
    hyperparameters={"lr": FINITE, "beta1": FRACTION, "beta2": FRACTION, "weight_decay": FINITE},
    options=LionOptions,
    coefficients=lion_coefficients,
    row=LionCoefficients,
)

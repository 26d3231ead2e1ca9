"""What a rule is, and what rules share; the rules themselves stand in the modules whose names end in `_rules`.

A rule is an element function (its twin: rules.cuh), the names of its states, the ranges of its hyperparameters, and its
coefficients as expressions: everything that depends on the step alone is worked out once a step, in double, and rounded
once to the type in which the rule computes. Options are values of coefficients, never branches: to multiply by 1 or to
add 0 is "off". An element function holds no literal (in Numba, as in C++, it would be a double) and no minimum or
maximum; an optional state is None where the options leave it out, and Numba prunes what asks for it.

Moments are moved by `m + w * (g - m)` with w = 1 - beta made in double, which stays within 5e-6 of float64 after 10,000
steps, where `beta * m + (1 - beta) * g` in float is off by 1e-4.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .expressions import Expr, Parameter, as_expr, expm1, log1p, updates
from .jit import inlined

Hyperparameters = Mapping[str, Expr]
EpsPlacement = Literal["outside", "hat", "inside"]
Decay = Literal["coupled", "decoupled", "scheduled"]


class Range(NamedTuple):
    """The values that a hyperparameter may take, both ends included, and how an error message puts it."""

    low: float
    high: float
    text: str


RULE_STATES = 3  # as many as a rule may have
FINITE = Range(0.0, float(np.finfo(np.float32).max), "a number from 0 to 3.4e38")
FRACTION = Range(0.0, math.nextafter(1.0, 0.0), "a number >= 0 and < 1")
SHARE = Range(0.0, 1.0, "a number from 0 to 1")


def bias_correction(beta: Expr, count: Expr = updates) -> Expr:
    """1 - beta**k after k updates (Kingma & Ba 2015, Algorithm 1), without the cancellation of the naive form."""
    return -expm1(count * log1p(beta - 1.0))


def weight_decays(h: Hyperparameters, decay: Decay, name: str = "weight_decay") -> tuple[Expr, Expr]:
    """The factor of the parameter in the gradient (coupled: L2), and the one that shrinks it directly.

    Decoupled decay is lr * weight_decay (PyTorch, Keras, optax); a scheduled one is weight_decay as it stands, a
    schedule of its own (Loshchilov & Hutter 2019, Algorithm 2, where it is eta * lambda). Those of `l1_decay` are
    factors of the parameter's sign.
    """
    none = as_expr(0.0)
    if decay == "coupled":
        return h[name], none
    return none, h["lr"] * h[name] if decay == "decoupled" else h[name]


@inlined
def with_sign_of(size: Any, value: Any, zero: Any) -> Any:
    """`size` with the sign of a value; a value that is 0 or NaN stays what it is."""
    return size if value > zero else (-size if value < zero else value)


def is_number(h: Expr) -> bool:
    """Whether a hyperparameter is a number of the constructor's, not a schedule or a named parameter."""
    return isinstance(h.payload, Parameter) and not h.payload.is_named


def is_zero(h: Expr) -> bool:
    """Whether a hyperparameter is the number 0, not a schedule that may leave it."""
    return is_number(h) and h.payload.value == 0


@dataclass(frozen=True, eq=False)
class Rule:
    """All there is to know of an optimizer.

    Attributes:
        element: One element's update: (param, grad, *states, coefficients) -> (param, *states).
        states: Their names, as PyTorch has them, in the order of `element`.
        hyperparameters: Their ranges.
        options: The dataclass of its options; `absent_states(hyperparameters)` names the states left out.
        coefficients: (hyperparameters, options) -> the coefficients, as expressions.
        row: The named tuple of the coefficients; the first is the factor of the gradient, which the walk applies.
        nonnegative: States that are never negative.
        own_name: Its name, if that of its element function is another rule's.
        measure: Of rules whose step depends on norms of whole tensors, what `element` goes along: (param, grad,
            *states, coefficients) -> (update, *states). The second and the third coefficient are then the size of the
            step, which the ratio of the norms of parameter and update multiplies, and the largest such ratio (0: 1).
        mixing: The hyperparameter beta, a number that stays, of a rule that has no average of its weights but can make
            one: its first state is z, a weight, so kept in the type in which the rule computes, and a parameter is
            (1 - beta) * z + beta * x, x being the average. Before a tensor's first update it is x.
    """

    element: Callable[..., Any]
    states: tuple[str, ...]
    hyperparameters: Mapping[str, Range]
    options: Callable[..., Any]
    coefficients: Callable[[Hyperparameters, Any], Any]
    row: type[tuple[Any, ...]]
    nonnegative: frozenset[str] = frozenset()
    own_name: str = ""
    measure: Callable[..., Any] | None = None
    mixing: str | None = None

    @property
    def name(self) -> str:
        return self.own_name or self.element.__name__

    @property
    def weight_states(self) -> tuple[str, ...]:
        """States that hold weights."""
        return self.states[:1] if self.mixing else ()

    def initial(self, state: str, options: Any) -> float:
        """The value with which every element of a state starts."""
        return float(getattr(options, f"initial_{state}", 0.0))


def with_all_states(rule: Rule, element: Any) -> Any:
    """A function of a rule for one element, taking and giving as many states as any rule may have."""
    count = len(rule.states)
    absent = (None,) * (RULE_STATES - count)

    @inlined
    def update(param: Any, grad: Any, state0: Any, state1: Any, state2: Any, c: Any) -> Any:
        return element(param, grad, *(state0, state1, state2)[:count], c) + absent

    return update

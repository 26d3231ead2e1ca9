"""Formats: how elements are stored, and which kernel an array needs (twin of formats.cuh)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import rounding
from .jit import inlined
from .rules import RULE_STATES, Rule

BLOCK8 = 256  # elements of an 8-bit state that share a scale


@dataclass(frozen=True, eq=False)
class Format:
    """How one element is stored.

    Attributes:
        storage: NumPy dtype of what lies in memory, as compiled code sees it.
        c_type: Its name in formats.cuh.
        value: Stored element -> number.
        nearest, stochastic: (number, random bits) -> stored element.
    """

    storage: np.dtype[Any]
    c_type: str
    value: Any
    nearest: Any
    stochastic: Any


@inlined
def as_it_is(code: Any) -> Any:
    return code


@inlined
def unrounded(value: Any, random: Any) -> Any:
    return value


@inlined
def nearest_float16(value: Any, random: Any) -> Any:
    return rounding.float16_nearest(value)


@inlined
def nearest_bfloat16(value: Any, random: Any) -> Any:
    return rounding.bfloat16_nearest(value)


HALF = np.dtype(np.uint16)
FORMATS = {
    "float32": Format(np.dtype(np.float32), "float", as_it_is, unrounded, unrounded),
    "float64": Format(np.dtype(np.float64), "double", as_it_is, unrounded, unrounded),
    "float16": Format(HALF, "float16", rounding.float16_value, nearest_float16, rounding.float16_stochastic),
    "bfloat16": Format(HALF, "bfloat16", rounding.bfloat16_value, nearest_bfloat16, rounding.bfloat16_stochastic),
}
GRAD_FORMATS = list(FORMATS)  # in the order of GradFormat in tables.cuh
STATE_TYPES = {name: form.c_type for name, form in FORMATS.items()} | {"int8": "Signed8", "uint8": "Unsigned8"}
COMPANION_TYPES = {None: "Absent", "float32": "float", "remainder": "Remainder"}
COMPANION_STORAGE = {None: None, "float32": np.dtype(np.float32), "remainder": HALF}
IS_16_BIT = {name: form.storage == HALF for name, form in FORMATS.items()}


def is_8_bit(form: str | None) -> bool:
    return form in ("int8", "uint8")


def computes_in(param: str) -> str:
    """The format in which a rule computes for parameters of a format."""
    return "float64" if param == "float64" else "float32"


@dataclass(frozen=True)
class Specialisation:
    """What one kernel is made for.

    Attributes:
        rule: What is done to an element.
        param, grad: Formats of the parameter and the gradient.
        states: Formats of the rule's states; None: absent.
        companion: What a 16-bit parameter leaves out is kept as "float32" or "remainder", or not (None).
        rounding: Of a 16-bit parameter without companion.
        ema: Whether the weights are averaged.
        zero_grads: Whether gradients are left zero.
    """

    rule: Rule
    param: str
    grad: str
    states: tuple[str | None, ...]
    companion: str | None = None
    rounding: str = "nearest"
    ema: bool = False
    zero_grads: bool = False

    @property
    def name(self) -> str:
        present = [
            state if form == self.compute else f"{state}_{form}"
            for state, form in zip(self.rule.states, self.states, strict=True)
            if form
        ]
        grad = [] if self.grad == self.param else [f"grad_{self.grad}"]
        companion = [f"master_{self.companion}"] if self.companion else []
        stochastic = ["stochastic"] if self.rounding == "stochastic" else []
        extras = [name for name in ("ema", "zero_grads") if getattr(self, name)]
        return "_".join([self.rule.element.__name__, self.param, *grad, *present, *companion, *stochastic, *extras])

    @property
    def compute(self) -> str:
        """The format in which the rule computes, and the average is kept."""
        return computes_in(self.param)

    @property
    def draws(self) -> bool:
        """Whether it rounds at random, or in blocks: then it goes chunk by chunk."""
        return self.rounding == "stochastic" or any(form not in (None, self.compute) for form in self.states)

    @property
    def shows(self) -> bool:
        """Whether the weight has another value to show when it is evaluated."""
        return self.ema or self.rule.mixing is not None

    @property
    def exchanges(self) -> bool:
        """Whether the weight can hold what it shows: a 16-bit parameter alone cannot hold an average."""
        return self.companion is not None or self.param == self.compute

    def swapped(self) -> "Specialisation":
        """What depends on it when weights show what is evaluated; they are rounded to the nearest."""
        states = (None,) * len(self.states)
        return replace(self, grad=self.param, states=states, rounding="nearest", zero_grads=False)

    def measured(self) -> "Specialisation":
        """What the norms of weights and updates depend on."""
        return replace(self, rounding="nearest", ema=False, zero_grads=False)

    @property
    def all_states(self) -> tuple[str | None, ...]:
        """The formats of as many states as a rule may have."""
        return self.states + (None,) * (RULE_STATES - len(self.states))

    def macros(self) -> dict[str, str]:
        """The names that step.cu wants from the compiler's options."""
        states = [STATE_TYPES[form] if form else "Absent" for form in self.all_states]
        return {
            "KERNEL": self.name,
            "RULE": self.rule.element.__name__,
            "PARAM": FORMATS[self.param].c_type,
            "GRAD": FORMATS[self.grad].c_type,
            **{f"STATE{i}": state for i, state in enumerate(states)},
            "COMPANION": COMPANION_TYPES[self.companion],
            "EMA": FORMATS[self.compute].c_type if self.ema else "Absent",
            "STOCHASTIC": str(int(self.rounding == "stochastic")),
            "ZERO_GRADS": str(int(self.zero_grads)),
        }

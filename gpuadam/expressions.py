"""Expressions: arithmetic on `step`, compiled to a program that CPU and GPU evaluate to the same bits.

`step` is the number of updates applied before this one, 0 at the first. Arithmetic on it builds an `Expr`; calling an
`Expr` evaluates, on the host, the very program that a kernel runs:

>>> from gpuadam.expressions import step, maximum
>>> decay = 0.1 * maximum(1 - step / 100, 0)
>>> decay(50)
0.05
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union

import numpy as np

from .program import MAXIMUM_CYCLES, Op
from .strangers import refuse_stranger

Number = int | float
Scalar = Union["Expr", int, float]
LAST_STEP = 2.0**53  # the last step that a double counts exactly


class Expr:
    """A value that depends on the step: an operation, its operands, and as payload a number or what else it needs."""

    __slots__ = ("op", "operands", "payload")
    __array_ufunc__ = None  # a NumPy scalar on the left leaves the operation to us

    def __init__(self, op: Op, operands: Sequence["Expr"] = (), payload: Any = None) -> None:
        self.op = op
        self.operands = tuple(operands)
        self.payload = payload

    @property
    def is_constant(self) -> bool:
        return self.op is Op.VALUE and isinstance(self.payload, float)

    def __call__(self, step: Any, *, updates: Any = None) -> Any:
        """Evaluate at one step, to a float, or at an array of steps, to an array of its shape, as the kernel would.

        Args:
            step: Updates applied before the one in question; a whole number >= 0, or an array of them.
            updates: Updates of the tensor, that one included; `step + 1` if not given.

        Raises:
            ValueError: A step is negative or not whole, or `updates` is not a whole number >= 1.
        """
        from .compiler import sample

        return sample(self, step, updates)

    def plot(self, steps: int, ax: Any = None, **line: Any) -> Any:
        """Draw the first `steps` steps on axes of matplotlib (`gpuadam[plot]`), or on new ones; returns the axes."""
        from .pictures import plot

        return plot(self, steps, ax, **line)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise TypeError("== and != of an Expr are no formula: write equal(a, b), or 1 - equal(a, b)")

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("an Expr has no truth value before its step: choose with where(condition, value, otherwise)")

    def __repr__(self) -> str:
        if self.op is Op.VALUE:
            return repr(self.payload)
        inner = ", ".join("..." if operand.operands else repr(operand) for operand in self.operands)
        return f"{self.op.name.lower()}({inner})" if inner else self.op.name.lower()

    def __add__(self, other: Scalar) -> "Expr":
        return node(Op.ADD, self, other)

    def __radd__(self, other: Scalar) -> "Expr":
        return node(Op.ADD, other, self)

    def __sub__(self, other: Scalar) -> "Expr":
        return node(Op.SUBTRACT, self, other)

    def __rsub__(self, other: Scalar) -> "Expr":
        return node(Op.SUBTRACT, other, self)

    def __mul__(self, other: Scalar) -> "Expr":
        return node(Op.MULTIPLY, self, other)

    def __rmul__(self, other: Scalar) -> "Expr":
        return node(Op.MULTIPLY, other, self)

    def __truediv__(self, other: Scalar) -> "Expr":
        return node(Op.DIVIDE, self, other)

    def __rtruediv__(self, other: Scalar) -> "Expr":
        return node(Op.DIVIDE, other, self)

    def __pow__(self, other: Scalar) -> "Expr":
        return node(Op.POWER, self, other)

    def __rpow__(self, other: Scalar) -> "Expr":
        return node(Op.POWER, other, self)

    def __neg__(self) -> "Expr":
        return node(Op.NEGATE, self)

    def __abs__(self) -> "Expr":
        return node(Op.ABSOLUTE, self)

    def __lt__(self, other: Scalar) -> "Expr":
        return node(Op.LESS, self, other)

    def __le__(self, other: Scalar) -> "Expr":
        return node(Op.LESS_EQUAL, self, other)

    def __gt__(self, other: Scalar) -> "Expr":
        return node(Op.LESS, other, self)

    def __ge__(self, other: Scalar) -> "Expr":
        return node(Op.LESS_EQUAL, other, self)


class Parameter:
    """A number that the host may rewrite while a program stands: one slot of the pool, `value` at first."""

    __slots__ = ("is_named", "name", "value")

    def __init__(self, name: str, value: float, is_named: bool = True) -> None:
        self.name = name
        self.value = value
        self.is_named = is_named

    def __repr__(self) -> str:
        return f"{self.name}={self.value!r}"


class Accumulator:
    """A double in the clock that every applied update replaces by `update`, an expression of its old value."""

    __slots__ = ("initial", "name", "update")

    def __init__(self, name: str, initial: float, update: Callable[[Expr], Scalar]) -> None:
        self.name = name
        self.initial = initial
        self.update = as_expr(update(Expr(Op.ACCUMULATOR, payload=self)), f"the update of accumulator {name!r}")


def as_number(value: Any, name: str) -> float:
    """A real number as a float, or a TypeError that names the argument."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, int) and abs(value) > 2**1023:
        raise ValueError(f"{name} must fit into a double, got a whole number of {value.bit_length()} bits")
    return float(value)


def as_expr(value: Any, name: str = "operand") -> Expr:
    """A number or an Expr as an Expr."""
    if isinstance(value, Expr):
        return value
    refuse_stranger(value, name)
    return Expr(Op.VALUE, payload=as_number(value, name))


def node(op: Op, *operands: Any) -> Expr:
    """Apply an operation; one whose operands are all constants is folded to a constant, by the same evaluator."""
    expression = Expr(op, [as_expr(operand) for operand in operands])
    if all(operand.is_constant for operand in expression.operands):
        return as_expr(expression(0))
    return expression


step, updates, lr_scale = Expr(Op.STEP), Expr(Op.UPDATES), Expr(Op.LR_SCALE)


def parameter(name: str, value: float) -> Expr:
    """A named number that `Optimizer.set_parameter` rewrites in place while the schedule that holds it runs on.

    >>> scale = parameter("plateau_scale", 1.0)
    >>> (0.1 * scale)(7)
    0.1
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a parameter must be a non-empty string, got {name!r}")
    return Expr(Op.VALUE, payload=Parameter(name, as_number(value, f"parameter {name!r}")))


def accumulator(name: str, initial: float, update: Callable[[Expr], Scalar]) -> Expr:
    """A value with a memory: it starts at `initial`, and each applied update replaces it by `update(old value)`.

    >>> product = accumulator("product", 1.0, lambda value: 0.5 * value)
    >>> [product(k) for k in range(3)]
    [1.0, 0.5, 0.25]
    """
    return Expr(Op.ACCUMULATOR, payload=Accumulator(name, as_number(initial, f"accumulator {name!r}"), update))


def minimum(a: Scalar, b: Scalar) -> Expr:
    """The smaller one; NaN if either is."""
    return node(Op.MINIMUM, a, b)


def maximum(a: Scalar, b: Scalar) -> Expr:
    """The larger one; NaN if either is."""
    return node(Op.MAXIMUM, a, b)


def where(condition: Scalar, value: Scalar, otherwise: Scalar) -> Expr:
    """`value` where the condition is not 0, else `otherwise`; both are evaluated."""
    return node(Op.WHERE, otherwise, value, condition)


def equal(a: Scalar, b: Scalar) -> Expr:
    """1 where both are equal, else 0."""
    return node(Op.EQUAL, a, b)


def uniform(seed: Scalar, index: Scalar) -> Expr:
    """A random number from 0 to below 1: always the same for a seed and an index, any numbers, on every device."""
    return node(Op.UNIFORM, seed, index)


def normal(seed: Scalar, index: Scalar) -> Expr:
    """A random number of the standard normal distribution, by Box and Muller, from `uniform` at 2 index and the next.

    >>> noisy = 0.1 * (1 + 0.01 * normal(7, step))  # another number at every step, the same in every run
    """
    radius, turn = uniform(seed, 2 * as_expr(index)), uniform(seed, 2 * as_expr(index) + 1)
    return sqrt(-2 * log(1 - radius)) * cospi(2 * turn)


def _function(op: Op, text: str) -> Callable[[Scalar], Expr]:
    def apply(x: Scalar) -> Expr:
        return node(op, x)

    apply.__name__ = apply.__qualname__ = op.name.lower()
    apply.__doc__ = text
    return apply


floor = _function(Op.FLOOR, "The largest whole number <= x.")
absolute = _function(Op.ABSOLUTE, "|x|.")
sqrt = _function(Op.SQRT, "The square root.")
exp = _function(Op.EXP, "e**x.")
log = _function(Op.LOG, "The natural logarithm.")
expm1 = _function(Op.EXPM1, "e**x - 1, exact for small x.")
log1p = _function(Op.LOG1P, "log(1 + x), exact for small x.")
cospi = _function(Op.COSPI, "cos(pi x), exact at the halves.")
sinpi = _function(Op.SINPI, "sin(pi x), exact at whole x.")
tanh = _function(Op.TANH, "The hyperbolic tangent.")
acos = _function(Op.ACOS, "The arc cosine.")


def cycle(position: Scalar, first: Number, multiplier: Number = 1) -> tuple[Expr, Expr]:
    """Number of the cycle (0 first) and the part of it that is done: in [0, 1), up to rounding of fractional lengths.

    Boundaries are found by an exact floor division (multiplier 1) or by repeated addition, never by a logarithm, which
    is wrong at boundaries even in double.

    Args:
        position: Where, in steps.
        first: Length of the first cycle in steps, > 0.
        multiplier: Length of each cycle over the one before, >= 1.

    Raises:
        ValueError: A length that is not positive, a multiplier below 1, or one so close to 1 that more than 4,096
            cycles would have to be walked before step 2**53.
    """
    first, multiplier = as_number(first, "first"), as_number(multiplier, "multiplier")
    if not (0 < first < math.inf):
        raise ValueError(f"the first cycle must last a finite number of steps > 0, got {first!r}")
    if not (1 <= multiplier < math.inf):
        raise ValueError(f"the multiplier of the cycles must be finite and >= 1, got {multiplier!r}")
    lengths = itertools.accumulate(itertools.repeat(multiplier, MAXIMUM_CYCLES - 1), lambda a, b: a * b, initial=first)
    if multiplier > 1 and sum(lengths) < LAST_STEP:
        raise ValueError(f"multiplier {multiplier!r} makes more than {MAXIMUM_CYCLES} cycles; take 1, or a larger one")
    operands = (position, first, multiplier)
    return node(Op.CYCLE_INDEX, *operands), node(Op.CYCLE_FRACTION, *operands)


def table(values: Iterable[float], index: Scalar) -> Expr:
    """Entry floor(index) of a list of numbers; the first before it, the last after it."""
    entries = tuple(as_number(value, f"entry {i} of the table") for i, value in enumerate(values))
    if not entries:
        raise ValueError("a table needs at least one entry")
    return Expr(Op.TABLE, [as_expr(index)], entries)

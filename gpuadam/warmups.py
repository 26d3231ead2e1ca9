"""Warm-ups: schedules that rise, and then stay or hand over to another."""

from .composition import join
from .expressions import Expr, Number, Scalar, expm1, step, where
from .schedule_arguments import interpolate, read_number, read_value, require, require_choice
from .shapes import SHAPES

__all__ = [
    "exponential_warmup",
    "gradual_warmup",
    "linear_warmup",
    "untuned_exponential_warmup",
    "untuned_linear_warmup",
    "warmup",
    "warmup_constant",
]


def warmup(peak: Scalar, warmup_steps: Number, init: Scalar = 0.0, *, shape: str = "linear", first: int = 0) -> Expr:
    """From `init` to `peak`, which then stays; a factor for any schedule if `peak` is 1.

    Update t (0 first) lies at `x = (t + first) / warmup_steps` of the way: the peak is reached at W - first, W being
    `warmup_steps`. Where `init` belongs to the first update and the peak to update W - 1, `x = t / (W - 1)`, write
    `warmup_steps=W - 1`; where neither belongs to any, `x = (t + 1) / (W + 1)`, write W + 1 and `first=1`.

    Args:
        warmup_steps: Steps to go up; 0 gives the peak at once.
        shape: "linear"; "cosine", `(1 - cos(pi x)) / 2` of the way; "1-sqrt", `1 - sqrt(1 - x)` of it; "exponential",
            the same factor in every step, for which `init` is > 0; "constant", `init` until the peak (Goyal et al.,
            arXiv 1706.02677, section 2.2).
        first: 0 or 1, see above.

    >>> warmup(1.0, 4, shape="cosine")([0, 1, 2, 4]).round(3)
    array([0.   , 0.146, 0.5  , 1.   ])
    >>> warmup(1.0, 4, 0.0625, shape="exponential")([0, 1, 2, 4]), warmup(1.0, 4, 0.1, shape="constant")(3)
    (array([0.0625, 0.125 , 0.25  , 1.    ]), 0.1)
    """
    shapes = (*SHAPES, "constant")
    require_choice(shape, "shape", shapes)
    require(first in (0, 1), "first", "0 or 1", first)
    finish = read_number(warmup_steps, "warmup_steps", ">= 0") - first
    low, high = read_value(init, "init", "> 0" if shape == "exponential" else ">= 0"), read_value(peak, "peak")
    if shape == "constant":
        return where(step < finish, low, high)
    return interpolate(low, high, -first, finish, shape)


def linear_warmup(peak: Scalar, warmup_steps: Number, init: Scalar = 0.0, *, first: int = 0) -> Expr:
    """A straight line from `init` to `peak`, which then stays (Goyal et al., arXiv 1706.02677).

    Args:
        warmup_steps: Steps to go up; 0 gives the peak at once.
        first: Where on the line the first update lies: 0, so that it has `init` (optax, Keras, transformers), or 1, so
            that it has `peak / warmup_steps` if `init` is 0, and update number `warmup_steps` has the peak (papers).

    >>> linear_warmup(1.0, 4)([0, 1, 4]), linear_warmup(1.0, 4, first=1)([0, 1, 3])
    (array([0.  , 0.25, 1.  ]), array([0.25, 0.5 , 1.  ]))
    """
    return warmup(peak, warmup_steps, init, first=first)


def warmup_constant(init_value: Scalar, peak_value: Scalar, warmup_steps: Number) -> Expr:
    """A straight line from `init_value` to `peak_value`, which then stays (`optax.warmup_constant_schedule`).

    With no warm-up it is the peak, where optax stays at `init_value` forever.

    >>> warmup_constant(0.0, 1.0, 4)([0, 1, 4, 9])
    array([0.  , 0.25, 1.  , 1.  ])
    """
    init, peak = read_value(init_value, "init_value"), read_value(peak_value, "peak_value")
    return linear_warmup(peak, warmup_steps, init)


def exponential_warmup(peak: Scalar, time_constant: Number) -> Expr:
    """`peak * (1 - exp(-(step + 1) / time_constant))` (Ma & Yarats, arXiv 1910.04209).

    >>> exponential_warmup(1.0, 10)([0, 9, 100]).round(4)
    array([0.0952, 0.6321, 1.    ])
    """
    return read_value(peak, "peak") * -expm1(-(step + 1) / read_number(time_constant, "time_constant"))


def untuned_exponential_warmup(peak: Scalar, beta2: Number = 0.999) -> Expr:
    """`exponential_warmup` with the time constant of Adam's second moment, `1 / (1 - beta2)` (arXiv 1910.04209).

    >>> untuned_exponential_warmup(1.0, 0.5)(0) == exponential_warmup(1.0, 2)(0)
    True
    """
    return exponential_warmup(peak, 1 / _complement(beta2))


def untuned_linear_warmup(peak: Scalar, beta2: Number = 0.999) -> Expr:
    """`peak * min(1, (1 - beta2) / 2 * (step + 1))`: 2000 steps up for Adam's 0.999 (Ma & Yarats, arXiv 1910.04209).

    >>> untuned_linear_warmup(1.0, 0.75)([0, 1, 7, 8])
    array([0.125, 0.25 , 1.   , 1.   ])
    """
    return linear_warmup(peak, 2 / _complement(beta2), first=1)


def _complement(beta2: Number) -> float:
    require(0 <= read_number(beta2, "beta2", "in [0, 1]") < 1, "beta2", "in [0, 1)", beta2)
    return 1 - beta2


def gradual_warmup(lr: Scalar, multiplier: Number, warmup_steps: Number, after: Scalar | None = None) -> Expr:
    """ildoonet's GradualWarmupScheduler (warmup-scheduler 0.3) without its defects.

    Args:
        lr: The learning rate that the optimizer is made with.
        multiplier: 1 rises from 0 to `lr`; more, from `lr` to `multiplier * lr`, the rate of the whole batch that so
            many workers share.
        warmup_steps: Steps (there: epochs) to go up; 0 begins with `after`.
        after: What follows, made for `multiplier * lr`, which it has at its own step 0, update `warmup_steps`; the
            peak stays if it is not given.

    >>> gradual_warmup(0.25, 4, 3, 1 / (1 + step))(range(6)).round(4)
    array([0.25  , 0.5   , 0.75  , 1.    , 0.5   , 0.3333])
    """
    times = read_number(multiplier, "multiplier", ">= 1")
    base, length = read_value(lr, "lr"), read_number(warmup_steps, "warmup_steps", ">= 0")
    rise = linear_warmup(times * base, length, 0.0 if times == 1 else base)
    return rise if after is None else join([rise, read_value(after, "after")], [length])

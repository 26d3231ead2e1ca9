"""The training recipe around a rule: formats of weights and states, clipping, averaging, and what skips a step.

What belongs to a group may differ between groups; what belongs to the whole optimizer is the same for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from .expressions import Expr, as_expr, minimum, updates
from .rules import FINITE, Hyperparameters, Range

Setting = float | Expr
ClipScope = Literal["global", "group", "tensor"]
Nonfinite = Literal["propagate", "skip", "raise"]
StateDtype = Literal["float32", "bfloat16", "int8"]
Master = Literal[None, "float32", "remainder"]
Rounding = Literal["nearest", "stochastic"]


class Recipe(TypedDict, total=False):
    """What every optimizer takes beside the arguments of its rule, by keyword.

    Args:
        clip_norm: Largest norm of the gradients of a scope: where theirs is larger, all are multiplied by
            clip_norm / norm (Pascanu et al. 2013, Algorithm 1). A number > 0 or a schedule; None: no clipping.
        clip_scope: Over what the norm goes: "global" (all tensors), "group" or "tensor".
        clip_value: Each element of the gradient is put between -clip_value and clip_value, after `clip_norm`.
        ema_decay: Decay of an exponential moving average of the weights, in [0, 1], a number or a schedule, such as
            `ema_warmup(0.999)`; None: no average.
        nonfinite: What a gradient that is not finite does: "propagate" (it reaches the weights), "skip" (the whole step
            is skipped, and counted) or "raise" (that, and FloatingPointError).
        master: For 16-bit parameters. "float32": a float32 copy, from which the parameter is rounded. "remainder": the
            16 bits that a bfloat16 parameter leaves out, so that the two are an exact float32.
        rounding: Of 16-bit parameters without master: "nearest", or "stochastic" (up or down at random, so that on
            average nothing is lost).
        state_dtype: "float32" (float64 for float64 parameters), "bfloat16" (stochastically rounded), or "int8": blocks
            of 256 with a scale each, for tensors of two axes or more and at least `int8_from` elements.
        int8_from: Tensors of fewer elements keep float32 states.
        lr_scale: Factor of the learning rate, > 0: a number, or, for the tensors of one group, a dict or list.
        per_tensor_step: A tensor without a gradient rests altogether: its schedules stand still too.
        zero_grads: The launch that reads the gradients leaves them zero.
        seed: Of stochastic rounding.
        backend: "auto" (where the parameters lie), "cpu" or "cuda".
        allow_flush: Go on although this thread flushes subnormal numbers to zero; CPU and GPU then differ in such bits.
    """

    clip_norm: Setting | None
    clip_scope: ClipScope
    clip_value: Setting | None
    ema_decay: Setting | None
    nonfinite: Nonfinite
    master: Master
    rounding: Rounding
    state_dtype: StateDtype
    int8_from: int
    lr_scale: Any
    per_tensor_step: bool
    zero_grads: bool
    seed: int
    backend: str
    allow_flush: bool


@dataclass(frozen=True)
class Policy:
    """What is the same for the whole optimizer."""

    clip_scope: ClipScope = "global"
    nonfinite: Nonfinite = "propagate"
    per_tensor_step: bool = False
    zero_grads: bool = False
    seed: int = 0
    backend: str = "auto"
    allow_flush: bool = False


@dataclass(frozen=True)
class Storage:
    """How the weights and states of a group are kept."""

    master: Master = None
    rounding: Rounding = "nearest"
    state_dtype: StateDtype = "float32"
    int8_from: int = 4096


POSITIVE = FINITE._replace(low=5e-324, text="a number > 0 up to 3.4e38")
HYPERPARAMETERS: Mapping[str, Range] = {
    "clip_norm": POSITIVE,
    "clip_value": POSITIVE,
    "ema_decay": Range(0.0, 1.0, "a number from 0 to 1"),
}


class RecipeCoefficients(NamedTuple):
    """Coefficients of the recipe, which follow those of the rule; the first two are rounded as those are."""

    clip_value: Any
    ema_weight: Any
    clip_norm: Any


def recipe_coefficients(h: Hyperparameters) -> RecipeCoefficients:
    """Infinite thresholds are "off"; the average moves by `ema + (1 - decay) * (param - ema)`."""
    unlimited = float("inf")
    return RecipeCoefficients(
        clip_value=h.get("clip_value", unlimited),
        ema_weight=1.0 - h["ema_decay"] if "ema_decay" in h else 0.0,
        clip_norm=h.get("clip_norm", unlimited),
    )


def ema_warmup(decay: Setting) -> Expr:
    """A decay for averages that begins small: min(decay, (1 + k) / (10 + k)), k counting the updates of the tensor.

    It is `num_updates` of TensorFlow's ExponentialMovingAverage, and what thinc does.

    >>> average = ema_warmup(0.999)
    >>> average(0), average(100_000)
    (0.18181818181818182, 0.999)
    """
    return minimum(as_expr(decay, "decay"), (1 + updates) / (10 + updates))

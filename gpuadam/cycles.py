"""Cyclical schedules: up and down between two values again and again, and the momentum that moves against them."""

from collections.abc import Callable

from .expressions import Expr, Number, Scalar, as_expr, cycle, maximum, minimum, step
from .schedule_arguments import read_number, read_value, require_choice

__all__ = ["cyclic", "cyclic_momentum"]
ScaleFunction = Callable[[Expr], Scalar]


def _scale(index: Expr, mode: str, gamma: Number, scale_fn: ScaleFunction | None, scale_mode: str) -> Expr:
    """What the height of a triangle is multiplied by, in cycle number `index` (0 first)."""
    rate = read_number(gamma, "gamma", "in [0, 1]")
    scales = {"triangular": as_expr(1), "triangular2": 0.5**index, "exp_range": rate**step}
    arguments = {"cycle": index + 1, "iterations": step}
    require_choice(mode, "mode", scales)
    require_choice(scale_mode, "scale_mode", arguments)
    if scale_fn is None:
        return scales[mode]
    if isinstance(scale_fn, Expr) or not callable(scale_fn):
        raise TypeError(f"scale_fn must be a function of an expression, got {scale_fn!r}")
    return as_expr(scale_fn(arguments[scale_mode]), "what scale_fn returns")


def _triangles(base: Expr, top: Expr, step_size: Number, step_size_down: Number | None, mode: str, gamma: Number,
               scale_fn: ScaleFunction | None, scale_mode: str) -> Expr:  # fmt: skip
    up = read_number(step_size, "step_size")
    down = up if step_size_down is None else read_number(step_size_down, "step_size_down")
    index, _ = cycle(step, up + down)
    place = step - index * (up + down)
    triangle = maximum(minimum(place / up, (up + down - place) / down), 0)
    return base + (top - base) * triangle * _scale(index, mode, gamma, scale_fn, scale_mode)


def cyclic(base_lr: Scalar, max_lr: Scalar, step_size: Number, *, step_size_down: Number | None = None,
           mode: str = "triangular", gamma: Number = 1.0, scale_fn: ScaleFunction | None = None,
           scale_mode: str = "cycle") -> Expr:  # fmt: skip
    """`base_lr + (max_lr - base_lr) * triangle * scale` (Smith, arXiv 1506.01186; bckenstler/CLR, PyTorch's CyclicLR).

    A learning rate range test is the first half cycle of one that is as long as the test: `cyclic(low, high, steps)`.
    To begin again with other bounds at step `now` of a run, hand `shift(cyclic(...), now)` to `set_hyperparameters`.

    Args:
        base_lr: Lowest value.
        step_size: Steps from `base_lr` up to `max_lr`; may be fractional.
        step_size_down: Steps back down, `step_size` if not given.
        mode: The scale: "triangular" 1, "triangular2" halved in each cycle, "exp_range" `gamma ** step`.
        scale_fn: A scale of your own, in place of the mode's: it is called once, with an expression, and returns one.
        scale_mode: What `scale_fn` is called with: the number of the "cycle", 1 first, or the step ("iterations").

    >>> cyclic(0.0, 1.0, 4, mode="triangular2")([0, 1, 4, 6, 8, 12])
    array([0.  , 0.25, 1.  , 0.5 , 0.  , 0.5 ])
    >>> cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle)([4, 12, 36])
    array([1. , 0.5, 0.2])
    """
    base, top = read_value(base_lr, "base_lr"), read_value(max_lr, "max_lr")
    return _triangles(base, top, step_size, step_size_down, mode, gamma, scale_fn, scale_mode)


def cyclic_momentum(step_size: Number, *, base_momentum: Scalar = 0.8, max_momentum: Scalar = 0.9,
                    step_size_down: Number | None = None, mode: str = "triangular", gamma: Number = 1.0,
                    scale_fn: ScaleFunction | None = None, scale_mode: str = "cycle") -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, that moves against `cyclic`: down from `max_momentum` and back (PyTorch's).

    >>> cyclic_momentum(4, mode="triangular2")([0, 4, 8, 12])
    array([0.9 , 0.8 , 0.9 , 0.85])
    """
    high = read_value(max_momentum, "max_momentum", "in [0, 1]")
    low = read_value(base_momentum, "base_momentum", "in [0, 1]")
    return _triangles(high, low, step_size, step_size_down, mode, gamma, scale_fn, scale_mode)

"""The functions that transformers hands to LambdaLR, recognised by their names and keywords; it is not imported."""

import functools
from collections.abc import Callable
from typing import Any

from . import schedules
from .expressions import Expr, step, where


def factor(function: Any) -> Expr | None:
    """What such a function multiplies the learning rate by; None if it is none of transformers'."""
    inner = function.func if isinstance(function, functools.partial) else function
    make = FACTORS.get(getattr(inner, "__name__", ""))
    if make is None or inner.__module__ != "transformers.optimization":
        return None
    return make(**function.keywords) if isinstance(function, functools.partial) else make()


def _constant() -> Expr:
    return schedules.constant(1.0)


def _constant_with_warmup(num_warmup_steps: int) -> Expr:
    return schedules.linear_warmup(1.0, num_warmup_steps)


def _linear(num_warmup_steps: int, num_training_steps: int) -> Expr:
    return schedules.warmup_linear_decay(0.0, 1.0, num_warmup_steps, num_training_steps)


def _cosine(
    num_warmup_steps: int, num_training_steps: int, num_cycles: float, min_lr_rate: float = 0.0, first: int = 0
) -> Expr:
    return schedules.warmup_cosine_decay(
        0.0, 1.0, num_warmup_steps, num_training_steps, min_lr_rate,
        num_cycles=num_cycles, first=first, beyond="continue",
    )  # fmt: skip


def _cosine_from_one(num_warmup_steps: int, num_training_steps: int, num_cycles: float, min_lr_rate: float = 0.0,
                     warmup_lr_rate: float | None = None) -> Expr:  # fmt: skip
    """The decay begins a step early; so does the warm-up, unless its first rate is given."""
    fall = _cosine(num_warmup_steps, num_training_steps, num_cycles, min_lr_rate, first=1)
    if warmup_lr_rate is None or num_warmup_steps == 0:
        return fall
    if num_warmup_steps == 1:
        return where(step < 1, warmup_lr_rate, fall)
    top = num_warmup_steps - 1
    return where(step < top, schedules.linear_warmup(1.0, top, warmup_lr_rate), fall)


def _cosine_restarts(num_warmup_steps: int, num_training_steps: int, num_cycles: int) -> Expr:
    return schedules.warmup_cosine_decay_restarts(0.0, 1.0, num_warmup_steps, num_training_steps, 0.0, num_cycles)


def _polynomial(num_warmup_steps: int, num_training_steps: int, lr_end: float, power: float, lr_init: float) -> Expr:
    end = lr_end / lr_init
    return schedules.warmup_polynomial_decay(0.0, 1.0, num_warmup_steps, num_training_steps, end, power)


def _inverse_sqrt(num_warmup_steps: int, timescale: int | None = None) -> Expr:
    return schedules.inverse_sqrt(1.0, num_warmup_steps, timescale)


def _wsd(num_warmup_steps: int, num_stable_steps: int, num_decay_steps: int, warmup_type: str, decay_type: str,
         min_lr_ratio: float, num_cycles: float) -> Expr:  # fmt: skip
    if decay_type == "cosine" and num_cycles != 0.5:
        raise ValueError(f"num_cycles is {num_cycles!r}; allowed in a get_wsd_schedule that is not sampled is 0.5")
    return schedules.wsd(
        1.0, num_warmup_steps, num_stable_steps, num_decay_steps,
        init=min_lr_ratio, end=min_lr_ratio, warmup_shape=warmup_type, decay_shape=decay_type,
    )  # fmt: skip


FACTORS: dict[str, Callable[..., Expr]] = {
    "_get_constant_lambda": _constant,
    "_get_constant_schedule_with_warmup_lr_lambda": _constant_with_warmup,
    "_get_cosine_schedule_with_warmup_lr_lambda": _cosine,
    "_get_cosine_with_hard_restarts_schedule_with_warmup_lr_lambda": _cosine_restarts,
    "_get_cosine_with_min_lr_schedule_with_warmup_lr_rate_lambda": _cosine_from_one,
    "_get_inverse_sqrt_schedule_lr_lambda": _inverse_sqrt,
    "_get_linear_schedule_with_warmup_lr_lambda": _linear,
    "_get_polynomial_decay_schedule_with_warmup_lr_lambda": _polynomial,
    "_get_wsd_scheduler_lambda": _wsd,
}

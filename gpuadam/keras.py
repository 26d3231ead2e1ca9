"""For those who come from Keras; nothing else of the package imports it."""

from collections.abc import Callable
from typing import Any

from . import schedules
from .expressions import Expr
from .extras import needed

with needed("keras"):
    from keras.optimizers import schedules as theirs


def as_schedule(schedule: Any) -> Expr:
    """A schedule of keras.optimizers.schedules as one of ours.

    >>> from keras.optimizers.schedules import ExponentialDecay
    >>> as_schedule(ExponentialDecay(0.1, 10, 0.5))([0, 10, 20])
    array([0.1  , 0.05 , 0.025])

    Raises:
        TypeError: It is none of Keras's own.
    """
    convert = FORMULAS.get(type(schedule))
    if convert is None:
        raise TypeError(
            f"schedule must be one of keras.optimizers.schedules, got {type(schedule).__name__}: write its formula "
            "with schedules.step, or sample it with schedules.sampled(lambda k: float(schedule(k)), steps)"
        )
    return convert(schedule)


def _cosine(s: Any) -> Expr:
    """The decay lasts `decay_steps` after the warm-up."""
    if s.warmup_target is None:
        return schedules.cosine_decay(s.initial_learning_rate, s.decay_steps, s.alpha)
    fall = schedules.cosine_decay(s.warmup_target, s.decay_steps, s.alpha)
    if s.warmup_steps == 0:
        return fall
    rise = schedules.linear_warmup(s.warmup_target, s.warmup_steps, s.initial_learning_rate)
    return schedules.join([rise, fall], [s.warmup_steps])


def _restarts(s: Any) -> Expr:
    return schedules.cosine_decay_restarts(s.initial_learning_rate, s.first_decay_steps, s._t_mul, s._m_mul, s.alpha)


FORMULAS: dict[type, Callable[[Any], Expr]] = {
    theirs.CosineDecay: _cosine,
    theirs.CosineDecayRestarts: _restarts,
    theirs.ExponentialDecay: lambda s: schedules.exponential_decay(
        s.initial_learning_rate, s.decay_steps, s.decay_rate, staircase=bool(s.staircase)
    ),
    theirs.InverseTimeDecay: lambda s: schedules.inverse_time_decay(
        s.initial_learning_rate, s.decay_steps, s.decay_rate, staircase=bool(s.staircase)
    ),
    theirs.PiecewiseConstantDecay: lambda s: schedules.piecewise_constant(s.boundaries, s.values),
    theirs.PolynomialDecay: lambda s: schedules.polynomial_decay(
        s.initial_learning_rate, s.decay_steps, s.end_learning_rate, s.power, cycle=bool(s.cycle)
    ),
}

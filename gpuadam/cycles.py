"""Schedules that come back: cyclical learning rates, cosine decay with restarts."""

from .expressions import Expr, Number, Scalar, as_expr, cycle, maximum, minimum, sinpi, step
from .schedule_arguments import read_number, read_value, require

__all__ = ["cosine_decay_restarts", "cyclic"]


def cyclic(base_lr: Scalar, max_lr: Scalar, step_size: Number, *, step_size_down: Number | None = None,
           mode: str = "triangular", gamma: Number = 1.0) -> Expr:  # fmt: skip
    """`base_lr + (max_lr - base_lr) * triangle * scale` (Smith, arXiv 1506.01186; bckenstler/CLR, PyTorch's CyclicLR).

    Args:
        base_lr: Lowest value. The momentum that moves against it has them swapped: `cyclic(0.95, 0.85, ...)`.
        step_size: Steps from `base_lr` up to `max_lr`.
        step_size_down: Steps back down, `step_size` if not given.
        mode: The scale: "triangular" 1, "triangular2" halved in each cycle, "exp_range" `gamma ** step`.

    >>> cyclic(0.0, 1.0, 4, mode="triangular2")([0, 1, 4, 6, 8, 12])
    array([0.  , 0.25, 1.  , 0.5 , 0.  , 0.5 ])
    """
    base, up, rate = (
        read_value(base_lr, "base_lr"),
        read_number(step_size, "step_size"),
        read_number(gamma, "gamma", "in [0, 1]"),
    )
    down = up if step_size_down is None else read_number(step_size_down, "step_size_down")
    index, _ = cycle(step, up + down)
    place = step - index * (up + down)
    triangle = maximum(minimum(place / up, (up + down - place) / down), 0)
    scales = {"triangular": as_expr(1), "triangular2": 0.5**index, "exp_range": rate**step}
    require(mode in scales, "mode", f"one of {', '.join(scales)}", mode)
    return base + (read_value(max_lr, "max_lr") - base) * triangle * scales[mode]


def cosine_decay_restarts(
    lr: Scalar, first_decay_steps: Number, t_mul: Number = 2.0, m_mul: Number = 1.0, alpha: Number = 0.0
) -> Expr:
    """Cosine decay that starts again and again (SGDR, arXiv 1608.03983; `tf.train.cosine_decay_restarts`).

    `lr * ((1 - alpha) * m_mul**i * (1 + cos(pi * f)) / 2 + alpha)` in cycle i, f of which is done.

    Args:
        first_decay_steps: Steps of the first cycle.
        t_mul: Length of a cycle over the one before, >= 1.
        m_mul: Height of a cycle over the one before.

    >>> cosine_decay_restarts(1.0, 10, m_mul=0.5)([5, 10, 20, 30])
    array([0.5 , 0.5 , 0.25, 0.25])
    """
    height, alpha = read_number(m_mul, "m_mul", ">= 0"), read_number(alpha, "alpha", "in [0, 1]")
    index, done = cycle(step, read_number(first_decay_steps, "first_decay_steps"), read_number(t_mul, "t_mul", ">= 1"))
    return read_value(lr, "lr") * ((1 - alpha) * height**index * sinpi((1 - done) / 2) ** 2 + alpha)

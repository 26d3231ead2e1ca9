"""Warm restarts: SGDR and what came of it, each with the weight decay that moves with it.

Where a cycle ends is found by an exact division, by addition or from a list, never by a logarithm. That, in double as
in timm and in PyTorch's `step(epoch)`, is a step late at 7 of 26 restarts of 10 steps x 3, the first of them 1210; in
float32, as in TensorFlow and Keras, at others, and which depends on their logarithm.
"""

import math
from bisect import bisect
from collections.abc import Iterable, Mapping
from typing import Any

from .composition import join
from .expressions import (
    LAST_STEP,
    Expr,
    Number,
    Scalar,
    acos,
    as_number,
    cycle,
    equal,
    floor,
    minimum,
    sinpi,
    sqrt,
    step,
    table,
    where,
)  # fmt: skip
from .schedule_arguments import read_flag, read_list, read_number, read_value, require, require_choice
from .shapes import level
from .warmup_decays import warmup_cosine_decay

__all__ = [
    "adamwr", "adamwr_weight_decay", "cosine_decay_restarts", "keras_adamw_eta", "keras_adamw_weight_decay", "sgdr",
    "sgdr_schedule", "sgdr_weight_decay",
]  # fmt: skip
MAXIMUM_EPOCHS = 10_000  # entries of a table


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


def _cycles(t_0: Number, t_mult: Number, first: int) -> tuple[Expr, Expr]:
    """Steps of the cycle, and the part of it that is done."""
    require(first in (0, 1), "first", "0 or 1", first)
    length, growth = read_number(t_0, "t_0"), read_number(t_mult, "t_mult", ">= 1")
    index, done = cycle(step, length, growth)
    if first:
        done = where(index > 0, done, minimum((step + 1) / length, 1))
    return length * growth**index, done


def sgdr(eta_max: Scalar, t_0: Number, t_mult: Number = 1.0, eta_min: Scalar = 0.0, *, first: int = 0) -> Expr:
    """`eta_min + (eta_max - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2` (SGDR, arXiv 1608.03983, equation 5).

    It is PyTorch's CosineAnnealingWarmRestarts, and the multiplier eta of AdamWR and SGDWR if `eta_max` is 1.

    Args:
        t_0: Steps of the first cycle; may be fractional.
        t_mult: Length of a cycle over the one before, >= 1.
        first: T_cur of the first update: 0, or 1 as in the authors' train.lua (loshchil/AdamW-and-SGDW), whose first
            cycle is one step ahead and so reaches `eta_min`; the cycles after it begin at 0 there too.

    >>> sgdr(1.0, 4, 2)([0, 1, 2, 4, 8, 12]).round(6)
    array([1.      , 0.853553, 0.5     , 1.      , 0.5     , 1.      ])
    """
    _, done = _cycles(t_0, t_mult, first)
    high, low = read_value(eta_max, "eta_max"), read_value(eta_min, "eta_min")
    return level(low, high, 1 - done, done, "cosine")


def sgdr_weight_decay(weight_decay: Scalar, t_0: Number, t_mult: Number = 1.0, *, first: int = 0) -> Expr:
    """The decay of AdamWR and SGDWR, `weight_decay * eta / sqrt(T_i)` (arXiv 1711.05101, appendix B.1).

    T_i are the steps of the present cycle and eta is `sgdr(1.0, t_0, t_mult)`. It is the part of a weight that goes:
    no learning rate multiplies it.

    Args:
        weight_decay: The normalised one; 0.025 to 0.05 in the paper.
        t_0, t_mult, first: As of `sgdr`.

    >>> sgdr_weight_decay(0.1, 4, 4)([0, 2, 4])
    array([0.05 , 0.025, 0.025])
    """
    steps, done = _cycles(t_0, t_mult, first)
    return read_value(weight_decay, "weight_decay") * sinpi((1 - done) / 2) ** 2 / sqrt(steps)


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Expr:
    """Cycles of any length, each with its warm-up (`optax.sgdr_schedule`); the last one's end stays.

    Args:
        cosine_kwargs: For each cycle the arguments of `warmup_cosine_decay`; `decay_steps` is its length.

    >>> up_and_down = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2}
    >>> sgdr_schedule([up_and_down | {"decay_steps": 4}, up_and_down | {"decay_steps": 8}])([0, 2, 3, 4, 6, 9, 12])
    array([0. , 1. , 0.5, 0. , 1. , 0.5, 0. ])
    """
    cycles = read_list(cosine_kwargs, "cosine_kwargs")
    require(len(cycles) > 0, "cosine_kwargs", "at least one cycle", cycles)
    for i, arguments in enumerate(cycles):
        if not isinstance(arguments, Mapping):
            raise TypeError(f"cosine_kwargs[{i}] must be a dict of arguments, got {arguments!r}")
    pieces = [warmup_cosine_decay(**arguments) for arguments in cycles]
    return join(pieces, [sum(c["decay_steps"] for c in cycles[:i]) for i in range(1, len(cycles))])


def keras_adamw_eta(
    total_iterations: int, *, eta_min: Scalar = 0.0, eta_max: Scalar = 1.0, autorestart: bool = True
) -> Expr:
    """The factor eta_t of keras-adamw (OverLordGoldDragon), by which its learning rate is multiplied.

    `eta_min + (eta_max - eta_min) * (1 + cos(pi * t / (T - 1))) / 2`, T = total_iterations, t = step modulo T: unlike
    elsewhere the end is reached within the cycle, at its last step. The very first factor is 1, whatever `eta_max` is,
    as it is only worked out after an update.

    Args:
        total_iterations: T, steps of a cycle, > 1.
        autorestart: Begin again after each T steps; if not, the cosine goes on and comes up again.

    >>> keras_adamw_eta(5, eta_max=0.8)([0, 2, 4, 5])
    array([1. , 0.4, 0. , 0.8])
    """
    total = read_number(total_iterations, "total_iterations")
    require(total % 1 == 0 and total > 1, "total_iterations", "a whole number > 1", total_iterations)
    last = total - 1
    place = step - cycle(step, total)[0] * total if read_flag(autorestart, "autorestart") else step
    high, low = read_value(eta_max, "eta_max"), read_value(eta_min, "eta_min")
    return where(step > 0, level(low, high, (last - place) / last, place / last, "cosine"), 1)


def keras_adamw_weight_decay(
    weight_decay: Scalar, total_iterations: int, *, total_iterations_wd: int | None = None, eta_min: Scalar = 0.0,
    eta_max: Scalar = 1.0, autorestart: bool = True,
) -> Expr:  # fmt: skip
    """The decay of keras-adamw, `weight_decay * eta_t * sqrt(1 / total_iterations_wd)`: the part of a weight that goes.

    Args:
        total_iterations: Steps of a cycle, > 1.
        total_iterations_wd: Steps by which the decay is normalised, `total_iterations` if not given.
        eta_min, eta_max, autorestart: As of `keras_adamw_eta`.

    >>> keras_adamw_weight_decay(0.01, 100)([0, 99])
    array([0.001, 0.   ])
    """
    eta = keras_adamw_eta(total_iterations, eta_min=eta_min, eta_max=eta_max, autorestart=autorestart)
    steps = read_number(total_iterations if total_iterations_wd is None else total_iterations_wd, "total_iterations_wd")
    return read_value(weight_decay, "weight_decay") * math.sqrt(1 / steps) * eta


def _periods(restart_period: Number, t_mult: Number, epochs: int) -> tuple[list[int], list[int]]:
    """First epochs and lengths of the periods that begin within so many epochs.

    Each length is the one before times `t_mult`, rounded up: no formula in the step finds them.
    """
    whole = read_number(epochs, "epochs") % 1 == 0
    require(whole and epochs <= MAXIMUM_EPOCHS, "epochs", f"a whole number up to {MAXIMUM_EPOCHS:,}", epochs)
    growth = read_number(t_mult, "t_mult")
    begins, lengths = [0], [math.ceil(min(read_number(restart_period, "restart_period"), LAST_STEP))]
    while begins[-1] + lengths[-1] < epochs:
        begins.append(begins[-1] + lengths[-1])
        lengths.append(math.ceil(min(lengths[-1] * growth, LAST_STEP)))
    return begins, lengths


def _adamwr_eta(batch_size: Number, epoch_size: Number, restart_period: Number, t_mult: Number, epochs: int,
                policy: str, gamma: Number, triangular_step: Number) -> tuple[Expr, Expr]:  # fmt: skip
    """The multiplier of the learning rate, and the epochs of the present period."""
    batches = math.ceil(read_number(epoch_size, "epoch_size", ">= 1") / read_number(batch_size, "batch_size", ">= 1"))
    begins, lengths = _periods(restart_period, t_mult, epochs)
    epoch = floor(step / batches)
    number = table([bisect(begins, e) - 1 for e in range(int(epochs))], epoch)
    period = table(lengths, number)
    part = minimum((step - table(begins, number) * batches) / (period * batches), 1)
    part = where(equal(part, 0) * (number > 0), 1, part)  # a restart is noticed a batch late
    top, rate = as_number(triangular_step, "triangular_step"), read_number(gamma, "gamma", "in [0, 1]")
    require(0 < top < 1, "triangular_step", "> 0 and < 1", triangular_step)
    triangle = minimum(part / top, (1 - part) / (1 - top))
    calls = step + epoch  # the home's own: one more at the start of an epoch
    etas = {
        "cosine": sinpi((1 - part) / 2) ** 2,
        "arccosine": acos(2 * part - 1) / math.pi,
        "triangular": triangle,
        "triangular2": triangle * 0.5**number,
        "exp_range": (1 - abs(2 * part - 1)) * rate ** (calls * (calls + 1) / 2),
    }
    require_choice(policy, "policy", etas)
    return etas[policy], period


def adamwr(lr: Scalar, batch_size: Number, epoch_size: Number, restart_period: Number = 100, t_mult: Number = 2.0, *,
           epochs: int, policy: str = "cosine", min_lr: Scalar = 1e-7, gamma: Number = 1.0,
           triangular_step: Number = 0.5) -> Expr:  # fmt: skip
    """The learning rate of mpyrozhok/adamwr, `min_lr + (lr - min_lr) * eta`, with its two peculiarities.

    The first batch of every period but the first still has the last value of the one before. And "exp_range" lowers
    its top by `gamma ** i` at call i, so to `gamma ** (i * (i + 1) / 2)`; `cyclic` has the one that is usual.

    Args:
        batch_size, epoch_size: Samples; the quotient, rounded up, are the steps of an epoch.
        restart_period: Epochs of the first period, rounded up.
        t_mult: Length of a period over the one before, rounded up.
        epochs: Epochs in all, up to 10,000: so far the restarts are listed. The last period runs to its end.
        policy: With x the part of the period that is done, eta is "cosine" `(1 + cos(pi * x)) / 2`, "arccosine"
            `acos(2 * x - 1) / pi`, "triangular" up until x is `triangular_step` and down again, "triangular2" that
            halved in each period, "exp_range" up and down under a falling top.
        min_lr: Lowest value.
        gamma: Of "exp_range".

    >>> adamwr(1.0, 8, 32, 1, 1.5, epochs=5, min_lr=0.0)([0, 2, 4, 8, 12]).round(6)
    array([1. , 0.5, 0. , 0.5, 0. ])
    """
    eta, _ = _adamwr_eta(batch_size, epoch_size, restart_period, t_mult, epochs, policy, gamma, triangular_step)
    low = read_value(min_lr, "min_lr")
    return low + (read_value(lr, "lr") - low) * eta


def adamwr_weight_decay(weight_decay: Scalar, batch_size: Number, epoch_size: Number, restart_period: Number = 100,
                        t_mult: Number = 2.0, *, epochs: int, policy: str = "cosine", gamma: Number = 1.0,
                        triangular_step: Number = 0.5) -> Expr:  # fmt: skip
    """The decay of mpyrozhok/adamwr, `weight_decay * eta * sqrt(batch_size / (epoch_size * period))`: the part of a
    weight that goes. Its arguments are those of `adamwr`.

    >>> adamwr_weight_decay(0.1, 8, 32, 1, 4, epochs=5)([0, 2, 12])
    array([0.05  , 0.025 , 0.0125])
    """
    eta, period = _adamwr_eta(batch_size, epoch_size, restart_period, t_mult, epochs, policy, gamma, triangular_step)
    return read_value(weight_decay, "weight_decay") * eta * sqrt(batch_size / epoch_size / period)

"""CyclicLRWithRestarts of mpyrozhok/adamwr: numbers from a walk through epochs and batches with its formulas.

The position in an epoch is i / batches here; the scheduler takes it from a float32 tensor, which is the same for the
powers of two in these rows.
"""

import math
from collections.abc import Callable

from . import Row

HOME = "mpyrozhok/adamwr"
LATE = "its first batch after a restart still has the last value of the period before"


def walk(eta: Callable[[float, int, int, int], float], period: int, t_mult: float, epochs: int, *, batches: int = 4,
         decay: float = 0.0) -> dict[int, float]:  # fmt: skip
    """min_lr + (lr - min_lr) eta, or decay eta sqrt(batch / (epoch_size period)), of (part, restarts, batch, epoch)."""
    found, begin, restarts = {}, 0, 0
    for epoch in range(epochs):
        for batch in range(batches):
            part = (epoch - begin + batch / batches) / period
            value = eta(part, restarts, batch, epoch)
            found[epoch * batches + batch] = (
                decay * value * math.sqrt(8 / (8 * batches * period)) if decay else 1e-7 + (0.1 - 1e-7) * value
            )
            if part == 1:  # only now it looks whether the period is over
                begin, restarts, period = epoch, restarts + 1, math.ceil(period * t_mult)
    return found


def triangle(part: float, top: float = 0.5) -> float:
    return part / top if part < top else 1 - (part - top) / (1 - top)


def cosine(part: float, *_: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


ROWS = [
    Row("CyclicLRWithRestarts(optimizer, 8, 32, restart_period=2, t_mult=1.5): learning rate",
        "adamwr(0.1, 8, 32, 2, 1.5, epochs=15)", remark=LATE, numbers=walk(cosine, 2, 1.5, 15)),
    Row("CyclicLRWithRestarts(optimizer, 8, 32, restart_period=2, t_mult=1.5): weight decay",
        "adamwr_weight_decay(0.01, 8, 32, 2, 1.5, epochs=15)", numbers=walk(cosine, 2, 1.5, 15, decay=0.01)),
    Row("CyclicLRWithRestarts(optimizer, 8, 32, restart_period=1, t_mult=1)", "adamwr(0.1, 8, 32, 1, 1, epochs=9)",
        numbers=walk(cosine, 1, 1, 9)),
    Row("CyclicLRWithRestarts(optimizer, 8, 61, restart_period=2.5, t_mult=2)",
        "adamwr(0.1, 8, 61, 2.5, 2, epochs=15)", remark="period 3, 8 batches: both are rounded up",
        numbers=walk(cosine, 3, 2, 15, batches=8)),
    Row("CyclicLRWithRestarts(optimizer, 8, 32, 2, 1.5, policy='arccosine')",
        "adamwr(0.1, 8, 32, 2, 1.5, epochs=15, policy='arccosine')",
        numbers=walk(lambda part, *_: math.acos(2 * part - 1) / math.pi, 2, 1.5, 15)),
    Row("CyclicLRWithRestarts(optimizer, 8, 32, 2, 1.5, policy='triangular', triangular_step=0.25)",
        "adamwr(0.1, 8, 32, 2, 1.5, epochs=15, policy='triangular', triangular_step=0.25)",
        numbers=walk(lambda part, *_: triangle(part, 0.25), 2, 1.5, 15)),
    Row("CyclicLRWithRestarts(optimizer, 8, 32, 2, 1.5, policy='triangular2')",
        "adamwr(0.1, 8, 32, 2, 1.5, epochs=15, policy='triangular2')",
        numbers=walk(lambda part, restarts, *_: triangle(part) * 0.5**restarts, 2, 1.5, 15)),
    # every epoch makes batches + 1 calls, and call number i multiplies what is left of the top by gamma ** i
    Row("CyclicLRWithRestarts(optimizer, 8, 32, 2, 1.5, policy='exp_range', gamma=0.999)",
        "adamwr(0.1, 8, 32, 2, 1.5, epochs=15, policy='exp_range', gamma=0.999)",
        remark="falls as gamma ** (i * (i + 1) / 2) at its call i",
        numbers=walk(lambda part, _, batch, epoch: triangle(part) * math.prod(
            0.999**i for i in range(epoch * 5 + batch + 1)), 2, 1.5, 15)),
]  # fmt: skip

"""The class OneCycle of nachiket273/One_Cycle_Policy: numbers from the formulas in its OneCycle.py."""

import math

from . import Row

HOME = "nachiket273/One_Cycle_Policy"
WRAPS = "of a longer run OneCycle begins another cycle; ours holds the end"


def linear(nb: int, prcnt: float, div: float, high: float = 0.1) -> dict[int, float]:
    length, found = int(nb * (1 - prcnt / 100) / 2), {}
    for t in range(nb):
        if t > 2 * length:
            ratio = (t - 2 * length) / (nb - 2 * length)
            found[t] = high / div * (1 - ratio * (1 - 1 / div))
        else:
            ratio = 1 - (t - length) / length if t > length else t / length
            found[t] = high * (1 + ratio * (div - 1)) / div
    return found


def cosine(nb: int, first: float, middle: float) -> dict[int, float]:
    """From the first to the middle level in int(nb / 4) steps, and back in the others."""
    length, found = int(nb / 4), {}
    for t in range(nb):
        ratio = (t - length) / (nb - length) if t > length else t / length
        start, end = (middle, first) if t > length else (first, middle)
        found[t] = end + 0.5 * (start - end) * (1 + math.cos(math.pi * ratio))
    return found


def linear_momentum(nb: int, prcnt: float, high: float, low: float) -> dict[int, float]:
    length, found = int(nb * (1 - prcnt / 100) / 2), {}
    for t in range(nb):
        ratio = (t - length) / length if t > length else 1 - t / length
        found[t] = high if t > 2 * length else low + ratio * (high - low)
    return found


ROWS = [
    Row("OneCycle(100, 0.1)", "nachiket273_one_cycle(0.1, 100)", remark=WRAPS, numbers=linear(100, 10, 10)),
    Row("OneCycle(103, 0.1, prcnt=25, div=5)", "nachiket273_one_cycle(0.1, 103, prcnt=25, div=5)", remark=WRAPS,
        numbers=linear(103, 25, 5)),
    Row("OneCycle(102, 0.1, use_cosine=True)", "nachiket273_one_cycle(0.1, 102, use_cosine=True)",
        remark="without a tail: prcnt is not used", numbers=cosine(102, 0.01, 0.1)),
    Row("OneCycle(100, 0.1): momentum", "nachiket273_one_cycle_momentum(100)",
        numbers=linear_momentum(100, 10, 0.95, 0.85)),
    Row("OneCycle(102, 0.1, momentum_vals=(0.9, 0.7), use_cosine=True): momentum",
        "nachiket273_one_cycle_momentum(102, momentum_vals=(0.9, 0.7), use_cosine=True)",
        numbers=cosine(102, 0.9, 0.7)),
]  # fmt: skip

"""Which learning rate to take: what the losses of a range test suggest, in the definitions of the field.

Each function takes learning rates and smoothed losses, of equal length, and gives the place of a learning rate and by
what to divide it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
Suggestion = tuple[int, float]
INTERVAL = 15  # points between the ends of the interval that slides
FLAT = 0.005  # slopes that differ by less are the same


def steepest(lrs: Curve, losses: Curve) -> Suggestion:
    """Where the loss falls fastest from point to point (torch-lr-finder)."""
    return int(np.argmin(np.gradient(losses))), 1.0


def valley(lrs: Curve, losses: Curve) -> Suggestion:
    """The middle of the longest valley, which is the longest strictly falling subsequence (fastai)."""
    lengths = np.ones(len(losses), np.int64)
    for i in range(1, len(losses)):
        above = lengths[:i][losses[:i] > losses[i]]
        lengths[i] += above.max(initial=0)
    end = int(np.argmax(lengths))
    length = int(lengths[end])
    third = length / 3
    return max(end - length + int(third) + int(third / 2), 0), 1.0


def slide(lrs: Curve, losses: Curve) -> Suggestion:
    """Left end of an interval that slides down from the largest rates until its ends have the same slope (fastai)."""
    slopes = np.gradient(losses)
    left = len(losses) - 1 - INTERVAL
    found = left
    while left >= 0 and abs(slopes[left + INTERVAL] - slopes[left]) > FLAT:
        found = left
        left -= 1
    return found, 1.0


def minimum(lrs: Curve, losses: Curve) -> Suggestion:
    """A tenth of the rate with the lowest loss (fastai)."""
    return int(np.argmin(losses)), 10.0


METHODS: dict[str, Callable[[Curve, Curve], Suggestion]] = {
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
}
LEAST = {"steepest": 2, "valley": 1, "slide": INTERVAL + 1, "minimum": 1}  # points that each needs


def suggest(method: Any, lrs: Curve, losses: Curve) -> float:
    """The learning rate that a method suggests.

    Raises:
        ValueError: There is no such method, or it needs more points.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed are {', '.join(map(repr, METHODS))}")
    if len(lrs) < LEAST[method]:
        raise ValueError(
            f"the method {method!r} needs {LEAST[method]} points, there are {len(lrs)}: give range_test more num_iter, "
            "or skip fewer of them"
        )
    place, divisor = METHODS[method](lrs, losses)
    return float(lrs[place] / divisor)

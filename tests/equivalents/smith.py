"""One cycle as in Smith's papers: straight lines between the places and levels that they name."""

from collections.abc import Sequence

import numpy as np

from . import Row

HOME = "Smith, 1cycle (papers)"


def lines(places: Sequence[float], levels: Sequence[float]) -> dict[int, float]:
    return {k: float(np.interp(k, places, levels)) for k in range(120)}


ROWS = [
    Row("1cycle: 0.01 to 0.1 in 45 steps, back in 45, then to a hundredth in 10 (1803.09820)",
        "smith_one_cycle(0.1, 100, 90)", numbers=lines([0, 45, 90, 100], [0.01, 0.1, 0.01, 0.0001])),
    Row("the same, up in 30 steps and from a fifth, down to a thousandth of that",
        "smith_one_cycle(0.1, 100, 90, up_steps=30, div_factor=5, final_div_factor=1000)",
        numbers=lines([0, 30, 90, 100], [0.02, 0.1, 0.02, 0.00002])),
    Row("super-convergence without annihilation (1708.07120)", "smith_one_cycle(0.1, 100, 100)",
        numbers=lines([0, 50, 100], [0.01, 0.1, 0.01])),
    Row("cyclical momentum 0.95 to 0.85 and back (1803.09820)", "smith_one_cycle_momentum(100, 90)",
        numbers=lines([0, 45, 90], [0.95, 0.85, 0.95])),
]  # fmt: skip

"""SGDR and AdamWR as their papers write them: numbers from the formulas, the cycles unrolled in whole numbers."""

import math

from . import Row

HOME = "SGDR, AdamWR (papers)"


def cosine(lengths: list[float], low: float, high: float, normalised: bool = False) -> dict[int, float]:
    """eta_min + (eta_max - eta_min) (1 + cos(pi T_cur / T_i)) / 2, over sqrt(T_i) if it is a decay."""
    found, begin = {}, 0.0
    for length in lengths:
        for k in range(math.ceil(begin), math.ceil(begin + length)):
            value = low + 0.5 * (high - low) * (1 + math.cos(math.pi * (k - begin) / length))
            found[k] = value / math.sqrt(length) if normalised else value
        begin += length
    return found


ROWS = [
    Row("T_0 = 10, T_mult = 2 (1608.03983)", "sgdr(0.1, 10, 2, 0.001)",
        numbers=cosine([10, 20, 40, 80], 0.001, 0.1)),
    Row("T_0 = 12.5, T_mult = 1: fractional epochs", "sgdr(0.1, 12.5)", numbers=cosine([12.5] * 8, 0, 0.1)),
    Row("T_0 = 8, T_mult = 1.5", "sgdr(0.1, 8, 1.5)", numbers=cosine([8, 12, 18, 27, 40.5, 60.75], 0, 0.1)),
    Row("eta_t of AdamWR times lambda (1711.05101, appendix B.1), batches in all: 10, 20, 40, 80",
        "sgdr_weight_decay(0.05, 10, 2)", numbers=cosine([10, 20, 40, 80], 0, 0.05, normalised=True)),
    Row("the same, alpha_t", "sgdr(0.1, 10, 2)", numbers=cosine([10, 20, 40, 80], 0, 0.1)),
]  # fmt: skip

"""Schedules of fastai 2 (callback/schedule.py) and of fastai 0.7 (sgdr.py), from the formulas of their sources.

fastai 2 gives batch t of N the position t / N and works it out in float32; the numbers here are those of its formulas
in double, which fastai 2.8.12 gives to 2e-7 of the largest value,
except that its rounding makes a restart of fit_sgdr a batch late.
"""

import math
from collections.abc import Sequence

from . import Row

HOME = "fastai"
FLOAT32 = "fastai computes the position in float32: equal to 2e-7"
LATE = "fastai computes the position in float32: a restart may be a batch late there"
WRAPS = "of a longer run fastai begins another cycle; ours holds the end"


def combined(places: Sequence[float], ends: Sequence[tuple[float, float]], batches: int) -> dict[int, float]:
    """combine_scheds with SchedCos: start + (1 + cos(pi (1 - pos))) (end - start) / 2, pos within the phase."""
    found = {}
    for t in range(batches):
        i = max(i for i in range(len(ends)) if t / batches >= places[i])
        pos = (t / batches - places[i]) / (places[i + 1] - places[i])
        start, end = ends[i]
        found[t] = start + (1 + math.cos(math.pi * (1 - pos))) * (end - start) / 2
    return found


def clr_beta(nb: int, div: float, pct: float, lr: float = 0.1) -> dict[int, float]:
    """CircularLR_beta.calc_lr."""
    half, found = int(nb * (1 - pct / 100) / 2), {}
    for t in range(nb):
        if t > 2 * half:
            found[t] = lr * (1 + (t - 2 * half) / (nb - 2 * half) * (1 - 100) / 100) / div
        else:
            part = 1 - (t - half) / half if t > half else t / half
            found[t] = lr * (1 + part * (div - 1)) / div
    return found


def clr_beta_momentum(nb: int, pct: float, high: float, low: float) -> dict[int, float]:
    """CircularLR_beta.calc_mom, which is called when calc_lr has already counted the batch."""
    half, found = int(nb * (1 - pct / 100) / 2), {}
    for t in range(nb - 1):
        counted = t + 1
        part = 1 - (counted - half) / half if counted > half else counted / half
        found[t] = high if counted > 2 * half else high + part * (low - high)
    return found


def use_clr(nb: int, div: float, cut_div: int, lr: float = 0.1) -> dict[int, float]:
    """CircularLR.calc_lr, the cycles one after the other."""
    cut, found = nb // cut_div, {}
    for t in range(3 * nb):
        k = t % nb
        part = 1 - (k - cut) / (nb - cut) if k > cut else k / cut
        found[t] = lr * (1 + part * (div - 1)) / div
    return found


def cos_anneal(nb: int, cycle_mult: int, cycles: int, lr: float = 0.1) -> dict[int, float]:
    """CosAnneal.calc_lr: a hundredth in the first twentieth of the first cycle."""
    found = {}
    for length in (nb * cycle_mult**i for i in range(cycles)):
        for k in range(length):
            found[len(found)] = lr / 100 if len(found) < nb / 20 else lr / 2 * (math.cos(math.pi * k / length) + 1)
    return found


ROWS = [
    Row("fit_one_cycle(4, 0.1) of 25 batches", "fastai_one_cycle(0.1, 4 * 25)", remark=FLOAT32,
        numbers=combined([0, 0.25, 1], [(0.1 / 25, 0.1), (0.1, 0.1 / 1e5)], 100)),
    Row("fit_one_cycle(4, 0.1, div=10., div_final=1e3, pct_start=0.3) of 25 batches", remark=FLOAT32,
        here="fastai_one_cycle(0.1, 4 * 25, div=10, div_final=1e3, pct_start=0.3)",
        numbers=combined([0, 0.3, 1], [(0.01, 0.1), (0.1, 0.1 / 1e3)], 100)),
    Row("fit_one_cycle(4, 0.1, moms=(0.95, 0.85, 0.9)) of 25 batches: momentum", remark=FLOAT32,
        here="fastai_one_cycle_momentum(4 * 25, moms=(0.95, 0.85, 0.9))",
        numbers=combined([0, 0.25, 1], [(0.95, 0.85), (0.85, 0.9)], 100)),
    Row("fit_flat_cos(4, 0.1) of 25 batches", "flat_cos(0.1, 4 * 25)", remark=FLOAT32,
        numbers=combined([0, 0.75, 1], [(0.1, 0.1), (0.1, 0.1 / 1e5)], 100)),
    Row("fit_sgdr(3, 2, 0.1) of 8 batches", "sgdr(0.1, 2 * 8, 2)", remark=LATE,
        numbers=combined([0, 1 / 7, 3 / 7, 1], [(0.1, 0)] * 3, 14 * 8)),
    Row("fit(0.1, 3, cycle_len=1, use_clr=(4, 8)) of 50 batches (0.7)",
        "cyclic(0.1 / 4, 0.1, 50 // 8, step_size_down=50 - 50 // 8)", numbers=use_clr(50, 4, 8)),
    Row("fit(0.1, 3, cycle_len=1, cycle_mult=2) of 40 batches (0.7)",
        "where(step < 40 / 20, 0.1 / 100, sgdr(0.1, 40, 2))", numbers=cos_anneal(40, 2, 3)),
    Row("fit(0.1, 1, use_clr_beta=(10, 13.68, 0.95, 0.85)) of 98 batches (0.7)",
        "fastai07_one_cycle(0.1, 98, div=10, pct=13.68)", remark=WRAPS, numbers=clr_beta(98, 10, 13.68)),
    Row("fit(0.1, 1, use_clr_beta=(20, 0)) of 99 batches (0.7)", "fastai07_one_cycle(0.1, 99, div=20, pct=0)",
        remark=WRAPS, numbers=clr_beta(99, 20, 0)),
    Row("fit(0.1, 1, use_clr_beta=(10, 13.68, 0.95, 0.85)) of 98 batches: momentum (0.7)",
        "fastai07_one_cycle_momentum(98, pct=13.68, mom_max=0.95, mom_min=0.85)",
        remark="a step ahead of the learning rate, in fastai too", numbers=clr_beta_momentum(98, 13.68, 0.95, 0.85)),
]  # fmt: skip

"""The authors' own SGDR and AdamW: numbers from a walk through epochs and batches with the formulas of their train.lua.

`learningRateCosineSGDR` adds 1 / (Te * batches) to T_cur, holds it at 1, sets it to 0 where the next cycle's epoch has
come, and only then uses it. The sums are whole numbers of parts here; in Lua they round, so that a later restart may
come a batch late.
"""

import math
from fractions import Fraction

from . import Row

HOME = "loshchil/AdamW-and-SGDW"
AHEAD = "the first cycle is a step ahead and ends at 0, the later ones begin at T_cur = 0"


def walk(cycle: int, growth: int, epochs: int, *, batches: int = 5, decay: float = 0.0) -> dict[int, float]:
    found, part, epoch_next = {}, Fraction(0), 1 + cycle
    for epoch in range(1, epochs + 1):
        for _ in range(batches):
            part = min(part + Fraction(1, cycle * batches), Fraction(1))
            if part == 1 and epoch == epoch_next:
                part, cycle = Fraction(0), cycle * growth
                epoch_next += cycle
            eta = 0.5 * (1 + math.cos(math.pi * part))
            found[len(found)] = eta * (decay / math.sqrt(batches * cycle) if decay else 0.1)
    return found


ROWS = [
    Row("-lrShape cosine -LR 0.1 -Te 2 -Tmult 2, 5 batches", "sgdr(0.1, 2 * 5, 2, first=1)", remark=AHEAD,
        numbers=walk(2, 2, 30)),
    Row("-lrShape cosine -LR 0.1 -Te 3 -Tmult 1, 5 batches", "sgdr(0.1, 3 * 5, first=1)", remark=AHEAD,
        numbers=walk(3, 1, 10)),
    Row("-algorithmType ADAMW -weightDecay 0.05 -Te 2 -Tmult 2, 5 batches: weightDecaycurrent",
        "sgdr_weight_decay(0.05, 2 * 5, 2, first=1)", remark="no learning rate multiplies it",
        numbers=walk(2, 2, 30, decay=0.05)),
    Row("-algorithmType ADAMdec -LR 0.1 -weightDecay 0.05 -Te 2 -Tmult 2, 5 batches: weightDecaycurrent",
        "0.05 * sgdr(1.0, 2 * 5, 2, first=1)", remark="not normalised",
        numbers={k: value * 0.5 for k, value in walk(2, 2, 30).items()}),
    Row("adam.lua, `clr = lr / (1 + state.t * lrd)`, lrd = 0.01, t before it is counted",
        "inverse_time_decay(0.1, 1, 0.01)", numbers={0: 0.1, 1: 10 / 101, 25: 0.08, 100: 0.05, 900: 0.01}),
]  # fmt: skip

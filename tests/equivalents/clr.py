"""The callback CyclicLR of bckenstler/CLR for Keras: numbers from the formula of its README, in NumPy's functions."""

from collections.abc import Callable, Iterable

import numpy as np

from . import Row

HOME = "bckenstler/CLR"
RESET = "as after `clr._reset(0.001, 0.006, 8)` at step 50: in a run, `set_hyperparameters(lr=shift(..., 50))`"


def clr(
    scale: Callable[[float], float] = lambda x: 1.0,
    by_cycle: bool = True,
    *,
    base: float = 0.001,
    top: float = 0.006,
    size: float = 10.0,
    steps: Iterable[int] = range(120),
    reset: int = 0,
) -> dict[int, float]:
    """cycle = floor(1 + t / (2 size)), x = |t / size - 2 cycle + 1|, base + (top - base) max(0, 1 - x) scale."""
    found = {}
    for k in steps:
        t = k - reset
        cycle = np.floor(1 + t / (2 * size))
        x = np.abs(t / size - 2 * cycle + 1)
        found[k] = float(base + (top - base) * np.maximum(0, 1 - x) * scale(cycle if by_cycle else t))
    return found


ROWS = [
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=10.)", "cyclic(0.001, 0.006, 10)", numbers=clr()),
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=10., mode='triangular2')",
        "cyclic(0.001, 0.006, 10, mode='triangular2')", numbers=clr(lambda x: 1 / 2.0 ** (x - 1))),
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=10., mode='exp_range', gamma=0.99994)",
        "cyclic(0.001, 0.006, 10, mode='exp_range', gamma=0.99994)",
        numbers=clr(lambda x: 0.99994**x, False, steps=[*range(60), 99_990, 99_991])),
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=10., scale_fn=lambda x: 0.5*(1+np.sin(x*np.pi/2.)))",
        "cyclic(0.001, 0.006, 10, scale_fn=lambda x: 0.5 * (1 + sinpi(x / 2)))",
        numbers=clr(lambda x: 0.5 * (1 + np.sin(x * np.pi / 2)))),
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=10., scale_fn=lambda x: 1/(5**(x*0.0001)), "
        "scale_mode='iterations')",
        "cyclic(0.001, 0.006, 10, scale_fn=lambda x: 1 / 5 ** (x * 0.0001), scale_mode='iterations')",
        numbers=clr(lambda x: 1 / 5 ** (x * 0.0001), False, steps=[*range(60), 99_990, 99_991])),
    Row("CyclicLR(base_lr=0.001, max_lr=0.006, step_size=7.25)", "cyclic(0.001, 0.006, 7.25)",
        numbers=clr(size=7.25)),
    Row("CyclicLR(base_lr=0.00001, max_lr=0.1, step_size=2000.)", "cyclic(0.00001, 0.1, 2000)",
        remark="learning rate range test: run the first half cycle only",
        numbers=clr(base=0.00001, top=0.1, size=2000.0, steps=[0, 1, 2, 500, 1000, 1999, 2000])),
    Row("clr._reset(new_base_lr=0.001, new_max_lr=0.006, new_step_size=8.)", "shift(cyclic(0.001, 0.006, 8), 50)",
        remark=RESET, numbers=clr(size=8.0, steps=range(50, 120), reset=50)),
]  # fmt: skip

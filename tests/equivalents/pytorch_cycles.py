"""Schedules of torch.optim.lr_scheduler that cycle, and the momentum that they move."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from . import BASE, Row
from .pytorch import HOME, stepped

__all__ = ["HOME", "ROWS", "values"]

MOMENTUM = "momentum of "  # in place of the learning rate
OVERSHOOT = (
    "OneCycleLR's step `total_steps` overshoots (linear: below 0) and later ones raise; ours holds the last value"
)
ROWS = [
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=20)", "cyclic(0.01, 0.1, 20)"),
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=20, step_size_down=7)",
        "cyclic(0.01, 0.1, 20, step_size_down=7)"),
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=7.5)", "cyclic(0.01, 0.1, 7.5)"),
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=9, mode='triangular2')",
        "cyclic(0.01, 0.1, 9, mode='triangular2')"),
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=9, mode='exp_range', gamma=0.98)",
        "cyclic(0.01, 0.1, 9, mode='exp_range', gamma=0.98)"),
    Row("CyclicLR(optimizer, 0.01, 0.1, step_size_up=9, scale_fn=lambda x: 0.5 * (1 + math.sin(x * math.pi / 2)))",
        "cyclic(0.01, 0.1, 9, scale_fn=lambda x: 0.5 * (1 + sinpi(x / 2)))"),
    Row("CyclicLR(optimizer, 0.01, 0.1, 9, scale_fn=lambda x: 1 / 5 ** (x * 0.0001), scale_mode='iterations')",
        "cyclic(0.01, 0.1, 9, scale_fn=lambda x: 1 / 5 ** (x * 0.0001), scale_mode='iterations')"),
    Row(MOMENTUM + "CyclicLR(optimizer, 0.01, 0.1, step_size_up=9)", "cyclic_momentum(9)"),
    Row(MOMENTUM + "CyclicLR(optimizer, 0.01, 0.1, 9, 5, mode='triangular2', base_momentum=0.6, max_momentum=0.95)",
        "cyclic_momentum(9, step_size_down=5, mode='triangular2', base_momentum=0.6, max_momentum=0.95)"),
    Row("OneCycleLR(optimizer, 0.1, total_steps=100)", "one_cycle(0.1, 100)", range(100), OVERSHOOT),
    Row("OneCycleLR(optimizer, 0.1, epochs=4, steps_per_epoch=25, anneal_strategy='linear')",
        "one_cycle(0.1, 4 * 25, anneal='linear')", range(100), OVERSHOOT),
    Row("OneCycleLR(optimizer, 0.1, 100, three_phase=True)", "one_cycle(0.1, 100, three_phase=True)", range(100)),
    Row("OneCycleLR(optimizer, 0.1, 90, pct_start=0.4, div_factor=10, final_div_factor=50, anneal_strategy='linear', "
        "three_phase=True)",
        "one_cycle(0.1, 90, pct_start=0.4, div_factor=10, final_div_factor=50, anneal='linear', three_phase=True)",
        range(90)),
    Row(MOMENTUM + "OneCycleLR(optimizer, 0.1, 100)", "one_cycle_momentum(100)", range(100),
        "it is Adam's beta1 if the optimizer has betas"),
    Row(MOMENTUM + "OneCycleLR(optimizer, 0.1, 100, anneal_strategy='linear', three_phase=True)",
        "one_cycle_momentum(100, anneal='linear', three_phase=True)", range(100)),
    Row("CosineAnnealingWarmRestarts(optimizer, T_0=17)", "sgdr(0.1, 17)"),
    Row("CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=0.001)", "sgdr(0.1, 10, 2, 0.001)",
        range(400), "`step(epoch)` with T_mult > 1 finds the cycle by a logarithm, and so some restarts too late"),
    Row("CosineAnnealingWarmRestarts(optimizer, T_0=5, T_mult=3)", "sgdr(0.1, 5, 3)", range(700)),
]  # fmt: skip


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE, momentum=0.5)
    names = {"optimizer": optimizer, "math": math}
    scheduler = eval(there.removeprefix(MOMENTUM), {**vars(torch.optim.lr_scheduler), **names})
    return stepped(scheduler, steps, "momentum" if there.startswith(MOMENTUM) else "lr")

"""Schedules of torch.optim.lr_scheduler."""

from collections.abc import Sequence

import numpy as np
import pytest

from . import BASE, Row

HOME = "PyTorch"
ROWS = [
    Row("CosineAnnealingLR(optimizer, T_max=100, eta_min=0.0)", "cosine_decay(0.1, 100)", range(101)),
]


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    """The learning rate that a scheduler gives the optimizer in each of its steps."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    scheduler = eval(there, vars(torch.optim.lr_scheduler), {"optimizer": optimizer, "torch": torch})
    found = []
    for _ in range(max(steps) + 1):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return np.array(found)[list(steps)]

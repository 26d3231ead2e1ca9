"""thinc's Adam."""

import warnings

import numpy as np
import pytest

from . import Row

HOME = "thinc"
ROWS = [
    Row("Adam(0.01, grad_clip=0, use_averages=False)", "Adam(params, lr=0.01, eps_placement='hat')",
        "thinc computes in float32", tolerance=1e-5),
    Row("Adam(0.01, grad_clip=0.5, use_averages=False)",
        "Adam(params, lr=0.01, eps_placement='hat', clip_norm=0.5, clip_scope='tensor')",
        "thinc computes in float32", tolerance=1e-5),
]  # fmt: skip


def trajectory(there: str, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what thinc imports
        optimizers = pytest.importorskip("thinc.optimizers")
    optimizer = eval(there, vars(optimizers))
    own = param.astype(np.float32)
    found = []
    for grad in grads:
        own, _ = optimizer((0, "weight"), own, grad.astype(np.float32))
        optimizer.step_schedules()
        found.append(own.astype(np.float64))
    return found

"""Makes the golden file of the present version: `PYTHONPATH=.:tests python tests/golden/make.py`.

Files of older versions stay as they are: each was made by the release that wrote that version.
"""

from pathlib import Path
from typing import Any

import numpy as np

import gpuadam
from gpuadam.schedules import sinpi, step, where

PATH = Path(__file__).with_name("version1.safetensors")
STEPS = 6
WEIGHT = np.array([[0.5, -1.25, 2.0], [3.5, -0.75, 0.125]])
BIAS = np.array([1.0, -2.0, 0.25, 4.0])
# Up for 2 steps, then half a cosine to step 10; written out, as the text of a ready-made schedule may change.
RATE = where(step < 2, step / 16, 0.125 * sinpi((10 - step) / 16) ** 2)


def gradients(k: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers that a double holds exactly; at step 2 the second tensor rests."""
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    bias = None if k == 2 else (signs * (k + 1) / 8)
    return WEIGHT / 4 + k / 16, bias


def optimizer(lr: Any = None) -> tuple[gpuadam.Optimizer, dict[Any, np.ndarray]]:
    """The optimizer of the file, before its first step."""
    params = {"layer/weight": WEIGHT.copy(), 7: BIAS.astype(np.float32)}
    return gpuadam.AdamW(
        params, lr=RATE if lr is None else lr, betas=(0.75, 0.875), eps=1e-3, weight_decay=0.25
    ), params


def run() -> gpuadam.Optimizer:
    """The optimizer as it was saved."""
    made, _ = optimizer()
    for k in range(STEPS):
        weight, bias = gradients(k)
        made.step({"layer/weight": weight, 7: None if bias is None else bias.astype(np.float32)})
    return made


if __name__ == "__main__":
    run().save(PATH)

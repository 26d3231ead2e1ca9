"""Float64 oracle, continued: schedule-free AdamW and SGD, with x, y and z as Defazio et al. 2024 have them.

It imports nothing from the package under test; t and k count as in `oracle`. The parameter is y; x is what is
evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from oracle import Gradients, Result, Scalar, _correction, _steps, _value


@dataclass
class Averaged(Result):
    """A result with the average of the weights."""

    x: np.ndarray


Direction = Callable[[int, int, np.ndarray], np.ndarray]  # (t, k, g) -> what z goes along


def _walk(params: np.ndarray, grads: Gradients, direction: Direction, beta: float, settings: dict[str, Scalar],
          warmup_steps: int, maximize: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:  # fmt: skip
    """Equations 3 to 5 of the paper: z takes the step, x is the weighted mean of all z, y lies between them."""
    x, z = (np.array(params, dtype=np.float64) for _ in range(2))
    weights, points, largest, k = [], [], 0.0, 0
    for t, k, g in _steps(grads, maximize):
        lr, decay, r, power = (_value(settings[name], t) for name in ("lr", "weight_decay", "r", "weight_lr_power"))
        rate = lr * min(1.0, k / warmup_steps) if warmup_steps else lr
        y = (1.0 - beta) * z + beta * x
        z = z - rate * (direction(t, k, g) + decay * y)
        largest = max(largest, rate)
        weights.append(float(k) ** r * largest**power)
        points.append(z)
        if sum(weights) > 0:  # the mean itself, not its recurrence
            x = sum(weight * point for weight, point in zip(weights, points, strict=True)) / sum(weights)
    return x, (1.0 - beta) * z + beta * x, z, k


def adamw_schedule_free(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar,
                        betas: tuple[float, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0,
                        warmup_steps: int = 0, r: Scalar = 0.0, weight_lr_power: Scalar = 2.0,
                        maximize: bool = False) -> Averaged:  # fmt: skip
    """Algorithm 1 of the paper, with the bias correction and the weights of the package `schedulefree`."""
    v = np.zeros_like(np.array(params, dtype=np.float64))

    def direction(t: int, k: int, g: np.ndarray) -> np.ndarray:
        nonlocal v
        beta2 = _value(betas[1], t)
        v = beta2 * v + (1.0 - beta2) * g * g
        return g / (np.sqrt(v / _correction(beta2, k)) + _value(eps, t))

    settings = {"lr": lr, "weight_decay": weight_decay, "r": r, "weight_lr_power": weight_lr_power}
    x, y, z, k = _walk(params, grads_per_step, direction, betas[0], settings, warmup_steps, maximize)
    return Averaged(y, {"z": z, "exp_avg_sq": v}, k, x)


def sgd_schedule_free(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, momentum: float = 0.9,
                      weight_decay: Scalar = 0.0, warmup_steps: int = 0, r: Scalar = 0.0,
                      weight_lr_power: Scalar = 2.0, maximize: bool = False) -> Averaged:  # fmt: skip
    """Equations 3 to 5 of the paper along the gradient itself."""
    settings = {"lr": lr, "weight_decay": weight_decay, "r": r, "weight_lr_power": weight_lr_power}
    x, y, z, k = _walk(params, grads_per_step, lambda t, k, g: g, momentum, settings, warmup_steps, maximize)
    return Averaged(y, {"z": z}, k, x)

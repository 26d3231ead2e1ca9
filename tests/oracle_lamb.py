"""Float64 oracle, continued: LAMB, written from the paper (You et al. 2020, Algorithm 2) and the libraries' options.

It imports nothing from the package under test; t and k count as in `oracle`.
"""

from __future__ import annotations

import math

import numpy as np
from oracle import Gradients, Result, Scalar, _adam_direction, _correction, _steps, _value


def trust_ratio(weight: np.ndarray, update: np.ndarray, clip: float) -> float:
    """|p| / |u|, at most `clip`; 1 where one of the norms is not above 0, as in timm, where NaN is not either."""
    p_norm, u_norm = (math.sqrt(math.fsum(x * x for x in array.ravel().tolist())) for array in (weight, update))
    return min(p_norm / u_norm, clip) if p_norm > 0 and u_norm > 0 else 1.0


def lamb(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
         eps: Scalar = 1e-6, weight_decay: Scalar = 0.01, bias_correction: bool = True,
         trust_clip: Scalar | None = None, always_adapt: bool = True, maximize: bool = False) -> Result:  # fmt: skip
    """Without bias correction as in version 1 of the paper; `trust_clip` is fastai's (10) and timm's (1), and without
    `always_adapt` tensors that do not decay take Adam's step, as in timm and apex."""
    p, k = np.array(params, dtype=np.float64), 0
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, e, decay = (_value(x, t) for x in (lr, *betas, eps, weight_decay))
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g * g
        c1, c2 = (_correction(b1, k), _correction(b2, k)) if bias_correction else (1.0, 1.0)
        u = _adam_direction(m, v, c1, c2, e, "outside") + decay * p
        clip = math.inf if trust_clip is None else _value(trust_clip, t)
        ratio = trust_ratio(p, u, clip) if decay or always_adapt else 1.0
        p = p - rate * ratio * u
    return Result(p, {"exp_avg": m, "exp_avg_sq": v}, k)

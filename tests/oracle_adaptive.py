"""Float64 oracle, continued: RAdam, QHAdam, Adamax, Adagrad, Adadelta, Lion, from the papers and the frameworks.

It imports nothing from the package under test; t and k count as in `oracle`.
"""

from __future__ import annotations

import math

import numpy as np
from oracle import Gradients, Result, Scalar, _adam_direction, _correction, _decay, _require, _steps, _value


def radam(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
          eps: Scalar = 1e-8, weight_decay: Scalar = 0.0, decoupled_weight_decay: bool = False, maximize: bool = False,
          eps_placement: str = "hat", threshold: float = 5.0, decay: str = "coupled") -> Result:  # fmt: skip
    """RAdam (Liu et al. 2020, Algorithm 2), torch.optim.RAdam; eps "outside" is optax' eps, "inside" its eps_root."""
    decay = "decoupled" if decoupled_weight_decay else decay
    p, k = np.array(params, dtype=np.float64), 0
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, e = (_value(s, t) for s in (lr, *betas, eps))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g * g
        c1, c2 = _correction(b1, k), _correction(b2, k)
        rho_inf = 2.0 / (1.0 - b2) - 1.0
        rho = rho_inf - 2.0 * k * b2**k / c2
        if rho > threshold:
            r = math.sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))
            p = p - rate * r * _adam_direction(m, v, c1, c2, e, eps_placement)
        else:
            p = p - rate * m / c1
    return Result(p, {"exp_avg": m, "exp_avg_sq": v}, k)


def qhadam(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
           nus: tuple[Scalar, Scalar] = (1.0, 1.0), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0,
           decouple_weight_decay: bool = False, maximize: bool = False, decay: str = "coupled") -> Result:  # fmt: skip
    """QHAdam (Ma & Yarats 2019, Algorithm 2)."""
    decay = "decoupled" if decouple_weight_decay else decay
    p, k = np.array(params, dtype=np.float64), 0
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, n1, n2, e = (_value(s, t) for s in (lr, *betas, *nus, eps))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g * g
        m_hat, v_hat = m / _correction(b1, k), v / _correction(b2, k)
        p = p - rate * ((1.0 - n1) * g + n1 * m_hat) / (np.sqrt((1.0 - n2) * g * g + n2 * v_hat) + e)
    return Result(p, {"exp_avg": m, "exp_avg_sq": v}, k)


def adamax(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
           eps: Scalar = 1e-8, weight_decay: Scalar = 0.0, maximize: bool = False, eps_placement: str = "inside",
           decay: str = "coupled") -> Result:  # fmt: skip
    """Adamax (Kingma & Ba 2015, Algorithm 2): eps "inside" the maximum (PyTorch, optax), or "outside" it (Keras)."""
    _require(eps_placement in ("outside", "inside"))
    p, k = np.array(params, dtype=np.float64), 0
    m, u = np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, e = (_value(s, t) for s in (lr, *betas, eps))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        m = b1 * m + (1.0 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + (e if eps_placement == "inside" else 0.0))
        p = p - rate / _correction(b1, k) * m / (u + (e if eps_placement == "outside" else 0.0))
    return Result(p, {"exp_avg": m, "exp_inf": u}, k)


def adagrad(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, lr_decay: Scalar = 0.0,
            weight_decay: Scalar = 0.0, initial_accumulator_value: float = 0.0, eps: Scalar = 1e-10,
            maximize: bool = False, eps_placement: str = "outside", decay: str = "coupled") -> Result:  # fmt: skip
    """Adagrad (Duchi et al. 2011), torch.optim.Adagrad; eps "inside" the root is that of Keras and optax."""
    _require(eps_placement in ("outside", "inside"))
    p, k = np.array(params, dtype=np.float64), 0
    s = np.full_like(p, initial_accumulator_value)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, fall, e = (_value(x, t) for x in (lr, lr_decay, eps))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        s = s + g * g
        root = np.sqrt(s + e) if eps_placement == "inside" else np.sqrt(s) + e
        p = p - rate / (1.0 + (k - 1) * fall) * g / root
    return Result(p, {"sum": s}, k)


def adadelta(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, rho: Scalar = 0.9, eps: Scalar = 1e-6,
             weight_decay: Scalar = 0.0, maximize: bool = False, decay: str = "coupled") -> Result:  # fmt: skip
    """Adadelta (Zeiler 2012, Algorithm 1), torch.optim.Adadelta."""
    x, k = np.array(params, dtype=np.float64), 0
    squares, deltas = np.zeros_like(x), np.zeros_like(x)
    for t, k, g in _steps(grads_per_step, maximize):  # noqa: B007
        rate, keep, e = (_value(s, t) for s in (lr, rho, eps))
        x, g = _decay(x, g, _value(weight_decay, t), rate, decay)
        squares = keep * squares + (1.0 - keep) * g * g
        delta = np.sqrt(deltas + e) / np.sqrt(squares + e) * g
        deltas = keep * deltas + (1.0 - keep) * delta * delta
        x = x - rate * delta
    return Result(x, {"square_avg": squares, "acc_delta": deltas}, k)


def lion(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.99),
         weight_decay: Scalar = 0.0, maximize: bool = False, decay: str = "decoupled") -> Result:  # fmt: skip
    """Lion (Chen et al. 2023, Algorithm 2)."""
    p, k = np.array(params, dtype=np.float64), 0
    m = np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):  # noqa: B007
        rate, b1, b2 = (_value(s, t) for s in (lr, *betas))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        p = p - rate * np.sign(b1 * m + (1.0 - b1) * g)
        m = b2 * m + (1.0 - b2) * g
    return Result(p, {"exp_avg": m}, k)

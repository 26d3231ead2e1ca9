"""Float64 oracle, continued: the optimizers of keras-adamw 1.38 (optimizers_v2.py), line for line.

It imports nothing from the package under test; t and k count as in `oracle`.
"""

from __future__ import annotations

import math

import numpy as np
from oracle import Gradients, Scalar, _steps, _value


def _apply_weight_decays(var: np.ndarray, var_t: np.ndarray, eta_t: float, penalties: tuple[float, float],
                         total_iterations: int) -> np.ndarray:  # fmt: skip
    """utils.py: of the variable as it was before the update."""
    norm = math.sqrt(1 / total_iterations)
    return var_t - eta_t * (penalties[0] * norm * np.sign(var) + penalties[1] * norm * var)


def adamw(params: np.ndarray, grads_per_step: Gradients, *, learning_rate: Scalar, eta: Scalar,
          penalties: tuple[float, float], total_iterations: int, beta_1: float = 0.9, beta_2: float = 0.999,
          epsilon: float = 1e-7, amsgrad: bool = False) -> np.ndarray:  # fmt: skip
    var = np.array(params, np.float64)
    m, v, vhat = np.zeros_like(var), np.zeros_like(var), np.zeros_like(var)
    for t, local_step, grad in _steps(grads_per_step):
        eta_t, lr = _value(eta, t), _value(learning_rate, t)
        lr_t = lr * math.sqrt(1.0 - beta_2**local_step) / (1.0 - beta_1**local_step)
        m = beta_1 * m + (1.0 - beta_1) * grad
        v = beta_2 * v + (1.0 - beta_2) * np.square(grad)
        vhat = np.maximum(vhat, v)
        var_delta = m / (np.sqrt(vhat if amsgrad else v) + epsilon)
        var = _apply_weight_decays(var, var - eta_t * lr_t * var_delta, eta_t, penalties, total_iterations)
    return var


def nadamw(params: np.ndarray, grads_per_step: Gradients, *, learning_rate: Scalar, eta: Scalar,
           penalties: tuple[float, float], total_iterations: int, beta_1: float = 0.9, beta_2: float = 0.999,
           epsilon: float = 1e-7) -> np.ndarray:  # fmt: skip
    var = np.array(params, np.float64)
    m, v, m_cache = np.zeros_like(var), np.zeros_like(var), 1.0
    for t, local_step, grad in _steps(grads_per_step):
        momentum_cache_t = beta_1 * (1.0 - 0.5 * 0.96 ** (0.004 * local_step))
        momentum_cache_t_1 = beta_1 * (1.0 - 0.5 * 0.96 ** (0.004 * (local_step + 1)))
        m_cache = m_cache * momentum_cache_t
        m = beta_1 * m + (1.0 - beta_1) * grad
        v = beta_2 * v + (1.0 - beta_2) * np.square(grad)
        v_prime = v / (1.0 - beta_2**local_step)
        m_bar = (1.0 - momentum_cache_t) * grad / (1.0 - m_cache)
        m_bar += momentum_cache_t * m / (1.0 - m_cache * momentum_cache_t_1)
        eta_t = _value(eta, t)
        var_t = var - eta_t * _value(learning_rate, t) * m_bar / np.sqrt(v_prime + epsilon)
        var = _apply_weight_decays(var, var_t, eta_t, penalties, total_iterations)
    return var


def sgdw(params: np.ndarray, grads_per_step: Gradients, *, learning_rate: Scalar, eta: Scalar,
         penalties: tuple[float, float], total_iterations: int, momentum: float = 0.0,
         nesterov: bool = False) -> np.ndarray:  # fmt: skip
    var = np.array(params, np.float64)
    m = np.zeros_like(var)
    for t, _, grad in _steps(grads_per_step):
        eta_t, lr_t = _value(eta, t), _value(learning_rate, t)
        m = momentum * m - eta_t * lr_t * grad
        var_t = var - (-momentum * m + eta_t * lr_t * grad) if nesterov else var + m
        var = _apply_weight_decays(var, var_t, eta_t, penalties, total_iterations)
    return var

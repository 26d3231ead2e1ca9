"""Float64 oracle, continued: SGD with momentum and NAdam, written from the papers and the frameworks' documentation.

It imports nothing from the package under test; t and k count as in `oracle`.
"""

from __future__ import annotations

import numpy as np
from oracle import Gradients, Result, Scalar, _adam_direction, _correction, _decay, _require, _steps, _value


def sgd(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, momentum: Scalar = 0.0, dampening: Scalar = 0.0,
        weight_decay: Scalar = 0.0, nesterov: bool = False, maximize: bool = False, lr_placement: str = "outside",
        decay: str = "coupled", l1_decay: Scalar = 0.0) -> Result:  # fmt: skip
    """torch.optim.SGD, whose buffer starts as the first gradient; "inside" multiplies lr into the buffer, as
    Sutskever et al. 2013, Keras and TensorFlow do."""
    _require(lr_placement in ("outside", "inside"))
    p, updates, buf = np.array(params, dtype=np.float64), 0, None
    has_momentum = callable(momentum) or momentum != 0
    for t, updates, g in _steps(grads_per_step, maximize):  # noqa: B007
        rate, mu, damp = (_value(x, t) for x in (lr, momentum, dampening))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay, _value(l1_decay, t))
        g = rate * g if lr_placement == "inside" else g
        if has_momentum:
            buf = g.copy() if buf is None else mu * buf + (1.0 - damp) * g
            g = g + mu * buf if nesterov else buf
        p = p - (g if lr_placement == "inside" else rate * g)
    return Result(p, {"momentum_buffer": np.zeros_like(p) if buf is None else buf} if has_momentum else {}, updates)


def sgd_keras(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, momentum: float = 0.0,
              nesterov: bool = False, weight_decay: float = 0.0) -> Result:  # fmt: skip
    """keras.optimizers.SGD (Keras 3): velocity = momentum * velocity - lr * g; decoupled weight decay."""
    w, grads = np.array(params, dtype=np.float64), list(_steps(grads_per_step))
    velocity = np.zeros_like(w)
    for t, _, g in grads:
        learning_rate = _value(lr, t)
        w -= w * weight_decay * learning_rate
        velocity = momentum * velocity - learning_rate * g
        w += momentum * velocity - learning_rate * g if nesterov else velocity
    return Result(w, {"momentum_buffer": -velocity}, len(grads))


def nadam(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
          eps: Scalar = 1e-8, weight_decay: Scalar = 0.0, momentum_decay: Scalar = 4e-3, maximize: bool = False,
          decoupled_weight_decay: bool = False, eps_placement: str = "outside", momentum_schedule: str = "dozat",
          decay: str = "coupled", l1_decay: Scalar = 0.0) -> Result:  # fmt: skip
    """NAdam (Dozat 2016, Algorithm 2) with the momenta mu of torch.optim.NAdam; psi = 1 is Keras'.  "constant" has the
    momentum beta1 throughout (optax), "keras-adamw" mu_k for mu_(k+1) in the factor of m."""
    _require(momentum_schedule in ("dozat", "constant", "keras-adamw"))
    decay = "decoupled" if decoupled_weight_decay else decay
    p, k, past = np.array(params, dtype=np.float64), 0, 1.0
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, e, psi = (_value(s, t) for s in (lr, *betas, eps, momentum_decay))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay, _value(l1_decay, t))
        mu, mu_next = (b1 * (1.0 - 0.5 * 0.96 ** (i * psi)) for i in (k, k + 1))
        past = past * mu
        m = m + (1.0 - b1) * (g - m)
        v = v + (1.0 - b2) * (g * g - v)
        ahead = mu if momentum_schedule == "keras-adamw" else mu_next
        m_bar = ahead * m / (1.0 - past * mu_next) + (1.0 - mu) * g / (1.0 - past)
        if momentum_schedule == "constant":
            m_bar = b1 * m / _correction(b1, k + 1) + (1.0 - b1) * g / _correction(b1, k)
        p = p - rate * _adam_direction(m_bar, v, 1.0, _correction(b2, k), e, eps_placement)
    return Result(p, {"exp_avg": m, "exp_avg_sq": v}, k)

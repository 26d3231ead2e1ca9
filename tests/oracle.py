"""Float64 oracle: Adam, RMSprop and learning-rate schedules, written from the papers and framework formulas.

It imports nothing from the package under test.  Everywhere t is the number of updates completed before this one
(0 first) and schedules are functions of t; k is the number of updates applied to the parameter including this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Schedule = Callable[[float], float]
Scalar = float | Schedule
Gradients = Iterable[np.ndarray | None]


@dataclass
class Result:
    """The parameter after the last step, the optimizer's state arrays and how many updates were applied."""

    param: np.ndarray
    states: dict[str, np.ndarray]
    updates: int


def _require(*conditions: bool) -> None:
    """Refuse options that are not among the known ones."""
    if not all(conditions):
        raise ValueError("an option of the oracle has a value it does not know")


def _value(scalar: Scalar, t: int) -> float:
    """The value of a number or of a schedule at t."""
    return float(scalar(t)) if callable(scalar) else float(scalar)


def _steps(grads_per_step: Gradients, maximize: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
    """(t, k, g) of every step that has a gradient; without one the parameter rests: t goes on, k does not."""
    k = 0
    for t, grad in enumerate(grads_per_step):
        if grad is not None:
            k += 1
            yield t, k, np.array(grad, dtype=np.float64) * (-1.0 if maximize else 1.0)


def _correction(beta: float, k: int) -> float:
    """1 - beta^k (Kingma & Ba 2015, section 3), without the cancellation for beta near 1."""
    return 1.0 if beta == 0.0 else -math.expm1(k * math.log(beta))


def _decay(
    p: np.ndarray, g: np.ndarray, wd: float, lr: float, decay: str, l1: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Weight decay ahead of the step: "coupled" L2, or Loshchilov & Hutter 2019: "decoupled" PyTorch's and Keras'
    p - lr wd p, "scheduled" the paper's p - eta_t wd p, with wd the schedule.  keras-adamw adds l1 sign(p) to wd p."""
    _require(decay in ("coupled", "decoupled", "scheduled"))
    pull = wd * p + l1 * np.sign(p)
    if decay == "coupled":
        return p, g + pull
    return p - (lr if decay == "decoupled" else 1.0) * pull, g


def _adam_direction(m: np.ndarray, v: np.ndarray, c1: float, c2: float, eps: float, placement: str) -> np.ndarray:
    """m_hat over its denominator: "outside" Kingma & Ba algorithm 1, "hat" the form ahead of their section 2.1
    (TensorFlow, Keras), "inside" the root (optax eps_root).  v is not yet divided by c2."""
    _require(placement in ("outside", "hat", "inside"))
    if placement == "outside":
        return (m / c1) / (np.sqrt(v / c2) + eps)
    if placement == "hat":
        return math.sqrt(c2) / c1 * m / (np.sqrt(v) + eps)
    return (m / c1) / np.sqrt(v / c2 + eps)


def adam(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, betas: tuple[Scalar, Scalar] = (0.9, 0.999),
         eps: Scalar = 1e-8, weight_decay: Scalar = 0.0, amsgrad: bool | str = False, maximize: bool = False,
         eps_placement: str = "outside", decay: str = "coupled", l1_decay: Scalar = 0.0) -> Result:  # fmt: skip
    """Adam (Kingma & Ba 2015), AMSGrad (Reddi et al. 2018; maximum of v "raw" as PyTorch and Keras, or of the
    "corrected" v as optax), AdamW (Loshchilov & Hutter 2019).  A gradient of None lets the parameter rest."""
    _require(amsgrad in (False, "raw", "corrected"))
    p, k = np.array(params, dtype=np.float64), 0
    m, v, v_max = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, b1, b2, e = (_value(s, t) for s in (lr, betas[0], betas[1], eps))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay, _value(l1_decay, t))
        m = m + (1.0 - b1) * (g - m)
        v = v + (1.0 - b2) * (g * g - v)
        c1, c2 = _correction(b1, k), _correction(b2, k)
        v_max = np.maximum(v_max, v / c2 if amsgrad == "corrected" else v)
        used = {False: v, "raw": v_max, "corrected": v_max * c2}[amsgrad]
        p = p - rate * _adam_direction(m, used, c1, c2, e, eps_placement)
    return Result(p, {"exp_avg": m, "exp_avg_sq": v} | ({"max_exp_avg_sq": v_max} if amsgrad else {}), k)


def rmsprop(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, alpha: Scalar = 0.99, eps: Scalar = 1e-8,
            weight_decay: Scalar = 0.0, momentum: Scalar = 0.0, centered: bool = False, maximize: bool = False,
            eps_placement: str = "outside", lr_placement: str = "outside", initial_square_avg: float = 0.0,
            bias_correction: bool = False, decay: str = "coupled") -> Result:  # fmt: skip
    """RMSprop (Hinton, lecture 6e; centered: Graves 2013): PyTorch's by default, with the switches that lead to
    TensorFlow 1's, Keras' and optax'.  "inside" multiplies lr into the momentum buffer / adds eps under the root."""
    _require(eps_placement in ("outside", "inside"), lr_placement in ("outside", "inside"))
    p, k = np.array(params, dtype=np.float64), 0
    s, mean, buf = np.full_like(p, initial_square_avg), np.zeros_like(p), np.zeros_like(p)
    for t, k, g in _steps(grads_per_step, maximize):
        rate, a, e, mu = (_value(x, t) for x in (lr, alpha, eps, momentum))
        p, g = _decay(p, g, _value(weight_decay, t), rate, decay)
        s = s + (1.0 - a) * (g * g - s)
        mean = mean + (1.0 - a) * (g - mean)
        c = _correction(a, k) if bias_correction else 1.0
        var = np.maximum(s / c - (mean / c) ** 2, 0.0) if centered else s / c
        step = g / (np.sqrt(var) + e) if eps_placement == "outside" else g / np.sqrt(var + e)
        buf = mu * buf + (rate * step if lr_placement == "inside" else step)
        p = p - (buf if lr_placement == "inside" else rate * buf)
    states = {"square_avg": s} | ({"grad_avg": mean} if centered else {})
    return Result(p, states | ({"momentum_buffer": buf} if callable(momentum) or momentum else {}), k)


def rmsprop_tensorflow1(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, decay: float = 0.9,
                        momentum: float = 0.0, epsilon: float = 1e-10, centered: bool = False) -> Result:  # fmt: skip
    """tf.train.RMSPropOptimizer (TensorFlow 1, kernel ApplyRMSProp): the slot rms starts at ones, eps in the root."""
    var, grads = np.array(params, dtype=np.float64), list(_steps(grads_per_step))
    rms, mg, mom = np.ones_like(var), np.zeros_like(var), np.zeros_like(var)
    for t, _, grad in grads:
        rms += (np.square(grad) - rms) * (1.0 - decay)
        denom = rms + epsilon
        if centered:
            mg += (grad - mg) * (1.0 - decay)
            denom = rms - np.square(mg) + epsilon
        mom = momentum * mom + _value(lr, t) * grad / np.sqrt(denom)
        var -= mom
    return Result(var, {"square_avg": rms, "grad_avg": mg, "momentum_buffer": mom}, len(grads))


def rmsprop_keras(params: np.ndarray, grads_per_step: Gradients, *, lr: Scalar, rho: float = 0.9, momentum: float = 0.0,
                  epsilon: float = 1e-7, centered: bool = False, weight_decay: float = 0.0) -> Result:  # fmt: skip
    """keras.optimizers.RMSprop (Keras 3): velocity starts at zero, eps in the root, lr in the momentum buffer."""
    variable, grads = np.array(params, dtype=np.float64), list(_steps(grads_per_step))
    velocity, average, mom = np.zeros_like(variable), np.zeros_like(variable), np.zeros_like(variable)
    for t, _, grad in grads:
        learning_rate = _value(lr, t)
        variable -= variable * weight_decay * learning_rate
        velocity = rho * velocity + (1 - rho) * np.square(grad)
        average = rho * average + (1 - rho) * grad
        denominator = velocity - np.square(average) + epsilon if centered else velocity + epsilon
        increment = learning_rate * grad / np.sqrt(denominator)
        mom = momentum * mom + increment
        variable -= mom if momentum > 0 else increment
    return Result(variable, {"square_avg": velocity, "grad_avg": average, "momentum_buffer": mom}, len(grads))


def adamw_mpmath(p0: Sequence[float], grads_per_step: Gradients, *,
                 lr: float | Callable[[int], Any], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01, digits: int = 50) -> list[Any]:  # fmt: skip
    """AdamW (Loshchilov & Hutter 2019, with PyTorch's lr * wd) as mpf at so many digits; doubles are taken exactly."""
    from mpmath import mp, mpf, sqrt

    with mp.workdps(digits):
        p = [mpf(float(x)) for x in p0]
        m, v = [mpf(0)] * len(p), [mpf(0)] * len(p)
        b1, b2, e, wd = mpf(betas[0]), mpf(betas[1]), mpf(eps), mpf(weight_decay)
        for t, k, grad in _steps(grads_per_step):
            rate = mpf(lr(t)) if callable(lr) else mpf(lr)
            for i, x in enumerate(grad):
                g = mpf(float(x))
                m[i] = b1 * m[i] + (1 - b1) * g
                v[i] = b2 * v[i] + (1 - b2) * g * g
                m_hat, v_hat = m[i] / (1 - b1**k), v[i] / (1 - b2**k)
                p[i] = p[i] * (1 - rate * wd) - rate * m_hat / (sqrt(v_hat) + e)
        return p


def _linear(start: float, end: float, num: float, den: float) -> float:
    """start + (end - start) num / den, exact at both ends."""
    return start * ((den - num) / den) + end * (num / den)


def _cosine(start: float, end: float, num: float, den: float) -> float:
    """end + (start - end) (1 + cos(pi num / den)) / 2, by the half angle so that nothing cancels near either end."""
    to_go, done = (math.sin(0.5 * math.pi * part / den) ** 2 for part in (den - num, num))
    return start * to_go + end * done


def constant(value: float) -> Schedule:
    """The same value for ever."""
    return lambda t: float(value)


def piecewise_constant(boundaries: Sequence[float], values: Sequence[float], right: bool = False) -> Schedule:
    """tf.train.piecewise_constant: the old value AT a boundary; with right (optax, torch MultiStepLR) the new one."""
    _require(len(values) == len(boundaries) + 1)
    return lambda t: float(values[sum(1 for b in boundaries if (t >= b if right else t > b))])


def exponential_decay(lr: float, decay_steps: float, decay_rate: float, staircase: bool = False) -> Schedule:
    """tf.train.exponential_decay: lr rate^(t / steps), the exponent floored for a staircase."""
    return lambda t: lr * decay_rate ** (t // decay_steps if staircase else t / decay_steps)


def polynomial_decay(lr: float, decay_steps: float, end_lr: float = 1e-4, power: float = 1.0,
                     cycle: bool = False) -> Schedule:  # fmt: skip
    """tf.train.polynomial_decay: (lr - end)(1 - t/T)^p + end, t clamped at T, or T stretched to the next multiple."""

    def at(t: float) -> float:
        steps = decay_steps * max(1, math.ceil(t / decay_steps)) if cycle else decay_steps
        return (lr - end_lr) * math.pow((steps - min(t, steps)) / steps, power) + end_lr

    return at


def cosine_decay(lr: float, decay_steps: float, alpha: float = 0.0) -> Schedule:
    """tf.train.cosine_decay: lr ((1 - alpha)(1 + cos(pi t/T))/2 + alpha), t clamped at T."""
    return lambda t: lr * _cosine(1.0, alpha, min(t, decay_steps), decay_steps)


def linear_warmup(peak: float, warmup_steps: float, init: float = 0.0) -> Schedule:
    """Goyal et al. 2017 in optax' and transformers' counting: init + (peak - init) min(t, W)/W; init comes first."""
    return lambda t: _linear(init, peak, min(t, warmup_steps), warmup_steps) if warmup_steps else float(peak)


def warmup_cosine_decay(init: float, peak: float, warmup_steps: int, decay_steps: int,
                        end_value: float = 0.0) -> Schedule:  # fmt: skip
    """optax.warmup_cosine_decay_schedule: linear to the peak, then cosine to end_value; decay_steps counts both."""
    body = decay_steps - warmup_steps
    fall = lambda t: _cosine(peak, end_value, min(t, body), body)  # noqa: E731
    return join([linear_warmup(peak, warmup_steps, init), fall], [warmup_steps])


def _phases(total: int, pct: float, anneal: str, three_phase: bool, levels: Sequence[float]) -> Schedule:
    """The phases of torch OneCycleLR through (first, peak, middle, last); the last value is held afterwards."""
    curve = {"cos": _cosine, "linear": _linear}[anneal]
    first, peak, middle, last = levels
    legs = [(pct * total - 1, first, peak), (total - 1, peak, last)]
    if three_phase:
        legs[1:] = [(2 * pct * total - 2, peak, middle), (total - 1, middle, last)]

    def at(t: float) -> float:
        t, begin = min(t, total - 1), 0.0
        for end, start_value, end_value in legs:
            if t <= end:
                return curve(start_value, end_value, t - begin, end - begin)
            begin = end
        raise AssertionError("the last leg ends at the last step")

    return at


def one_cycle(max_lr: float, total_steps: int, pct_start: float = 0.3, div_factor: float = 25.0,
              final_div_factor: float = 1e4, anneal: str = "cos", three_phase: bool = False) -> Schedule:  # fmt: skip
    """torch OneCycleLR (after Smith & Topin 2017): max/div up to max, then down to max/div/final_div."""
    low = max_lr / div_factor
    return _phases(total_steps, pct_start, anneal, three_phase, (low, max_lr, low, low / final_div_factor))


def one_cycle_momentum(total_steps: int, pct_start: float = 0.3,
                       base_momentum: float = 0.85, max_momentum: float = 0.95,
                       anneal: str = "cos", three_phase: bool = False) -> Schedule:  # fmt: skip
    """The momentum (or beta1) that torch OneCycleLR moves against the learning rate."""
    return _phases(total_steps, pct_start, anneal, three_phase, (max_momentum, base_momentum) + (max_momentum,) * 2)


def cyclic(base_lr: float, max_lr: float, step_size: float, mode: str = "triangular", gamma: float = 1.0,
           step_size_down: float | None = None) -> Schedule:  # fmt: skip
    """bckenstler/CLR (Smith 2015), torch CyclicLR; its momentum is cyclic(max_momentum, base_momentum, ...)."""
    _require(mode in ("triangular", "triangular2", "exp_range"))
    down = step_size if step_size_down is None else step_size_down

    def at(t: float) -> float:
        cycle = math.floor(1 + t / (step_size + down))
        place = t - (cycle - 1) * (step_size + down)
        height = place / step_size if place <= step_size else (step_size + down - place) / down
        scale = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": math.pow(gamma, t)}[mode]
        return base_lr + (max_lr - base_lr) * max(0.0, height) * scale

    return at


def cosine_decay_restarts(lr: float, first_decay_steps: float, t_mul: float = 2.0, m_mul: float = 1.0,
                          alpha: float = 0.0) -> Schedule:  # fmt: skip
    """tf.train.cosine_decay_restarts (SGDR, Loshchilov & Hutter 2017); restarts found by adding up the periods."""
    _require(t_mul >= 1.0, first_decay_steps > 0)

    def at(t: float) -> float:
        begin, period, height = 0.0, float(first_decay_steps), 1.0
        while t >= begin + period:
            begin, period, height = begin + period, period * t_mul, height * m_mul
        return lr * ((1.0 - alpha) * height * _cosine(1.0, 0.0, t - begin, period) + alpha)

    return at


def join(schedules: Sequence[Schedule], boundaries: Sequence[float]) -> Schedule:
    """optax.join_schedules / torch SequentialLR: from a boundary on (included) the next one, at its own time."""
    _require(len(schedules) == len(boundaries) + 1)

    def at(t: float) -> float:
        passed = [b for b in boundaries if t >= b]
        return schedules[len(passed)](t - passed[-1] if passed else t)

    return at

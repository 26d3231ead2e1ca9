"""Keras 3's schedules and its LearningRateScheduler, computed in double, and the `decay` of older optimizers."""

import os
import warnings
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from . import BASE, Row

HOME = "Keras"
STEPS_PER_EPOCH = 10
LEGACY = {0: 1 / 10, 1: 10 / 101, 2: 10 / 102, 100: 10 / 200, 10**6: 10 / (100 + 10**6)}
ROWS = [
    # lr / (1 + decay * iterations), iterations before the update, once a batch: 0.1 / (1 + k / 100) = 10 / (100 + k)
    Row("Adam(0.1, decay=0.01)", "inverse_time_decay(0.1, 1, 0.01)", numbers=LEGACY,
        remark="legacy optimizers; Keras 3 warns and ignores it"),
    Row("ExponentialDecay(0.1, 20, 0.5)", "exponential_decay(0.1, 20, 0.5)"),
    Row("ExponentialDecay(0.1, 20, 0.5, staircase=True)", "exponential_decay(0.1, 20, 0.5, staircase=True)"),
    Row("InverseTimeDecay(0.1, 20, 0.5)", "inverse_time_decay(0.1, 20, 0.5)"),
    Row("InverseTimeDecay(0.1, 20, 0.5, staircase=True)", "inverse_time_decay(0.1, 20, 0.5, staircase=True)"),
    Row("PolynomialDecay(0.1, 100)", "polynomial_decay(0.1, 100)", remark="both end at 0.0001 if nothing is said"),
    Row("PolynomialDecay(0.1, 100, 0.01, power=2.0)", "polynomial_decay(0.1, 100, 0.01, power=2.0)"),
    Row("PolynomialDecay(0.1, 25, 0.01, power=0.5, cycle=True)",
        "polynomial_decay(0.1, 25, 0.01, power=0.5, cycle=True)",
        remark="the end value comes at steps 25, 50, ..., the jump after it"),
    Row("PiecewiseConstantDecay([30, 80], [0.1, 0.05, 0.01])", "piecewise_constant([30, 80], [0.1, 0.05, 0.01])"),
    Row("CosineDecay(0.1, 100)", "cosine_decay(0.1, 100)"),
    Row("CosineDecay(0.1, 100, alpha=0.1)", "cosine_decay(0.1, 100, alpha=0.1)"),
    Row("CosineDecay(0.02, 90, alpha=0.1, warmup_target=0.1, warmup_steps=10)",
        "warmup_cosine_decay(0.02, 0.1, 10, 100, 0.01)",
        remark="`decay_steps` begin after the warm-up, ours (and optax's) with it; `alpha` is a part of the target"),
    Row("CosineDecayRestarts(0.1, 20)", "cosine_decay_restarts(0.1, 20)"),
    Row("CosineDecayRestarts(0.1, 20, t_mul=1.0, m_mul=0.5, alpha=0.1)",
        "cosine_decay_restarts(0.1, 20, t_mul=1.0, m_mul=0.5, alpha=0.1)",
        remark="with another `t_mul` than 1 Keras finds restarts by a logarithm, and misses some by a step"),
    Row("LearningRateScheduler(lambda epoch, lr: lr * 0.5 if epoch % 3 == 2 else lr)",
        "sampled_epochs(lambda epoch, lr: lr * 0.5 if epoch % 3 == 2 else lr, 12, 10, lr=0.1)",
        remark=f"{STEPS_PER_EPOCH} updates an epoch"),
    Row("LearningRateScheduler(lambda epoch, lr: 0.1 / (1 + epoch))",
        "per_epoch(0.1 / (1 + step), 10)"),
    Row("LearningRateScheduler(lambda epoch: 0.1 * 0.8 ** (epoch // 5))",
        "per_epoch(step_decay(0.1, 5, 0.8), 10)"),
]  # fmt: skip


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        made = eval(there, {**vars(keras.optimizers.schedules), **vars(keras.callbacks)})
        if isinstance(made, keras.callbacks.Callback):
            return by_epochs(keras, made, steps)
        return np.array([float(made(k)) for k in steps])
    finally:
        keras.config.set_floatx(before)


def by_epochs(keras, callback, steps: Sequence[int]) -> np.ndarray:
    """What `fit` would train with: the callback sets the rate at the beginning of each epoch."""
    model = SimpleNamespace(optimizer=keras.optimizers.SGD(BASE))
    callback.set_model(model)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of how Keras reads a variable of the rate
        for epoch in range(max(steps) // STEPS_PER_EPOCH + 1):
            callback.on_epoch_begin(epoch)
            rates.append(float(model.optimizer.learning_rate))
    return np.array([rates[k // STEPS_PER_EPOCH] for k in steps])

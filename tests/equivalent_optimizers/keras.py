"""Optimizers of Keras 3, on its torch backend, in double."""

import os
import warnings

import numpy as np
import pytest

from . import Row

HOME = "Keras 3"
ROWS = [
    Row("keras.optimizers.Adam(0.01)", "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat')"),
    Row("keras.optimizers.Adam(0.01, amsgrad=True)",
        "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat', amsgrad=True)"),
    Row("keras.optimizers.AdamW(0.01, weight_decay=0.1)",
        "AdamW(params, lr=0.01, eps=1e-7, eps_placement='hat', weight_decay=0.1)"),
    Row("keras.optimizers.Nadam(0.01)", "NAdam(params, lr=0.01, eps=1e-7, momentum_decay=1.0)"),
    Row("keras.optimizers.SGD(0.01, momentum=0.9)", "SGD(params, lr=0.01, momentum=0.9, lr_placement='inside')"),
    Row("keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)",
        "SGD(params, lr=0.01, momentum=0.9, nesterov=True, lr_placement='inside')"),
    Row("keras.optimizers.SGD(0.01, weight_decay=0.1)", "SGD(params, lr=0.01, weight_decay=0.1, decay='decoupled')"),
    Row("keras.optimizers.RMSprop(0.01)", "RMSprop.keras(params, 0.01)"),
    Row("keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True)",
        "RMSprop.keras(params, 0.01, momentum=0.9, centered=True)"),
    Row("keras.optimizers.Adam(0.01, clipvalue=0.5)",
        "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat', clip_value=0.5)"),
    Row("keras.optimizers.Adam(0.01, clipnorm=0.5)",
        "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat', clip_norm=0.5, clip_scope='tensor')",
        "Keras rounds the factor to float32", tolerance=1e-8),
    Row("keras.optimizers.Adam(0.01, global_clipnorm=0.5)",
        "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat', clip_norm=0.5)",
        "Keras rounds the factor to float32", tolerance=1e-8),
    Row("keras.optimizers.Adamax(0.01)", "Adamax(params, lr=0.01, eps=1e-7, eps_placement='outside')"),
    Row("keras.optimizers.Adagrad(0.01)", "Adagrad.keras(params, 0.01)"),
    Row("keras.optimizers.Adadelta(1.0)", "Adadelta(params, lr=1.0, rho=0.95, eps=1e-7)"),
    Row("keras.optimizers.Lion(0.01, weight_decay=0.1)", "Lion(params, lr=0.01, weight_decay=0.1)"),
    Row("keras.optimizers.Lamb(0.01)", "LAMB(params, lr=0.01, eps=1e-7, weight_decay=0.0)"),
]  # fmt: skip


def trajectory(there: str, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
    pytest.importorskip("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
    warnings.filterwarnings("ignore", "__array__ implementation")  # of Keras on its torch backend
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        own = keras.Variable(param, dtype="float64")
        optimizer = eval(there, {"keras": keras})
        found = []
        for grad in grads:
            optimizer.apply([keras.ops.convert_to_tensor(grad, dtype="float64")], [own])
            found.append(own.value.detach().numpy().copy())
    finally:
        keras.config.set_floatx(before)
    return found

"""Optimizers of Keras 3, on its torch backend, in double."""

import os

import numpy as np
import pytest

from . import Row

HOME = "Keras 3"
ROWS = [
    Row("keras.optimizers.Adam(0.01)", "Adam(params, lr=0.01, eps=1e-7, eps_placement='hat')"),
]


def trajectory(there: str, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
    pytest.importorskip("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
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

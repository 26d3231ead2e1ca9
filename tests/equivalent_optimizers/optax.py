"""Optimizers of optax, in double."""

import numpy as np
import pytest

from . import Row

HOME = "optax"
ROWS = [
    Row("optax.adam(0.01)", "Adam(params, lr=0.01)"),
    Row("optax.adam(0.01, eps=0.0, eps_root=1e-3)", "Adam(params, lr=0.01, eps=1e-3, eps_placement='inside')"),
    Row("optax.amsgrad(0.01)", "Adam(params, lr=0.01, amsgrad='corrected')"),
    Row("optax.adamw(0.01, weight_decay=0.1)", "AdamW(params, lr=0.01, weight_decay=0.1)"),
    Row("optax.sgd(0.01, momentum=0.9)", "SGD(params, lr=0.01, momentum=0.9)"),
    Row("optax.sgd(0.01, momentum=0.9, nesterov=True)", "SGD(params, lr=0.01, momentum=0.9, nesterov=True)"),
    Row("optax.rmsprop(0.01)", "RMSprop(params, lr=0.01, alpha=0.9, eps=1e-8, eps_placement='inside')"),
    Row("optax.rmsprop(0.01, eps_in_sqrt=False, initial_scale=1.0)",
        "RMSprop(params, lr=0.01, alpha=0.9, eps=1e-8, initial_square_avg=1.0)"),
    Row("optax.rmsprop(0.01, centered=True, momentum=0.9)",
        "RMSprop(params, lr=0.01, alpha=0.9, eps=1e-8, eps_placement='inside', centered=True, momentum=0.9,"
        " lr_placement='inside')"),
    Row("optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01))", "Adam(params, lr=0.01, clip_norm=0.5)"),
    Row("optax.chain(optax.clip(0.5), optax.adam(0.01))", "Adam(params, lr=0.01, clip_value=0.5)"),
    Row("optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.01))", "SGD(params, lr=0.01, weight_decay=0.1)"),
    Row("optax.adamw(optax.cosine_decay_schedule(0.01, 30))",
        "AdamW(params, lr=schedules.cosine_decay(0.01, 30), weight_decay=1e-4)"),
    Row("optax.radam(0.01)", "RAdam(params, lr=0.01, eps_placement='outside')"),
    Row("optax.adamax(0.01)", "Adamax(params, lr=0.01)"),
    Row("optax.adagrad(0.01)", "Adagrad.keras(params, 0.01)"),
    Row("optax.adadelta(1.0)", "Adadelta(params, lr=1.0)"),
    Row("optax.lion(0.01)", "Lion(params, lr=0.01, weight_decay=1e-3)"),
    Row("optax.nadam(0.01)", "NAdam(params, lr=0.01, momentum_schedule='constant')"),
    Row("optax.nadamw(0.01, weight_decay=0.1)",
        "NadamW(params, lr=0.01, weight_decay=0.1, momentum_schedule='constant')"),
    Row("optax.lamb(0.01)", "LAMB(params, lr=0.01, weight_decay=0.0)"),
    Row("optax.lamb(0.01, weight_decay=0.1)", "LAMB(params, lr=0.01, weight_decay=0.1)"),
    Row("optax.contrib.schedule_free_adamw(0.01)", "AdamWScheduleFree(params, lr=0.01)",
        "At a constant rate; else z takes the rate of a step before."),
]  # fmt: skip


def trajectory(there: str, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        own = jax.numpy.asarray(param)
        optimizer = eval(there, {"optax": optax})
        state = optimizer.init(own)
        found = []
        for grad in grads:
            updates, state = optimizer.update(jax.numpy.asarray(grad), state, own)
            own = optax.apply_updates(own, updates)
            found.append(np.asarray(own))
    return found

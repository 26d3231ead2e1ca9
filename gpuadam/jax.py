"""For those who come from JAX and optax; nothing else of the package imports it.

Every optimizer as a gradient transformation with optax's `init` and `update`, and with `apply`, which steps in place
where arrays are donated; arguments are those of the class in `gpuadam`, without the parameters.

>>> import jax, jax.numpy as jnp
>>> from gpuadam import schedules
>>> optimizer = adamw(lr=schedules.warmup_cosine_decay(0.0, 0.1, warmup_steps=2, decay_steps=10), clip_norm=1.0)
>>> params = {"weight": jnp.ones(3)}
>>> state = optimizer.init(params)
>>> def step(params, state):
...     grads = jax.grad(lambda params: (params["weight"] ** 2).sum())(params)
...     return optimizer.apply(grads, state, params)
>>> step = jax.jit(step, donate_argnums=(0, 1))  # given and returned in the same order: JAX pairs them by it
>>> for _ in range(10):
...     params, state = step(params, state)
>>> params["weight"].round(2)
Array([0.5, 0.5, 0.5], dtype=float32)
"""

import functools

from . import adam_variants, adaptive_algorithms, algorithms, layerwise_algorithms, momentum_algorithms
from .extras import needed

with needed("jax"):
    from .jax_optimizer import Transformation, transformation
    from .jax_state import State

__all__ = [
    "State",
    "Transformation",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "lamb",
    "lion",
    "nadam",
    "nadamw",
    "qhadam",
    "radam",
    "rmsprop",
    "sgd",
    "sgdw",
    "transformation",
]

adadelta = functools.partial(transformation, adaptive_algorithms.Adadelta)
adagrad = functools.partial(transformation, adaptive_algorithms.Adagrad)
adam = functools.partial(transformation, algorithms.Adam)
adamax = functools.partial(transformation, adaptive_algorithms.Adamax)
adamw = functools.partial(transformation, algorithms.AdamW)
lamb = functools.partial(transformation, layerwise_algorithms.LAMB)
lion = functools.partial(transformation, adaptive_algorithms.Lion)
nadam = functools.partial(transformation, algorithms.NAdam)
nadamw = functools.partial(transformation, algorithms.NadamW)
qhadam = functools.partial(transformation, adam_variants.QHAdam)
radam = functools.partial(transformation, adam_variants.RAdam)
rmsprop = functools.partial(transformation, momentum_algorithms.RMSprop)
sgd = functools.partial(transformation, momentum_algorithms.SGD)
sgdw = functools.partial(transformation, momentum_algorithms.SGDW)

"""What the tests of `gpuadam.jax` share: trees, and the same run by the optimizer over NumPy arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from cases import assert_same_bits

import gpuadam.jax as ours
from gpuadam import schedules

SHAPES = [(3,), (1031,), (33, 40), (), (0, 4)]
RULES = {name: made for name, made in vars(ours).items() if isinstance(made, functools.partial)}
RATE = schedules.warmup_cosine_decay(0.0, 0.05, warmup_steps=5, decay_steps=60)


def numbers(seed, shapes=SHAPES, dtype=np.float32):
    """Tame numbers, and some whose squares are subnormal."""
    generator = np.random.default_rng(seed)
    scales = [10.0 ** generator.choice([-21, -3, 0], shape) for shape in shapes]
    return [np.asarray(generator.standard_normal(s.shape) * s).astype(dtype) for s in scales]


def step_of(transformation):
    """Compiled, and in place: (params, state, grads) -> (params, state)."""
    return jax.jit(lambda params, state, grads: transformation.apply(grads, state, params), donate_argnums=(0, 1))


def run(transformation, params, grads):
    """Parameters and state after steps in place."""
    step, own = step_of(transformation), jax.tree.map(jnp.array, params)
    state = transformation.init(own)
    for grad in grads:
        own, state = step(own, state, jax.tree.map(jnp.array, grad))
    return own, state


def reference(transformation, params, grads, **settings):
    """The same by the class over NumPy arrays: parameters, and the states of each."""
    own = [param.copy() for param in params]
    optimizer = transformation.args[0](own, **settings)
    for grad in grads:
        optimizer.step(grad)
    return own, optimizer.state_dict()["state"]


def check_same_bits(params, state, expected, states):
    for index, param in enumerate(expected):
        assert_same_bits(np.asarray(params[index]), param, f"parameter {index}")
        names = {name for name, value in states[index].items() if isinstance(value, np.ndarray)}
        assert names == {name for name, column in state.slots.items() if column[index] is not None}
        for name in names:
            assert_same_bits(np.asarray(state.slots[name][index]), states[index][name], f"{name} of {index}")

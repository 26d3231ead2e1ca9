"""`gpuadam.jax` on a GPU: the bits of the CPU, in place where donated, in order of XLA's stream."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed", exc_type=ImportError)

import jax
import jax.numpy as jnp
import ml_dtypes
from cases import assert_same_bits
from twins import MARKS

import gpuadam
import gpuadam.jax as ours

pytestmark = MARKS
STEPS = 20


@pytest.fixture
def device():
    found = [device for device in jax.devices() if device.platform == "gpu"]
    if not found:
        pytest.skip("JAX finds no GPU")
    with jax.default_device(found[0]):
        yield found[0]


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.5}, {"ema_decay": 0.9}, {"nonfinite": "raise"}])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_bits_of_the_cpu(device, settings, dtype):
    generator = np.random.default_rng(0)
    shapes = [(3,), (3001,), (33, 77), (), (0, 2)]
    params, *grads = (
        [np.asarray(generator.standard_normal(s)).astype(dtype) for s in shapes] for _ in range(STEPS + 1)
    )
    transformation = ours.adamw(lr=0.1, **settings)
    own = [jnp.array(param) for param in params]
    state = transformation.init(own)
    step = jax.jit(lambda params, state, grads: transformation.apply(grads, state, params), donate_argnums=(0, 1))
    before = [array.unsafe_buffer_pointer() for array in own]
    optimizer = gpuadam.AdamW(params, lr=0.1, **settings)
    for grad in grads:
        own, state = step(own, state, [2 * jnp.array(leaf) for leaf in grad])  # made by XLA just before
        optimizer.step([2 * leaf for leaf in grad])
    assert [array.unsafe_buffer_pointer() for array in own] == before
    for index, param in enumerate(params):
        assert_same_bits(np.asarray(own[index]), param, f"parameter {index}")

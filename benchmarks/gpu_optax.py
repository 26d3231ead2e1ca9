"""AdamW of optax in one jitted step with donated arrays, timed by the clock on the wall.

XLA runs on streams of its own, on which CuPy's events would tell nothing.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from gpu_cases import LR, WEIGHT_DECAY, Case

from gpuadam.device_samples import BATCH, MOST_STEPS


def optax_reason() -> str | None:
    """Why there is nothing to compare with."""
    backend = jax.default_backend()
    return None if backend == "gpu" else f"JAX runs on {backend!r} here"


def make_optax(case: Case) -> Callable[[], dict[str, float]]:
    """A function that takes one sample."""
    keys = jax.random.split(jax.random.key(0), 2)
    params, grads = ([jax.random.normal(key, shape) for shape in case.workload.shapes] for key in keys)
    transformation = optax.adamw(LR, weight_decay=WEIGHT_DECAY)

    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step, held = jax.jit(update, donate_argnums=(0, 1)), [params, transformation.init(params)]
    del params

    def run(steps: int) -> float:
        held[:] = step(*held, grads)
        jax.block_until_ready(held)
        begin = time.perf_counter()
        for _ in range(steps):
            held[:] = step(*held, grads)
        jax.block_until_ready(held)
        return (time.perf_counter() - begin) / steps

    run(2)
    steps = int(min(MOST_STEPS, max(2, BATCH / run(3))))
    return lambda: {"wall_seconds": run(steps)}

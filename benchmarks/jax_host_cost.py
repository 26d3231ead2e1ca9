"""What a step costs the host under JAX on the CPU: ours by `apply` and by `update`, and optax's AdamW, jitted, donated.

    python benchmarks/jax_host_cost.py --json benchmarks/results/jax-cpu.json

Samples are interleaved (A B C A B C ...); each is the mean of some steps, after some that are not counted.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gpuadam.jax
from gpuadam.figures import digits
from gpuadam.machine import machine
from gpuadam.samples import interleave, quantiles

CASES = {"20 x 64": (20, 64), "200 x 64": (200, 64), "200 x 20,000": (200, 20_000), "1 x 5,000,000": (1, 5_000_000)}
SAMPLE = 0.03  # seconds that a sample takes at least


def optax_step(transformation: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def sampler(step: Callable[..., Any], transformation: Any, count: int, size: int) -> Callable[[], float]:
    """Seconds that a step takes."""
    params, grads = ([jnp.full(size, float(i + 1)) for i in range(count)] for _ in range(2))
    step, held = jax.jit(step, donate_argnums=(0, 1)), [params, transformation.init(params)]

    def run(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            held[:] = step(*held, grads)
        jax.block_until_ready(held)
        return (time.perf_counter() - begin) / steps

    run(3)
    steps = max(3, int(SAMPLE / run(5)))
    return lambda: run(steps)


def measure(count: int, size: int, repeats: int) -> dict[str, dict[str, float]]:
    ours, theirs = gpuadam.jax.adamw(lr=1e-3, weight_decay=0.01), optax.adamw(1e-3, weight_decay=0.01)
    contenders = {
        "apply": sampler(lambda params, state, grads: ours.apply(grads, state, params), ours, count, size),
        "update": sampler(optax_step(ours), ours, count, size),
        "optax": sampler(optax_step(theirs), theirs, count, size),
    }
    return {name: quantiles(samples) for name, samples in interleave(contenders, repeats).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    found = {name: measure(*case, options.repeats) for name, case in CASES.items()}
    if options.json:
        versions = {"jax": jax.__version__, "optax": optax.__version__}
        options.json.write_text(json.dumps({"machine": machine(), **versions, "cases": found}, indent=1) + "\n")
    print("| arrays | `apply` | `update` | optax |\n| --- | ---: | ---: | ---: |")
    for name, row in found.items():
        cells = (f"{digits(1e3 * row[kind]['median'])} ms" for kind in ("apply", "update", "optax"))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

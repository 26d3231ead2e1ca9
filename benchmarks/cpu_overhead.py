"""What a bound step of gpuadam costs beside the work on elements.

Two ways to see it: a step of tensors without elements, and a step less its compiled walk over the elements, which is
called directly on the same tables. So is the launch: the walk, and what is compiled around it (the coefficients of the
next step); what a step costs beyond its launch is Python.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cpu_cases import HYPERPARAMETERS, Case, arrays_of, in_groups

import gpuadam
from gpuadam.samples import interleave, quantiles, sampler
from gpuadam.workloads import Workload, uniform

COUNTS = (1, 10, 100, 1000, 10_000)
GROUPS = (1, 10, 100, 465)
LENGTH = 128  # elements of a tensor, in the second way
SAMPLE = 5e-3  # seconds


def bound(workload: Workload) -> gpuadam.Optimizer:
    """An optimizer that has taken a step."""
    case = Case(workload)
    params, grads = arrays_of(case) if workload.elements else empty_arrays(workload)
    optimizer = gpuadam.AdamW(in_groups(case, params), **HYPERPARAMETERS["adamw"])
    optimizer.bind(grads)
    optimizer.step()
    return optimizer


def empty_arrays(workload: Workload) -> tuple[list[np.ndarray], list[np.ndarray]]:
    params, grads = ([np.zeros(shape, np.float32) for shape in workload.shapes] for _ in range(2))
    return params, grads


def walk_of(optimizer: gpuadam.Optimizer) -> Callable[[], None]:
    """The compiled walk over the elements alone."""
    tables = optimizer._engine.tables

    def walk() -> None:
        for sweep in tables._sweeps:
            sweep.run(tables._address)

    return walk


def measure_one(workload: Workload, seconds: float) -> dict[str, Any]:
    """Seconds of a step, of its launch and its walk, and the differences of neighbouring samples."""
    optimizer = bound(workload)
    calls = {"step": optimizer.step, "launch": optimizer._engine.tables.run, "walk": walk_of(optimizer)}
    last = time.perf_counter() + seconds
    found = interleave({n: sampler(call, SAMPLE) for n, call in calls.items()}, 101, lambda: time.perf_counter() < last)
    beside = {
        name: quantiles([step - other for step, other in zip(found["step"], found[of], strict=True)])
        for name, of in (("beside_walk", "walk"), ("beside_launch", "launch"))
    }
    about = {"tensors": len(workload.shapes), "groups": workload.groups, "elements": workload.elements}
    return {**about, **{name: quantiles(samples) for name, samples in found.items()}, **beside}


def measure_overhead(seconds: float) -> list[dict[str, Any]]:
    """All of them; each takes so long. Call it in a process of its own."""
    without = [uniform(count, 0) for count in COUNTS] + [uniform(465, 0, groups) for groups in GROUPS]
    return [measure_one(workload, seconds) for workload in (*without, *map(partial(uniform, size=LENGTH), COUNTS))]

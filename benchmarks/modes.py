"""Bytes that each mode of a step moves, and how near to the plain step's bandwidth it comes, on the CPU.

    python benchmarks/modes.py [--elements N] [--json FILE]

Modes are measured in turn, round after round, in one process; the figure of a mode is the median over the rounds of its
bandwidth over that of the plain float32 step in the same round.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table

import gpuadam
from gpuadam.machine import machine
from gpuadam.traffic import traffic

TENSORS = 25
BFLOAT16 = ml_dtypes.bfloat16
# name: (dtype, settings)
MODES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (np.float32, {}),
    "clip_norm": (np.float32, {"clip_norm": 1e-3}),
    "clip_value": (np.float32, {"clip_value": 1e-3}),
    "nonfinite='skip'": (np.float32, {"nonfinite": "skip"}),
    "ema_decay": (np.float32, {"ema_decay": 0.999}),
    "zero_grads": (np.float32, {"zero_grads": True}),
    "amsgrad": (np.float32, {"amsgrad": True}),
    "clip_norm, ema_decay": (np.float32, {"clip_norm": 1e-3, "ema_decay": 0.999}),
    "state_dtype='bfloat16'": (np.float32, {"state_dtype": "bfloat16"}),
    "state_dtype='int8'": (np.float32, {"state_dtype": "int8", "int8_from": 0}),
    "bfloat16": (BFLOAT16, {}),
    "bfloat16, stochastic": (BFLOAT16, {"rounding": "stochastic"}),
    "bfloat16, remainder": (BFLOAT16, {"master": "remainder"}),
    "bfloat16, master": (BFLOAT16, {"master": "float32"}),
    "float16": (np.float16, {}),
}


def make(mode: str, elements: int) -> gpuadam.Optimizer:
    """An optimizer with gradients bound, compiled and warm."""
    dtype, settings = MODES[mode]
    shape = (elements // TENSORS // 1000, 1000)
    params = [np.ones(shape, dtype) for _ in range(TENSORS)]
    optimizer = gpuadam.AdamW(params, lr=1e-3, **settings)
    optimizer.bind([np.full(shape, 0.01, dtype) for _ in range(TENSORS)])
    optimizer.step()
    return optimizer


def bytes_per_element(optimizer: gpuadam.Optimizer) -> float:
    """What a step must move for each element."""
    engine = optimizer._engine
    return traffic(engine.kinds[0], sums=engine.tensors.scope_count > 0)


def seconds(optimizer: gpuadam.Optimizer) -> float:
    """The time of a step, the middle one of three, after one that is not counted."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    return median(times[1:])


def measure(elements: int, rounds: int) -> dict[str, dict[str, float]]:
    optimizers = {mode: make(mode, elements) for mode in MODES}
    moved = {mode: bytes_per_element(optimizer) for mode, optimizer in optimizers.items()}
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode, optimizer in optimizers.items():
            times[mode].append(seconds(optimizer))
    found = {}
    for mode, own in times.items():
        bandwidths = [moved[mode] * elements / t for t in own]
        plain = [moved["plain"] * elements / t for t in times["plain"]]
        found[mode] = {
            "bytes_per_element": moved[mode],
            "milliseconds": 1e3 * median(own),
            "gigabytes_per_second": median(bandwidths) / 1e9,
            "of_plain": median(a / b for a, b in zip(bandwidths, plain, strict=True)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Bandwidth of each mode of a step, relative to the plain one.")
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    modes = measure(arguments.elements, arguments.rounds)
    table = Table("mode", "bytes an element", "ms", "GB/s", "of the plain step's bandwidth")
    for mode, own in modes.items():
        figures = (own["milliseconds"], own["gigabytes_per_second"], own["of_plain"])
        table.add_row(mode, f"{own['bytes_per_element']:g}", *(f"{figure:.2f}" for figure in figures))
    Console().print(table)
    if arguments.json:
        content = {"machine": machine(), "elements": arguments.elements, "modes": modes}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How long the package takes to start: new processes import it, and step for the first time."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

IMPORT, COLD, WARM = "import gpuadam", "first step ever", "first step, compiled before"
CACHES = ("NUMBA_CACHE_DIR", "GPUADAM_CACHE_DIR")  # of machine code for the CPU, and of kernels
TIMED_IMPORT = """
import sys, time
begin = time.perf_counter()
import gpuadam
print(time.perf_counter() - begin)
assert not {"cupy", "torch"} & set(sys.modules)
"""
TIMED_STEP = """
import importlib, sys, time
import numpy as np, gpuadam
rule, module = sys.argv[1:]
xp = importlib.import_module(module)
param, grad = (xp.asarray(np.ones(200_000, np.float32)) for _ in range(2))
begin = time.perf_counter()
getattr(gpuadam, rule)([param]).step([grad])
param[:1].tolist()  # a GPU has ended then
print(time.perf_counter() - begin)
"""


def seconds_in_new_process(code: str, *arguments: str, caches: str) -> float:
    """What the code prints; compiled code is kept in that folder."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **dict.fromkeys(CACHES, caches), "PYTHONPATH": path}
    command = [sys.executable, "-c", code, *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)


def measure_first_use(cold: int, warm: int, rule: str = "AdamW", module: str = "numpy") -> Mapping[str, list[float]]:
    """Seconds of the import, and of the first step after it, with caches that are empty and with those of before.

    Args:
        cold: How many processes find empty caches; at least one.
        warm: How many find full ones, and how many only import.
        rule: The optimizer that is made and steps once.
        module: Whose arrays it steps: numpy or cupy, whose own import is not counted.
    """
    found: dict[str, list[float]] = {IMPORT: [], COLD: [], WARM: []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(cold):
            found[COLD].append(seconds_in_new_process(TIMED_STEP, rule, module, caches=f"{folder}/{i}"))
        for _ in range(warm):
            found[WARM].append(seconds_in_new_process(TIMED_STEP, rule, module, caches=f"{folder}/0"))
            found[IMPORT].append(seconds_in_new_process(TIMED_IMPORT, caches=f"{folder}/0"))
    return found

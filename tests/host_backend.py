"""A backend that runs the CUDA source itself on the CPU: tables and arrays lie in host memory, g++ made the kernels."""

import os
from typing import Any

import host_kernels
import numpy as np

from gpuadam import cpu, tensors
from gpuadam.cpu import overwrite, to_host  # noqa: F401 (a backend has these)
from gpuadam.tables import LAUNCH, TABLES, VALID, Batch, new_progress

GRID = 3  # blocks of a launch: more than one, so that there is a last one
BLOCK = host_kernels.THREADS
PATCH: host_kernels.Patch | None = None  # a planted fault
SANITIZE = "address" if os.environ.get("GPUADAM_HOST_SANITIZE") else None  # set by tests/test_bits_sanitized.py
if SANITIZE:  # every state is an allocation of its own, of exactly its size
    tensors.POOLED_ELEMENTS = 0
    tensors.STATE_ALIGNMENT = 1


def filled(numel: int, dtype: np.dtype[Any], value: float, device: int) -> np.ndarray:
    """As in `gpuadam.cpu`; but under a sanitizer the guard stands right behind the last element."""
    return np.full(numel, value, dtype) if SANITIZE else cpu.filled(numel, dtype, value, device)


class Tables(cpu.Tables):
    """As the tables of `gpuadam.cuda`, but the launches go to `host_kernels`."""

    def __init__(self, tables: dict[str, np.ndarray], batches: list[Batch], device: int) -> None:
        self._tables = tables
        self._launches = []
        self.is_half_done = False
        for batch in batches:
            share = max(1, -(-batch.count // GRID))
            grid = max(1, -(-batch.count // share))
            launch = np.zeros(1, LAUNCH)
            for name, table in tables.items():
                launch[name] = table.ctypes.data
            launch["chunks"] += np.uint64(batch.first * TABLES["chunks"].itemsize)
            launch["chunk_count"], launch["chunks_per_block"] = batch.count, share
            library = host_kernels.build(batch.specialisation.macros(), block=BLOCK, sanitize=SANITIZE, patch=PATCH)
            self._launches.append((library, grid, launch))
        for _, _, launch in self._launches:
            launch["blocks"] = sum(grid for _, grid, _ in self._launches)

    def reset(self) -> None:
        self.upload("progress", 0, new_progress())
        self.is_half_done = False

    def run(self) -> bool:
        progress, revision = self._tables["progress"], self._tables["revision"]
        if progress["prepared"][0] == revision["number"][0] and progress["fault_cohort"][0] != VALID:
            return False
        steps = self._tables["clocks"]["step"].copy()
        self.is_half_done = True
        for library, grid, launch in self._launches:
            host_kernels.run(library, launch, grid, BLOCK)
        self.is_half_done = False
        return bool(np.any(self._tables["clocks"]["step"] != steps))


def optimizer_on(backend: Any, monkeypatch: Any, make: Any, *arguments: Any, **settings: Any) -> Any:
    """An optimizer that runs on a given backend module."""
    monkeypatch.setattr("gpuadam.optimizer.choose_backend", lambda name, arrays: backend)
    return make(*arguments, **settings)

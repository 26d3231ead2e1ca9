"""A backend that runs the CUDA source itself on the CPU: tables and arrays lie in host memory, g++ made the kernels."""

import os
from collections.abc import Sequence
from typing import Any

import host_kernels
import numpy as np

from gpuadam import cpu, slots
from gpuadam.cpu import copy_of, copy_values, fill, overwrite, to_host, view_of  # noqa: F401 (a backend has these)
from gpuadam.nvrtc import REDUCE, Kernel, measure_kernel, step_kernel, swap_kernel
from gpuadam.tables import TABLES, VALID, Batch, Verdict

GRID = 3  # blocks of a launch: more than one, so that there is a last one
BLOCK = host_kernels.THREADS
PATCH: host_kernels.Patch | None = None  # a planted fault
SANITIZE = "address" if os.environ.get("GPUADAM_HOST_SANITIZE") else None  # set by tests/test_bits_sanitized.py
if SANITIZE:  # every slot is an allocation of its own, of exactly its size
    slots.POOLED_ELEMENTS = 0
    slots.ALIGNMENT = 1


def empty_bytes(size: int, device: int) -> np.ndarray:
    """As in `gpuadam.cpu`; but under a sanitizer the guard stands right behind the last byte."""
    return np.empty(size, np.uint8) if SANITIZE else cpu.empty_bytes(size, device)


def library(kernel: Kernel) -> Any:
    """A kernel made by g++, with the planted fault."""
    return host_kernels.build_kernel(kernel, block=BLOCK, sanitize=SANITIZE, patch=PATCH)


class Tables(cpu.Tables):
    """As the tables of `gpuadam.cuda`, but the launches go to `host_kernels`."""

    def plan(self, batches: Sequence[Batch]) -> None:
        for name, table in self._tables.items():
            self._launch[name] = table.ctypes.data
        self._batches = batches
        self._launches = [self._share(step_kernel(batch.specialisation), batch.first, batch.count) for batch in batches]
        for _, _, launch in self._launches:
            launch["blocks"] = sum(grid for _, grid, _ in self._launches)
        measured = [batch for batch in batches if batch.specialisation.rule.measure]
        kernels = [(measure_kernel(batch.specialisation), batch.first, batch.count) for batch in measured]
        self._launches[:0] = [self._share(*kernel) for kernel in kernels]
        if len(self._tables["scopes"]):
            self._launches.insert(0, self._share(REDUCE, 0, len(self._tables["chunks"])))

    def _share(self, kernel: Kernel, first: int, count: int) -> tuple[Any, int, np.ndarray]:
        share = max(1, -(-count // GRID))
        launch = self._launch.copy()
        launch["chunks"] += np.uint64(first * TABLES["chunks"].itemsize)
        launch["chunk_count"], launch["chunks_per_block"] = count, share
        return library(kernel), max(1, -(-count // share)), launch

    def _run(self, launches: Sequence[tuple[Any, int, np.ndarray]]) -> None:
        for path, grid, launch in launches:
            host_kernels.run(path, launch, grid, BLOCK)

    def swap(self, evaluates: bool, shown: Sequence[tuple[Any, Any]]) -> None:
        self._launch["evaluates"] = evaluates
        kinds = [batch for batch in self._batches if batch.specialisation.shows]
        self._run([self._share(swap_kernel(b.specialisation), b.first, b.count) for b in kinds])
        for array, kept in shown:
            overwrite(array, kept)

    def run(self) -> Verdict:
        progress, revision = self._tables["progress"], self._tables["revision"]
        if progress["prepared"][0] == revision["number"][0] and progress["fault_cohort"][0] != VALID:
            return Verdict.HELD
        before, steps = progress.copy(), self._tables["clocks"]["step"].copy()
        self.is_half_done = True
        self._run(self._launches)
        self.is_half_done = False
        if progress["overflowed"] != before["overflowed"]:
            return Verdict.OVERFLOWED
        if progress["skipped"] != before["skipped"]:
            return Verdict.SKIPPED
        return Verdict.APPLIED if np.any(self._tables["clocks"]["step"] != steps) else Verdict.HELD


def optimizer_on(backend: Any, monkeypatch: Any, make: Any, *arguments: Any, **settings: Any) -> Any:
    """An optimizer that runs on a given backend module."""
    monkeypatch.setattr("gpuadam.backends.choose_backend", lambda name, arrays: backend)
    return make(*arguments, **settings)

"""`bench` on the CPU: its free memory, its cache, what its memory gives, and how a step is timed."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

from .bandwidth import Stream, host_streams
from .machine import count_cores, machine
from .samples import sampler

MEMORY = Path("/proc/meminfo")
GROUPS = (  # of processes whose memory is limited: the limit, and what is used of it
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
CACHES = Path("/sys/devices/system/cpu")
UNKNOWN_MEMORY, UNKNOWN_CACHE = 4 * 2**30, 32 * 2**20  # bytes that are taken for granted where nothing tells
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Host:
    """The CPU, with all threads that Numba has now."""

    name = "cpu"
    xp: ModuleType = np

    def __init__(self) -> None:
        self.cache = last_level_cache()

    def about(self) -> dict[str, Any]:
        """Where the figures are taken."""
        return {**machine(), "threads": numba.get_num_threads(), "cache_bytes": self.cache}

    def free(self) -> int:
        """Bytes that can still be had."""
        return min([free_in_machine(), *free_in_groups()])

    def streams(self) -> dict[str, Stream]:
        """What memory gives, by arrays that no cache holds."""
        return host_streams(min(4 * self.cache, self.free() // 8))

    def sampler(self, step: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        """A function that takes one sample: seconds of a step."""
        sample = sampler(step)
        return lambda: {"seconds": sample()}

    def release(self) -> None:
        """Give back what the last case held."""
        gc.collect()


def most_threads() -> int:
    """Threads that Numba can have in this process: the cores, or what NUMBA_NUM_THREADS says."""
    return int(numba.config.NUMBA_NUM_THREADS)


@contextmanager
def numba_threads(count: int | None) -> Iterator[None]:
    """So many threads within the block; None: as many as before.

    Raises:
        ValueError: Numba has fewer.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(count or before)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def free_in_machine() -> int:
    """What Linux would give without swapping."""
    lines = MEMORY.read_text().splitlines() if MEMORY.exists() else []
    sizes = [int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] if sizes else UNKNOWN_MEMORY


def free_in_groups() -> list[int]:
    """What the limits of containers leave, where there are any."""
    texts = [[path.read_text().strip() for path in pair] for pair in GROUPS if all(path.exists() for path in pair)]
    return [int(limit) - int(used) for limit, used in texts if limit != "max"]


def last_level_cache() -> int:
    """Bytes of the last caches of all cores that this process may use."""
    cores = cores_in_use()
    levels: dict[int, dict[str, int]] = {}
    for folder in CACHES.glob("cpu[0-9]*/cache/index[0-9]*"):
        if folder.parts[-3] in cores:
            level, shared, size = ((folder / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
            levels.setdefault(int(level), {})[shared] = int(size.rstrip("KMG")) * UNITS.get(size[-1], 1)
    return sum(levels[max(levels)].values()) if levels else UNKNOWN_CACHE


def cores_in_use() -> set[str]:
    affinity = getattr(os, "sched_getaffinity", None)
    return {f"cpu{i}" for i in (affinity(0) if affinity else range(count_cores()))}

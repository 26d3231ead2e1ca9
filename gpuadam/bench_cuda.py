"""`bench` on a GPU: its free memory, its L2 cache, what its memory gives, and how a step is timed.

A sample is a batch of steps between two CUDA events. The host's time is told apart: that until the last step of the
batch is enqueued; a batch is short enough that the queue of launches never fills, where the host would wait.
"""

import gc
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .bandwidth import Stream
from .machine import machine

BATCH = 4e-3  # seconds that a batch is to take
MOST_STEPS = 60  # of a batch
PIECE = 2**29  # bytes of each buffer of the copy, at least
MOST_SETS, MOST_TENSORS = 64, 20_000  # to be stepped in turn


class GPU:
    """The current device of CuPy, and its current stream."""

    name, title = "cuda", "GPU"

    def __init__(self) -> None:
        import cupy

        self.xp: ModuleType = cupy
        self._device = cupy.cuda.Device()
        self.cache = int(self._device.attributes["L2CacheSize"])

    def about(self) -> dict[str, Any]:
        """Where the figures are taken."""
        runtime = self.xp.cuda.runtime
        device = runtime.getDeviceProperties(self._device.id)
        return {
            **machine(),
            "device": device["name"].decode(),
            "device_bytes": device["totalGlobalMem"],
            "multiprocessors": device["multiProcessorCount"],
            "cache_bytes": self.cache,
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
        }

    def free(self) -> int:
        """Bytes that can still be had; those of CuPy's pool were given back by `release`."""
        return int(self.xp.cuda.runtime.memGetInfo()[0])

    def sets(self, held: int, tensors: int) -> int:
        """Optimizers to be stepped in turn, so that all their arrays are four times the cache, as far as that goes."""
        return max(1, min(-(-4 * self.cache // held), MOST_SETS, MOST_TENSORS // tensors))

    def streams(self) -> dict[str, Stream]:
        """What memory gives: the driver's own copy within the device."""
        cuda = self.xp.cuda
        size = max(PIECE, 4 * self.cache)
        source, target = (self.xp.zeros(size, "uint8") for _ in range(2))

        def copy() -> None:
            stream, kind = cuda.get_current_stream().ptr, cuda.runtime.memcpyDeviceToDevice
            cuda.runtime.memcpyAsync(target.data.ptr, source.data.ptr, size, kind, stream)

        return {"copy": Stream(copy, 2 * size)}

    def sampler(self, step: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        """A function that takes one sample: seconds of a step to the device, to the host, and until all is done."""
        for _ in range(3):
            self._run(step, 2)
        steps = int(min(MOST_STEPS, max(2, BATCH / max(self._run(step, 5)["wall_seconds"], 1e-7))))
        return lambda: self._run(step, steps)

    def _run(self, step: Callable[[], Any], steps: int) -> dict[str, float]:
        cuda = self.xp.cuda
        begin, end, stream = cuda.Event(), cuda.Event(), cuda.get_current_stream()
        step()
        self._device.synchronize()
        start = time.perf_counter()
        begin.record(stream)
        for _ in range(steps):
            step()
        end.record(stream)
        enqueued = time.perf_counter()
        end.synchronize()
        done = time.perf_counter()
        device = cuda.get_elapsed_time(begin, end) / 1e3
        found = {"seconds": device, "host_seconds": enqueued - start, "wall_seconds": done - start}
        return {name: seconds / steps for name, seconds in found.items()}

    def release(self) -> None:
        """Give back what the last case held."""
        gc.collect()
        self._device.synchronize()
        self.xp.get_default_memory_pool().free_all_blocks()

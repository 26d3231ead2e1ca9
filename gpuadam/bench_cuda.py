"""`bench` on a GPU: its free memory, what its memory gives, and how a step is timed, with nothing in the L2 cache."""

import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .bandwidth import Stream
from .device_bandwidth import FLUSH, device_streams, flusher, l2_bytes
from .device_samples import BATCH, device_sampler
from .machine import machine

ARRAY = 2**29  # bytes of each array of the streams, at least


class GPU:
    """The current device of CuPy, and its current stream."""

    name = "cuda"
    cache = 0  # bytes in which a step may find what the last one left

    def __init__(self) -> None:
        import cupy

        self.xp: ModuleType = cupy
        self._device = cupy.cuda.Device()
        self._flush = flusher()

    def about(self) -> dict[str, Any]:
        """Where the figures are taken."""
        runtime = self.xp.cuda.runtime
        device = runtime.getDeviceProperties(self._device.id)
        return {
            **machine(),
            "device": device["name"].decode(),
            "device_bytes": device["totalGlobalMem"],
            "multiprocessors": device["multiProcessorCount"],
            "cache_bytes": l2_bytes(),
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
        }

    def free(self) -> int:
        """Bytes that can still be had; those of CuPy's pool were given back by `release`."""
        return int(self.xp.cuda.runtime.memGetInfo()[0])

    def streams(self) -> dict[str, Stream]:
        """What memory gives, by arrays that no cache holds."""
        return device_streams(max(ARRAY, FLUSH * l2_bytes()))

    def sampler(self, step: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        """A function that takes one sample: seconds of a step to the device, to the host, and until all is done."""
        return device_sampler(step, self._flush, BATCH)

    def release(self) -> None:
        """Give back what the last case held."""
        gc.collect()
        self._device.synchronize()
        self.xp.get_default_memory_pool().free_all_blocks()

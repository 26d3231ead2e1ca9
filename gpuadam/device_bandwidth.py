"""How fast a GPU's memory is: the driver's copy, and the loops of `bandwidth` as kernels, over more than a cache holds.

A copy within the device reads as much as it writes; here nothing is moved that is not counted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .bandwidth import Stream
from .cuda import load_kernel
from .nvrtc import BLOCK, Kernel

TILE = BLOCK * 4 * 16  # bytes that a block takes at once, in streams.cu
BLOCKS = 8  # for each multiprocessor: as many as its threads allow
FLUSH = 4  # times the size of the L2 cache


def l2_bytes() -> int:
    """Size of the current device's L2 cache."""
    import cupy

    return int(cupy.cuda.Device().attributes["L2CacheSize"])


def device_streams(size: int) -> dict[str, Stream]:
    """The loops over the current device's memory, on the stream that is current when they run.

    Args:
        size: Bytes of each of the three arrays; several times the L2 cache.

    Returns:
        "copy": the driver's from device to device; "copy kernel", "triad" and "scale": kernels.
    """
    size = whole_tiles(size)
    first, second, third = (filled(size, value) for value in (1.0, 2.0, 3.0))
    count, one, half = np.int64(size // 16), np.float64(1.0), np.float64(0.5)
    return {
        "copy": Stream(driver_copy(first, second), 2 * size),
        "copy kernel": Stream(launcher("stream_copy", size, first, second, count), 2 * size),
        "triad": Stream(launcher("stream_triad", size, first, second, third, half, count), 3 * size),
        "scale": Stream(launcher("stream_scale", size, first, one, count), 2 * size),
    }


def flusher() -> Callable[[], None]:
    """What empties the L2 cache of whatever is in it, by reading an array that is several times as large.

    Nothing is written: lines that were would have to go to memory in the time of what comes next.
    """
    size = whole_tiles(FLUSH * l2_bytes())
    arrays = filled(8, 0.0), filled(size, 1.0)
    return launcher("stream_read", size, *arrays, np.float64(-1.0), np.int64(size // 16))


def whole_tiles(size: int) -> int:
    """The next number of bytes that blocks take without a rest."""
    return -(-size // TILE) * TILE


def filled(size: int, value: float) -> Any:
    import cupy

    array = cupy.empty(size // 8, "float64")
    array.fill(value)
    return array


def driver_copy(target: Any, source: Any) -> Callable[[], None]:
    import cupy

    copy, kind = cupy.cuda.runtime.memcpyAsync, cupy.cuda.runtime.memcpyDeviceToDevice
    current = cupy.cuda.get_current_stream
    return lambda: copy(target.data.ptr, source.data.ptr, source.nbytes, kind, current().ptr)


def launcher(name: str, size: int, *arguments: Any) -> Callable[[], None]:
    """A launch of a kernel of streams.cu over so many bytes."""
    import cupy

    device = cupy.cuda.Device()
    kernel = load_kernel(Kernel(name, "streams.cu"), device.id)
    grid = min(size // TILE, BLOCKS * device.attributes["MultiProcessorCount"])
    return lambda: kernel((grid,), (BLOCK,), arguments)

"""Memory of the CUDA backend: pinned buffers for copies, and arrays of our own and of others."""

import functools
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array

RING = 16  # uploads that may be under way at once
Slot = tuple[Any, Any]  # pinned memory, and the event after which no copy uses it
retired: deque[Slot] = deque()  # of optimizers that are gone, while a copy may still use them
_retired_lock = threading.Lock()


def new_slot(size: int) -> Slot:
    """Pinned memory for copies. Its owner hands it to `retired` in the end: CuPy's pool would not wait for a copy."""
    import cupy

    with _retired_lock:
        for _ in range(len(retired)):
            slot = retired.popleft()
            if not slot[1].done:
                retired.append(slot)
    return cupy.cuda.alloc_pinned_memory(size), cupy.cuda.Event(disable_timing=True)


class Upload:
    """A ring of pinned buffers: host bytes go to the device in stream order, and the host does not wait for them."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        weakref.finalize(self, retired.extend, self._slots)

    def __call__(self, target: int, source: npt.NDArray[Any], stream: Any) -> None:
        import cupy

        size = source.nbytes
        if not size:
            return
        slot = self._slots.popleft() if len(self._slots) == RING else None
        if slot is not None:
            slot[1].synchronize()
        if slot is None or slot[0].size() < size:
            slot = new_slot(size)
        pinned, event = slot
        np.frombuffer(pinned, np.uint8, size)[:] = np.ascontiguousarray(source).view(np.uint8).ravel()
        host_to_device = cupy.cuda.runtime.memcpyHostToDevice
        cupy.cuda.runtime.memcpyAsync(target, pinned.ptr, size, host_to_device, stream.ptr)
        event.record(stream)
        self._slots.append(slot)


@contextmanager
def stream_at(pointer: int, device: int) -> Iterator[None]:
    """Somebody else's stream, on which CuPy works within the block; 0 is the one that all of CUDA has by default."""
    import cupy

    with cupy.cuda.Device(device), foreign_stream(cupy, pointer, device) if pointer else cupy.cuda.Stream.null:
        yield


@functools.cache
def foreign_stream(cupy: Any, pointer: int, device: int) -> Any:
    """CuPy's view of a stream. It owns nothing, unlike what `Stream.from_external` gives, which may destroy its stream.

    CuPy 14 calls this class deprecated, which is no matter of the user's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cupy.cuda.ExternalStream(pointer, device)


def table_of(address: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One row at an address of the current device, as a copy; waits for what the current stream has to do."""
    import cupy

    pinned, runtime, stream = (
        cupy.cuda.alloc_pinned_memory(dtype.itemsize),
        cupy.cuda.runtime,
        cupy.cuda.get_current_stream(),
    )
    runtime.memcpyAsync(pinned.ptr, address, dtype.itemsize, runtime.memcpyDeviceToHost, stream.ptr)
    stream.synchronize()
    return np.frombuffer(pinned, dtype.base, dtype.itemsize // dtype.base.itemsize).copy()


def wait_for_launch(stream: Any) -> None:
    """Wait, so that a launch that fails is told of by the step that made it."""
    try:
        stream.synchronize()
    except Exception as error:  # CuPy raises what the driver reports
        raise RuntimeError(
            f"the launch of a step failed ({error}): parameters and states may be half written, and this process can "
            "use the device no more; load the last checkpoint in a new one"
        ) from error


def empty_bytes(size: int, device: int) -> Any:
    """New memory."""
    import cupy

    with cupy.cuda.Device(device):
        return cupy.empty(size, np.uint8)


def fill(array: Any, value: Any) -> None:
    """Give every element the same value."""
    with array.device:
        array.fill(value)


def view_of(array: Array) -> Any:
    """A borrowed array as one of CuPy's, in the same memory."""
    import cupy

    with cupy.cuda.Device(array.device[1]):
        return cupy.asarray(array.memory).view(array.dtype)


def copy_values(target: Any, source: Array) -> None:
    """The numbers of a borrowed array into one of our own of its shape."""
    values = view_of(source)
    with target.device:
        if source.dtype.name == "bfloat16":  # the upper half of a float32
            target.view(np.uint32)[...] = values.view(np.uint16).astype(np.uint32) << 16
        else:
            target[...] = values


def copy_of(array: Any) -> Any:
    """A copy beside it."""
    with array.device:
        return words(array).copy()


def to_host(array: Any) -> npt.NDArray[Any]:
    """A copy as a NumPy array."""
    with array.device:
        return words(array).get().view(array.dtype)  # type: ignore[no-any-return]


def overwrite(array: Any, values: npt.NDArray[Any]) -> None:
    """Put other values into an array."""
    import cupy

    with array.device:
        words(array)[...] = words(cupy.asarray(values))


def words(array: Any) -> Any:
    """A 16-bit array as whole numbers: these are copied as they are, whatever CuPy knows of bfloat16."""
    return array.view(np.uint16) if array.dtype.itemsize == 2 else array

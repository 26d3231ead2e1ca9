"""A stand-in for the module `cupy` without a GPU, as strict and as late as a device may be.

Device memory is host memory; kernels are the real source, made by g++. `machine` has what the tests ask for.
"""

import ctypes
import time
import warnings
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_device import ALIGNMENT, Block, CUDARuntimeError, Queue, Work, machine
from fake_kernels import RawKernel, RawModule  # noqa: F401 (part of the module)

L2, MEMORY = 2**16, 2**30  # bytes


class Device:
    def __init__(self, device: Any = None) -> None:
        self.id = machine.device if device is None else int(device)
        self._stack: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __enter__(self) -> "Device":
        self._stack.append(machine.device)
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        machine.local.device = self._stack.pop()

    def use(self) -> None:
        if not 0 <= self.id < machine.device_count:
            raise CUDARuntimeError(101)
        machine.local.device = self.id

    def synchronize(self) -> None:
        machine.refuse_in_capture()
        machine.synchronisations += 1
        for queue in [q for q in machine.queues.values() if q.device == self.id]:
            for work in queue.last:
                work.finish()

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def attributes(self) -> dict[str, int]:
        return {"MultiProcessorCount": machine.processors, "L2CacheSize": L2}


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.device, self.is_timed = machine.device, not disable_timing
        self.work: Work | None = None
        self.reached = 0.0

    def record(self, stream: Any = None) -> None:
        queue = (stream or get_current_stream()).queue
        if queue.device != self.device:
            raise CUDARuntimeError(400)
        self.work = queue.put(self._note)

    def _note(self, work: Work) -> None:
        self.reached = time.perf_counter()

    @property
    def done(self) -> bool:
        """Time passes: who asks twice is told yes."""
        machine.refuse_in_capture()
        if self.work is not None and not self.work.is_done:
            self.work.asked += 1
            if self.work.asked < 2:
                return False
            self.work.finish()
        return True

    def synchronize(self) -> None:
        machine.refuse_in_capture()
        machine.synchronisations += 1
        if self.work is not None:
            self.work.finish()


class Stream:
    null: "Stream"

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.ptr = 0 if null else next(machine.pointers)
        self.device_id = -1 if null else machine.device
        if not null:
            machine.queues[self.device_id, self.ptr] = Queue(self.device_id, self.ptr, not non_blocking)

    @property
    def queue(self) -> Queue:
        return machine.queue(self.ptr)

    def __enter__(self) -> "Stream":
        if self.device_id not in (-1, machine.device):
            raise RuntimeError("the stream belongs to another device")
        machine.streams().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        machine.streams().pop()

    def synchronize(self) -> None:
        machine.refuse_in_capture()
        machine.synchronisations += 1
        self.queue.mark().finish()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if self.queue.captured is not None:
            raise CUDARuntimeError(905)
        if event.work is not None:
            self.queue.waits.append(event.work)

    def is_capturing(self) -> bool:
        if self.ptr == 0:
            machine.implied(self.queue)
        return self.queue.captured is not None

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.queue.captured, self.queue.mode = [], 2 if mode is None else mode

    def end_capture(self) -> "Graph":
        captured, self.queue.captured = self.queue.captured, None
        return Graph(captured or [])


class ExternalStream(Stream):
    """Somebody else's stream, which must be there."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        warnings.warn("ExternalStream is deprecated. Use Stream.from_external() instead", DeprecationWarning, 2)
        self.ptr, self.device_id = ptr, device_id


Stream.null = machine.null = Stream(null=True)


class Graph:
    def __init__(self, actions: list[Callable[[Work], None]]) -> None:
        self.actions = actions

    def launch(self, stream: Stream | None = None) -> None:
        for action in self.actions:
            (stream or get_current_stream()).queue.put(action, is_launch=True)


def get_current_stream(device_id: int = -1) -> Stream:
    with Device(None if device_id == -1 else device_id):
        return machine.streams()[-1]


class PinnedMemoryPointer(np.ndarray):
    """NumPy gives it the buffer interface, which a class has of its own from Python 3.12 on only."""

    ptr = property(lambda self: self.ctypes.data)

    def size(self) -> int:  # type: ignore[override]
        return self.nbytes


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    block = machine.allocate(-(-size // ALIGNMENT) * ALIGNMENT, None)
    pointer = block.view().view(PinnedMemoryPointer)
    weakref.finalize(pointer, machine.free, block)
    return pointer


def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    queue = machine.queue(stream)
    sides = [(dst, queue.device if kind in (1, 3) else None), (src, queue.device if kind in (2, 3) else None)]
    for address, device in sides:
        machine.require(address, size, device)

    def copy(work: Work) -> None:
        for address, device in sides:
            machine.require(address, size, device, np.inf if device is None else work.time)
        ctypes.memmove(dst, src, size)

    queue.put(copy)
    machine.copies.append((kind, size))


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds of the device between two events, both of which it must have reached."""
    for event in (start_event, end_event):
        if event.work is None or not event.is_timed:
            raise CUDARuntimeError(400)
        if not event.work.is_done:
            raise CUDARuntimeError(600)
    return 1e3 * (end_event.reached - start_event.reached)


def get_device_count() -> int:
    if machine.device_count < 0:
        raise CUDARuntimeError(100)
    return machine.device_count


runtime = SimpleNamespace(
    memcpyHostToDevice=1,
    memcpyDeviceToHost=2,
    memcpyDeviceToDevice=3,
    memcpyAsync=memcpy_async,
    getDeviceCount=get_device_count,
    getDeviceProperties=lambda device: {"name": b"stand-in", "totalGlobalMem": MEMORY, "multiProcessorCount": 2},
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    memGetInfo=lambda: (MEMORY // 2, MEMORY),
    CUDARuntimeError=CUDARuntimeError,
)
cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    Stream=Stream,
    ExternalStream=ExternalStream,
    Graph=Graph,
    get_current_stream=get_current_stream,
    get_elapsed_time=get_elapsed_time,
    PinnedMemoryPointer=PinnedMemoryPointer,
    alloc_pinned_memory=alloc_pinned_memory,
    runtime=runtime,
)


# ---- arrays and kernels


class ndarray:
    """A dense or strided array on a device; `memory` is its elements, as late as a device has them."""

    def __init__(self, block: Block, memory: np.ndarray, owner: Any = None) -> None:
        self.block, self.memory, self.owner = block, memory, owner
        self.shape, self.strides, self.dtype = memory.shape, memory.strides, memory.dtype
        self.size, self.nbytes, self.ndim = memory.size, memory.nbytes, memory.ndim
        if owner is None:
            weakref.finalize(self, machine.free, block)

    def _of(self, memory: np.ndarray) -> "ndarray":
        assert np.shares_memory(memory, self.memory) or not memory.size, "the real one would copy"
        return ndarray(self.block, memory, self)

    def _put(self, action: Callable[[np.ndarray], None], *others: "ndarray") -> None:
        """Queue what changes the elements; arrays of other devices are refused."""
        assert {array.block.device for array in (self, *others)} == {machine.device}, "another device is current"
        target = self.memory
        get_current_stream().queue.put(lambda work: action(target))

    @property
    def device(self) -> Device:
        return Device(self.block.device)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.memory.ctypes.data if self.size else 0, device_id=self.block.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.memory.flags.c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "strides": strides,
            "data": (self.data.ptr, False),
            "version": 3,
            "stream": 1,
        }

    def reshape(self, *shape: Any) -> "ndarray":
        return self._of(self.memory.reshape(*shape))

    def transpose(self, *axes: Any) -> "ndarray":
        return self._of(self.memory.transpose(*axes))

    def view(self, dtype: Any = None, type: Any = None) -> "ndarray":
        return self._of(self.memory.view(dtype or self.dtype))

    def __getitem__(self, key: Any) -> "ndarray":
        return self._of(self.memory[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        assert isinstance(value, ndarray), "the real one takes CuPy arrays and scalars"
        kinds = {self.dtype, value.dtype}
        assert len(kinds) == 1 or not any(kind.name == "bfloat16" for kind in kinds), (
            "CuPy may have no loop over bfloat16"
        )
        source = value.memory
        self[key]._put(lambda target: np.copyto(target, source, casting="unsafe"), value)

    def fill(self, value: Any) -> None:
        self._put(lambda target: target.fill(value))

    def copy(self, order: str = "C") -> "ndarray":
        return self._new(self.dtype, lambda source: source, order)

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        assert self.dtype.name != "bfloat16", "CuPy may have no loop over bfloat16"
        return self._new(np.dtype(dtype), lambda source: source.astype(dtype), order)

    def __lshift__(self, count: int) -> "ndarray":
        return self._new(self.dtype, lambda source: source << count, "K")

    def _new(self, dtype: np.dtype, function: Callable[[np.ndarray], np.ndarray], order: str) -> "ndarray":
        """A new array, made of this one's elements as they will be then."""
        is_fortran = order == "K" and self.memory.flags.fnc
        array, source = empty(self.shape, dtype, "F" if is_fortran else "C"), self.memory
        array._put(lambda target: np.copyto(target, function(source)), self)
        return array

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        with self.device:
            get_current_stream().synchronize()
        return self.memory.copy(order)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        assert (arr.shape, arr.dtype) == (self.shape, self.dtype)
        assert self.memory.flags.c_contiguous or self.memory.flags.f_contiguous
        source = arr.copy()
        with self.device:
            (stream or get_current_stream()).queue.put(lambda work: np.copyto(self.memory, source))


ndarray.__module__ = "cupy"


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    kind = np.dtype(dtype)
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    block = machine.allocate(int(np.prod(sizes)) * kind.itemsize, machine.device)
    return ndarray(block, block.view().view(kind).reshape(sizes, order=order))


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    array = empty(shape, dtype, order)
    array.fill(0)
    return array


def get_default_memory_pool() -> Any:
    """It keeps nothing."""
    return SimpleNamespace(free_all_blocks=lambda: None)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    if isinstance(a, ndarray):
        return a
    if hasattr(a, "__cuda_array_interface__"):
        return a.array
    source = np.array(a)
    is_fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    array = empty(source.shape, source.dtype, "F" if is_fortran else "C")
    array.set(source)
    return array

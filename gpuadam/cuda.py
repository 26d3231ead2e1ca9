"""The CUDA backend: kernels compiled by NVRTC, kept on disk, and launched through CuPy on its current stream."""

import functools
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .nvrtc import BLOCK, cubin_path, resident_blocks
from .program import VALID
from .tables import LAUNCH, PROGRESS, TABLES, Batch, Specialisation, new_progress

RING = 16  # uploads that may be under way at once
POLL = 64  # steps between two looks at the device's progress, which are asynchronous
Slot = tuple[Any, Any]  # pinned memory, and the event after which no copy uses it
_retired: deque[Slot] = deque()  # of optimizers that are gone, while a copy may still use them
_retired_lock = threading.Lock()


@functools.cache
def unavailable_reason() -> str | None:
    """Why there is no CUDA here; None if there is."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error}): pip install 'gpuadam[cuda13]' or 'gpuadam[cuda12]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no CUDA driver or device ({error})"
    return None if count else "CuPy finds no CUDA device"


def require() -> None:
    """Raise the reason if there is no CUDA here."""
    reason = unavailable_reason()
    if reason:
        raise RuntimeError(f"backend 'cuda' is not available: {reason}")


@functools.cache
def load_kernel(specialisation: Specialisation, device: int) -> Any:
    """The kernel of a specialisation on a device, compiled at first use."""
    import cupy

    with cupy.cuda.Device(device):
        major_minor = cupy.cuda.Device(device).compute_capability
        path = cubin_path(specialisation, int(major_minor))
        return cupy.RawModule(path=str(path)).get_function(specialisation.name)


def new_slot(size: int) -> Slot:
    """Pinned memory for copies. Its owner hands it to `_retired` in the end: CuPy's pool would not wait for a copy."""
    import cupy

    with _retired_lock:
        for _ in range(len(_retired)):
            slot = _retired.popleft()
            if not slot[1].done:
                _retired.append(slot)
    return cupy.cuda.alloc_pinned_memory(size), cupy.cuda.Event(disable_timing=True)


class Upload:
    """A ring of pinned buffers: host bytes go to the device in stream order, and the host does not wait for them."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        weakref.finalize(self, _retired.extend, self._slots)

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


class Tables:
    """The tables of one optimizer in device memory, and the launches over them."""

    def __init__(self, tables: dict[str, npt.NDArray[Any]], batches: Sequence[Batch], device: int) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device(device)
        self._upload = Upload()
        self._rows = {name: len(table) for name, table in tables.items()}
        with self._device:
            self._stream = cupy.cuda.get_current_stream()
            self._tables = {name: cupy.zeros(max(table.nbytes, 1), np.uint8) for name, table in tables.items()}
            for name, table in tables.items():
                self._upload(self._tables[name].data.ptr, table, self._stream)
            processors = self._device.attributes["MultiProcessorCount"]
            self._launches = self._plan(batches, processors, device)
            self._look = new_slot(PROGRESS.itemsize)
            self._stream.synchronize()
        weakref.finalize(self, _retired.append, self._look)
        self._is_looking = False
        self._is_settled = True  # no stream has anything to do for this optimizer
        self._graph_stream: Any = None  # the one on which a step was captured last; its graph is expected to run there
        self._revision = 1
        self.is_half_done = False  # a step was begun and not ended: some blocks have a ticket, others will never come
        self._runs = 0
        self._seen = np.zeros(1, PROGRESS)

    def _plan(self, batches: Sequence[Batch], processors: int, device: int) -> list[tuple[Any, int, npt.NDArray[Any]]]:
        """Kernel, grid and argument of each launch."""
        plans = []
        for batch in batches:
            most = processors * resident_blocks(batch.specialisation)
            share = max(1, -(-batch.count // most))
            launch = np.zeros(1, LAUNCH)
            for name in TABLES:
                launch[name] = self._tables[name].data.ptr
            launch["chunks"] += np.uint64(batch.first * TABLES["chunks"].itemsize)
            launch["chunk_count"], launch["chunks_per_block"] = batch.count, share
            plans.append((load_kernel(batch.specialisation, device), max(1, -(-batch.count // share)), launch))
        for _, _, launch in plans:
            launch["blocks"] = sum(grid for _, grid, _ in plans)
        return plans

    def _enter(self, stream: Any) -> None:
        """Let a stream wait for what others have still to do for this optimizer."""
        for other in (self._stream, self._graph_stream):
            if other is not None and other.ptr != stream.ptr and not other.is_capturing():
                stream.wait_event(other.record())
        self._stream = stream

    def _leave(self, stream: Any) -> None:
        """Let graphs that hold a step wait for what was just given to another stream."""
        graphs = self._graph_stream
        if graphs is not None and graphs.ptr != stream.ptr and not graphs.is_capturing():
            graphs.wait_event(stream.record())

    def _enter_capture(self, stream: Any) -> None:
        """A graph cannot wait for what was given to other streams before: all of it must be over."""
        ours = {other.ptr for other in (self._stream, self._graph_stream) if other is not None}
        if stream.ptr not in ours and not self._is_settled:
            raise RuntimeError(
                "this stream is being captured, but the steps before went to another one, for which a graph cannot "
                "wait: call hyperparameters(), which waits for the device, before the capture"
            )
        self._graph_stream = stream

    def _enter_current(self) -> Any:
        """CuPy's current stream, for a copy; it must not become part of a graph, which would repeat it."""
        stream = self._cupy.cuda.get_current_stream()
        if stream.is_capturing():
            raise RuntimeError(
                "the stream is being captured, so the tables can be neither changed nor read: bind the gradients, and "
                "set what is to be set, before the capture; then capture step()"
            )
        self._enter(stream)
        return stream

    def require_writable(self) -> None:
        """Raise while the stream is being captured; from here on, what it does comes after all that was launched."""
        with self._device:
            self._enter_current()

    def upload(self, name: str, first: int, rows: npt.NDArray[Any]) -> None:
        """Rewrite rows of a table from `first` on, in stream order."""
        if first + len(rows) > self._rows[name]:
            raise RuntimeError(f"the table {name!r} has room for {self._rows[name]} rows, not for {first + len(rows)}")
        with self._device:
            stream = self._enter_current()
            if name == "revision":
                self._revision = int(rows["number"][0])
            self._upload(self._tables[name].data.ptr + first * TABLES[name].itemsize, rows, stream)
            self._leave(stream)
            if self._is_settled:
                stream.synchronize()  # it stays so up to the first step: a capture may follow on any stream

    def copy_clock(self, source: int, target: int) -> None:
        """Give a new cohort the clock of the one from which it splits, on the device."""
        runtime = self._cupy.cuda.runtime
        clocks, size = self._tables["clocks"].data.ptr, TABLES["clocks"].itemsize
        with self._device:
            stream = self._enter_current()
            places = clocks + target * size, clocks + source * size
            runtime.memcpyAsync(*places, size, runtime.memcpyDeviceToDevice, stream.ptr)
            self._leave(stream)

    def download(self, name: str) -> npt.NDArray[Any]:
        """A table as it is when all that was launched has ended."""
        with self._device:
            self._enter_current()
            raw = self._tables[name].get()
        self._is_settled = True
        dtype = TABLES[name]
        table = raw[: self._rows[name] * dtype.itemsize].view(dtype.base)
        return table.reshape(-1, *dtype.shape)  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Forget a step that was interrupted: the state that is being loaded replaces what it left."""
        self.upload("progress", 0, new_progress())
        self.is_half_done = False

    def run(self) -> bool:
        """One step. Returns False once the device is known to hold the steps: then nothing was launched."""
        with self._device:
            stream = self._cupy.cuda.get_current_stream()
            is_capturing = stream.is_capturing()
            if is_capturing:
                self._enter_capture(stream)
            else:
                self._enter(stream)
                if self._is_held(stream):
                    return False
            self._is_settled = False
            self.is_half_done = True
            for kernel, grid, launch in self._launches:
                kernel((grid,), (BLOCK,), (launch,))
            self.is_half_done = False
            if not is_capturing:
                self._leave(stream)
        return True

    def _is_held(self, stream: Any) -> bool:
        """Look at the copy of the progress that was asked for some steps ago, and ask for another; never wait."""
        pinned, event = self._look
        if self._is_looking and event.done:
            self._seen = np.frombuffer(pinned, PROGRESS, 1).copy()
            self._is_looking = False
        if not self._is_looking and self._runs % POLL == POLL - 1:
            runtime = self._cupy.cuda.runtime
            source = self._tables["progress"].data.ptr
            runtime.memcpyAsync(pinned.ptr, source, PROGRESS.itemsize, runtime.memcpyDeviceToHost, stream.ptr)
            event.record(stream)
            self._is_looking = True
        self._runs += 1
        return bool(self._seen["prepared"][0] == self._revision and self._seen["fault_cohort"][0] != VALID)


def filled(numel: int, dtype: np.dtype[Any], value: float, device: int) -> Any:
    """A new flat array for a state, every element `value`."""
    import cupy

    with cupy.cuda.Device(device):
        return cupy.full(numel, value, dtype)


def to_host(array: Any) -> npt.NDArray[Any]:
    """A copy as a NumPy array."""
    with array.device:
        return array.get()  # type: ignore[no-any-return]


def overwrite(array: Any, values: npt.NDArray[Any]) -> None:
    """Put other values into an array."""
    import cupy

    with array.device:
        array[...] = cupy.asarray(values)

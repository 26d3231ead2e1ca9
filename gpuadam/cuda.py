"""The CUDA backend: kernels compiled by NVRTC, kept on disk, and launched through CuPy on its current stream."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .nvrtc import BLOCK, cubin_path, resident_blocks
from .program import VALID
from .tables import LAUNCH, PROGRESS, TABLES, Batch, Specialisation

RING = 16  # uploads that may be under way at once
POLL = 64  # steps between two looks at the device's progress, which are asynchronous


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


class Upload:
    """A ring of pinned buffers: host bytes go to the device in stream order, and the host does not wait for them."""

    def __init__(self) -> None:
        self._slots: list[tuple[Any, Any] | None] = [None] * RING
        self._next = 0

    def __call__(self, target: int, source: npt.NDArray[Any], stream: Any) -> None:
        import cupy

        size = source.nbytes
        if not size:
            return
        slot = self._slots[self._next]
        if slot is not None:
            slot[1].synchronize()
        if slot is None or slot[0].size() < size:
            slot = cupy.cuda.alloc_pinned_memory(size), cupy.cuda.Event(disable_timing=True)
        pinned, event = slot
        np.frombuffer(pinned, np.uint8, size)[:] = np.ascontiguousarray(source).view(np.uint8).ravel()
        host_to_device = cupy.cuda.runtime.memcpyHostToDevice
        cupy.cuda.runtime.memcpyAsync(target, pinned.ptr, size, host_to_device, stream.ptr)
        event.record(stream)
        self._slots[self._next] = slot
        self._next = (self._next + 1) % RING


class Tables:
    """The tables of one optimizer in device memory, and the launches over them."""

    def __init__(self, tables: dict[str, npt.NDArray[Any]], batches: Sequence[Batch], device: int) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device(device)
        self._upload = Upload()
        self._stream = cupy.cuda.get_current_stream()
        self._rows = {name: len(table) for name, table in tables.items()}
        with self._device:
            self._tables = {name: cupy.zeros(max(table.nbytes, 1), np.uint8) for name, table in tables.items()}
            for name, table in tables.items():
                self._upload(self._tables[name].data.ptr, table, self._stream)
            processors = self._device.attributes["MultiProcessorCount"]
            self._launches = self._plan(batches, processors, device)
        self._revision = 1
        self._runs = 0
        self._seen = np.zeros(1, PROGRESS)
        self._look: tuple[Any, Any] | None = None

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

    def _current_stream(self) -> Any:
        """CuPy's current stream; if it is another one than before, it waits for what the other has still to do."""
        stream = self._cupy.cuda.get_current_stream()
        if stream.ptr != self._stream.ptr:
            if not stream.is_capturing():
                stream.wait_event(self._stream.record())
            self._stream = stream
        return stream

    def require_writable(self) -> None:
        """Raise while the stream is being captured: an upload would become part of the graph and be replayed."""
        if self._cupy.cuda.get_current_stream().is_capturing():
            raise RuntimeError(
                "the stream is being captured and the tables would have to change: bind the gradients, and set what is to be "
                "set, before the capture; then capture step()"
            )

    def upload(self, name: str, first: int, rows: npt.NDArray[Any]) -> None:
        """Rewrite rows of a table from `first` on, in stream order."""
        self.require_writable()
        dtype = TABLES[name]
        if first + len(rows) > self._rows[name]:
            raise RuntimeError(f"the table {name!r} has room for {self._rows[name]} rows, not for {first + len(rows)}")
        if name == "revision":
            self._revision = int(rows["number"][0])
        with self._device:
            self._upload(self._tables[name].data.ptr + first * dtype.itemsize, rows, self._current_stream())

    def copy_clock(self, source: int, target: int) -> None:
        """Give a new cohort the clock of the one from which it splits, on the device."""
        size = TABLES["clocks"].itemsize
        with self._device:
            self._current_stream()
            clocks = self._tables["clocks"]
            clocks[target * size : (target + 1) * size] = clocks[source * size : (source + 1) * size]

    def download(self, name: str) -> npt.NDArray[Any]:
        """A table as it is when all that was launched has ended."""
        with self._device:
            self._current_stream()
            raw = self._tables[name].get()
        dtype = TABLES[name]
        table = raw[: self._rows[name] * dtype.itemsize].view(dtype.base)
        return table.reshape(-1, *dtype.shape)  # type: ignore[no-any-return]

    def run(self) -> bool:
        """One step. Returns False once the device is known to hold the steps: then nothing was launched."""
        with self._device:
            stream = self._current_stream()
            if self._is_held(stream):
                return False
            for kernel, grid, launch in self._launches:
                kernel((grid,), (BLOCK,), (launch,))
        return True

    def _is_held(self, stream: Any) -> bool:
        """Look at the copy of the progress that was asked for some steps ago, and ask for another; never wait."""
        if stream.is_capturing():
            return False
        runtime = self._cupy.cuda.runtime
        if self._look is not None and self._look[1].done:
            self._seen = np.frombuffer(self._look[0], PROGRESS, 1).copy()
            self._look = None
        if self._look is None and self._runs % POLL == POLL - 1:
            pinned, event = (
                self._cupy.cuda.alloc_pinned_memory(PROGRESS.itemsize),
                self._cupy.cuda.Event(disable_timing=True),
            )
            source = self._tables["progress"].data.ptr
            runtime.memcpyAsync(pinned.ptr, source, PROGRESS.itemsize, runtime.memcpyDeviceToHost, stream.ptr)
            event.record(stream)
            self._look = pinned, event
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

"""The CUDA backend: kernels compiled by NVRTC, kept on disk, and launched through CuPy on its current stream."""

import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .cuda_memory import (  # noqa: F401 (a backend has these)
    Upload,
    copy_of,
    copy_values,
    empty_bytes,
    fill,
    new_slot,
    overwrite,
    retired,
    to_host,
    view_of,
    wait_for_launch,
)  # fmt: skip
from .nvrtc import (
    BLOCK,
    REDUCE,
    Kernel,
    cubin_path,
    measure_blocks,
    measure_kernel,
    resident_blocks,
    step_kernel,
    swap_kernel,
)
from .program import VALID
from .tables import LAUNCH, PROGRESS, TABLES, Batch, Verdict, sorted_spans

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
def load_kernel(kernel: Kernel, device: int) -> Any:
    """A kernel on a device, compiled at first use."""
    import cupy

    with cupy.cuda.Device(device):
        path = cubin_path(kernel, int(cupy.cuda.Device(device).compute_capability))
        return cupy.RawModule(path=str(path)).get_function(kernel.name)


class Tables:
    """The tables of one optimizer in device memory, and the launches over them."""

    def __init__(
        self, tables: dict[str, npt.NDArray[Any]], batches: Sequence[Batch], device: int, is_watchful: bool
    ) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device(device)
        self._upload = Upload()
        self._rows = {name: len(table) for name, table in tables.items()}
        self._tensors = tables["tensors"]  # as far as the order of chunks depends on it
        with self._device:
            self._stream = cupy.cuda.get_current_stream()
            self._tables = {name: cupy.zeros(max(table.nbytes, 1), np.uint8) for name, table in tables.items()}
            for name, table in tables.items():
                self._upload(self._tables[name].data.ptr, table, self._stream)
            self._plan(batches)
            self._look = new_slot(PROGRESS.itemsize)
            self._stream.synchronize()
        weakref.finalize(self, retired.append, self._look)
        self._is_looking = False
        self._poll = 1 if is_watchful else POLL
        self._is_settled = True  # no stream has anything to do for this optimizer
        self._graph_stream: Any = None  # the one on which a step was captured last; its graph is expected to run there
        self._revision = 1
        self.after_sums: Callable[[], None] = lambda: None  # between the norms of gradients and what they decide
        self.is_half_done = False  # a step was begun and not ended: some blocks have a ticket, others will never come
        self._runs = 0
        self._syncs = os.environ.get("GPUADAM_SYNC") == "1"
        self._seen = np.zeros(1, PROGRESS)
        self._overflowed = 0  # steps that were skipped by their sums, and of which the user has been told

    def _plan(self, batches: Sequence[Batch]) -> None:
        """Make ready the launches over the chunks as they are sorted now."""
        processors, number = self._device.attributes["MultiProcessorCount"], self._device.id
        self._batches = batches
        self._sums, self._measures, self._launches = [], [], []
        if self._rows["scopes"]:
            share = self._share(0, self._rows["chunks"], 4 * processors)
            self._sums.append((load_kernel(REDUCE, number), *share))
        for batch in batches:
            kind = batch.specialisation
            share = self._share(batch.first, batch.count, processors * resident_blocks(kind))
            self._launches.append((load_kernel(step_kernel(kind), number), *share))
            if kind.rule.measure:
                share = self._share(batch.first, batch.count, processors * measure_blocks(kind))
                self._measures.append((load_kernel(measure_kernel(kind), number), *share))
        for _, _, launch in self._launches:
            launch["blocks"] = sum(grid for _, grid, _ in self._launches)

    def _share(self, first: int, count: int, most: int) -> tuple[int, npt.NDArray[Any]]:
        """Grid and argument of a launch over some rows of the chunk table, with so many blocks at most."""
        share = max(1, -(-count // most))
        launch = np.zeros(1, LAUNCH)
        for name in TABLES:
            launch[name] = self._tables[name].data.ptr
        launch["chunks"] += np.uint64(first * TABLES["chunks"].itemsize)
        launch["chunk_count"], launch["chunks_per_block"] = count, share
        return max(1, -(-count // share)), launch

    def sort_chunks(self, batches: Sequence[Batch], chunks: npt.NDArray[Any]) -> None:
        """Put another order of chunks in force: gradients have other formats than before."""
        spans, scopes = sorted_spans(self._tensors, chunks, self._rows["scopes"])
        for name, rows in (("chunks", chunks), ("spans", spans), ("scopes", scopes)):
            self.upload(name, 0, rows)
        with self._device:
            self._plan(batches)

    def swap(self, evaluates: bool, shown: Sequence[tuple[Any, Any]]) -> None:
        """Let weights show what is evaluated, or take their values back; those that only showed it, what was kept."""
        with self._device:
            stream = self._enter_current()
            for batch in self._batches:
                if batch.specialisation.shows:
                    kernel = load_kernel(swap_kernel(batch.specialisation), self._device.id)
                    most = 4 * self._device.attributes["MultiProcessorCount"]
                    grid, launch = self._share(batch.first, batch.count, most)
                    launch["evaluates"] = evaluates
                    kernel((grid,), (BLOCK,), (launch,))
            for array, kept in shown:
                overwrite(array, kept)
            self._is_settled = False
            self._leave(stream)

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

    def point(self, addresses: Mapping[str, int]) -> None:
        """Let launches find some tables in memory of somebody else, until they are told of other places."""
        for name, address in addresses.items():
            for _, _, launch in (*self._sums, *self._measures, *self._launches):
                launch[name] = address

    def live(self, name: str, field: str = "") -> Any:
        """A table itself in device memory, or a column of a table of one row, not a copy."""
        dtype, count = TABLES[name], self._rows[name]
        begin = dtype.fields[field][1] if field else 0  # type: ignore[index]
        kind = dtype.fields[field][0] if field else dtype  # type: ignore[index]
        return self._tables[name][begin : begin + count * kind.itemsize].view(kind)

    def reset(self, progress: npt.NDArray[Any]) -> None:
        """Forget a step that was interrupted: the state that is being loaded replaces what it left."""
        for name in ("span_tickets", "scope_tickets", "part_tickets", "trust_tickets"):
            self.upload(name, 0, np.zeros(self._rows[name], np.uint32))
        self.upload("progress", 0, progress)
        self._seen, self._is_looking = progress.copy(), False
        self._overflowed = int(progress["overflowed"][0])
        self.is_half_done = False

    def run(self) -> Verdict:
        """One step, launched; not so once the device is known to hold steps, or to have skipped one."""
        with self._device:
            stream = self._cupy.cuda.get_current_stream()
            is_capturing = stream.is_capturing()
            if is_capturing:
                self._enter_capture(stream)
            else:
                self._enter(stream)
                verdict = self._judge(stream)
                if verdict is not Verdict.APPLIED:
                    return verdict
            self._is_settled = False
            self.is_half_done = True
            for kernel, grid, launch in self._sums:
                kernel((grid,), (BLOCK,), (launch,))
            if self._sums:
                self.after_sums()
            for kernel, grid, launch in (*self._measures, *self._launches):
                kernel((grid,), (BLOCK,), (launch,))
            if self._syncs and not is_capturing:
                wait_for_launch(stream)
            self.is_half_done = False
            if not is_capturing:
                self._leave(stream)
        return Verdict.APPLIED

    def _judge(self, stream: Any) -> Verdict:
        """Look at the copy of the progress that was asked for some steps ago, and ask for another; never wait."""
        pinned, event = self._look
        if self._is_looking and event.done:
            self._seen = np.frombuffer(pinned, PROGRESS, 1).copy()
            self._is_looking = False
        if not self._is_looking and self._runs % self._poll == self._poll - 1:
            runtime = self._cupy.cuda.runtime
            source = self._tables["progress"].data.ptr
            runtime.memcpyAsync(pinned.ptr, source, PROGRESS.itemsize, runtime.memcpyDeviceToHost, stream.ptr)
            event.record(stream)
            self._is_looking = True
        self._runs += 1
        if self._seen["prepared"][0] == self._revision and self._seen["fault_cohort"][0] != VALID:
            return Verdict.HELD
        known, self._overflowed = self._overflowed, max(self._overflowed, int(self._seen["overflowed"][0]))
        return Verdict.OVERFLOWED if self._poll == 1 and self._overflowed > known else Verdict.APPLIED

"""The CPU backend: the same walk over the same tables as step.cu, compiled by Numba. It is the reference of the GPU."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu_memory import (  # noqa: F401 (a backend has these)
    copy_of,
    copy_values,
    empty_bytes,
    fill,
    overwrite,
    to_host,
    view_of,
)
from .formats import FORMATS
from .jit import compiled
from .measures import fold_tensors, make_measure
from .reduction import fold_scopes, sum_spans, sum_spans_parallel
from .steps import clear_gradients, finish, must_skip, prepare
from .swaps import make_swap
from .sweeps import make_sweep
from .tables import CHUNK, LAUNCH, Batch, Verdict, sorted_spans, with_room

CHUNK_COST = 128  # elements that could be updated in the time that it takes to begin a chunk
SERIAL_ELEMENTS = 32_768  # below this many elements a second thread costs more than it brings
_parallel_lock = threading.Lock()  # Numba's workqueue layer aborts the process on concurrent launches


@intrinsic  # type: ignore[untyped-decorator]
def call_sweep(typing_context: Any, function: Any, launch: Any, begin: Any, end: Any) -> Any:
    """Call the sweep at an address: one driver serves every specialisation."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int64)
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [integer] * 3)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@compiled()
def sweep_serial(function: int, launch: int, first: int, count: int) -> None:
    call_sweep(function, launch, first, first + count)


@compiled(parallel=True)
def sweep_parallel(function: int, launch: int, bounds: Any) -> None:
    for thread in numba.prange(len(bounds) - 1):
        call_sweep(function, launch, bounds[thread], bounds[thread + 1])


class Work:
    """How the elements of some rows of the chunk table are shared among threads."""

    def __init__(self, tables: dict[str, npt.NDArray[Any]], first: int, count: int) -> None:
        self._first, self._count = first, count
        chunks = tables["chunks"][first : first + count]
        left = tables["tensors"]["numel"][chunks["tensor"]] - chunks["index"].astype(np.int64) * CHUNK
        self._work = np.cumsum(np.minimum(left, CHUNK) + CHUNK_COST)
        self._elements = int(self._work[-1]) - count * CHUNK_COST
        self._bounds: dict[int, npt.NDArray[np.int64]] = {}

    def bounds(self) -> npt.NDArray[np.int64] | None:
        """Where the part of each thread begins and ends; None if one thread is to do it all."""
        threads = min(numba.get_num_threads(), self._elements // SERIAL_ELEMENTS)
        if threads <= 1:
            return None
        if threads not in self._bounds:
            shares = self._work[-1] * np.arange(1, threads) // threads
            inner = np.searchsorted(self._work, shares)
            self._bounds[threads] = self._first + np.array([0, *inner, self._count], np.int64)
        return self._bounds[threads]


class Sweep:
    """The update of one batch, shared among threads by its elements."""

    def __init__(self, batch: Batch, tables: dict[str, npt.NDArray[Any]]) -> None:
        kind = batch.specialisation
        self._function = make_sweep(kind).address
        self._measure = make_measure(kind.measured()).address if kind.rule.measure else 0
        self._first, self._count = batch.first, batch.count
        self._grad_size = FORMATS[batch.specialisation.grad].storage.itemsize
        self._kind = batch.specialisation
        self._work = Work(tables, batch.first, batch.count)

    def measure(self, launch: int) -> None:
        """The trust ratios of its tensors, where the rule asks for them."""
        if self._measure:
            self._share(self._measure, launch)
            fold_tensors(launch, self._first, self._first + self._count)

    def run(self, launch: int) -> None:
        self._share(self._function, launch)

    def _share(self, function: int, launch: int) -> None:
        bounds = self._work.bounds()
        if bounds is None:
            sweep_serial(function, launch, self._first, self._count)
            return
        with _parallel_lock:
            sweep_parallel(function, launch, bounds)

    def skip(self, launch: int) -> None:
        """What even a step that is skipped does."""
        if self._kind.zero_grads:
            clear_gradients(launch, self._first, self._first + self._count, self._grad_size)

    def swap(self, launch: int) -> None:
        """Let weights show what is evaluated, or take their own values back."""
        if self._kind.shows:
            sweep_serial(make_swap(self._kind.swapped()).address, launch, self._first, self._count)


class Sums:
    """The sums over all gradients, shared among threads by spans."""

    def __init__(self, tables: dict[str, npt.NDArray[Any]]) -> None:
        self._spans = int(np.count_nonzero(tables["spans"]["count"]))
        self._scopes = len(tables["scopes"])
        self._ends = np.sort((tables["spans"]["first"] + tables["spans"]["count"])[: self._spans]) - 1
        self._work = Work(tables, 0, len(tables["chunks"])) if self._spans else None

    def run(self, launch: int) -> None:
        bounds = self._work.bounds() if self._work else None
        if bounds is None:
            sum_spans(launch, 0, self._spans)
        else:
            with _parallel_lock:
                sum_spans_parallel(launch, self._span_bounds(bounds))
        fold_scopes(launch, self._scopes)

    def _span_bounds(self, bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows of the span table for rows of the chunk table."""
        return np.array([0, *np.searchsorted(self._ends, bounds[1:-1]), self._spans], np.int64)


class Tables:
    """The tables of one optimizer in host memory, and the launches over them."""

    def __init__(
        self, tables: dict[str, npt.NDArray[Any]], batches: Sequence[Batch], device: int, is_watchful: bool
    ) -> None:
        self._tables = tables
        self.is_half_done = False  # a step was begun and not ended
        self.after_sums: Callable[[], None] = lambda: None  # between the norms of gradients and what they decide
        self._launch = np.zeros(1, LAUNCH)
        self._address = self._launch.ctypes.data
        self.plan(batches)

    def plan(self, batches: Sequence[Batch]) -> None:
        """Make ready the launches over the chunks as they are sorted now."""
        for name, table in self._tables.items():
            self._launch[name] = table.ctypes.data
        self._sweeps = [Sweep(batch, self._tables) for batch in batches if batch.count]
        self._sums = Sums(self._tables) if len(self._tables["scopes"]) else None

    def require_writable(self) -> None:
        """Host memory always is."""

    def upload(self, name: str, first: int, rows: npt.NDArray[Any]) -> None:
        """Rewrite rows of a table from `first` on."""
        self._tables[name][first : first + len(rows)] = rows

    def copy_clock(self, source: int, target: int) -> None:
        """Give a new cohort the clock of the one from which it splits."""
        self._tables["clocks"][target] = self._tables["clocks"][source]

    def download(self, name: str) -> npt.NDArray[Any]:
        """A table as it is now."""
        return self._tables[name].copy()

    def point(self, addresses: Mapping[str, int]) -> None:
        """Let launches find some tables in memory of somebody else, until they are told of other places."""
        for name, address in addresses.items():
            self._launch[name] = address

    def live(self, name: str, field: str = "") -> npt.NDArray[Any]:
        """A table itself, or a column of it, not a copy."""
        return self._tables[name][field] if field else self._tables[name]

    def run(self) -> Verdict:
        """One step, applied or not."""
        if prepare(self._address):
            return Verdict.HELD
        if self._sums:
            self._sums.run(self._address)
            self.after_sums()
        skips, overflows = must_skip(self._address)
        if skips:
            for sweep in self._sweeps:
                sweep.skip(self._address)
            return Verdict.OVERFLOWED if overflows else Verdict.SKIPPED
        self.is_half_done = True
        for sweep in self._sweeps:
            sweep.measure(self._address)
        for sweep in self._sweeps:
            sweep.run(self._address)
        finish(self._address)
        self.is_half_done = False
        return Verdict.APPLIED

    def swap(self, evaluates: bool, shown: Sequence[tuple[Any, Any]]) -> None:
        """Let weights show what is evaluated, or take their values back; those that only showed it, what was kept."""
        self._launch["evaluates"] = evaluates
        for sweep in self._sweeps:
            sweep.swap(self._address)
        for array, kept in shown:
            overwrite(array, kept)

    def sort_chunks(self, batches: Sequence[Batch], chunks: npt.NDArray[Any]) -> None:
        """Put another order of chunks in force: gradients have other formats than before."""
        tables = self._tables
        spans, scopes = sorted_spans(tables["tensors"], chunks, len(tables["scopes"]))
        for name, rows in (("chunks", chunks), ("spans", spans), ("scopes", scopes)):
            tables[name][:] = with_room(rows, len(tables[name]))
        self.plan(batches)

    def reset(self, progress: npt.NDArray[Any]) -> None:
        """Forget a step that was interrupted: the state that is being loaded replaces what it left."""
        self.upload("progress", 0, progress)
        self.is_half_done = False

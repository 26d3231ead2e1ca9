"""The CPU backend: the same walk over the same tables as step.cu, compiled by Numba. It is the reference of the GPU."""

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from .compiler import CLOCK, ROW
from .jit import compiled, inlined, kept, pointer
from .program import INSTRUCTION, STACK_SIZE, VALID, evaluate
from .tables import CHUNK, CHUNK_ROW, COHORT, DTYPES, LAUNCH, PROGRESS, REVISION, TENSOR, Batch, Specialisation

UNKNOWN = 1 << 40  # length of a table whose length the walk need not know
CACHE_LINE = 64  # bytes
CHUNK_COST = 128  # elements that could be updated in the time that it takes to begin a chunk
SERIAL_ELEMENTS = 32_768  # below this many elements a second thread costs more than it brings
_parallel_lock = threading.Lock()  # Numba's workqueue layer aborts the process on concurrent launches

sweep_type = types.void(types.int64, types.int64, types.int64)


def array_at(address: Any, first: int, count: int, dtype: Any) -> Any:
    """Elements [first, first + count) of the array at an address; None where the specialisation has none."""


@overload(array_at, inline="always")
def _array_at(address, first, count, dtype):  # type: ignore[no-untyped-def]
    if isinstance(dtype, types.NoneType):
        return lambda address, first, count, dtype: None
    size = dtype.dtype.bitwidth // 8
    return lambda address, first, count, dtype: carray(pointer(address + first * size, dtype), count)


def load(array: Any, index: int) -> Any:
    """An element, or None of no array."""


@overload(load, inline="always")
def _load(array, index):  # type: ignore[no-untyped-def]
    if isinstance(array, types.NoneType):
        return lambda array, index: None
    return lambda array, index: array[index]


def store(array: Any, index: int, value: Any) -> None:
    """Write an element; nothing where there is no array."""


@overload(store, inline="always")
def _store(array, index, value):  # type: ignore[no-untyped-def]
    if isinstance(array, types.NoneType):
        return lambda array, index, value: None

    def write(array, index, value):  # type: ignore[no-untyped-def]
        array[index] = value

    return write


@intrinsic  # type: ignore[untyped-decorator]
def call_sweep(typing_context: Any, function: Any, launch: Any, begin: Any, end: Any) -> Any:
    """Call the sweep at an address: one driver serves every specialisation."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int64)
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [integer] * 3)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@inlined
def table_at(address: Any, count: int, dtype: Any) -> Any:
    return carray(pointer(np.int64(address), dtype), count)


def make_update(specialisation: Specialisation) -> Any:
    """The update of elements [first, first + count) of a tensor; the twin of update_range in step.cu."""
    element = specialisation.rule.element
    param_dtype, grad_dtype = DTYPES[specialisation.param], DTYPES[specialisation.grad]
    dtype0, dtype1, dtype2 = (DTYPES[form] if form else None for form in specialisation.states)

    @inlined
    def update(tensor: Any, first: int, count: int, c: Any) -> None:
        params = array_at(np.int64(tensor.param), first, count, param_dtype)
        grads = array_at(np.int64(tensor.grad), first, count, grad_dtype)
        states0 = array_at(np.int64(tensor.states[0]), first, count, dtype0)
        states1 = array_at(np.int64(tensor.states[1]), first, count, dtype1)
        states2 = array_at(np.int64(tensor.states[2]), first, count, dtype2)
        for i in range(count):
            new = element(params[i], grads[i], load(states0, i), load(states1, i), load(states2, i), c)
            params[i] = new[0]
            store(states0, i, new[1])
            store(states1, i, new[2])
            store(states2, i, new[3])

    return update


@functools.cache
def make_sweep(specialisation: Specialisation) -> Any:
    """Compile the update of chunks [begin, end) for one specialisation; the twin of update_chunks in step.cu."""
    update = make_update(specialisation)
    row_type = specialisation.rule.row
    coefficients = len(row_type._fields)  # type: ignore[attr-defined]
    compute: Any = DTYPES[specialisation.param]

    def sweep(launch_address: int, begin: int, end: int) -> None:
        launch = table_at(launch_address, 1, LAUNCH)[0]
        chunks = table_at(launch.chunks, end, CHUNK_ROW)
        tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
        rows = table_at(launch.rows, UNKNOWN, np.float64)
        rounded = np.empty(coefficients, compute)
        row = begin
        while row < end:
            head = chunks[row]
            tensor = tensors[head.tensor]
            while row + 1 < end and chunks[row + 1].tensor == head.tensor:  # neighbours are one run of elements
                row += 1
            first = np.int64(head.index) * CHUNK
            count = min((np.int64(chunks[row].index) + 1) * CHUNK, tensor.numel) - first
            row += 1
            if tensor.grad != 0:
                for i in range(coefficients):
                    rounded[i] = rows[tensor.cohort * ROW + i]
                update(tensor, first, count, row_type(*to_fixed_tuple(rounded, coefficients)))

    return kept(functools.partial(numba.cfunc, sweep_type, error_model="numpy"), sweep)


@compiled()
def sweep_serial(function: int, launch: int, first: int, count: int) -> None:
    call_sweep(function, launch, first, first + count)


@compiled(parallel=True)
def sweep_parallel(function: int, launch: int, bounds: Any) -> None:
    for thread in numba.prange(len(bounds) - 1):
        call_sweep(function, launch, bounds[thread], bounds[thread + 1])


@inlined
def evaluate_rows(launch: Any) -> None:
    """Put out every cohort's row and note the first that is out of range."""
    revision = table_at(launch.revision, 1, REVISION)[0]
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    cohorts = table_at(launch.cohorts, revision.cohort_count, COHORT)
    clocks = table_at(launch.clocks, revision.cohort_count, CLOCK)
    rows = table_at(launch.rows, revision.cohort_count * ROW, np.float64)
    values = table_at(launch.values, UNKNOWN, np.float64)
    program = table_at(launch.program, UNKNOWN, INSTRUCTION)
    stack = np.empty(STACK_SIZE)
    progress.fault_cohort = VALID
    for i in range(revision.cohort_count):
        begin, end = np.int64(cohorts[i].evaluate_begin), np.int64(cohorts[i].evaluate_end)
        fault = evaluate(program, begin, end, values, clocks[i], stack, rows[i * ROW : (i + 1) * ROW])
        if fault != VALID and progress.fault_cohort == VALID:
            progress.fault_cohort = i
            progress.fault_index = fault
    progress.prepared = revision.number


@compiled()
def prepare(launch_address: int) -> bool:
    """Evaluate the rows if the host has changed something. Returns whether the step must be held."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    if progress.prepared != table_at(launch.revision, 1, REVISION)[0].number:
        evaluate_rows(launch)
    return progress.fault_cohort != VALID  # type: ignore[no-any-return]


@compiled()
def finish(launch_address: int) -> None:
    """Tick the clocks and put out the rows of the next step: what the last block does on a GPU."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    count = table_at(launch.revision, 1, REVISION)[0].cohort_count
    cohorts = table_at(launch.cohorts, count, COHORT)
    clocks = table_at(launch.clocks, count, CLOCK)
    values = table_at(launch.values, UNKNOWN, np.float64)
    program = table_at(launch.program, UNKNOWN, INSTRUCTION)
    stack, following = np.empty(STACK_SIZE), np.empty(ROW)
    for i in range(count):
        if cohorts[i].active:
            begin, end = np.int64(cohorts[i].evaluate_end), np.int64(cohorts[i].advance_end)
            evaluate(program, begin, end, values, clocks[i], stack, following)
            for j in range(cohorts[i].accumulators):
                clocks[i].accumulators[j] = following[j]
            clocks[i].updates += 1
        clocks[i].step += 1
    evaluate_rows(launch)


class Sweep:
    """The chunks of one batch, shared out among threads."""

    def __init__(self, batch: Batch, tables: dict[str, npt.NDArray[Any]]) -> None:
        self._function = make_sweep(batch.specialisation).address
        self._first, self._count = batch.first, batch.count
        chunks = tables["chunks"][batch.first : batch.first + batch.count]
        left = tables["tensors"]["numel"][chunks["tensor"]] - chunks["index"].astype(np.int64) * CHUNK
        self._work = np.cumsum(np.minimum(left, CHUNK) + CHUNK_COST)
        self._elements = int(self._work[-1]) - batch.count * CHUNK_COST
        self._bounds: dict[int, npt.NDArray[np.int64]] = {}

    def run(self, launch: int) -> None:
        threads = min(numba.get_num_threads(), self._elements // SERIAL_ELEMENTS)
        if threads <= 1:
            sweep_serial(self._function, launch, self._first, self._count)
            return
        if threads not in self._bounds:
            shares = self._work[-1] * np.arange(1, threads) // threads
            inner = np.searchsorted(self._work, shares)
            self._bounds[threads] = self._first + np.array([0, *inner, self._count], np.int64)
        with _parallel_lock:
            sweep_parallel(self._function, launch, self._bounds[threads])


class Tables:
    """The tables of one optimizer in host memory, and the launches over them."""

    def __init__(self, tables: dict[str, npt.NDArray[Any]], batches: Sequence[Batch], device: int) -> None:
        self._tables = tables
        self._launch = np.zeros(1, LAUNCH)
        for name, table in tables.items():
            self._launch[name] = table.ctypes.data
        self._address = self._launch.ctypes.data
        self.is_half_done = False  # a step was begun and not ended
        self._sweeps = [Sweep(batch, tables) for batch in batches if batch.count]

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

    def run(self) -> bool:
        """One step. Returns False if it was held: then nothing was written."""
        if prepare(self._address):
            return False
        self.is_half_done = True
        for sweep in self._sweeps:
            sweep.run(self._address)
        finish(self._address)
        self.is_half_done = False
        return True

    def reset(self) -> None:
        """Forget a step that was interrupted: the state that is being loaded replaces what it left."""
        self.is_half_done = False


def filled(numel: int, dtype: np.dtype[Any], value: float, device: int) -> npt.NDArray[Any]:
    """A new flat array for states, every element `value`, from the start of a cache line."""
    raw = np.empty(numel * dtype.itemsize + CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % CACHE_LINE
    array = raw[first : first + numel * dtype.itemsize].view(dtype)
    array.fill(value)
    return array


def to_host(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy as a NumPy array."""
    return array.copy()


def overwrite(array: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Put other values into an array."""
    array[...] = values

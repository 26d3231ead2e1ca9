"""What a step over a tree of JAX arrays needs beside them: tables made once, launches over its buffers."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import cpu
from .arrays import CPU, Array, Device
from .coefficients import compile_groups, warn_of_flips
from .cohorts import Cohorts
from .compiler import CLOCK, Program, run_section
from .cpu_memory import table_of
from .cuda_memory import stream_at
from .faults import range_error
from .formats import GRAD_FORMATS
from .groups import Defaults, check_gradient, read_groups, specialise
from .program import VALID
from .scalars import new_scalars
from .slots import Slot, slots_of
from .tables import PROGRESS, TENSOR, WIDE, Verdict, make_batches, make_tables, new_progress
from .tensors import name_of, scopes_of

STATES = 3  # columns of the tensor table


class Leaf(NamedTuple):
    """A parameter and its gradient, as far as tables depend on them."""

    title: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grad: np.dtype[Any]


def as_array(leaf: Leaf, dtype: np.dtype[Any]) -> Array:
    """What stands for an array whose address each step says anew."""
    strides, size = [], dtype.itemsize
    for length in reversed(leaf.shape):
        strides.append(size)
        size *= length
    return Array(None, 0, leaf.shape, tuple(reversed(strides)), dtype, CPU, True)


class Plan:
    """The tables for parameters of given shapes and dtypes.

    Args:
        defaults: What the optimizer was given.
        leaves: The parameters.

    Attributes:
        slots: What of our own each of them has.
        values: The pool of numbers at first: constants, hyperparameters, named parameters.
        numbers: Where in it those stand that may be changed, by name.
    """

    def __init__(self, defaults: Defaults, leaves: Sequence[Leaf]) -> None:
        self._defaults = defaults
        arrays = {leaf.title: as_array(leaf, leaf.dtype) for leaf in leaves}
        for leaf in leaves:
            check_gradient(as_array(leaf, leaf.grad), arrays[leaf.title], f"the gradient of {leaf.title}", False)
        (self._group,) = groups = read_groups([{"params": arrays}], defaults)
        self._program: Program = compile_groups(defaults.rule, groups)
        forms = [name_of(leaf.grad) for leaf in leaves]
        members = list(zip(arrays.values(), forms, strict=True))
        self._kinds = [specialise(defaults, self._group, array, form) for array, form in members]
        self.slots: list[list[Slot]] = [slots_of(kind, self._group.options) for kind in self._kinds]
        self.values = self._program.values()
        self.numbers = self._read_numbers()
        self._rows = self._tensor_rows(leaves, forms)
        self._places = self._place_addresses()
        self._backends: dict[Device, tuple[Any, Any]] = {}
        self._lock = threading.Lock()  # one plan serves all devices, whose callbacks may come at the same time

    def _read_numbers(self) -> dict[str, int]:
        found: dict[str, int] = {}
        slots = self._program.pool.parameters
        own = {h.payload: name for name, h in self._group.hyperparameters.items() if h.payload in slots}
        for parameter, slot in slots.items():
            name = own.get(parameter, parameter.name)
            if name in found and parameter in own:
                raise ValueError(f"a parameter of a schedule is called {name!r}, as a hyperparameter is; rename it")
            found[name] = slot
        return found

    def new_clock(self) -> npt.NDArray[Any]:
        """The clock before the first step, where every hyperparameter must be in its range."""
        section = self._program.sections[0]
        rows, found = run_section(self._program, section, section.new_clock())
        if found[0] != VALID:
            raise range_error(section, 0, int(found[0]), rows[0], 0)
        warn_of_flips(self._defaults.rule, self._group, rows[0])
        return section.new_clock()

    # ---- tables

    def _tensor_rows(self, leaves: Sequence[Leaf], forms: Sequence[str]) -> npt.NDArray[Any]:
        rows = np.zeros(len(leaves), TENSOR)
        rows["numel"] = [array.numel for array in self._group.arrays]
        rows["scope"], self._scope_count = scopes_of(
            self._defaults.policy, [self._group], np.zeros(len(leaves), np.int64)
        )
        rows["grad_format"] = [GRAD_FORMATS.index(form) for form in forms]
        return rows

    def _place_addresses(self) -> npt.NDArray[np.int64]:
        """For each tensor the positions of its addresses: param, grad, states, companion, average; -1 for none.

        Addresses come in this order: parameters, gradients, then the slots of the first tensor, of the second, ...
        """
        count = len(self.slots)
        places = np.full((count, 4 + STATES), -1, np.int64)
        places[:, 0], places[:, 1] = np.arange(count), count + np.arange(count)
        next_place = 2 * count
        for index, own in enumerate(self.slots):
            for slot in own:
                states = self._defaults.rule.states
                column = 2 + states.index(slot.name) if slot.name in states else 2 + STATES + (slot.name == "ema")
                places[index, column] = next_place
                next_place += 1
        return places

    def _tensors(self, addresses: Sequence[int]) -> npt.NDArray[Any]:
        """The tensor table for arrays at these addresses."""
        at = np.array([*addresses, 0], np.uint64)[self._places]
        rows = self._rows
        rows["param"], rows["grad"], rows["states"] = at[:, 0], at[:, 1], at[:, 2 : 2 + STATES]
        rows["companion"], rows["ema"] = at[:, 2 + STATES], at[:, 3 + STATES]
        rows["wide"] = np.bitwise_or.reduce(at, axis=1) % np.uint64(WIDE) == 0
        return rows

    def _tables(self, device: Device) -> Any:
        """The tables on a device, made at the first step there."""
        if device not in self._backends:
            backend: Any = cpu
            if device[0] == "cuda":
                from . import cuda

                cuda.require()
                backend = cuda
            policy = self._defaults.policy
            default = specialise(self._defaults, self._group, as_array(EMPTY, EMPTY.dtype), "float32")
            batches, chunks = make_batches(self._kinds or [default], self._rows["numel"].tolist() or [0])
            cohorts = Cohorts(np.zeros(len(self._rows), np.int32), [0])
            rows = cohorts.rows(self._program.sections, policy.per_tensor_step)
            clock, scalars = self._program.sections[0].new_clock(), new_scalars(policy)
            counts = self._scope_count, self._defaults.rule.measure is not None
            tables = make_tables(
                self._rows.copy(), chunks, rows, clock, self._program, scalars, new_progress(), *counts
            )
            self._backends[device] = backend.Tables(tables, batches, device[1], policy.nonfinite == "raise")
        return self._backends[device]

    # ---- a step

    def run(self, device: Device, stream: int, addresses: Sequence[int], state: dict[str, int]) -> None:
        """One launch over arrays at these addresses, in order of a stream.

        Args:
            device, stream: Where they lie, and whose order is kept; on the CPU the stream means nothing.
            addresses: Of parameters, gradients and slots, as `_place_addresses` has them.
            state: Addresses of the tables that the step reads and writes: clocks, rows, progress, values.
        """
        with self._lock:
            if device == CPU:
                tables = self._tables(device)
                tables.upload("tensors", 0, self._tensors(addresses))
                tables.point(state)
                self._judge(tables.run(), state)
                return
            with stream_at(stream, device[1]):
                tables = self._tables(device)
                tables.upload("tensors", 0, self._tensors(addresses))
                tables.point(state)
                self._judge(tables.run(), None)

    def _judge(self, verdict: Verdict, state: dict[str, int] | None) -> None:
        """Raise the reason for which a step was not applied, unless its being skipped was asked for."""
        if verdict is Verdict.OVERFLOWED and self._defaults.policy.nonfinite == "raise":
            raise FloatingPointError(
                "a gradient is not finite, or too large to be squared (nonfinite='raise'). The step was skipped"
            )
        if verdict is Verdict.HELD:
            section = self._program.sections[0]
            if state is None:
                raise ValueError("a hyperparameter has left its range: steps are held, and nothing is written")
            progress = table_of(state["progress"], PROGRESS)
            clock = table_of(state["clocks"], CLOCK)
            row = table_of(state["rows"], np.dtype((np.float64, 32)))
            raise range_error(section, 0, int(progress["fault_index"][0]), row, int(clock["step"][0]))


EMPTY = Leaf("nothing", (0,), np.dtype(np.float32), np.dtype(np.float32))

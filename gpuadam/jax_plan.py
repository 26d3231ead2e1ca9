"""What a step over a tree of JAX arrays needs beside them: tables made once, launches over its buffers."""

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import cpu, cpu_memory, cuda_memory
from .arrays import CPU, Array, Device, compact_strides
from .backends import backend_at, require_subnormals
from .coefficients import compile_groups, warn_of_flips
from .cohorts import Cohorts
from .compiler import CLOCK, ROW, Program, run_section
from .expressions import as_expr
from .faults import range_error
from .formats import GRAD_FORMATS
from .groups import Defaults, check_gradient, read_groups, specialise
from .jax_buffers import ieee_arithmetic
from .program import VALID
from .rules import RULE_STATES as STATES
from .scalars import new_scalars
from .slots import Slot, slots_of
from .tables import PROGRESS, TENSOR, WIDE, Verdict, make_batches, make_tables, new_progress
from .tensors import name_of, scopes_of


class Leaf(NamedTuple):
    """A parameter and its gradient, as far as tables depend on them."""

    title: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grad: np.dtype[Any]


def as_array(leaf: Leaf, dtype: np.dtype[Any]) -> Array:
    """What stands for an array whose address each step says anew."""
    return Array(None, 0, leaf.shape, compact_strides(leaf.shape, dtype.itemsize), dtype, CPU, True)


class Plan:
    """The tables for parameters of given shapes and dtypes.

    Args:
        defaults: What the optimizer was given.
        leaves: The parameters.

    Attributes:
        leaves: As given.
        slots: What of our own each of them has.
        values: The pool of numbers at first: constants, hyperparameters, named parameters.
        code: What tells its program from others: a row that another one made is stale.
        numbers: Where in it those stand that may be changed, by name.
    """

    def __init__(self, defaults: Defaults, leaves: Sequence[Leaf]) -> None:
        self._defaults, self.leaves = defaults, leaves
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
        self.code = zlib.crc32(self._program.instructions().tobytes())
        self.numbers: dict[str, list[int]] = self._read_numbers()
        self._rows = self._tensor_rows(leaves, forms)
        self._places = self._place_addresses()
        self._backends: dict[Device, Any] = {}
        self._lock = threading.Lock()  # one plan serves all devices, whose callbacks may come at the same time

    def _read_numbers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        slots = self._program.pool.parameters
        own = {h.payload: name for name, h in self._group.hyperparameters.items() if h.payload in slots}
        for parameter, slot in slots.items():
            name = own.get(parameter, parameter.name)
            if name in found and name in own.values():
                raise ValueError(f"a parameter of a schedule is called {name!r}, as a hyperparameter is; rename it")
            if parameter not in own or not self._decides(name):
                found.setdefault(name, []).append(slot)  # a name stands for one number, however made
        return found

    def _decides(self, name: str) -> bool:
        """Whether there are fewer states because a hyperparameter is 0: another number would need them."""
        changed = {**self._group.hyperparameters, name: as_expr(0.5, name)}
        return bool(self._group.options.absent_states(changed) != self._group.absent)

    def new_clock(self) -> npt.NDArray[Any]:
        """The clock before the first step, where every hyperparameter must be in its range."""
        section = self._program.sections[0]
        rows, found = run_section(self._program, section, section.new_clock())
        if found[0] != VALID:
            raise range_error(section, 0, int(found[0]), rows[0], 0)
        warn_of_flips(self._defaults.rule, self._group, rows[0])
        return section.new_clock()

    @property
    def sums(self) -> list[str]:
        """What asks for sums over whole arrays, by the names of the arguments."""
        asked = {
            "clip_norm": "clip_norm" in self._group.hyperparameters,
            "nonfinite": self._defaults.policy.nonfinite != "propagate",
            self._defaults.rule.name: self._defaults.rule.measure is not None,
        }
        return [name for name, is_asked in asked.items() if is_asked]

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
            backend: Any = backend_at(device)
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
            self._backends[device] = backend.Tables(tables, batches, device[1], False)
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
                with ieee_arithmetic():
                    require_subnormals(cpu, self._defaults.policy.allow_flush)
                    verdict = self._launch(device, addresses, state)
                    self._judge(verdict, state, cpu_memory.table_of)
                return
            with cuda_memory.stream_at(stream, device[1]):
                if self._defaults.policy.nonfinite != "raise":
                    self._launch(device, addresses, state)
                    return
                names = {"progress": PROGRESS, "clocks": CLOCK}
                before = {name: cuda_memory.table_of(state[name], dtype) for name, dtype in names.items()}
                self._launch(device, addresses, state)
                after = {name: cuda_memory.table_of(state[name], dtype) for name, dtype in names.items()}
                self._judge(verdict_of(before, after), state, cuda_memory.table_of)

    def _launch(self, device: Device, addresses: Sequence[int], state: dict[str, int]) -> Verdict:
        tables = self._tables(device)
        tables.upload("tensors", 0, self._tensors(addresses))
        tables.point(state)
        verdict: Verdict = tables.run()
        return verdict

    def _judge(self, verdict: Verdict, state: dict[str, int], table_of: Callable[..., npt.NDArray[Any]]) -> None:
        """Raise the reason for which a step was not applied, unless its being skipped was asked for."""
        if verdict is Verdict.OVERFLOWED and self._defaults.policy.nonfinite == "raise":
            raise FloatingPointError(
                "a gradient is not finite, or too large to be squared (nonfinite='raise'). The step was skipped"
            )
        if verdict is Verdict.HELD:
            section = self._program.sections[0]
            progress = table_of(state["progress"], PROGRESS)
            clock = table_of(state["clocks"], CLOCK)
            row = table_of(state["rows"], np.dtype((np.float64, ROW)))
            raise range_error(section, 0, int(progress["fault_index"][0]), row, int(clock["step"][0]))


def verdict_of(before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    """What a launch on a GPU has done, by progress and clocks."""
    if after["progress"]["overflowed"][0] > before["progress"]["overflowed"][0]:
        return Verdict.OVERFLOWED
    return Verdict.APPLIED if after["clocks"]["step"][0] > before["clocks"]["step"][0] else Verdict.HELD


EMPTY = Leaf("nothing", (0,), np.dtype(np.float32), np.dtype(np.float32))

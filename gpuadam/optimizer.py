"""The optimizer on the host: it reads what the user gives, keeps the tables true, and launches the walk over them."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from . import cpu, groups, state
from .arrays import Array, flushes_subnormals
from .cohorts import Cohorts
from .compiler import Program, run_section
from .expressions import Expr, as_number
from .program import VALID
from .rules import Rule
from .tables import REVISION, Specialisation, make_batches, make_tables
from .tensors import Tensors


class ScheduleError(ValueError):
    """A hyperparameter would leave its range at the step that comes next: that step is held, and nothing is written."""


class Optimizer:
    """An optimizer step over many tensors, the evaluation of every schedule included, in one launch.

    `Adam`, `AdamW` and `RMSprop` are made of it; it holds what they share.

    Args:
        params: List or dict of arrays (NumPy, CuPy, or any with DLPack or the CUDA array interface), or a list of
            groups: dicts with `params` and settings of their own. float32 or float64, any shape; updated in place.
        rule: What is done to an element.
        settings: Hyperparameters under their public names (`lr`, `betas`, ...): numbers or schedules.
        options: The options of the rule.
        backend: "auto" (where the parameters lie), "cpu" or "cuda".
        allow_flush: Go on although this thread flushes subnormal numbers to zero; CPU and GPU then differ in such bits.
    """

    def __init__(
        self, params: Any, *, rule: Rule, settings: Mapping[str, Any], options: Any, backend: str, allow_flush: bool
    ) -> None:
        self.rule = rule
        self._lock = threading.RLock()
        self._groups = groups.read_groups(params, rule, settings, options)
        self._backend = choose_backend(backend, [array for group in self._groups for array in group.arrays])
        if self._backend is cpu and flushes_subnormals() and not allow_flush:
            raise RuntimeError(
                "this thread flushes subnormal numbers to zero (torch.set_flush_denormal?), so results would differ "
                "from a GPU's; turn that off, or go on with allow_flush=True"
            )
        self._program = groups.compile_groups(rule, self._groups)
        self._check_first_step()
        self._tensors = Tensors(rule, self._groups, self._backend)
        self._cohorts = Cohorts(self._tensors.group_of, len(self._groups))
        kinds = self._tensors.specialisations or [Specialisation(rule, "float32", "float32", ("float32",) * 3)]
        batches, chunks = make_batches(kinds, self._tensors.numels() or [0])
        cohorts = self._cohorts.rows(self._program.sections)
        tensors = self._tensors.rows(self._tensors.binding, self._cohorts.of)
        tables = make_tables(tensors, chunks, cohorts, self._program)
        self._revision = 1
        self._interrupted = ""  # what was begun and not ended
        self._room = {name: len(tables[name]) for name in ("program", "values")}
        self._tables = self._backend.Tables(tables, batches, self._tensors.device())

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name != "rule":
            raise AttributeError(f"an optimizer has no {name!r} to set: write set_hyperparameters({name}=...)")
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an optimizer holds addresses: make a new one, and give it this one's state_dict()")

    def step(self, grads: Any = None) -> None:
        """Update in place every parameter that has a gradient.

        Args:
            grads: Gradients as `bind` takes them; None: those that are bound.

        Raises:
            TypeError, ValueError: A gradient does not fit its parameter; nothing was written.
            ScheduleError: A hyperparameter has left its range; nothing was written.
        """
        with self._lock:
            if grads is not None:
                self.bind(grads)
            elif self._tensors.owners is None:
                raise ValueError("there are no gradients: give step(grads), or bind(grads) once before step()")
            elif self._tensors.have_moved():
                self._bind(self._tensors.owners)
            self._check_whole()
            if not self._tables.run():
                raise self._fault()
            self._tensors.note_writes()

    def _check_whole(self, repeated: str = "") -> None:
        """Refuse to go on from the middle of something."""
        if self._tables.is_half_done:
            raise RuntimeError("a step was interrupted; some tensors may be a step ahead of others: load a state first")
        if self._interrupted not in ("", repeated):
            raise RuntimeError(f"{self._interrupted} was interrupted: repeat it first")

    def bind(self, grads: Any) -> None:
        """Take gradients for this and the following steps; each step reads them where they lie.

        Args:
            grads: List in the order of the parameters (group after group), or a dict with their keys: arrays of the
                shape, dtype, device and order of elements of their parameter. None, or a key that is missing: that
                tensor rests; its schedules go on, its own count of updates (bias correction) does not.

        Raises:
            TypeError, ValueError: A gradient does not fit its parameter; the gradients before stay in force.
        """
        with self._lock:
            owners = self._tensors.in_order(grads)
            if not self._tensors.is_bound_to(owners):
                self._bind(owners)

    def _bind(self, owners: list[Any]) -> None:
        binding = self._tensors.read(owners)
        cohorts, splits = self._cohorts.activated(binding.present())
        self._tables.require_writable()
        self._tensors.release()
        for source, target in splits:
            self._tables.copy_clock(source, target)
        self._tables.upload("tensors", 0, self._tensors.rows(binding, cohorts.of))
        if cohorts.active != self._cohorts.active:
            self._tables.upload("cohorts", 0, cohorts.rows(self._program.sections))
        if splits:
            self._announce(len(cohorts))
        self._cohorts = cohorts
        self._tensors.accept(binding)

    def _announce(self, cohort_count: int) -> None:
        """Tell the device that tables have changed: rows that it made ahead are stale."""
        self._revision += 1
        self._tables.upload("revision", 0, np.array([(self._revision, cohort_count, 0)], REVISION))

    def _check_first_step(self) -> None:
        for group, section in zip(self._groups, self._program.sections, strict=True):
            rows, faults = run_section(self._program, section, section.new_clock())
            if faults[0] != VALID:
                raise self._range_error(group.index, int(faults[0]), rows[0], 0)
            groups.warn_of_flips(self.rule, group, rows[0])

    def _range_error(self, group: int, instruction: int, row: Any, step: int) -> ScheduleError:
        output = self._program.sections[group].guards[instruction]
        return ScheduleError(
            f"{output.name} of group {group} would be {float(row[output.place])!r} at step {step}; allowed is "
            f"{output.allowed}. The step is held: nothing was written, and no counter moved"
        )

    def _fault(self) -> ScheduleError:
        progress = self._tables.download("progress")[0]
        cohort = int(progress["fault_cohort"])
        step = int(self._tables.download("clocks")["step"][cohort])
        row = self._tables.download("rows")[cohort]
        return self._range_error(self._cohorts.groups[cohort], int(progress["fault_index"]), row, step)

    def hyperparameters(self) -> list[dict[str, float]]:
        """The hyperparameters of each group, as the next step will use them; waits for the device.

        Where tensors of a group differ, since some have rested, those of the tensor with the most updates.

        Raises:
            ScheduleError: One of them has left its range.
        """
        with self._lock:
            clocks = self._tables.download("clocks")
            speakers = self._cohorts.speakers(clocks)
            found = []
            for group, section in zip(self._groups, self._program.sections, strict=True):
                clock = clocks[[speakers[group.index]]]
                rows, faults = run_section(self._program, section, clock)
                if faults[0] != VALID:
                    raise self._range_error(group.index, int(faults[0]), rows[0], int(clock["step"][0]))
                values = rows[0][len(self.rule.row._fields) :]  # type: ignore[attr-defined]
                found.append({name: float(v) for name, v in zip(self.rule.hyperparameters, values, strict=False)})
            return found

    def set_hyperparameters(self, group: int | None = None, **settings: Any) -> None:
        """Rewrite hyperparameters in place, from the next step on; captured graphs see them too.

        A schedule goes on with the steps that there have been: one that is to begin now takes `step - now`.

        Args:
            group: Position of the group; None: every group.
            **settings: `lr`, `betas`, ...: numbers or schedules.

        Raises:
            TypeError, ValueError: A value out of range, one that needs a state that the constructor left out, or
                schedules that the tables have no room for; then nothing is changed.
        """
        with self._lock:
            chosen = self._groups if group is None else [self._groups[as_index(group, len(self._groups))]]
            changed = {member.index: groups.changed_hyperparameters(self.rule, member, settings) for member in chosen}
            self._check_whole(repeated="set_hyperparameters")
            self._install(*self._prepare(changed))

    def _prepare(self, changed: Mapping[int, dict[str, Expr]]) -> tuple[list[groups.Group], Program]:
        """The groups with other hyperparameters and their program, checked; nothing is in force yet."""
        own = [replace(g, hyperparameters=changed.get(g.index, g.hyperparameters)) for g in self._groups]
        program = groups.compile_groups(self.rule, own, self._program)
        for name, needed in (("program", len(program.code)), ("values", len(program.pool.values))):
            if needed > self._room[name]:
                raise ValueError(
                    f"the schedules need {needed} rows of the table {name!r}, which has room for {self._room[name]}: "
                    "give them to a new optimizer, and load this one's state_dict into it"
                )
        for index in changed:
            rows, _ = run_section(program, program.sections[index], program.sections[index].new_clock())
            groups.warn_of_flips(self.rule, own[index], rows[0])
        self._tables.require_writable()
        return own, program

    def _install(self, own: list[groups.Group], program: Program, what: str = "set_hyperparameters") -> None:
        """Put in force what was prepared."""
        self._interrupted = what
        clocks = state.carried_accumulators(self._tables, self._cohorts, self._program, program)
        self._tables.upload("program", 0, program.instructions())
        self._tables.upload("values", 0, program.values())
        self._tables.upload("cohorts", 0, self._cohorts.rows(program.sections))
        self._tables.upload("clocks", 0, clocks)
        self._announce(len(self._cohorts))
        self._groups, self._program = own, program
        self._interrupted = ""

    def parameters(self) -> dict[str, float]:
        """The named parameters of all schedules, as they stand."""
        return self._program.named_parameters()

    def set_parameter(self, name: str, value: float) -> None:
        """Rewrite a named parameter in place, from the next step on.

        Raises:
            KeyError: No schedule has a parameter of that name.
        """
        with self._lock:
            number = as_number(value, f"parameter {name!r}")
            if name not in self.parameters():
                raise KeyError(f"there is no parameter {name!r}; there are {sorted(self.parameters())}")
            self._check_whole(repeated="set_parameter")
            self._tables.require_writable()
            self._interrupted = "set_parameter"
            self._program.set_parameter(name, number)
            self._tables.upload("values", 0, self._program.values())
            self._announce(len(self._cohorts))
            self._interrupted = ""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside the parameters, as NumPy arrays and numbers; waits for the device.

        The layout: `format_version`; `rule`; `groups`: for each its clock (`step`, `updates`, `accumulators`) and those
        hyperparameters that are numbers; `state`: for each tensor its clock and its states; `parameters`.
        """
        with self._lock:
            self._check_whole()
            return state.collect(self)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, hyperparameters: bool = False) -> None:
        """Take up a state from either backend; the steps that follow are those of the run that was saved, bit for bit.

        Args:
            state_dict: What `state_dict` gave. Hyperparameters and schedules stay the constructor's.
            hyperparameters: Take the numbers of the saved hyperparameters too.

        Raises:
            ValueError: It does not fit, with every difference named; then nothing is changed.
        """
        with self._lock:
            state.restore(self, state_dict, hyperparameters)


def as_index(group: Any, count: int) -> int:
    if isinstance(group, bool) or not isinstance(group, int | np.integer) or not -count <= group < count:
        raise ValueError(f"group is {group!r}; allowed are 0 to {count - 1}")
    return int(group)


def choose_backend(backend: str, arrays: list[Array]) -> ModuleType:
    """The module that runs the steps, by where the parameters lie."""
    if backend not in ("auto", "cpu", "cuda"):
        raise ValueError(f"backend is {backend!r}; allowed are 'auto', 'cpu', 'cuda'")
    devices = sorted({array.device for array in arrays})
    if len(devices) > 1:
        raise ValueError(
            f"the parameters lie on several devices, {devices}; an optimizer serves one: make one for each"
        )
    kind = devices[0][0] if devices else "cpu" if backend == "auto" else backend
    if backend not in ("auto", kind):
        raise ValueError(
            f"backend is {backend!r}, but the parameters lie on {devices[0]}; nothing is copied in silence"
        )
    if kind == "cpu":
        return cpu
    from . import cuda

    cuda.require()
    return cuda

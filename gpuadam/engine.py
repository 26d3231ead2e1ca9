"""The engine: groups, program, tensors, cohorts and the tables made of them, kept true to one another."""

import os
from typing import Any

import numpy as np

from . import backends, faults
from .clocks import carry_clocks
from .coefficients import compile_groups, warn_of_flips
from .cohorts import Cohorts, cohorts_of, new_clocks
from .compiler import Program, run_section
from .groups import Defaults, Group, check_names
from .program import VALID
from .scalars import Arrays, new_scalars, read_scalars
from .tables import REVISION, Verdict, make_batches, make_tables, new_progress
from .tensors import Binding, Tensors


class Engine:
    """All that an optimizer holds for one set of tensors; on an error in the making, nothing was changed.

    Args:
        defaults: What the optimizer was given.
        groups: Its groups.
        old: The engine whose groups are the first of these; states and clocks of its tensors are taken over by name.
    """

    def __init__(self, defaults: Defaults, groups: list[Group], old: "Engine | None" = None) -> None:
        self.defaults, self.groups = defaults, groups
        check_names(groups)
        policy = defaults.policy
        self.backend = backends.choose_backend(policy.backend, [array for g in groups for array in g.arrays])
        if old and self.backend is not old.backend:
            raise ValueError("an optimizer made without tensors serves the CPU: make a new one for arrays elsewhere")
        backends.require_subnormals(self.backend, policy.allow_flush)
        self.program: Program = compile_groups(defaults.rule, groups, old.program if old else None)
        for group in groups[len(old.groups) if old else 0 :]:
            self._check_first_step(group)
        self.tensors: Tensors = Tensors(defaults, groups, self.backend, old.tensors if old else None)
        self._process = os.getpid()
        self.revision = 1
        self.interrupted = ""  # what was begun and not ended
        self._is_sorted = True  # chunks and launches are those of `kinds`
        self.is_swapped = False  # the parameters hold their averages, not what is trained
        self._kept: list[Any] = []  # meanwhile, parameters that cannot hold theirs, as they were
        self.scalars = new_scalars(policy)
        self._scalar_arrays: Arrays = {}
        self._scalar_memory: list[Arrays] = []
        self.kinds = self.tensors.specialisations(self.tensors.binding)
        self._make_tables(old)

    def _check_first_step(self, group: Group) -> None:
        section = self.program.sections[group.index]
        rows, found = run_section(self.program, section, section.new_clock())
        if found[0] != VALID:
            raise faults.range_error(section, group.index, int(found[0]), rows[0], 0)
        warn_of_flips(self.defaults.rule, group, rows[0])

    def _make_tables(self, old: "Engine | None") -> None:
        tensors, group_of = self.tensors, self.tensors.group_of.tolist()
        scales = [scale for group in self.groups for scale in group.lr_scales]
        clocks, own = new_clocks(self.program.sections, group_of, scales)
        progress = new_progress()
        if old:
            carry_clocks(old, self.program.sections, tensors.names, group_of, clocks, own)
            progress["skipped"] = old.tables.download("progress")["skipped"]
        self.cohorts, clocks = cohorts_of(group_of, clocks, own)
        batches, chunks = make_batches(self.kinds or [tensors.default_kind()], tensors.numels() or [0])
        rows = tensors.rows(tensors.binding, self.cohorts.of)
        cohort_rows = self.cohort_rows(self.cohorts, self.program)
        counts = tensors.scope_count, self.defaults.rule.measure is not None
        tables = make_tables(rows, chunks, cohort_rows, clocks, self.program, self.scalars, progress, *counts)
        self.room = {name: len(tables[name]) for name in ("program", "values")}
        is_watchful = self.defaults.policy.nonfinite == "raise"
        self.tables: Any = self.backend.Tables(tables, batches, tensors.device()[1], is_watchful)

    def cohort_rows(self, cohorts: Cohorts, program: Program) -> Any:
        return cohorts.rows(program.sections, self.defaults.policy.per_tensor_step)

    def check_whole(self, repeated: str = "") -> None:
        """Refuse to go on from the middle of something, or with other weights than those that are trained."""
        self.check_ended(repeated)
        self.check_own_weights()

    def check_ended(self, repeated: str = "") -> None:
        """Refuse to go on from the middle of something, or in a child of the process that made it."""
        if self.tensors.device()[0] == "cuda" and os.getpid() != self._process:
            raise RuntimeError(
                f"this optimizer was made by process {self._process}, and CUDA does not survive a fork into process "
                f"{os.getpid()}: start processes by 'spawn', and make it there"
            )
        if self.tables.is_half_done:
            raise RuntimeError("a step was interrupted; some tensors may be a step ahead of others: load a state first")
        if self.interrupted not in ("", repeated):
            raise RuntimeError(f"{self.interrupted} was interrupted: repeat it first")
        if not self._is_sorted:
            raise RuntimeError("bind was interrupted: repeat it first")

    def check_own_weights(self) -> None:
        """Raise while the parameters hold their averages, unless a step was interrupted: to load ends that."""
        if self.is_swapped and not self.tables.is_half_done:
            way_back = "train()" if self.defaults.rule.mixing else "swap_ema() once more"
            raise RuntimeError(f"the parameters hold their averages now: call {way_back} first")

    def bind(self, owners: list[Any]) -> None:
        """Check gradients, and put them in force."""
        self.put(self.tensors.read(owners))

    def put(self, binding: Binding) -> None:
        """Put checked gradients in force."""
        cohorts, splits = self.cohorts.activated(binding.present())
        kinds = self.tensors.specialisations(binding)
        self.tables.require_writable()
        self.tensors.release()
        for source, target in splits:
            self.tables.copy_clock(source, target)
        self.tables.upload("tensors", 0, self.tensors.rows(binding, cohorts.of))
        if cohorts.active != self.cohorts.active:
            self.tables.upload("cohorts", 0, self.cohort_rows(cohorts, self.program))
        if splits:
            self.announce(len(cohorts))
        self.cohorts = cohorts
        if kinds != self.kinds or not self._is_sorted:
            self._is_sorted = False
            self.tables.sort_chunks(*make_batches(kinds, self.tensors.numels()))
            self.kinds = kinds
            self._is_sorted = True
        self.tensors.accept(binding)

    def relocate(self, addresses: Any) -> None:
        """Gradients lie at these addresses now, 0 for none; the caller answers for it that all else is as it was."""
        self.tables.require_writable()
        self.tensors.relocate(addresses)
        self.tables.upload("tensors", 0, self.tensors.rows(self.tensors.binding, self.cohorts.of))

    def run(self) -> None:
        """One step over what is bound."""
        self.check_whole()
        verdict = self.tables.run()
        self.tensors.note_step()
        if verdict is not Verdict.APPLIED:
            faults.raise_if_wrong(self, verdict)

    def read_scalars(self, grad_scale: Any, found_inf: Any) -> tuple[Any, Arrays]:
        """What mixed-precision training says, and its arrays, checked; not in force yet."""
        return read_scalars(self.defaults.policy, grad_scale, found_inf, self.tensors.device())

    def set_scalars(self, record: Any, arrays: Arrays) -> None:
        """Put a record in force; one that is there already costs nothing."""
        self._scalar_memory = [self._scalar_arrays, arrays]  # until it is certain which of them is read
        if record.tobytes() != self.scalars.tobytes():
            self.tables.upload("scalars", 0, record)
            self.scalars = record
        self._scalar_arrays = arrays
        self._scalar_memory = []

    def reread_bound(self) -> None:
        """What is bound is read where it lies now."""
        if self.tensors.have_moved():
            self.bind(self.tensors.owners or [])
        if any(array.has_moved for array in self._scalar_arrays.values()):
            self.set_scalars(*self.read_scalars(**self.bound_scalars()))

    def bound_scalars(self) -> dict[str, Any]:
        """What mixed-precision training has said: arrays, or numbers."""
        arrays = self._scalar_arrays
        return {
            name: arrays[name].owner if name in arrays else self.scalars[name][0]
            for name in ("grad_scale", "found_inf")
        }

    def announce(self, cohort_count: int) -> None:
        """Tell the device that tables have changed: rows that it made ahead are stale."""
        self.revision += 1
        self.tables.upload("revision", 0, np.array([(self.revision, cohort_count, 0)], REVISION))

    def _require_ema(self) -> None:
        if self.defaults.rule.mixing:
            raise ValueError(f"{self.defaults.rule.name} averages its weights itself: call eval() and train()")
        if not any(kind.ema for kind in self.kinds):
            raise ValueError("there is no average of the parameters: give the constructor an ema_decay")

    def reset_ema(self) -> None:
        """Begin the averages anew."""
        self._require_ema()
        self.check_whole()
        self.tables.require_writable()
        for index, own in enumerate(self.tensors.arrays):
            if "ema" in own:
                self.backend.copy_values(own["ema"], self.tensors.reread(index))
        self.tables.upload("scalars", 0, self.scalars)  # what is uploaded last, other streams and graphs wait for

    def swap_ema(self) -> None:
        """Exchange parameters and averages."""
        self._require_ema()
        self.swap()

    def swap(self) -> None:
        """Show averages, or no longer; of parameters that cannot hold an average, what they were is kept meanwhile."""
        was_swapped, self.is_swapped = self.is_swapped, False
        try:
            self.check_whole()
            self.tables.require_writable()
            self._follow_moves()
            showing = [i for i, kind in enumerate(self.kinds) if kind.shows and not kind.exchanges]
            views = [self.backend.view_of(self.tensors.reread(i)) for i in showing]
            if not was_swapped:
                self._kept = [self.backend.copy_of(view) for view in views]
            self.tables.is_half_done = True  # an interrupt from here on leaves some tensors exchanged, others not
            self.tables.swap(not was_swapped, list(zip(views, self._kept, strict=True)) if was_swapped else [])
            self._kept = [] if was_swapped else self._kept
            was_swapped = not was_swapped
            self.tables.is_half_done = False
        finally:
            self.is_swapped = was_swapped
        self.tensors.note_writes()

    def _follow_moves(self) -> None:
        """Parameters are exchanged where they lie now."""
        owners = self.tensors.owners
        if self.tensors.have_moved():
            self.bind(owners or [None] * len(self.tensors.names))
            if owners is None:
                self.tensors.release()

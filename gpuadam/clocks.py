"""Clocks of tensors: as plain numbers and back, and carried over from one program to another."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .cohorts import Cohorts
from .compiler import CLOCK, Program, Section

if TYPE_CHECKING:
    from .engine import Engine


def read_clock(clock: Any, section: Section) -> dict[str, Any]:
    names = [accumulator.name for accumulator in section.accumulators]
    values = clock["accumulators"][: len(names)]
    return {
        "step": int(clock["step"]),
        "updates": int(clock["updates"]),
        "accumulators": dict(zip(names, map(float, values), strict=True)),
    }


def make_clock(saved: Mapping[str, Any], section: Section, lr_scale: float = 1.0) -> Any:
    clock = np.zeros((), CLOCK)
    clock["lr_scale"] = lr_scale
    clock["step"], clock["updates"] = saved["step"], saved["updates"]
    for i, accumulator in enumerate(section.accumulators):
        clock["accumulators"][i] = saved["accumulators"][accumulator.name]
    return clock


def carry(clock: Any, old: Section, new: Section) -> Any:
    """A clock for another section: accumulators of the same name go on from where they are, others start afresh."""
    held = read_clock(clock, old)
    fresh = {accumulator.name: accumulator.initial for accumulator in new.accumulators}
    held["accumulators"] = {**fresh, **{name: v for name, v in held["accumulators"].items() if name in fresh}}
    return make_clock(held, new, clock["lr_scale"])


def carry_clocks(
    old: "Engine", sections: Sequence[Section], names: Sequence[Any], group_of: Sequence[int], clocks: Any, own: Any
) -> None:
    """Give tensors and groups the clocks that they had; a new tensor of an old group joins its schedules."""
    before = old.tables.download("clocks")

    @functools.cache
    def carried(cohort: int, group: int) -> Any:
        return carry(before[cohort], old.program.sections[old.cohorts.groups[cohort]], sections[group])

    for group in range(len(old.groups)):
        own[group] = carried(group, group)
    places = dict(zip(old.tensors.names, old.cohorts.of.tolist(), strict=True))
    for index, (name, group) in enumerate(zip(names, group_of, strict=True)):
        if name in places:
            clocks[index] = carried(places[name], group)
        elif not old.defaults.policy.per_tensor_step:
            clocks["step"][index] = own["step"][group]


def carried_accumulators(tables: Any, cohorts: Cohorts, old: Program, new: Program) -> Any:
    """The clocks to upload for a changed program: none if its accumulators are the old ones."""
    if all(a.accumulators == b.accumulators for a, b in zip(old.sections, new.sections, strict=True)):
        return np.empty(0, CLOCK)
    clocks = tables.download("clocks")[: len(cohorts)]
    for index, group in enumerate(cohorts.groups):
        clocks[index] = carry(clocks[index], old.sections[group], new.sections[group])
    return clocks

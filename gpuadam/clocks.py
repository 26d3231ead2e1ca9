"""Clocks of tensors: as plain numbers and back, and carried over from one program to another."""

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


def carry_clocks(old: "Engine", names: Sequence[Any], group_of: Sequence[int], clocks: Any, own: Any) -> None:
    """Give tensors and groups the clocks that they had; a new tensor of an old group joins its schedules."""
    before = old.tables.download("clocks")
    own[: len(old.groups)] = before[: len(old.groups)]
    places = dict(zip(old.tensors.names, old.cohorts.of.tolist(), strict=True))
    for index, (name, group) in enumerate(zip(names, group_of, strict=True)):
        if name in places:
            clocks[index] = before[places[name]]
        elif not old.defaults.policy.per_tensor_step:
            clocks["step"][index] = own["step"][group]


def carried_accumulators(tables: Any, cohorts: Cohorts, old: Program, new: Program) -> Any:
    """The clocks to upload for a changed program: none if its accumulators are the old ones.

    Those of the same name go on from where they are; others start afresh.
    """
    if all(a.accumulators == b.accumulators for a, b in zip(old.sections, new.sections, strict=True)):
        return np.empty(0, CLOCK)
    clocks = tables.download("clocks")[: len(cohorts)]
    for clock, group in zip(clocks, cohorts.groups, strict=True):
        held = read_clock(clock, old.sections[group])
        fresh = {accumulator.name: accumulator.initial for accumulator in new.sections[group].accumulators}
        held["accumulators"] = {**fresh, **{name: v for name, v in held["accumulators"].items() if name in fresh}}
        clock["accumulators"] = make_clock(held, new.sections[group])["accumulators"]
    return clocks

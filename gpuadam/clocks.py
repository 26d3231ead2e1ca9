"""Clocks of tensors: as plain numbers and back, and carried over from one program to another."""

from collections.abc import Mapping
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


def carry_clocks(old: "Engine", clocks: Any, own: Any) -> None:
    """Give the first tensors and groups the clocks that they had; those that are new keep theirs."""
    before = old.tables.download("clocks")
    clocks[: len(old.tensors.names)] = before[old.cohorts.of]
    own[: len(old.groups)] = before[: len(old.groups)]


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

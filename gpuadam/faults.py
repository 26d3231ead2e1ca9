"""Why a step was not applied, said with names and numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler import Section
from .tables import Verdict

if TYPE_CHECKING:
    from .engine import Engine


class ScheduleError(ValueError):
    """A hyperparameter would leave its range at the step that comes next: that step is held, and nothing is written."""


def range_error(section: Section, group: int, instruction: int, row: Any, step: int) -> ScheduleError:
    output = section.guards[instruction]
    return ScheduleError(
        f"{output.name} of group {group} would be {float(row[output.place])!r} at step {step}; allowed is "
        f"{output.allowed}. The step is held: nothing was written, and no counter moved"
    )


def raise_if_wrong(engine: "Engine", verdict: Verdict) -> None:
    """Raise the reason for which a step was not applied, unless the user has asked for its being skipped."""
    if verdict is Verdict.HELD:
        raise held_step(engine)
    if verdict is Verdict.OVERFLOWED and engine.defaults.policy.nonfinite == "raise":
        raise overflowed_step(engine)


def held_step(engine: "Engine") -> ScheduleError:
    """The error for a step that the tables hold."""
    progress = engine.tables.download("progress")[0]
    cohort = int(progress["fault_cohort"])
    step = int(engine.tables.download("clocks")["step"][cohort])
    row = engine.tables.download("rows")[cohort]
    group = engine.cohorts.groups[cohort]
    return range_error(engine.program.sections[group], group, int(progress["fault_index"]), row, step)


def overflowed_step(engine: "Engine") -> FloatingPointError:
    """The error for a step that was skipped since a gradient was not finite."""
    chunks, sums = engine.tables.download("chunks"), engine.tables.download("chunk_sums")
    tensors = np.unique(chunks["tensor"][~np.isfinite(sums)])
    names = ", ".join(repr(engine.tensors.names[index]) for index in tensors[:5]) or "some tensor, in a step before,"
    more = f" and {len(tensors) - 5} more" if len(tensors) > 5 else ""
    return FloatingPointError(
        f"the gradient of {names}{more} is not finite, or too large to be squared (nonfinite='raise'). The step was "
        "skipped: no parameter, state or counter has changed"
    )

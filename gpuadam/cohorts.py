"""Cohorts: tensors of one group with the same history, so that one clock and one row of coefficients serve them all.

At first every group is one cohort. When some of its tensors have a gradient and others have none, it splits: both
halves go on with the clock that they had, but only one counts the update. So each tensor keeps its own update count, as
in PyTorch, at the cost of one row for each history that there really is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiler import CLOCK, Section
from .tables import COHORT

Mask = npt.NDArray[np.bool_]


class Cohorts:
    """Which tensor sits in which cohort.

    Attributes:
        of: Cohort of each tensor.
        groups: Group of each cohort; the first cohorts are the groups' own, in their order.
        active: Whether the tensors of each cohort have gradients this time.
    """

    def __init__(self, of: npt.NDArray[np.int32], groups: list[int]) -> None:
        self.of = of
        self.groups = groups
        self.active = [True] * len(groups)

    def __len__(self) -> int:
        return len(self.groups)

    def activated(self, present: Mask) -> tuple["Cohorts", list[tuple[int, int]]]:
        """The cohorts for these gradients, and the splits: (cohort, new cohort that starts with its clock)."""
        new = Cohorts(self.of.copy(), list(self.groups))
        members = np.bincount(self.of, minlength=len(self))
        moving = np.bincount(self.of[present], minlength=len(self))
        splits = []
        for cohort in np.flatnonzero((moving > 0) & (moving < members)):
            splits.append((int(cohort), len(new)))
            new.of[(new.of == cohort) & ~present] = len(new)
            new.groups.append(self.groups[cohort])
        new.active = [bool(moving[i] or not members[i]) for i in range(len(self))] + [False] * len(splits)
        return new, splits

    def speakers(self, clocks: npt.NDArray[Any]) -> dict[int, int]:
        """The cohort that speaks for each group: that of its tensor with the most updates, the first of them.

        A group without tensors speaks for itself. So it does not matter in which order cohorts came to be.
        """
        found: dict[int, int] = {}
        for cohort in dict.fromkeys(self.of.tolist()):
            best = found.setdefault(self.groups[cohort], cohort)
            if clocks["updates"][cohort] > clocks["updates"][best]:
                found[self.groups[cohort]] = cohort
        return {group: found.get(group, group) for group in set(self.groups)}

    def rows(self, sections: Sequence[Section], per_tensor_step: bool) -> npt.NDArray[Any]:
        """The cohort table."""
        own = [sections[group] for group in self.groups]
        rows = np.zeros(len(own), COHORT)
        rows["evaluate_begin"] = [section.begin for section in own]
        rows["evaluate_end"] = [section.end for section in own]
        rows["advance_end"] = [section.advance_end for section in own]
        rows["accumulators"] = [len(section.accumulators) for section in own]
        rows["mixing"] = [section.mixing for section in own]
        rows["counts"] = self.active
        rows["ticks"] = [is_active or not per_tensor_step for is_active in self.active]
        return rows


def cohorts_of(group_of: Sequence[int], clocks: npt.NDArray[Any], own: npt.NDArray[Any]) -> tuple[Cohorts, Any]:
    """Tensors sorted into cohorts by group and clock, and the clock table of these cohorts.

    Args:
        group_of: Group of each tensor.
        clocks: Its clock.
        own: The clocks of the groups themselves: the first cohorts, in their order.
    """
    groups, rows = list(range(len(own))), list(own)
    known = {(group, clock.tobytes()): group for group, clock in enumerate(own)}
    of = np.zeros(len(group_of), np.int32)
    for index, (group, clock) in enumerate(zip(map(int, group_of), clocks, strict=True)):
        of[index] = known.setdefault((group, clock.tobytes()), len(groups))
        if of[index] == len(groups):
            groups.append(group)
            rows.append(clock)
    return Cohorts(of, groups), np.array(rows, CLOCK)


def new_clocks(sections: Sequence[Section], group_of: Sequence[int], lr_scales: Sequence[float]) -> Any:
    """The clocks of tensors that have had no update, and those of their groups."""
    own = np.concatenate([section.new_clock() for section in sections] or [np.empty(0, CLOCK)])
    clocks = own[np.asarray(group_of, np.int64)]
    clocks["lr_scale"] = lr_scales
    return clocks, own

"""The tables that both backends read: NumPy dtypes with the offsets of tables.cuh, and their making.

A step is one walk over these tables. Everything in them is data, so a change of a schedule, a number or a pointer
rewrites some rows and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiler import CLOCK, ROW, Program
from .program import INSTRUCTION, VALID
from .rules import Rule

MAX_STATES = 4
MINIMUM_ROOM = 4096  # instructions and doubles that a program may grow to in place
CHUNK = 1024  # elements of one row of the chunk table
WIDE = 16  # bytes of the widest access

TENSOR = np.dtype(
    [
        ("param", np.uint64),
        ("grad", np.uint64),
        ("states", np.uint64, (MAX_STATES,)),
        ("numel", np.int64),
        ("cohort", np.int32),
        ("wide", np.int32),
    ]
)
CHUNK_ROW = np.dtype([("tensor", np.int32), ("index", np.int32)])
COHORT = np.dtype(
    [
        ("evaluate_begin", np.int32),
        ("evaluate_end", np.int32),
        ("advance_end", np.int32),
        ("accumulators", np.int32),
        ("active", np.int32),
        ("unused", np.int32),
    ]
)
REVISION = np.dtype([("number", np.int64), ("cohort_count", np.int32), ("unused", np.int32)])
PROGRESS = np.dtype(
    [
        ("prepared", np.int64),
        ("fault_cohort", np.int32),
        ("fault_index", np.int32),
        ("ticket", np.uint32),
        ("unused", np.int32),
    ]
)
LAUNCH = np.dtype(
    [
        ("tensors", np.uint64),
        ("chunks", np.uint64),
        ("cohorts", np.uint64),
        ("clocks", np.uint64),
        ("rows", np.uint64),
        ("program", np.uint64),
        ("values", np.uint64),
        ("revision", np.uint64),
        ("progress", np.uint64),
        ("chunk_count", np.int32),
        ("chunks_per_block", np.int32),
        ("blocks", np.uint32),
        ("unused", np.int32),
    ]
)
ROWS = np.dtype((np.float64, (ROW,)))
TABLES = {
    "tensors": TENSOR,
    "chunks": CHUNK_ROW,
    "cohorts": COHORT,
    "clocks": CLOCK,
    "rows": ROWS,
    "program": INSTRUCTION,
    "values": np.dtype(np.float64),
    "revision": REVISION,
    "progress": PROGRESS,
}
DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
C_TYPES = {"float32": "float", "float64": "double"}

Table = npt.NDArray[Any]


@dataclass(frozen=True)
class Specialisation:
    """What one kernel is made for: a rule, the formats of its arrays, and the states that there are (None: absent)."""

    rule: Rule
    param: str
    grad: str
    states: tuple[str | None, ...]

    @property
    def name(self) -> str:
        present = [name for name, form in zip(self.rule.states, self.states, strict=True) if form]
        return "_".join([self.rule.name, self.param, *present])

    def macros(self) -> dict[str, str]:
        """The names that step.cu wants from the compiler's options."""
        states = [C_TYPES[form] if form else "Absent" for form in self.states]
        return {
            "KERNEL": self.name,
            "RULE": self.rule.name,
            "PARAM": C_TYPES[self.param],
            "GRAD": C_TYPES[self.grad],
            **{f"STATE{i}": state for i, state in enumerate(states)},
        }


@dataclass
class Batch:
    """The tensors that share a kernel: rows [first, first + count) of the chunk table."""

    specialisation: Specialisation
    first: int
    count: int


def chunk_rows(tensors: npt.NDArray[np.int64], numels: npt.NDArray[np.int64]) -> Table:
    """One row for every CHUNK elements of each tensor; none for an empty one."""
    counts = -(-numels // CHUNK)
    rows = np.empty(int(counts.sum()), CHUNK_ROW)
    rows["tensor"] = np.repeat(tensors, counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rows["index"] = np.arange(len(rows)) - starts
    return rows


def make_batches(specialisations: Sequence[Specialisation], numels: Sequence[int]) -> tuple[list[Batch], Table]:
    """Sort tensors by kernel: one launch a batch. An optimizer without elements still has a batch, which ticks."""
    members: dict[Specialisation, list[int]] = {}
    for index, specialisation in enumerate(specialisations):
        members.setdefault(specialisation, []).append(index)
    sizes = np.array(numels, np.int64)
    batches, tables = [], []
    first = 0
    for specialisation, indices in members.items():
        rows = chunk_rows(np.array(indices, np.int64), sizes[indices])
        batches.append(Batch(specialisation, first, len(rows)))
        tables.append(rows)
        first += len(rows)
    kept = [batch for batch in batches if batch.count] or batches[:1]
    return kept, np.concatenate(tables) if tables else np.empty(0, CHUNK_ROW)


def new_progress() -> Table:
    """Progress of an optimizer whose rows nobody has evaluated yet."""
    progress = np.zeros(1, PROGRESS)
    progress["fault_cohort"] = VALID
    return progress


def with_room(rows: Table, room: int) -> Table:
    """The rows at the head of a larger table, so that what changes later needs no new memory."""
    table = np.zeros(max(room, len(rows)), rows.dtype)
    table[: len(rows)] = rows
    return table


def make_tables(tensors: Table, chunks: Table, cohorts: Table, program: Program) -> dict[str, Table]:
    """All tables of an optimizer as they stand before its first step."""
    most_cohorts = len(cohorts) + len(tensors)
    clocks = np.concatenate([section.new_clock() for section in program.sections] or [np.empty(0, CLOCK)])
    revision = np.array([(1, len(cohorts), 0)], REVISION)
    instructions, values = program.instructions(), program.values()
    return {
        "tensors": tensors,
        "chunks": chunks,
        "cohorts": with_room(cohorts, most_cohorts),
        "clocks": with_room(clocks, most_cohorts),
        "rows": np.zeros((most_cohorts, ROW)),
        "program": with_room(instructions, max(MINIMUM_ROOM, 4 * len(instructions))),
        "values": with_room(values, max(MINIMUM_ROOM, 4 * len(values))),
        "revision": revision,
        "progress": new_progress(),
    }

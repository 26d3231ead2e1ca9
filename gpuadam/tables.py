"""The tables that both backends read: NumPy dtypes with the offsets of tables.cuh, and their making.

A step is one walk over these tables. Everything in them is data, so a change of a schedule, a number or a pointer
rewrites some rows and nothing else.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .codes import SIGNED_CODES, UNSIGNED_CODES
from .compiler import CLOCK, ROW, Program
from .formats import Specialisation
from .program import INSTRUCTION, VALID
from .rules import RULE_STATES

MINIMUM_ROOM = 4096  # instructions and doubles that a program may grow to in place
CHUNK = 1024  # elements of one row of the chunk table
SPAN = 256  # chunks whose sums are folded at once
NO_SCOPE = -1
STEP_SIZE = 1  # place of the coefficient that the trust ratio multiplies,
TRUST_LIMIT = 2  # and of the largest ratio, or 0: 1 is the ratio. Rules that are measured have them
WIDE = 16  # bytes of the widest access

TENSOR = np.dtype(
    [
        ("param", np.uint64),
        ("grad", np.uint64),
        ("states", np.uint64, (RULE_STATES,)),
        ("companion", np.uint64),
        ("ema", np.uint64),
        ("numel", np.int64),
        ("cohort", np.int32),
        ("scope", np.int32),
        ("grad_format", np.int32),
        ("wide", np.int32),
    ]
)
CHUNK_ROW = np.dtype([("tensor", np.int32), ("index", np.int32), ("span", np.int32), ("part", np.int32)])
SPAN_ROW = np.dtype([("first", np.int32), ("count", np.int32), ("scope", np.int32), ("unused", np.int32)])
SCOPE = np.dtype([("first", np.int32), ("count", np.int32)])
COHORT = np.dtype(
    [
        ("evaluate_begin", np.int32),
        ("evaluate_end", np.int32),
        ("advance_end", np.int32),
        ("accumulators", np.int32),
        ("counts", np.int32),
        ("ticks", np.int32),
        ("mixing", np.int32),
    ]
)
REVISION = np.dtype([("number", np.int64), ("cohort_count", np.int32), ("unused", np.int32)])
SCALARS = np.dtype(
    [
        ("grad_scale_at", np.uint64),
        ("found_inf_at", np.uint64),
        ("grad_scale", np.float64),
        ("found_inf", np.float64),
        ("grad_scale_is_double", np.int32),
        ("found_inf_is_double", np.int32),
        ("skips_nonfinite", np.int32),
        ("unused", np.int32),
        ("seed", np.uint64),
    ]
)
PROGRESS = np.dtype(
    [
        ("prepared", np.int64),
        ("fault_cohort", np.int32),
        ("fault_index", np.int32),
        ("skipped", np.int64),
        ("overflowed", np.int64),
        ("ticket", np.uint32),
        ("nonfinite", np.uint32),
    ]
)
TABLES = {
    "tensors": TENSOR,
    "chunks": CHUNK_ROW,
    "spans": SPAN_ROW,
    "scopes": SCOPE,
    "cohorts": COHORT,
    "clocks": CLOCK,
    "rows": np.dtype((np.float64, (ROW,))),
    "program": INSTRUCTION,
    "values": np.dtype(np.float64),
    "codes": np.dtype((np.float32, (256,))),
    "revision": REVISION,
    "scalars": SCALARS,
    "progress": PROGRESS,
    "chunk_sums": np.dtype(np.float64),
    "span_sums": np.dtype(np.float64),
    "norms": np.dtype(np.float64),
    "span_tickets": np.dtype(np.uint32),
    "scope_tickets": np.dtype(np.uint32),
    "chunk_norms": np.dtype((np.float64, (2,))),
    "part_norms": np.dtype((np.float64, (2,))),
    "trusts": np.dtype(np.float64),
    "part_tickets": np.dtype(np.uint32),
    "trust_tickets": np.dtype(np.uint32),
}
LAUNCH = np.dtype(
    [
        *((name, np.uint64) for name in TABLES),
        ("chunk_count", np.int32),
        ("chunks_per_block", np.int32),
        ("blocks", np.uint32),
        ("evaluates", np.int32),
    ]
)

Table = npt.NDArray[Any]


class Verdict(enum.Enum):
    """What has become of a step.

    Applied (or, on a GPU, launched); skipped, as the user has said that it overflows; overflowed, as the sums have
    found, and so skipped (on a GPU it is one of the steps before, and this one is not launched); held.
    """

    APPLIED = enum.auto()
    SKIPPED = enum.auto()
    OVERFLOWED = enum.auto()
    HELD = enum.auto()


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
    chunks = np.concatenate(tables) if tables else np.empty(0, CHUNK_ROW)
    chunks["part"] = np.cumsum(chunks["index"] % SPAN == 0) - 1
    return kept, chunks


def new_progress() -> Table:
    """Progress of an optimizer whose rows nobody has evaluated yet."""
    progress = np.zeros(1, PROGRESS)
    progress["fault_cohort"] = VALID
    return progress


def sorted_spans(tensors: Table, chunks: Table, scope_count: int) -> tuple[Table, Table]:
    """Spans and scopes if there are norms to be summed, empty ones if there are none."""
    return make_spans(chunks if scope_count else chunks[:0], tensors["scope"], scope_count)


def with_room(rows: Table, room: int) -> Table:
    """The rows at the head of a larger table, so that what changes later needs no new memory."""
    table = np.zeros(max(room, len(rows)), rows.dtype)
    table[: len(rows)] = rows
    return table


def make_spans(chunks: Table, scope_of: npt.NDArray[np.int32], scope_count: int) -> tuple[Table, Table]:
    """The spans and scopes over the rows of the chunk table; each row learns its span.

    Args:
        chunks: The chunk table, whose `span` is filled in.
        scope_of: Scope of each tensor.
    """
    scopes = scope_of[chunks["tensor"]]
    rows = np.arange(len(chunks))
    begins = np.flatnonzero(np.diff(scopes, prepend=-1))
    within = rows - np.repeat(begins, np.diff(begins, append=len(rows)))
    firsts = np.flatnonzero(within % SPAN == 0)
    spans = np.zeros(len(firsts), SPAN_ROW)
    spans["first"], spans["scope"] = firsts, scopes[firsts]
    spans["count"] = np.diff(firsts, append=len(rows))
    order = np.argsort(spans["scope"], kind="stable")
    place = np.argsort(order, kind="stable")
    chunks["span"] = np.repeat(place, spans["count"])
    table = np.zeros(scope_count, SCOPE)
    table["count"] = np.bincount(spans["scope"], minlength=scope_count)
    table["first"] = np.cumsum(table["count"]) - table["count"]
    return spans[order], table


def make_tables(
    tensors: Table,
    chunks: Table,
    cohorts: Table,
    clocks: Table,
    program: Program,
    scalars: Table,
    progress: Table,
    scope_count: int,
    is_measured: bool = False,
) -> dict[str, Table]:
    """All tables of an optimizer as they stand before its first step."""
    most_cohorts = len(cohorts) + len(tensors)
    revision = np.array([(1, len(cohorts), 0)], REVISION)
    instructions, values = program.instructions(), program.values()
    spans, scopes = sorted_spans(tensors, chunks, scope_count)
    most_spans = len(chunks) // SPAN + len(tensors) + 1 if scope_count else 0  # in whatever order the tensors lie
    return {
        "tensors": tensors,
        "chunks": chunks,
        "spans": with_room(spans, most_spans),
        "scopes": scopes,
        "cohorts": with_room(cohorts, most_cohorts),
        "clocks": with_room(clocks, most_cohorts),
        "rows": np.zeros((most_cohorts, ROW)),
        "program": with_room(instructions, max(MINIMUM_ROOM, 4 * len(instructions))),
        "values": with_room(values, max(MINIMUM_ROOM, 4 * len(values))),
        "codes": np.stack([SIGNED_CODES, UNSIGNED_CODES]),
        "revision": revision,
        "scalars": scalars,
        "progress": progress,
        "chunk_sums": np.zeros(len(chunks) if scope_count else 0),
        "span_sums": np.zeros(most_spans),
        "norms": np.zeros(scope_count),
        "span_tickets": np.zeros(most_spans, np.uint32),
        "scope_tickets": np.zeros(scope_count, np.uint32),
        **measure_tables(chunks if is_measured else chunks[:0], len(tensors) if is_measured else 0),
    }


def measure_tables(chunks: Table, tensor_count: int) -> dict[str, Table]:
    """Where the norms of weights and updates are summed, and the trust ratios that come of them."""
    parts = int(chunks["part"].max(initial=-1)) + 1
    return {
        "chunk_norms": np.zeros((len(chunks), 2)),
        "part_norms": np.zeros((parts, 2)),
        "trusts": np.ones(tensor_count),
        "part_tickets": np.zeros(parts, np.uint32),
        "trust_tickets": np.zeros(tensor_count, np.uint32),
    }

"""The sums over gradients, and the exchange of weights and averages, under the sanitizers.

`host/reduce_driver.cpp` sums over tensors of all four formats for one norm of all, for norms of groups and of tensors,
and compares them with plain sums; one tensor is empty, one rests, some lie off the 16-byte boundary.
`host/swap_driver.cpp` exchanges twice.
"""

import host_kernels
import pytest
from host_kernels import CONFLICT, UNEXPECTED, build, drive, planted
from optional import missing
from sanitizers import Barrier, assert_clean, barriers, drive_threads


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    if host_kernels.COMPILER is None:
        missing("no g++ to compile the kernels with")


REDUCE, SUMS, SWAP = "reduce.cu", "sums.cuh", "swap.cu"
SWAPS = [
    *({"PARAM": param, "COMPANION": "Absent"} for param in ("float", "double", "float16", "bfloat16")),
    *({"PARAM": param, "COMPANION": "float"} for param in ("float16", "bfloat16")),
    {"PARAM": "bfloat16", "COMPANION": "Remainder"},
]
LOOP = "const Chunk chunk = global(launch.chunks)[row];"
SUM, TICKET = "put(launch.chunk_sums + row, sum);", "is_last(launch.span_tickets + chunk.span, span.count)"
WAIT = "if (!last) std::this_thread::sleep_for(std::chrono::milliseconds(2));"
FAULTS = {
    "a chunk that is left out": (REDUCE, LOOP, LOOP + " if (row == 1) continue;"),
    "a chunk whose sum is left out": (
        REDUCE,
        "if (tensor.grad == 0) return 0.0;",
        "if (tensor.grad == 0 || index == 2) return 0.0;",
    ),
    "a ticket that is not given back": (SUMS, "if (last) atomicExch(ticket, 0u);", ""),
    "the last but one taken for the last": (SUMS, "static_cast<uint32>(count) - 1", "static_cast<uint32>(count) - 2"),
    "the one after the last waited for": (SUMS, "static_cast<uint32>(count) - 1", "static_cast<uint32>(count)"),
    "a ticket taken before the sum is written": (
        REDUCE,
        f"{SUM}\n        if (!{TICKET}) continue;",
        f"const bool last = {TICKET}; {WAIT} {SUM} if (!last) continue;",
    ),
    "a sum that is folded one short": (
        REDUCE,
        "fold(launch.span_sums + scope.first, scope.count)",
        "fold(launch.span_sums + scope.first, scope.count - 1)",
    ),
    "a scale that is forgotten": (REDUCE, "sqrt(total) * fabs(inverse_scale(launch))", "sqrt(total)"),
    "infinity that is not told": (REDUCE, "if (!(norm <= LARGEST_NORM))", "if (norm != norm)"),
}
MESSAGES = {
    "a ticket that is not given back": "a ticket was not given back",
    "infinity that is not told": "gradients that are not finite are said to be",
}
OUT_OF_BOUNDS = {
    "edges that are read whole": ("granules.cuh", "if (j < place.left) granule.element[j]", "granule.element[j]"),
    "sums of a span beyond its end": (SUMS, "i < count; i += WARP", "i < count + WARP; i += WARP"),
    "wide reads of an edge": (SUMS, "wide ? count - count % ACCUMULATORS : 0", "wide ? count : 0"),
}


def test_sums_are_right_and_stay_in_bounds() -> None:
    assert_clean(drive(build({}, source=REDUCE, sanitize="address"), "address", source=REDUCE))


def test_sums_have_no_race_within_or_between_blocks() -> None:
    assert_clean(drive_threads(REDUCE, {}))


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_sum_is_seen(name: str) -> None:
    library = build({}, source=REDUCE, patch=planted(*FAULTS[name]))
    for _ in range(5):  # a fault of order shows only where two blocks overlap, which a busy machine may not let them
        done = drive(library, source=REDUCE, copies=2)
        if done.returncode:
            break
    assert done.returncode == UNEXPECTED
    assert done.stderr == f"driver: {MESSAGES.get(name, 'a norm is wrong')}\n"


@pytest.mark.parametrize("barrier", [*barriers(REDUCE), *barriers(SUMS)], ids=str)
def test_every_barrier_of_the_sums_is_needed(barrier: Barrier) -> None:
    done = drive_threads(REDUCE, {}, barrier.replaced_by(""))
    assert done.returncode in (CONFLICT, UNEXPECTED), done.stderr


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_a_read_out_of_bounds_is_seen(name: str) -> None:
    done = drive(
        build({}, source=REDUCE, sanitize="address", patch=planted(*OUT_OF_BOUNDS[name])), "address", source=REDUCE
    )
    assert done.returncode == 1, done.stderr
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert ".cu" in done.stderr


@pytest.mark.parametrize("options", SWAPS, ids=lambda options: "-".join(options.values()))
def test_the_exchange_stays_in_bounds(options: dict[str, str]) -> None:
    options = {"KERNEL": "swap", "ELEMENT": "Exchange", **options}
    assert_clean(drive(build(options, source=SWAP, sanitize="address"), "address", source=SWAP))
    assert_clean(drive_threads(SWAP, options))


SWAP_FAULTS = {
    "averages stay": ("if constexpr (ELEMENT::EXCHANGES) beside.element[j] = weight;", "", "an average"),
    "masters stay": ("store(companions, place, companion);", "", "a master"),
    "tensors without an average": ("if (element.beside == 0) continue;", "", "null pointer"),
}


@pytest.mark.parametrize("name", SWAP_FAULTS)
def test_a_wrong_exchange_is_seen(name: str) -> None:
    old, new, message = SWAP_FAULTS[name]
    options = {"KERNEL": "swap", "ELEMENT": "Exchange", "PARAM": "bfloat16", "COMPANION": "float"}
    done = drive(build(options, source=SWAP, sanitize="address", patch=planted(SWAP, old, new)), "address", source=SWAP)
    assert done.returncode != 0
    assert message in done.stderr

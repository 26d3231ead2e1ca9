"""The norms behind trust ratios under the sanitizers: `host/measure_driver.cpp` compares the ratios with plain sums.

Parts are made of three chunks here, so that few elements make many of them.
"""

import host_kernels
import pytest
from host_kernels import CONFLICT, UNEXPECTED, Patch, build, drive, macros, planted
from optional import missing
from sanitizers import Barrier, assert_clean, barriers, drive_threads


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    if host_kernels.COMPILER is None:
        missing("no g++ to compile the kernels with")


MEASURE = "measure.cu"
KINDS = {
    "float32": macros("lamb"),
    "float64": macros("lamb", "double", "double", ("double", "double", "Absent")),
    "mixed": macros("lamb", "float", "bfloat16", ("bfloat16", "bfloat16", "Absent")),
    "master": macros("lamb", "float16", "float16", COMPANION="float"),
    "remainder": macros("lamb", "bfloat16", "bfloat16", COMPANION="Remainder"),
    "8-bit states": macros("lamb", "bfloat16", "float", ("Signed8", "Unsigned8", "Absent")),
}
START = "    forget_coefficients(scratch);"
FAULTS = {  # and what the driver says
    "tickets of the step": (START, START + " atomicAdd(&launch.progress->ticket, 1u);", "the ticket of the step"),
    "the part before": ("chunk.part - chunk.index / SPAN)", "chunk.part)", "a ratio is wrong"),
    "a part that is not complete": (
        "min(SPAN, chunks - chunk.index + place)",
        "max(1, min(SPAN, chunks - chunk.index + place) - 1)",
        "a ",
    ),
    "a limit that is forgotten": ("ratio > limit ? limit : ratio", "ratio", "a ratio is wrong"),
    "tensors that are not to be adapted": ("limit == 0.0 ||", "", "a ratio is wrong"),
    "an element left out": ("j < place.left", "j < place.left - 1", "a ratio is wrong"),
    "a step that is not applied": ("if (judge(launch, scratch) != APPLY) return;", "judge(launch, scratch);", "a step"),
}


def short_parts(fault: Patch | None = None) -> Patch:
    """Parts of three chunks, and a fault."""
    shorten = planted("tables.cuh", "constexpr int SPAN = 256;", "constexpr int SPAN = 3;")
    return lambda name, text: shorten(name, fault(name, text) if fault else text)


@pytest.mark.parametrize("kind", KINDS)
def test_ratios_are_right_and_stay_in_bounds(kind: str) -> None:
    library = build(KINDS[kind], source=MEASURE, sanitize="address", patch=short_parts())
    assert_clean(drive(library, "address", source=MEASURE))


@pytest.mark.parametrize("kind", ["float32", "8-bit states"])
def test_ratios_have_no_race_within_or_between_blocks(kind: str) -> None:
    assert_clean(drive_threads(MEASURE, KINDS[kind], short_parts()))


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_ratio_is_seen(name: str) -> None:
    old, new, message = FAULTS[name]
    done = drive(build(KINDS["float32"], source=MEASURE, patch=short_parts(planted(MEASURE, old, new))), source=MEASURE)
    assert done.returncode == UNEXPECTED, done.stderr
    assert done.stderr.startswith(f"driver: {message}")


@pytest.mark.parametrize("barrier", barriers(MEASURE), ids=str)
def test_every_barrier_of_measuring_is_needed(barrier: Barrier) -> None:
    done = drive_threads(MEASURE, KINDS["float32"], short_parts(barrier.replaced_by("")))
    assert done.returncode in (CONFLICT, UNEXPECTED), done.stderr


def test_edges_that_are_read_whole_are_seen() -> None:
    fault = planted("granules.cuh", "if (j < place.left) granule.element[j]", "granule.element[j]")
    library = build(KINDS["float32"], source=MEASURE, sanitize="address", patch=short_parts(fault))
    done = drive(library, "address", source=MEASURE)
    assert done.returncode == 1, done.stderr
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr

"""THE launch under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without a GPU.

`host/step_driver.cpp` runs every case: steps with fresh and stale rows, one that is skipped, two that are held; tensors
around the edges of tiles and chunks, one empty, one off the 16-byte boundary, one without a gradient; four cohorts. A
check that nothing can fail proves nothing, so each comes with faults planted in the kernels' source.
"""

import subprocess
from itertools import product

import host_kernels
import optional
import pytest
from host_kernels import CONFLICT, UNEXPECTED, build, drive, macros, planted
from optional import missing
from sanitizers import Barrier, assert_clean, barriers, drive_threads


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    if host_kernels.COMPILER is None:
        missing("no g++ to compile the kernels with")


FLOAT, DOUBLE, ABSENT = "float", "double", "Absent"


def adam(storage: str, has_maximum: bool) -> dict[str, str]:
    return macros("adam", storage, storage, (storage, storage, storage if has_maximum else ABSENT))


def rmsprop(storage: str, has_mean: bool, has_buffer: bool) -> dict[str, str]:
    states = (storage, storage if has_mean else ABSENT, storage if has_buffer else ABSENT)
    return macros("rmsprop", storage, storage, states)


def sgd(storage: str, has_buffer: bool) -> dict[str, str]:
    return macros("sgd", storage, storage, (storage if has_buffer else ABSENT, ABSENT, ABSENT))


PLAIN = [
    *(adam(storage, has_maximum) for storage, has_maximum in product((FLOAT, DOUBLE), (False, True))),
    *(macros("nadam", storage, storage, (storage, storage, ABSENT)) for storage in (FLOAT, DOUBLE)),
    *(sgd(*which) for which in product((FLOAT, DOUBLE), (False, True))),
    *(rmsprop(*which) for which in product((FLOAT, DOUBLE), (False, True), (False, True))),
]
AMSGRAD = adam(FLOAT, True)  # the faults below do not depend on the rule
HALF, BRAIN = "float16", "bfloat16"
MOMENTS = (FLOAT, FLOAT, ABSENT)
QUANTISED = macros("adam", FLOAT, FLOAT, ("Signed8", "Unsigned8", ABSENT))
RECIPES = {
    "mixed": macros("adam", FLOAT, BRAIN, MOMENTS),
    "master": macros("adam", BRAIN, BRAIN, MOMENTS, COMPANION="float", EMA="float"),
    "remainder": macros("adam", BRAIN, BRAIN, MOMENTS, COMPANION="Remainder"),
    "stochastic": macros("adam", HALF, HALF, MOMENTS, STOCHASTIC="1"),
    "bfloat16 states": macros("adam", FLOAT, FLOAT, (BRAIN, BRAIN, ABSENT)),
    "8-bit states": QUANTISED,
    "zero_grads": macros("sgd", FLOAT, FLOAT, (FLOAT, ABSENT, ABSENT), ZERO_GRADS="1"),
    "all at once": macros(
        "rmsprop", BRAIN, HALF, ("Unsigned8", "Signed8", BRAIN), COMPANION="float", EMA="float", ZERO_GRADS="1"
    ),
}

FINISH = "if (is_last_block(launch, scratch)) prepare_next(launch, verdict, scratch);"
NOT_LAST = FINISH + " else if ({}) launch.progress->skipped = 9;"

WIDE_STORE = "*global(reinterpret_cast<Granule<Storage, SIZE>*>(elements)) = granule;"
EDGE_STORE = "if (j < place.left) global(elements)[j] = granule.element[j];"
OUT_OF_BOUNDS = {
    "one granule too many": (AMSGRAD, planted("granules.cuh", "index < whole;", "index <= whole;")),
    "store of the next granule": (
        AMSGRAD,
        planted("granules.cuh", WIDE_STORE, WIDE_STORE.replace("elements", "elements + SIZE")),
    ),
    "edges that are stored whole": (AMSGRAD, planted("granules.cuh", EDGE_STORE, EDGE_STORE.partition(") ")[2])),
    "scale of the next block": (
        QUANTISED,
        planted("granules.cuh", "place.index / BLOCK8)", "place.index / BLOCK8 + 1)"),
    ),
}
MISALIGNED = {
    "wide granules": (AMSGRAD, planted("granules.cuh", "wide ? count - count %", "true ? count - count %")),
    "scales": (QUANTISED, planted("granules.cuh", "/ SCALE_ALIGNMENT * SCALE_ALIGNMENT +", "+")),
}

WRONG = {
    "average": ("master", planted("step.cu", "store(arrays.ema, place, ema);", "")),
    "master": ("master", planted("step.cu", "store(arrays.companion, place, companion);", "")),
    "scale": ("8-bit states", planted("granules.cuh", "*scale_of(array, place) = scale;", ";")),
    "gradient": ("zero_grads", planted("step.cu", "if constexpr (ZERO_GRADS) store", "if constexpr (false) store")),
    "gradient of a skipped step": (
        "zero_grads",
        planted("step.cu", "else if (ZERO_GRADS && found == SKIP)", "else if (false)"),
    ),
    "skipped step": ("master", planted("walk.cuh", "must_skip(launch) ? SKIP : APPLY", "APPLY")),
    "held step": ("master", planted("walk.cuh", "if (is_at_fault) return HOLD;", "")),
}
RACES = {  # what the launch reads must be read before its block takes a ticket
    "clock": planted("step.cu", FINISH, NOT_LAST.format("launch.clocks[0].step < 0")),
    "row": planted("step.cu", FINISH, NOT_LAST.format("launch.rows[0] < -1.0")),
}

BARRIERS = [*barriers("step.cu"), *barriers("walk.cuh"), *barriers("granules.cuh")]


def kernel_name(options: dict[str, str]) -> str:
    return options["KERNEL"]


@pytest.mark.parametrize("options", [*PLAIN, *RECIPES.values()], ids=kernel_name)
def test_no_access_out_of_bounds_or_misaligned(options: dict[str, str]) -> None:
    assert_clean(drive(build(options, sanitize="address"), "address"))


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_access_out_of_bounds_is_seen(name: str) -> None:
    options, patch = OUT_OF_BOUNDS[name]
    done = drive(build(options, sanitize="address", patch=patch), "address")
    assert done.returncode == 1, done.stderr
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "granules.cuh:" in done.stderr


@pytest.mark.parametrize("name", MISALIGNED)
def test_misaligned_access_is_seen(name: str) -> None:
    options, patch = MISALIGNED[name]
    done = drive(build(options, sanitize="address", patch=patch), "address")
    assert done.returncode == 1, done.stderr
    assert "misaligned address" in done.stderr
    assert "granules.cuh:" in done.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_outcome_is_seen(name: str) -> None:
    recipe, patch = WRONG[name]
    done = drive(build(RECIPES[recipe], patch=patch))
    assert done.returncode == UNEXPECTED
    assert done.stderr.startswith("driver: a"), done.stderr


@pytest.mark.parametrize("options", [AMSGRAD, *RECIPES.values()], ids=kernel_name)
def test_no_race_within_or_between_blocks(options: dict[str, str]) -> None:
    assert_clean(drive_threads("step.cu", options))


@pytest.mark.parametrize("name", RACES)
def test_read_after_the_ticket_is_seen(name: str) -> None:
    done = drive_threads("step.cu", AMSGRAD, RACES[name])
    assert done.returncode == CONFLICT, done.stderr
    assert "ThreadSanitizer: data race" in done.stderr
    assert "step.cu:" in done.stderr


@pytest.mark.parametrize("barrier", BARRIERS, ids=str)
def test_every_barrier_is_needed(barrier: Barrier) -> None:
    """A race is seen when threads happen to meet, about every other time: ten runs miss it once in a thousand times."""
    # QUANTISED alone has the barriers of 8-bit states; a lost race may spoil the outcome before it is seen
    runs = (drive_threads("step.cu", QUANTISED, barrier.replaced_by("")).returncode for _ in range(10))
    assert any(code in (CONFLICT, UNEXPECTED) for code in runs)


@pytest.mark.parametrize("is_ci", [False, True])
def test_races_that_cannot_be_looked_for_are_a_failure_in_ci(is_ci: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "setarch: failed to set personality to x86_64")
    monkeypatch.setattr(host_kernels, "drive", lambda *arguments, **settings: done)
    monkeypatch.setattr(optional, "IN_CI", is_ci)
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="ThreadSanitizer") as caught:
        drive_threads("step.cu", AMSGRAD)
    assert caught.type is (pytest.fail.Exception if is_ci else pytest.skip.Exception)


def test_divergent_barrier_ends_the_run() -> None:
    patch = BARRIERS[0].replaced_by("if (threadIdx.x != 0) __syncthreads();")
    done = drive(build({**AMSGRAD, "HOST_TIMEOUT": "1"}, patch=patch))
    assert done.returncode < 0
    assert "does not come to a barrier" in done.stderr


def test_shared_memory_that_nobody_wrote_is_garbage() -> None:
    patch = planted("walk.cuh", "if (threadIdx.x == 0) scratch.fault = NO_FAULT;", "")
    assert drive(build(AMSGRAD, patch=patch)).returncode == UNEXPECTED


def test_patch_that_plants_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        build(AMSGRAD, patch=planted("step.cu", "no such text", ""))

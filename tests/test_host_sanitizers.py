"""THE launch under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without a GPU.

`host/driver.cpp` runs every case: steps with fresh and stale rows, then two that are held; tensors around the
edges of tiles and chunks, one empty, one off the 16-byte boundary, one without a gradient; four cohorts. A check that
nothing can fail proves nothing, so each comes with faults planted in the kernels' source.
"""

import re
import subprocess
from itertools import product

import host_kernels
import optional
import pytest
from host_kernels import CONFLICT, UNEXPECTED, Patch, build, drive, macros, planted
from optional import missing


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


SPECIALISATIONS = [
    *(adam(storage, has_maximum) for storage, has_maximum in product((FLOAT, DOUBLE), (False, True))),
    *(rmsprop(*which) for which in product((FLOAT, DOUBLE), (False, True), (False, True))),
]
AMSGRAD = adam(FLOAT, True)  # the faults below do not depend on the rule

FINISH = "if (is_last_block(launch, scratch)) prepare_next(launch, hold, scratch);"
NOT_LAST = FINISH + " else if ({}) launch.progress->unused = 1;"

OUT_OF_BOUNDS = {
    "one granule too many": planted("step.cu", "i < count / SIZE", "i <= count / SIZE"),
    "store of the next granule": planted("step.cu", "params.store(i, param)", "params.store(i + 1, param)"),
    "store of the next state": planted("step.cu", "states0.store(i, state0)", "states0.store(i + 1, state0)"),
}
MISALIGNED = planted("step.cu", "tensor.wide ? count - count % WIDE : 0", "count - count % WIDE")

RACES = {  # what the launch reads must be read before its block takes a ticket
    "clock": planted("step.cu", FINISH, NOT_LAST.format("launch.clocks[0].step < 0")),
    "row": planted("step.cu", FINISH, NOT_LAST.format("launch.rows[0] < -1.0")),
}

STEP = (host_kernels.KERNELS / "step.cu").read_text()
BARRIERS = [match.span() for match in re.finditer(r"__sync(threads|warp)\(\);", STEP)]


def at(span: tuple[int, int], text: str) -> Patch:
    """A patch that puts `text` in the place of a part of step.cu."""
    return lambda name, old: old[: span[0]] + text + old[span[1] :] if name == "step.cu" else old


def line(span: tuple[int, int]) -> str:
    return f"line{STEP.count(chr(10), 0, span[0]) + 1}"


def kernel_name(options: dict[str, str]) -> str:
    return options["KERNEL"]


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout == "driver: as expected\n"
    assert done.stderr == ""


def drive_threads(patch: Patch | None = None) -> subprocess.CompletedProcess[str]:
    done = drive(build(AMSGRAD, sanitize="thread", patch=patch), "thread", copies=2)
    if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
        missing("ThreadSanitizer of this g++ cannot run under this kernel's address randomisation")
    return done


@pytest.mark.parametrize("options", SPECIALISATIONS, ids=kernel_name)
def test_no_access_out_of_bounds_or_misaligned(options: dict[str, str]) -> None:
    assert_clean(drive(build(options, sanitize="address"), "address"))


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_access_out_of_bounds_is_seen(name: str) -> None:
    done = drive(build(AMSGRAD, sanitize="address", patch=OUT_OF_BOUNDS[name]), "address")
    assert done.returncode == 1
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "formats.cuh:" in done.stderr


def test_misaligned_access_is_seen() -> None:
    done = drive(build(AMSGRAD, sanitize="address", patch=MISALIGNED), "address")
    assert done.returncode == 1
    assert "misaligned address" in done.stderr
    assert "formats.cuh:" in done.stderr


def test_no_race_within_or_between_blocks() -> None:
    assert_clean(drive_threads())


@pytest.mark.parametrize("name", RACES)
def test_read_after_the_ticket_is_seen(name: str) -> None:
    done = drive_threads(RACES[name])
    assert done.returncode == CONFLICT, done.stderr
    assert "ThreadSanitizer: data race" in done.stderr
    assert "step.cu:" in done.stderr


@pytest.mark.parametrize("span", BARRIERS, ids=line)
def test_every_barrier_is_needed(span: tuple[int, int]) -> None:
    done = drive_threads(at(span, ""))
    assert done.returncode in (CONFLICT, UNEXPECTED), done.stderr  # a lost race may spoil the outcome before it is seen


@pytest.mark.parametrize("is_ci", [False, True])
def test_races_that_cannot_be_looked_for_are_a_failure_in_ci(is_ci: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "setarch: failed to set personality to x86_64")
    monkeypatch.setitem(globals(), "drive", lambda *arguments, **settings: done)
    monkeypatch.setattr(optional, "IN_CI", is_ci)
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="ThreadSanitizer") as caught:
        drive_threads()
    assert caught.type is (pytest.fail.Exception if is_ci else pytest.skip.Exception)


def test_divergent_barrier_ends_the_run() -> None:
    patch = at(BARRIERS[0], "if (threadIdx.x != 0) __syncthreads();")
    done = drive(build({**AMSGRAD, "HOST_TIMEOUT": "1"}, patch=patch))
    assert done.returncode < 0
    assert "does not come to a barrier" in done.stderr


def test_shared_memory_that_nobody_wrote_is_garbage() -> None:
    patch = planted("step.cu", "if (threadIdx.x == 0) scratch.fault = NO_FAULT;", "")
    assert drive(build(AMSGRAD, patch=patch)).returncode == UNEXPECTED


def test_patch_that_plants_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        build(AMSGRAD, patch=planted("step.cu", "no such text", ""))

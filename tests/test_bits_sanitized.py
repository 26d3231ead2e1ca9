"""The comparison of bits once more, with the CUDA source under AddressSanitizer and UndefinedBehaviorSanitizer.

The sanitizers' runtime is loaded before Python, so that every NumPy array is guarded on both sides.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import host_kernels
import pytest
from optional import missing


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    if host_kernels.COMPILER is None:
        missing("g++ is not there to compile the kernels")


TESTS = Path(__file__).parent
PLANTED = """
import sys
import numpy as np, pytest
import host_backend, host_kernels, gpuadam
host_backend.PATCH = host_kernels.planted("granules.cuh", *sys.argv[1:])
with pytest.MonkeyPatch.context() as patch:
    params = [np.ones(1024, np.float32), np.ones(1024, np.float32)]
    optimizer = host_backend.optimizer_on(host_backend, patch, gpuadam.Adam, params)
optimizer.step([np.ones(1024, np.float32), None])
print("not seen")
"""
WIDE_STORE = "*global(reinterpret_cast<Granule<Storage, SIZE>*>(elements)) = granule;"
FAULTS = {  # the tensor behind rests: were its states next in memory, what is written to them would be lost
    "one granule too many": ("index < whole;", "index <= whole;"),
    "store of the next granule": (WIDE_STORE, WIDE_STORE.replace("elements", "elements + SIZE")),
    "store of the next granule of a state": (
        "place.index + j));\n        store(array, place, stored);",
        "place.index + j));\n        store(array, Place<WIDE>{place.index + SIZE, place.left}, stored);",
    ),
}


def runtime(name: str) -> str:
    """Path of a library of the compiler's."""
    found = subprocess.run(
        [shutil.which("g++"), f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def run_sanitized(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "GPUADAM_HOST_SANITIZE": "1",
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=400, cwd=TESTS.parent, check=False
    )


SELECTIONS = {
    "plain": (
        ["tests/test_bits.py", "tests/test_norms.py"],
        "every_rule or sizes_around or block_of_256 or every_grid",
    ),
    "recipe": (["tests/test_bits_recipe.py"], "sanitized_subset"),
    "schedule-free": (["tests/test_schedule_free.py"], "both_backends and SGD and (float32-None or remainder)"),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_rule_option_and_format_is_clean_and_equal(selection):
    files, names = SELECTIONS[selection]
    arguments = ["-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q"]
    done = run_sanitized(*arguments, *files, "-k", names)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_access_out_of_bounds_is_reported(name):
    done = run_sanitized("-c", PLANTED, *FAULTS[name])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "granules.cuh" in done.stderr

"""Machine code kept on disk: found again, never mistaken for another's, never older than the text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuadam import jit

ROOT = Path(__file__).parents[1]
STEP = """
import sys
import numpy as np
import gpuadam

def run(form, **options):
    weight = np.ones((1, 5), form)
    optimizer = gpuadam.Adam([weight], lr=0.1, betas=(0.0, 0.0), **options)
    for grad in (4.0, 1.0):
        optimizer.step([np.full((1, 5), grad, form)])
    return weight[0, 0]

OPTIONS = {
    "plain": {},
    "amsgrad": {"amsgrad": True},
    "master": {"master": "float32"},
    "int8": {"state_dtype": "int8", "int8_from": 0},
}
for kind in sys.argv[1:]:
    form, option = kind.split("-")
    print(kind, f"{run(form, **OPTIONS[option]):.3f}")
"""
VALUES = {
    "plain": "0.800",
    "amsgrad": "0.875",
    "master": "0.800",
    "int8": "0.800",
}  # 1 - 0.1 - 0.1, or 1 - 0.1 - 0.1 / 4
KINDS = [f"{form}-{option}" for form in ("float32", "float64") for option in ("plain", "amsgrad")]
EXPECTED = {
    kind: f"{kind} {VALUES[kind.partition('-')[2]]}"
    for kind in (*KINDS, "float16-plain", "float16-master", "float32-int8")
}


def run(folder, *kinds):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STEP, *kinds], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.splitlines()


def test_kernels_compiled_by_different_processes_are_told_apart(tmp_path):
    """Numba numbers its symbols by process, so two of them may give two kernels one name, unless we name them."""
    for kind in EXPECTED:
        assert run(tmp_path, kind) == [EXPECTED[kind]]
    files = sorted(tmp_path.rglob("*.nbc"))
    assert run(tmp_path, *EXPECTED) == list(EXPECTED.values())
    assert sorted(tmp_path.rglob("*.nbc")) == files, "something was compiled again"


def test_functions_of_other_text_get_other_names(monkeypatch):
    def make(value):
        return jit.keyed(lambda x: x + value)

    assert make(1).__qualname__ == make(1).__qualname__ != make(2).__qualname__
    before = make(1).__qualname__
    monkeypatch.setattr(jit, "source_digest", lambda: "another text")
    assert make(1).__qualname__ != before


@pytest.mark.parametrize("changed", jit.COMPILED)
def test_the_digest_sees_every_file_that_is_compiled(changed, monkeypatch):
    before = jit.source_digest.__wrapped__()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.stem == changed))
    assert jit.source_digest.__wrapped__() != before

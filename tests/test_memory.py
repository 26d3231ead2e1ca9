"""Memory: what docs/recipe.md says that each mode takes is what is allocated, and a step allocates nothing."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bfloat16 import ml_dtypes

import gpuadam

SHAPE = (1024, 2048)
NUMEL = 1024 * 2048
TABLES = 24 / 1024  # bytes an element: each chunk has a row of 16 and a sum of 8
FIXED = 400_000  # bytes of tables and objects, whatever the number of elements
BUFFERS = 100_000  # bytes that threads may decode 8-bit states into; a temporary array would have 20 times as many
PAGE = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text()
ROW = re.compile(r"^\| (float\d+|bfloat16) \| (\w+) \| (\w+) \| (.+) \|$", re.MULTILINE)
ROWS = [(*row[:3], *map(float, row[3].split(" | "))) for row in ROW.findall(PAGE)]


def make(dtype, master, state_dtype, **settings):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    param, grad = np.ones(SHAPE, kind), np.ones(SHAPE, kind)
    master = None if master == "none" else master
    optimizer = gpuadam.AdamW([param], lr=1e-3, master=master, state_dtype=state_dtype, **settings)
    return optimizer, param, grad


def own_bytes(optimizer):
    """Bytes a weight of each of the optimizer's own arrays; a state with its scales."""
    found = {"states": 0.0, "master": 0.0, "ema": 0.0}
    for name, array in optimizer._engine.tensors.arrays[0].items():
        place = {"remainder": "master", "master": "master", "ema": "ema"}.get(name, "states")
        found[place] += array.nbytes / NUMEL
    return found


def test_the_page_has_every_mode():
    modes = {row[:3] for row in ROWS}
    assert len(modes) == len(ROWS) == 13
    assert {dtype for dtype, _, _ in modes} == {"float64", "float32", "bfloat16", "float16"}
    assert {master for _, master, _ in modes} == {"none", "float32", "remainder"}
    assert {state for _, _, state in modes} == {"float32", "bfloat16", "int8"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:3]))
def test_the_bytes_of_a_mode(row):
    dtype, master, state_dtype, weight, gradient, states, beside, total, moved = row
    optimizer, param, grad = make(dtype, master, state_dtype)
    assert (param.nbytes / NUMEL, grad.nbytes / NUMEL) == (weight, gradient)
    assert own_bytes(optimizer) == {"states": states, "master": beside, "ema": 0}
    assert total == weight + gradient + states + beside
    assert moved == 2 * (weight + states + beside) + gradient


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 4), ("float64", 8)])
def test_the_bytes_of_an_average(dtype, size):
    optimizer, _, _ = make(dtype, "none", "float32", ema_decay=0.9)
    assert own_bytes(optimizer)["ema"] == size


WHOLE = {"clip_norm": 1.0, "nonfinite": "skip", "ema_decay": 0.9, "zero_grads": True}
MODES = [("float32", "none", "int8"), ("bfloat16", "remainder", "bfloat16"), ("float32", "none", "float32")]


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_nothing_is_held_beside_the_arrays(mode):
    make(*mode, **WHOLE)  # what is compiled stays
    tracemalloc.start()
    optimizer, param, grad = make(*mode, **WHOLE)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    own = sum(own_bytes(optimizer).values()) * NUMEL
    assert own <= held - param.nbytes - grad.nbytes <= own + TABLES * NUMEL + FIXED


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_a_step_allocates_nothing(mode):
    optimizer, _, grad = make(*mode, **WHOLE)
    optimizer.bind([grad])
    optimizer.step()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(3):
        optimizer.step()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < BUFFERS
    assert after - before < 10_000

"""Bytes an element: what is held is what is allocated, and what a step moves is what it reads and what it changes."""

import importlib
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
from bfloat16 import ml_dtypes

import gpuadam
from gpuadam import traffic
from gpuadam.formats import Specialisation

SHAPE, NUMEL = (128, 256), 128 * 256
# mode of benchmarks/modes.py: bytes that a step reads for each element, and that it writes, counted by hand
BY_HAND = {
    "plain": (16, 12),
    "clip_norm": (4 + 16, 12),
    "clip_value": (16, 12),
    "nonfinite='skip'": (4 + 16, 12),
    "ema_decay": (20, 16),
    "zero_grads": (16, 16),
    "amsgrad": (20, 16),
    "clip_norm, ema_decay": (4 + 20, 16),
    "state_dtype='bfloat16'": (12, 8),
    "state_dtype='int8'": (10 + 8 / 256, 6 + 8 / 256),
    "bfloat16": (12, 10),
    "bfloat16, stochastic": (12, 10),
    "bfloat16, remainder": (14, 12),
    "bfloat16, master": (16, 14),
    "float16": (12, 10),
}


@pytest.fixture
def modes(monkeypatch):
    """benchmarks/modes.py as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield importlib.import_module("modes")
    sys.modules.pop("modes", None)


def made(kind, dtype, grad_dtype=None, **settings):
    """An optimizer that has taken a step, its parameter and its gradient, which are random."""
    rng = np.random.default_rng(0)
    param, grad = rng.standard_normal(SHAPE).astype(dtype), rng.standard_normal(SHAPE).astype(grad_dtype or dtype)
    optimizer = kind([param], lr=1e-2, **settings)
    optimizer.step([grad])
    return optimizer, param, grad


def of(optimizer):
    engine = optimizer._engine
    return engine.kinds[0], engine.tensors.scope_count > 0


def test_the_modes_of_the_benchmark_move_what_was_counted_by_hand(modes):
    assert list(modes.MODES) == list(BY_HAND)
    for mode, (read, written) in BY_HAND.items():
        optimizer = modes.make(mode, 25_000)
        assert modes.bytes_per_element(optimizer) == read + written, mode


WAYS = [
    (gpuadam.AdamW, np.float32, {}),
    (gpuadam.AdamW, np.float64, {"ema_decay": 0.9}),
    (gpuadam.AdamW, np.float32, {"amsgrad": True, "zero_grads": True}),
    (gpuadam.AdamW, ml_dtypes.bfloat16, {"master": "remainder", "ema_decay": 0.9, "grad_dtype": np.float32}),
    (gpuadam.AdamW, ml_dtypes.bfloat16, {"master": "float32", "state_dtype": "int8", "zero_grads": True}),
    (gpuadam.AdamW, np.float16, {"state_dtype": "bfloat16", "grad_dtype": np.float32}),
    (gpuadam.RMSprop, np.float32, {"centered": True, "momentum": 0.9}),
    (gpuadam.SGD, np.float32, {}),
    (gpuadam.Lion, np.float32, {}),
    (gpuadam.SGDScheduleFree, np.float32, {}),
]


@pytest.mark.parametrize(("rule", "dtype", "settings"), WAYS, ids=str)
def test_what_is_held_is_there_and_what_is_written_changes(rule, dtype, settings):
    """Of random numbers a step changes every array that it writes."""
    optimizer, param, grad = made(rule, dtype, **settings)
    own = optimizer._engine.tensors.arrays[0]
    arrays = {"param": param, "grad": grad, **own}
    before = {name: array.tobytes() for name, array in arrays.items()}
    if settings.get("zero_grads"):
        grad[...] = 1.0
        before["grad"] = grad.tobytes()
    optimizer.step([grad])
    written = sum(array.nbytes for name, array in arrays.items() if array.tobytes() != before[name])
    kind, sums = of(optimizer)
    held = traffic.held(kind)
    assert sum(held) == sum(array.nbytes for array in arrays.values()) / NUMEL
    assert (held.param, held.grad) == (param.nbytes / NUMEL, grad.nbytes / NUMEL)
    companion = own.get("master", own.get("remainder", np.empty(0)))
    assert (held.companion, held.ema) == (companion.nbytes / NUMEL, own.get("ema", np.empty(0)).nbytes / NUMEL)
    assert traffic.traffic(kind, sums) == sum(held) + written / NUMEL


@pytest.mark.parametrize("settings", [{"clip_norm": 1.0}, {"nonfinite": "skip"}], ids=str)
def test_sums_read_the_gradients_once_more(settings):
    optimizer, _, _ = made(gpuadam.AdamW, ml_dtypes.bfloat16, **settings)
    kind, sums = of(optimizer)
    assert sums
    assert traffic.traffic(kind, sums) == 2 + 22


def test_lamb_goes_twice_the_same_way():
    """docs/design.md: 28 bytes become 44."""
    optimizer, _, _ = made(gpuadam.LAMB, np.float32)
    assert traffic.traffic(*of(optimizer)) == 44


@pytest.mark.parametrize("rule", cases.RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_has_its_bytes(rule):
    found = Specialisation(rule, "float32", "float32", ("float32",) * len(rule.states))
    assert sum(traffic.held(found)) == 8 + 4 * len(rule.states)

"""Trust ratios: the norms behind them, whose bits depend on neither grid nor threads, and the launch that sums them."""

import math

import host_backend
import host_kernels
import numba
import numpy as np
import oracle_lamb
import pytest
from bfloat16 import ml_dtypes
from cases import LAMB, LR, gradients, parameters
from fake_device import machine
from fake_twins import Twins, arrays, stand_in  # noqa: F401 (a fixture)
from host_backend import optimizer_on

import gpuadam
from gpuadam import cpu

GRIDS = (1, 2, 3, 7)
LARGE = [
    (1025 + 256 * 1024, np.float32),
    (70, np.float32),
    (256 * 1024, np.float32),
]  # two parts, one, one that is full
MIXED = [(1025, np.float32), (0, np.float32), (1, np.float64), (3001, np.float16), (1100, ml_dtypes.bfloat16)]
SMALL = [(1025, np.float32), (3001, np.float32), (70, np.float32)]
OPTIONS = {"eps": 1e-3, "weight_decay": 0.05}

needs_compiler = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")


def run(backend, monkeypatch, kinds=SMALL, steps=3, **settings):
    """An optimizer of two groups after some steps; the rows for the second are stale, the last tensor rests in it."""
    params = [parameters(n, np.float64, seed=n).astype(dtype) for n, dtype in kinds]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03}]
    optimizer = optimizer_on(backend, monkeypatch, gpuadam.LAMB, groups, lr=LR, **OPTIONS, **settings)
    for step in range(steps):
        if step == 1:
            optimizer.set_hyperparameters(weight_decay=0.1)
        grads = [gradients(1, n, np.float64, seed=9 * step + n)[0].astype(dtype) for n, dtype in kinds]
        optimizer.step([*grads[:-1], None if step == 1 else grads[-1]])
    return params, optimizer


def seen(found):
    """What must not depend on who computes it."""
    params, optimizer = found
    tables = optimizer._engine.tables
    sums = b"".join(tables.download(name).tobytes() for name in ("part_norms", "trusts"))
    state = optimizer.state_dict()["state"]
    return sums, [param.tobytes() for param in params], [own["exp_avg"].tobytes() for own in state.values()]


@pytest.mark.parametrize("kinds", [LARGE, MIXED], ids=["large", "mixed"])
def test_norms_and_ratios_are_right(kinds, monkeypatch):
    """Those of the last step, from the parameters before it and the states after it."""
    (before, _), (_, optimizer) = run(cpu, monkeypatch, kinds, steps=2), run(cpu, monkeypatch, kinds)
    trusts, state = optimizer._engine.tables.download("trusts"), optimizer.state_dict()["state"]
    for i, old in enumerate(before):
        k = 2 if old is before[-1] else 3
        m, v = (np.asarray(state[i][name], np.float64) for name in ("exp_avg", "exp_avg_sq"))
        update = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-3) + 0.1 * old.astype(np.float64)
        expected = oracle_lamb.trust_ratio(old.astype(np.float64), update, math.inf)
        assert trusts[i] == pytest.approx(expected, rel=1e-6)
    assert len(set(trusts.tolist())) == len(kinds)  # an empty tensor's is 1


@needs_compiler
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.1, "clip_scope": "group"}], ids=["plain", "clipped"])
def test_every_grid_gives_the_bits_of_the_cpu(settings, monkeypatch):
    expected = seen(run(cpu, monkeypatch, MIXED, **settings))
    for grid in GRIDS:
        monkeypatch.setattr(host_backend, "GRID", grid)
        assert seen(run(host_backend, monkeypatch, MIXED, **settings)) == expected


@needs_compiler
@pytest.mark.parametrize("grid", [2, 7])
def test_tensors_of_many_parts_have_the_bits_of_the_cpu(grid, monkeypatch):
    monkeypatch.setattr(host_backend, "GRID", grid)
    assert seen(run(host_backend, monkeypatch, LARGE, steps=1)) == seen(run(cpu, monkeypatch, LARGE, steps=1))


@needs_compiler
def test_a_block_of_256_threads_gives_the_bits_of_the_cpu(monkeypatch):
    monkeypatch.setattr(host_backend, "BLOCK", 256)
    assert seen(run(host_backend, monkeypatch)) == seen(run(cpu, monkeypatch))


@pytest.mark.parametrize("threads", range(1, numba.config.NUMBA_NUM_THREADS + 1))
def test_every_number_of_threads_gives_the_same_bits(threads, monkeypatch):
    expected = seen(run(cpu, monkeypatch, LARGE))
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        assert seen(run(cpu, monkeypatch, LARGE)) == expected
    finally:
        numba.set_num_threads(before)


MEASURE, WALK, SUMS = "measure.cu", "walk.cuh", "sums.cuh"
SHARED = "shared[(i * WARP + lane) * SIZE + j]"
RATIO = "sqrt(norms.weight) / sqrt(norms.update)"
FAULTS = {
    "another order of the lanes": (
        SUMS,
        "int lanes = WARP / 2; lanes > 0; lanes /= 2",
        "int lanes = 1; lanes < WARP; lanes *= 2",
    ),
    "accumulators of other elements": (SUMS, SHARED, "shared[(i * SIZE + j) * WARP + lane]"),
    "the ratio of another tensor": (WALK, "__ldcg(trusts + own)", "__ldcg(trusts + (own ? own - 1 : own))"),
    "the coefficients of the tensor before": (WALK, "trusts ? chunk.tensor : tensor.scope", "tensor.scope"),
    "a ratio that is forgotten": (WALK, "lane == STEP_SIZE && trusts", "false"),
    "coefficients that are stale": (MEASURE, "if (judge(launch, scratch) != APPLY) return;", ""),
    "a gradient that is not clipped": (
        WALK,
        "if (lane == 0) value *= gradient_factor",
        "if (!lane && trusts) value *= gradient_factor",
    ),
    "parts of other chunks": (MEASURE, "2ll * (row - place)", "2ll * row"),
    "the last part alone": (MEASURE, "(chunk.part - chunk.index / SPAN), parts", "chunk.part, 1"),
    "parts that are one short": (MEASURE, "chunks - chunk.index + place)", "chunks - chunk.index + place) - 1"),
    "norms that are exchanged": (MEASURE, RATIO, "sqrt(norms.update) / sqrt(norms.weight)"),
}


OF_PARTS = ("parts of other chunks", "the last part alone", "parts that are one short")


@needs_compiler
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_seen(name, monkeypatch):
    settings = {"kinds": LARGE[:2], "steps": 1} if name in OF_PARTS else {"clip_norm": 0.1}
    expected = seen(run(cpu, monkeypatch, **settings))
    monkeypatch.setattr(host_backend, "PATCH", host_kernels.planted(*FAULTS[name]))
    assert seen(run(host_backend, monkeypatch, **settings)) != expected


# ---- launches


@needs_compiler
@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 1.0}], ids=["plain", "clipped"])
def test_each_set_of_formats_is_measured_before_any_is_updated(settings):
    pytest.importorskip("cupy")
    twins = Twins(gpuadam.LAMB, arrays(0), lr=LR, **settings)
    twins.bind(arrays(1))
    machine.copies.clear()
    machine.launches.clear()
    for _ in range(4):
        twins.both("step")
    assert machine.copies == []
    names = [launch.name for launch in machine.launches]
    own = [f"lamb_{form}_exp_avg_exp_avg_sq" for form in ("float32", "float64")]
    sums = ["reduce"] if settings else []
    assert names == 4 * [*sums, *(f"measure_{name}" for name in own), *own]
    assert len({(launch.name, launch.grid, launch.argument) for launch in machine.launches}) == 4 + len(sums)
    twins.check()


@pytest.mark.parametrize("case", LAMB, ids=lambda case: case.name)
def test_no_other_rule_measures(case):
    tables = case.optimizer([np.ones(5000)])._engine.tables
    assert [len(tables.download(name)) for name in ("chunk_norms", "part_norms", "trusts")] == [5, 1, 1]
    other = gpuadam.AdamW([np.ones(5000)])._engine.tables
    assert [len(other.download(name)) for name in ("chunk_norms", "part_norms", "trusts")] == [0, 0, 0]

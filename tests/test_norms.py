"""The norms of gradients: their values, and the same bits whatever the number of blocks or threads."""

import math

import host_backend
import host_kernels
import numba
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from cases import gradients, parameters
from host_backend import optimizer_on

import gpuadam
from gpuadam import cpu

GRIDS = (1, 2, 3, 7)
SIZES = [300_000, 0, 1, 1025, 3001]  # the first one alone has more chunks than a span holds
DTYPES = [np.float32, np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
SCALE = 8.0
SCOPES = {"global": [[0, 1, 2, 3, 4]], "group": [[0, 1, 2], [3, 4]], "tensor": [[0], [1], [2], [3], [4]]}

needs_compiler = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")


def some_gradients():
    """Numbers over many decades, so that another order of the additions has another sum; one off its boundary."""
    kinds = enumerate(zip(SIZES, DTYPES, strict=True))
    found = [gradients(1, n + 1, np.float32, seed=i)[0].astype(dtype) for i, (n, dtype) in kinds]
    return [grad[i % 2 :][: SIZES[i]] for i, grad in enumerate(found)]


def summed(backend, monkeypatch, scope):
    """An optimizer that has summed them, and its sums: a square root alone would hide what differs in the last bit."""
    arrays = [parameters(n, np.float32).astype(dtype) for n, dtype in zip(SIZES, DTYPES, strict=True)]
    groups = [{"params": arrays[:3]}, {"params": arrays[3:]}]
    optimizer = optimizer_on(backend, monkeypatch, gpuadam.SGD, groups, lr=0.1, clip_norm=1.0, clip_scope=scope)
    optimizer.step(some_gradients(), grad_scale=SCALE)
    tables = optimizer._engine.tables
    return optimizer, b"".join(tables.download(name).tobytes() for name in ("chunk_sums", "span_sums", "norms"))


def sums(backend, monkeypatch, scope="global"):
    return summed(backend, monkeypatch, scope)[1]


def sums_on_grid(grid, monkeypatch, scope="global"):
    monkeypatch.setattr(host_backend, "GRID", grid)
    return sums(host_backend, monkeypatch, scope)


@pytest.mark.parametrize("scope", SCOPES)
def test_norms_are_right(scope, monkeypatch):
    grads = some_gradients()
    expected = [
        math.sqrt(math.fsum(x * x for i in members for x in grads[i].astype(np.float64).tolist())) / SCALE
        for members in SCOPES[scope]
    ]
    np.testing.assert_allclose(summed(cpu, monkeypatch, scope)[0].gradient_norms(), expected, rtol=1e-14)


@needs_compiler
@pytest.mark.parametrize("scope", SCOPES)
def test_every_grid_gives_the_bits_of_the_cpu(scope, monkeypatch):
    expected = sums(cpu, monkeypatch, scope)
    for grid in GRIDS:
        assert sums_on_grid(grid, monkeypatch, scope) == expected


@pytest.mark.parametrize("threads", range(1, numba.config.NUMBA_NUM_THREADS + 1))
def test_every_number_of_threads_gives_the_same_bits(threads, monkeypatch):
    expected = sums(cpu, monkeypatch)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        assert sums(cpu, monkeypatch) == expected
    finally:
        numba.set_num_threads(before)


@needs_compiler
def test_another_order_of_the_additions_is_seen(monkeypatch):
    expected = sums(cpu, monkeypatch)
    halves, pairs = "int lanes = WARP / 2; lanes > 0; lanes /= 2", "int lanes = 1; lanes < WARP; lanes *= 2"
    monkeypatch.setattr(host_backend, "PATCH", host_kernels.planted("sums.cuh", halves, pairs))
    assert sums_on_grid(3, monkeypatch) != expected


@needs_compiler
def test_an_order_that_depends_on_the_grid_is_seen(monkeypatch):
    fault = ("__shfl_down_sync(~0u, value, lanes)", "__shfl_down_sync(~0u, value, blockIdx.x ? 16 / lanes : lanes)")
    monkeypatch.setattr(host_backend, "PATCH", host_kernels.planted("sums.cuh", *fault))
    assert len({sums_on_grid(grid, monkeypatch) for grid in GRIDS}) > 1

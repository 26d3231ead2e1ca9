"""Twins: one optimizer on the CPU and one like it on the stand-in for CuPy."""

import sys

import fake_cupy
import fake_device
import fake_kernels
import host_kernels
import numpy as np
import pytest
from cases import LR, assert_same_bits

import gpuadam
from gpuadam import cuda, expressions, nvrtc, schedules

NEEDS_COMPILER = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to make the kernels")


@pytest.fixture
def stand_in(monkeypatch):
    """`gpuadam.cuda` finds the stand-in where it looks for CuPy."""
    pytest.importorskip("cupy", reason="CuPy, whose binding of NVRTC the stand-in needs, is not installed")
    nvrtc.load_nvrtc()  # for this, CuPy itself is imported
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(host_kernels._cache() / "cubins"))
    monkeypatch.setattr(cuda, "cubin_path", fake_kernels.cubin_path)
    cuda.retired.clear()
    fake_device.reset()
    forget()
    yield
    forget()


def forget():
    cuda.load_kernel.cache_clear()
    cuda.unavailable_reason.cache_clear()


def numbers(seed, shape, dtype):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays(seed, dtypes=(np.float32, np.float64)):
    """Shapes that matter: empty, 0-d, around a chunk, permuted, off a 16-byte boundary."""
    found = []
    for dtype in dtypes:
        found += [numbers(seed + i, shape, dtype) for i, shape in enumerate([(0,), (), (3,), (1024,), (2051,)])]
        found += [np.asfortranarray(numbers(seed + 5, (33, 40), dtype)), numbers(seed + 6, 1031, dtype)[1:]]
    return found


def to_device(array):
    """A copy in the same order of elements, as far from a 16-byte boundary."""
    if array.ctypes.data % 16 and array.ndim == 1:
        return fake_cupy.asarray(np.concatenate([array[:1], array]))[1:]
    return fake_cupy.asarray(array)


class Twins:
    """One optimizer on the CPU, and one like it on the stand-in."""

    def __init__(self, make, params, layout=list, **settings):
        self.params = params
        self.mirrors = [to_device(param) for param in params]
        self.host = make(layout(self.params), **settings)
        self.device = make(layout(self.mirrors), **settings)

    def both(self, method, *arguments, **settings):
        for optimizer in (self.host, self.device):
            getattr(optimizer, method)(*arguments, **settings)

    def bind(self, grads):
        self.host.bind(grads)
        self.device.bind([None if grad is None else to_device(grad) for grad in grads])

    def step(self, grads):
        self.host.step(grads)
        self.device.step([None if grad is None else to_device(grad) for grad in grads])

    def check(self):
        assert_same_state(self.host.state_dict(), self.device.state_dict())
        for i, (param, mirror) in enumerate(zip(self.params, self.mirrors, strict=True)):
            assert_same_bits(param, mirror.get(), f"parameter {i}")


def assert_same_state(ours, theirs):
    assert {**ours, "state": 0} == {**theirs, "state": 0}
    for name, own in ours["state"].items():
        for key, value in own.items():
            if isinstance(value, np.ndarray):
                assert_same_bits(value, theirs["state"][name][key], f"{key} of {name}")
            else:
                assert value == theirs["state"][name][key]


def adamw(*sizes, bound=True, **settings):
    """Twins of AdamW in float32, few elements, with gradients bound."""
    params = [numbers(i, size, np.float32) for i, size in enumerate(sizes or (1500, 7))]
    twins = Twins(gpuadam.AdamW, params, **{"lr": LR, **settings})
    if bound:
        twins.bind([numbers(10 + i, param.shape, np.float32) for i, param in enumerate(params)])
    return twins


def until_step(count):
    """A learning rate that is NaN from some step on."""
    return expressions.where(schedules.step < count, 0.1, float("nan"))


def capture(optimizer, stream, mode=None):
    """A graph of one step."""
    with stream:
        stream.begin_capture(mode)
        try:
            optimizer.step()
        finally:
            graph = stream.end_capture()
    return graph

"""Optimizers for thinc over CuPy's arrays, on the stand-in: the bits of the CPU, and the launches of a sweep."""

from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest

pytest.importorskip("thinc.optimizers", reason="thinc is not installed")

from cases import assert_same_bits
from fake_device import machine
from fake_twins import NEEDS_COMPILER, numbers, stand_in, to_device  # noqa: F401 (a fixture)

import gpuadam.thinc as ours
from gpuadam import schedules

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]
SHAPES = {(1, "W"): (4, 3), (1, "b"): (7,), (2, "W"): (3, 2, 2)}
FOREIGN = (2, "W")  # a layer of PyTorch has this key too


class OfPyTorch(fake_cupy.ndarray):
    """As cupy.from_dlpack gives it: a new array each time, over the same memory."""

    def __init__(self, array):
        super().__init__(array.block, array.memory, array)

    @property
    def data(self):
        memory = type("DLPackMemory", (), {})()
        return SimpleNamespace(ptr=self.memory.ctypes.data, device_id=self.block.device, mem=memory)


@pytest.fixture(autouse=True)
def _lengths(monkeypatch):
    monkeypatch.setattr(fake_cupy.ndarray, "__len__", lambda array: array.shape[0], raising=False)


class Model:
    """Parameters of thinc, and one of PyTorch, whose gradient is cleared at once."""

    def __init__(self, optimizer, place):
        self.optimizer, self.place = optimizer, place
        self.weights = {key: place(numbers(i, shape, np.float32)) for i, (key, shape) in enumerate(SHAPES.items())}
        self.gradients = {key: place(np.zeros(shape, np.float32)) for key, shape in SHAPES.items()}
        self.layer = place(numbers(9, (5, 2), np.float32))

    def sweep(self, seed):
        gradient = self.place(numbers(seed, (5, 2), np.float32))
        given = (self.layer, gradient) if isinstance(gradient, np.ndarray) else map(OfPyTorch, (self.layer, gradient))
        self.optimizer(FOREIGN if self.place is to_device else (3, "layer"), *given)
        if self.place is to_device:
            gradient.fill(0)
        for i, (key, shape) in enumerate(SHAPES.items()):
            source = self.place(numbers(seed + i, shape, np.float32))
            self.gradients[key][...] = source
            self.optimizer(key, self.weights[key], self.gradients[key])


@pytest.mark.parametrize("settings", [{}, {"numerics": "thinc", "L2": 0.1}, {"grad_clip": 0.0, "use_averages": False}])
def test_the_bits_and_the_launches(settings):
    rate = schedules.warmup_linear_decay(0.0, 0.1, 3, 20)
    host, device = (Model(ours.Adam(rate, **settings), place) for place in (np.array, to_device))
    for step in range(4):
        launches = len(machine.launches)
        for model in (host, device):
            model.sweep(100 * step)
            model.optimizer.step_schedules()
        a_sweep = 2 if settings.get("grad_clip", 1.0) else 1  # norms are summed ahead
        assert len(machine.launches) - launches == a_sweep * (4 if step == 0 else 1)
    for model in (host, device):
        model.optimizer = ours.Adam(rate, **settings).from_bytes(model.optimizer.to_bytes())
        model.sweep(1000)
        model.sweep(2000)
        model.optimizer.step_schedules()
    for key in SHAPES:
        assert_same_bits(host.weights[key], device.weights[key].get(), str(key))
        assert not device.gradients[key].get().any()
        if settings.get("use_averages", True):
            averages = [model.optimizer.averages[key] for model in (host, device)]
            assert_same_bits(averages[0], averages[1].get(), f"average of {key}")
    assert_same_bits(host.layer, device.layer.get(), "layer")

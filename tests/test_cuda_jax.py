"""What `gpuadam.jax` does with buffers on a GPU, on the stand-in: the bits of the CPU, on the stream that is given."""

import fake_cupy
import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")

from cases import assert_same_bits
from fake_device import machine
from fake_twins import NEEDS_COMPILER, numbers, stand_in, to_device  # noqa: F401 (a fixture)

import gpuadam
from gpuadam import schedules
from gpuadam.jax_numbers import words_of
from gpuadam.jax_plan import Leaf, Plan
from gpuadam.tables import new_progress

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]
SHAPES = [(3,), (2051,), (0,), ()]


class Buffers:
    """As JAX hands them out: parameters, gradients, slots, and the tables of a state."""

    def __init__(self, core, device):
        self.device = device
        leaves = [Leaf(f"params[{i}]", shape, np.dtype("f4"), np.dtype("f4")) for i, shape in enumerate(SHAPES)]
        self.plan = Plan(core._engine.defaults, leaves)
        with fake_cupy.cuda.Device(device):
            self.stream = fake_cupy.cuda.Stream(non_blocking=True)
            self.params = [to_device(numbers(i, shape, np.float32)) for i, shape in enumerate(SHAPES)]
            self.slots = [
                fake_cupy.zeros(SHAPES[i], slot.host_dtype()) for i, own in enumerate(self.plan.slots) for slot in own
            ]
            tables = {
                "clocks": self.plan.new_clock(),
                "rows": np.zeros(32),
                "progress": new_progress(),
                "values": words_of(self.plan.values),
            }
            self.tables = {name: to_device(table.view(np.uint8).ravel()) for name, table in tables.items()}
            fake_cupy.cuda.Device(device).synchronize()

    def step(self, grads):
        with fake_cupy.cuda.Device(self.device), self.stream:
            given = [to_device(grad) for grad in grads]
        at = [array.data.ptr for array in (*self.params, *given, *self.slots)]
        state = {name: table.data.ptr for name, table in self.tables.items()}
        self.plan.run(("cuda", self.device), self.stream.ptr, at, state)
        self.kept = given


@pytest.mark.parametrize("device", [0, 1])
def test_the_bits_of_the_cpu_on_the_stream_of_xla(device):
    machine.device_count = 2
    settings = {"lr": schedules.warmup_cosine_decay(0.0, 0.1, 3, 20), "clip_norm": 0.5}
    buffers = Buffers(gpuadam.AdamW([{"params": []}], **settings), device)
    params = [numbers(i, shape, np.float32) for i, shape in enumerate(SHAPES)]
    optimizer = gpuadam.AdamW(params, **settings)
    for k in range(5):
        grads = [numbers(10 * k + i, shape, np.float32) for i, shape in enumerate(SHAPES)]
        buffers.step(grads)
        optimizer.step(grads)
    with fake_cupy.cuda.Device(device):
        buffers.stream.synchronize()
    for own, right in zip(buffers.params, params, strict=True):
        assert_same_bits(own.get(), right, "parameter")


def test_steps_that_are_watched_raise_and_others_are_held():
    finite, infinite = ([np.full(shape, x, np.float32) for shape in SHAPES] for x in (1, np.inf))
    buffers = Buffers(gpuadam.AdamW([{"params": []}], lr=0.1, nonfinite="raise"), 0)
    buffers.step(finite)
    with pytest.raises(FloatingPointError, match="a gradient is not finite"):
        buffers.step(infinite)
    buffers.step(finite)
    until = schedules.where(schedules.step < 1, 0.1, -1.0)
    buffers = Buffers(gpuadam.AdamW([{"params": []}], lr=until, nonfinite="raise"), 0)
    buffers.step(finite)
    with pytest.raises(gpuadam.ScheduleError, match=r"lr of group 0 would be -1.0 at step 1"):
        buffers.step(finite)

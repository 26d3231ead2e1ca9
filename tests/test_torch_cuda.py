"""`gpuadam.torch` on the stand-in for CuPy: PyTorch's current stream, captures, scalars of a GradScaler, states.

There is no CUDA in this PyTorch: a tensor of the CPU, in memory of the stand-in's, says that it lies on a device.
"""

import importlib
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from fake_device import machine
from fake_twins import NEEDS_COMPILER, numbers, stand_in  # noqa: F401 (a fixture)

from gpuadam import schedules

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import gpuadam.torch as ours  # noqa: E402

importlib.import_module("torch._dynamo")  # torch.optim does so later, and it imports CuPy: let that be the real one

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]

SHAPES = [(1500,), (7, 3)]
LR = schedules.warmup_cosine_decay(0.01, 0.1, 3, 30)


class DeviceTensor(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl
    number = 0

    @property
    def device(self):
        return torch.device("cuda", self.number)


@pytest.fixture
def cuda(stand_in, monkeypatch):  # noqa: F811
    """PyTorch's CUDA, as far as it is asked for: its current stream by device, and tensors on it."""
    found = SimpleNamespace(streams={}, kept=[])

    def current(number):
        return SimpleNamespace(cuda_stream=found.streams[number].ptr if number in found.streams else 0)

    def tensor(values, number=0):
        with fake_cupy.cuda.Device(number):
            array = fake_cupy.asarray(np.asarray(values, np.float32))
            fake_cupy.cuda.get_current_stream().synchronize()
        found.kept.append(array)
        made = torch.from_numpy(array.memory).as_subclass(DeviceTensor)
        made.number, made.array = number, array
        return made

    as_tensor = torch.as_tensor
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    monkeypatch.setattr(
        torch.cuda, "is_current_stream_capturing", lambda: any(q.captured is not None for q in machine.queues.values())
    )
    monkeypatch.setattr(
        torch,
        "as_tensor",
        lambda array, device=None: (
            torch.from_numpy(array.memory) if isinstance(array, fake_cupy.ndarray) else as_tensor(array, device=device)
        ),
    )
    found.tensor = tensor
    return found


class Twins:
    """An optimizer over tensors on the device, and one over copies on the CPU."""

    def __init__(self, cuda, number=0, **settings):
        self.cuda, self.number = cuda, number
        values = [numbers(i, shape, np.float32) for i, shape in enumerate(SHAPES)]
        self.params = [cuda.tensor(value, number).requires_grad_() for value in values]
        self.copies = [torch.nn.Parameter(torch.tensor(value)) for value in values]
        self.device, self.host = (ours.AdamW(own, **{"lr": LR, **settings}) for own in (self.params, self.copies))
        self.fill(0)

    def fill(self, seed):
        """New gradients."""
        for i, (param, copy) in enumerate(zip(self.params, self.copies, strict=True)):
            values = numbers(100 + 10 * seed + i, param.shape, np.float32)
            param.grad, copy.grad = self.cuda.tensor(values, self.number), torch.tensor(values)

    def step(self):
        self.device.step()
        self.host.step()

    def check(self):
        with fake_cupy.cuda.Device(self.number) as device:
            device.synchronize()
        for param, copy in zip(self.params, self.copies, strict=True):
            assert np.array_equal(param.detach().numpy(), copy.detach().numpy())


def test_steps_and_states_have_the_bits_of_the_cpu(cuda):
    twins = Twins(cuda)
    for seed in range(4):
        twins.fill(seed)
        twins.step()
    twins.check()
    for param, copy in zip(twins.params, twins.copies, strict=True):
        mine, other = twins.device.state[param], twins.host.state[copy]
        assert mine["step"] == other["step"] == 4
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(mine[name], other[name])
    assert twins.device.hyperparameters() == twins.host.hyperparameters()


def test_a_checkpoint_goes_from_device_to_cpu_and_back(cuda):
    first, second = Twins(cuda), Twins(cuda)
    first.step()
    first.check()
    second.fill(2)
    second.step()
    second.check()
    second.device.load_state_dict(first.host.state_dict())
    second.host.load_state_dict(first.device.state_dict())
    second.fill(1)
    second.step()
    second.check()


@pytest.mark.parametrize("number", [0, 1])
def test_a_step_runs_on_the_current_stream_of_its_device(cuda, number):
    """Behind the work that is under way there, whatever device is current."""
    twins = Twins(cuda, number)
    twins.step()
    twins.check()
    with fake_cupy.cuda.Device(number):
        cuda.streams[number] = stream = fake_cupy.cuda.Stream(non_blocking=True)
        for param, copy in zip(twins.params, twins.copies, strict=True):
            with stream:
                param.grad.array.set(np.full(param.shape, 0.25, np.float32))
            copy.grad.fill_(0.25)
    before = machine.device
    twins.step()
    assert machine.device == before
    with fake_cupy.cuda.Device(number):
        stream.synchronize()
    for param, copy in zip(twins.params, twins.copies, strict=True):
        assert np.array_equal(param.detach().numpy(), copy.detach().numpy())


@pytest.mark.parametrize(("settings", "count"), [({}, 1), ({"clip_norm": 1.0}, 2), ({"nonfinite": "skip"}, 2)], ids=str)
def test_a_step_is_so_many_launches_and_no_copy(cuda, settings, count):
    twins = Twins(cuda, **settings)
    twins.step()
    machine.launches.clear()
    machine.copies.clear()
    waits = machine.synchronisations
    for _ in range(5):
        twins.step()
    assert len(machine.launches) == 5 * count
    assert not machine.copies
    assert machine.synchronisations == waits
    twins.check()


def test_gradients_that_move_are_one_copy(cuda):
    twins = Twins(cuda)
    twins.step()
    twins.check()
    machine.copies.clear()
    for seed in range(3):
        twins.fill(seed)
        copies = len(machine.copies)
        twins.step()
        assert len(machine.copies) == copies + 1
    twins.check()


def captured(twins, stream):
    """A graph of one step, in the mode of PyTorch's captures."""
    twins.device.hyperparameters()  # waits
    twins.cuda.streams[0] = stream
    stream.begin_capture(0)
    try:
        twins.device.step()
    finally:
        graph = stream.end_capture()
    return graph


def test_a_captured_step_replays_the_schedule_and_follows_gradients_in_place(cuda):
    twins = Twins(cuda, clip_norm=1.0)
    twins.step()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = captured(twins, stream)
    for seed in range(12):
        for param, copy in zip(twins.params, twins.copies, strict=True):
            values = numbers(500 + seed, param.shape, np.float32)
            with stream:
                param.grad.array.set(values)
            copy.grad.copy_(torch.tensor(values))
        if seed == 6:
            for optimizer in (twins.device, twins.host):
                optimizer.param_groups[0]["lr"] = 0.5
                optimizer.hyperparameters()  # or the next step: both look into the groups
        graph.launch(stream)
        twins.host.step()
    twins.check()
    twins.step()
    twins.check()
    assert twins.device.state[twins.params[0]]["step"] == 14


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_graph_cannot_hold_is_refused(cuda, is_first):
    twins = Twins(cuda)
    if not is_first:
        twins.step()
        twins.fill(1)
    text = "states are yet to be made" if is_first else r"let them stay there, by zero_grad\(set_to_none=False\)"
    with pytest.raises(RuntimeError, match=f"the stream is being captured, but .*{text}"):
        captured(twins, fake_cupy.cuda.Stream(non_blocking=True))
    twins.step()
    twins.check()


def test_the_scalars_of_a_grad_scaler_are_read_on_the_device(cuda):
    twins = Twins(cuda)
    for k, (scale, found) in enumerate([(4.0, 0.0), (4.0, 1.0), (0.5, 0.0), (0.5, 1.0)]):
        twins.fill(k)
        for optimizer, make in ((twins.device, cuda.tensor), (twins.host, torch.tensor)):
            optimizer.grad_scale, optimizer.found_inf = make([scale]), make([found])
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
    twins.check()
    assert twins.device.skipped_steps == twins.host.skipped_steps == 2
    before = twins.copies[0].detach().clone()
    twins.step()  # without one: neither scale nor skip is left
    twins.check()
    assert not torch.equal(before, twins.copies[0])


def test_a_frozen_parameter_elsewhere_does_not_say_whose_stream_it_is(monkeypatch):
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)  # stays in host memory
    trained = torch.nn.Parameter(torch.ones(2))
    optimizer = ours.SGD([frozen, trained], lr=0.1)
    trained.grad = torch.ones(2)
    optimizer.step()
    monkeypatch.setattr(optimizer._core._engine.tensors, "device", lambda: ("cuda", 1))
    assert optimizer._place() == ("cuda", 1)

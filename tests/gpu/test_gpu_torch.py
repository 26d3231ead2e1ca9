"""`gpuadam.torch` on CUDA: PyTorch's streams, graphs and GradScaler, and the bits of the CPU on equal gradients."""

from contextlib import nullcontext

import pytest
from bfloat16 import ml_dtypes  # noqa: F401 (what is imported below needs it)
from twins import REASON

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import gpuadam.torch as ours  # noqa: E402
from gpuadam import schedules  # noqa: E402

NO_CUDA = REASON or (None if torch.cuda.is_available() else "PyTorch finds no CUDA device")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA))]

LR = schedules.warmup_cosine_decay(1e-3, 0.05, 5, 200)
SHAPES = [(), (7,), (1025,), (33, 77), (64, 64), (300_001,)]


def numbers(shape, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Twins:
    """Parameters on the CPU and on the device, an optimizer over each, and equal gradients for both."""

    def __init__(self, dtype=torch.float32, make=ours.AdamW, **settings):
        self.dtype = dtype
        self.host_params, self.params = (
            [torch.nn.Parameter(numbers(shape, i, dtype).to(place)) for i, shape in enumerate(SHAPES)]
            for place in ("cpu", "cuda")
        )
        settings = {"lr": LR, **settings}
        self.host, self.device = (make(own, **settings) for own in (self.host_params, self.params))

    def fill(self, seed, scale=1.0):
        """New gradients, in new memory."""
        for i, (host, param) in enumerate(zip(self.host_params, self.params, strict=True)):
            host.grad = scale * numbers(host.shape, 1000 * (seed + 1) + i, self.dtype)
            param.grad = host.grad.to("cuda")

    def step(self, seed):
        self.fill(seed)
        self.host.step()
        self.device.step()

    def check(self):
        for i, (host, param) in enumerate(zip(self.host_params, self.params, strict=True)):
            assert_same_bits(param, host, f"parameter {i}")
            mine, other = self.device.state[param], self.host.state[host]
            assert set(mine) == set(other)
            for name in mine:
                assert_same_bits(mine[name], other[name], f"{name} of {i}")


def assert_same_bits(mine, other, title=""):
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64, 1: torch.int8}[other.element_size()]
    assert mine.dtype is other.dtype
    assert torch.equal(mine.detach().cpu().view(words), other.detach().view(words)), title


MODES = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {}),
    "float16": (torch.float16, {"master": "float32"}),
    "bfloat16": (torch.bfloat16, {}),
    "bfloat16, master": (torch.bfloat16, {"master": "float32"}),
    "bfloat16, remainder": (torch.bfloat16, {"master": "remainder"}),
    "bfloat16, stochastic, states bfloat16": (torch.bfloat16, {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    "clip_norm, ema, zero_grads": (torch.float32, {"clip_norm": 1.0, "ema_decay": 0.9, "zero_grads": True}),
    "amsgrad": (torch.float32, {"amsgrad": True}),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_bits_are_those_of_the_cpu(mode):
    dtype, settings = MODES[mode]
    twins = Twins(dtype, **settings)
    for seed in range(8):
        twins.step(seed)
    twins.check()


@pytest.mark.parametrize(
    "make", [ours.Adam, ours.SGD, ours.Lion, ours.RMSprop, ours.LAMB], ids=lambda make: make.__name__
)
def test_the_bits_of_other_rules(make):
    twins = Twins(make=make)
    for seed in range(5):
        twins.step(seed)
    twins.check()


def test_gradients_come_and_go():
    twins = Twins()
    for seed in range(5):
        twins.fill(seed)
        for own in (twins.host_params, twins.params):
            own[seed].grad = None
        twins.host.step()
        twins.device.step()
    twins.fill(9)
    twins.host.step()
    twins.device.step()
    twins.check()


# ---- streams


def test_steps_on_side_streams_come_after_what_is_under_way_there():
    """Gradients are written after a long wait, on the stream under which the step is taken."""
    twins = Twins()
    twins.step(0)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    for seed in range(1, 7):
        values = [numbers(host.shape, 77 * seed + i) for i, host in enumerate(twins.host_params)]
        ready = [value.to("cuda") for value in values]
        torch.cuda.synchronize()
        with torch.cuda.stream(streams[seed % 2]):
            torch.cuda._sleep(20_000_000)
            for host, param, value, there in zip(twins.host_params, twins.params, values, ready, strict=True):
                host.grad.copy_(value)
                param.grad.copy_(there)
            twins.device.step()
            shown = [param.detach().clone() for param in twins.params]  # in stream order, without a wait
        twins.host.step()
        streams[seed % 2].synchronize()
        for host, copy in zip(twins.host_params, shown, strict=True):
            assert_same_bits(copy, host)
    twins.check()


def test_a_step_does_not_wait_for_the_device():
    twins = Twins()
    for seed in range(2):
        twins.step(seed)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(200_000_000)  # some tenth of a second
    for _ in range(5):
        twins.device.step()
    done.record()
    assert not done.query()
    torch.cuda.synchronize()


# ---- launches


def kernels(function):
    """Names of what was launched or copied on the device."""
    function()  # whatever is made once
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        function()
        torch.cuda.synchronize()
    return [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 1), ({"clip_norm": 1.0}, 2), ({"ema_decay": 0.9, "zero_grads": True}, 1), ({"nonfinite": "skip"}, 2)],
    ids=str,
)
def test_a_step_is_so_many_launches(settings, count):
    twins = Twins(**settings)
    twins.fill(0)
    found = kernels(twins.device.step)
    assert len(found) == count, found
    params = [torch.nn.Parameter(param.detach().clone()) for param in twins.params]
    for param in params:
        param.grad = torch.ones_like(param)
    plain = torch.optim.AdamW(params, lr=0.1, foreach=True)
    assert len(kernels(plain.step)) > count  # that the profiler sees launches at all


def test_flat_gradients_are_zeroed_by_one_launch():
    twins = Twins(flat_grads=True)
    twins.fill(0)
    twins.device.step()
    found = kernels(twins.device.zero_grad)
    assert len(found) == 1, found


# ---- graphs


def network():
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(16, 64),
        torch.nn.GELU(),
        torch.nn.Linear(64, 64),
        torch.nn.GELU(),
        torch.nn.Linear(64, 4),
    ]
    return torch.nn.Sequential(*layers).to("cuda")


def batches(count):
    return [numbers((32, 16), 5000 + i).to("cuda") for i in range(count)]


def train_step(model, optimizer, batch):
    optimizer.zero_grad(set_to_none=False)
    model(batch).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("settings", [{}, {"flat_grads": True}, {"clip_norm": 0.1, "ema_decay": 0.99}], ids=str)
def test_a_captured_training_step_is_the_eager_one(settings):
    """Forward, backward and step in one graph, replayed 100 times while the schedule moves."""
    eager, graphed = network(), network()
    first, second = (ours.AdamW(model.parameters(), lr=LR, **settings) for model in (eager, graphed))
    own = batches(104)
    static = own[0].clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for batch in own[:3]:
            static.copy_(batch)
            train_step(graphed, second, static)
    torch.cuda.current_stream().wait_stream(side)
    second.hyperparameters()  # waits for the device, as a capture on another stream asks
    graph = torch.cuda.CUDAGraph()
    static.copy_(own[3])
    with torch.cuda.graph(graph):
        train_step(graphed, second, static)
    for batch in own[3:103]:
        static.copy_(batch)
        graph.replay()
    for batch in own[:103]:
        train_step(eager, first, batch)
    assert second.hyperparameters() == first.hyperparameters()
    train_step(eager, first, own[103])  # and an eager step after the replays
    train_step(graphed, second, own[103])
    for mine, other in zip(graphed.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)  # matrix products may choose other kernels
    assert second.state[graphed[0].weight]["step"] == first.state[eager[0].weight]["step"] == 104


def test_a_captured_step_has_the_bits_of_eager_ones():
    """The step alone, on equal gradients that are written between replays."""
    twins = Twins(clip_norm=1.0)
    twins.step(0)
    stream = torch.cuda.Stream()
    twins.device.hyperparameters()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        twins.device.step()
    for seed in range(100):
        for i, (host, param) in enumerate(zip(twins.host_params, twins.params, strict=True)):
            host.grad.copy_(numbers(host.shape, 3000 + 10 * seed + i))
            param.grad.copy_(host.grad)
        graph.replay()
        twins.host.step()
    twins.check()
    assert twins.device.hyperparameters() == twins.host.hyperparameters()


def test_gradients_that_are_made_in_a_capture_are_refused():
    model = network()
    optimizer = ours.AdamW(model.parameters(), lr=LR)
    batch = batches(1)[0]
    train_step(model, optimizer, batch)
    optimizer.hyperparameters()
    optimizer.zero_grad()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        model(batch).square().mean().backward()
        with pytest.raises(RuntimeError, match=r"zero_grad\(set_to_none=False\) or flat_grads=True"):
            optimizer.step()
    optimizer.zero_grad()
    torch.cuda.synchronize()
    train_step(model, optimizer, batch)
    assert optimizer.state[model[0].weight]["step"] == 2


# ---- mixed precision


def test_a_grad_scaler_unscales_and_skips_on_the_device():
    twins = Twins(torch.float32)
    scalers = [torch.amp.GradScaler(place, init_scale=2.0**10, growth_interval=3) for place in ("cpu", "cuda")]
    for scaler, place in zip(scalers, ("cpu", "cuda"), strict=True):
        scaler.scale(torch.ones(1, device=place))  # makes the scale, which scale(loss) does in training
    for seed in range(10):
        scales = [scaler.get_scale() for scaler in scalers]
        assert scales[0] == scales[1]
        twins.fill(seed, scales[0])
        if seed in (3, 4):
            for own in (twins.host_params, twins.params):
                own[2].grad[5] = float("inf")
        for scaler, optimizer in zip(scalers, (twins.host, twins.device), strict=True):
            scaler.step(optimizer)
            scaler.update()
    twins.check()
    assert twins.device.skipped_steps == twins.host.skipped_steps == 2


def test_autocast_and_a_grad_scaler_train():
    model = network()
    optimizer, scaler = ours.AdamW(model.parameters(), lr=0.01, clip_norm=1.0), torch.amp.GradScaler("cuda")
    batch, losses = batches(1)[0], []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = (model(batch).float() - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# ---- checkpoints


def test_a_checkpoint_goes_across_devices():
    first, second = Twins(clip_norm=1.0, ema_decay=0.9), Twins(clip_norm=1.0, ema_decay=0.9)
    for seed in range(3):
        first.step(seed)
    for mine, other in ((second.device, first.host), (second.host, first.device)):
        mine.load_state_dict(other.state_dict())
    for target, source in ((second.params, first.params), (second.host_params, first.host_params)):
        for param, value in zip(target, source, strict=True):
            param.data.copy_(value.data)
    for seed in range(3, 6):
        first.step(seed)
        second.step(seed)
    first.check()
    second.check()
    for param, other in zip(second.params, first.host_params, strict=True):
        assert_same_bits(param, other)


@pytest.mark.parametrize("settings", [{}, {"fused": True}, {"capturable": True}], ids=str)
def test_a_checkpoint_goes_to_pytorch_and_back(settings, tmp_path):
    params = [torch.nn.Parameter(numbers(shape, i).to("cuda")) for i, shape in enumerate(SHAPES)]
    copies = [torch.nn.Parameter(param.detach().clone()) for param in params]
    mine = ours.AdamW(params, lr=0.01)
    plain = torch.optim.AdamW(copies, lr=0.01, **settings)
    for seed in range(12):
        for i, (param, copy) in enumerate(zip(params, copies, strict=True)):
            param.grad = numbers(param.shape, 100 * seed + i).to("cuda")
            copy.grad = param.grad.clone()
        if seed in (4, 8):
            torch.save([mine.state_dict(), plain.state_dict()], tmp_path / "both")
            from_mine, from_plain = torch.load(tmp_path / "both", weights_only=True)
            mine, plain = ours.AdamW(params, lr=0.01), torch.optim.AdamW(copies, lr=0.01, **settings)
            mine.load_state_dict(from_plain)
            for group in from_mine["param_groups"]:
                group.update(settings)
            plain.load_state_dict(from_mine)
        mine.step()
        if not settings.get("capturable"):
            plain.step()
        else:
            with pytest.warns(UserWarning, match="capturable=True") if seed in (0, 4, 8) else nullcontext():
                plain.step()
    for param, copy in zip(params, copies, strict=True):
        torch.testing.assert_close(param, copy, rtol=1e-4, atol=1e-5)


def test_states_are_tensors_in_the_memory_that_the_step_uses():
    twins = Twins()
    twins.step(0)
    state = twins.device.state[twins.params[3]]
    address = state["exp_avg"].data_ptr()
    assert state["exp_avg"].is_cuda
    state["exp_avg"] = torch.zeros_like(state["exp_avg"])
    twins.host.state[twins.host_params[3]]["exp_avg"] = torch.zeros(SHAPES[3])
    twins.step(1)
    twins.check()
    assert twins.device.state[twins.params[3]]["exp_avg"].data_ptr() == address


# ---- flat gradients


def test_flat_gradients_have_the_bits_of_others():
    models = network(), network()
    flat, plain = (ours.AdamW(m.parameters(), lr=LR, flat_grads=f) for m, f in zip(models, (True, False), strict=True))
    addresses = [param.grad.data_ptr() for param in models[0].parameters()]
    assert all(address % 64 == 0 for address in addresses)
    for seed in range(6):
        for model, optimizer in zip(models, (flat, plain), strict=True):
            optimizer.zero_grad()
            for micro in range(2):
                for i, param in enumerate(model.parameters()):
                    (param * numbers(param.shape, 60 * seed + 7 * i + micro).to("cuda")).sum().backward()
            optimizer.step()
    for mine, other in zip(*(model.parameters() for model in models), strict=True):
        assert_same_bits(mine, other.detach().cpu())
    assert [param.grad.data_ptr() for param in models[0].parameters()] == addresses


# ---- what is refused


def test_parameters_and_learning_rates_on_two_devices():
    here, there = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = ours.AdamW([here, there], lr=0.1)
    here.grad, there.grad = torch.ones(3), torch.ones(3, device="cuda")
    with pytest.raises(ValueError, match="several devices"):
        optimizer.step()
    assert torch.equal(here.detach(), torch.ones(3))
    optimizer = ours.AdamW([there], lr=0.1)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
    with pytest.raises(TypeError, match=r"lr of group 0 is a tensor .* on cuda:0; allowed are .*a schedule"):
        optimizer.step()

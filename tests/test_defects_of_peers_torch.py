"""Defects that were found in other optimizers, each as a test of `gpuadam.torch`, in PyTorch's own terms."""

import math

import numpy as np
import oracle
import oracle_momentum
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from gpuadam import schedules  # noqa: E402
from gpuadam import torch as ours  # noqa: E402

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RULES = {
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.0},
    "NAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True, "eps": 1e-3},
    "SGD": {"momentum": 0.9},
    "Lion": {},
    "RAdam": {},
    "Adamax": {},
    "Adagrad": {},
    "Adadelta": {},
}


def parameter(values, dtype=torch.float64):
    return torch.nn.Parameter(torch.as_tensor(values, dtype=dtype))


def step(optimizer, params, grads):
    for param, grad in zip(params, grads, strict=True):
        param.grad = None if grad is None else torch.as_tensor(grad, dtype=param.dtype).clone()
    optimizer.step()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fused", [None, True])
def test_every_element_is_updated_whatever_the_size(dtype, fused):
    """PyTorch's fused SGD on the CPU left 16-bit parameters as they were in full vectors (pytorch#191763)."""
    params = [parameter(torch.full((size,), 3.0), dtype) for size in range(258)]
    step(ours.SGD(params, lr=1.0, fused=fused), params, [torch.ones_like(param) for param in params])
    assert all(torch.all(param == 2) for param in params)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_channels_last_parameter_and_a_gradient_in_another_order(name):
    """PyTorch's fused Adam and SGD on the CPU pair them in the order of memory; here the step is refused."""
    start, grad = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.randn(2, 3, 4, 5)
    plain, last = parameter(start), parameter(start.to(memory_format=torch.channels_last))
    assert last.stride() != plain.stride()
    step(getattr(ours, name)([plain], lr=0.1), [plain], [grad])
    optimizer = getattr(ours, name)([last], lr=0.1)
    last.grad = grad.double().contiguous()
    with pytest.raises(ValueError, match="same order of elements"):
        optimizer.step()
    assert torch.equal(last, start.double())
    last.grad = last.grad.to(memory_format=torch.channels_last)
    optimizer.step()
    assert torch.equal(last, plain)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_an_overflow_in_the_first_step_leaves_no_momentum_behind():
    """PyTorch's fused SGD then keeps a buffer of uninitialised memory and takes it for a momentum (LibreYOLO#771)."""
    param = parameter(np.ones(300))
    optimizer = ours.SGD([param], lr=0.1, momentum=0.9, dampening=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for value in (math.inf, 1.0, -2.0, 0.5):
        param.grad = torch.full_like(param, value)
        scaler.scale(torch.zeros(()))  # which makes the scale
        param.grad *= scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
    expected = oracle_momentum.sgd(
        np.ones(300), [np.full(300, g) for g in (1.0, -2.0, 0.5)], lr=0.1, momentum=0.9, dampening=0.5
    )
    assert np.allclose(param.detach(), expected.param, rtol=1e-13)
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("name", RULES)
def test_a_parameter_that_is_thawed_later(name):
    """PyTorch's fused SGD stops with a TypeError about None. It begins as if the steps before had not been."""
    kind, options = getattr(ours, name), RULES[name]
    frozen, fresh, always = (parameter(np.ones(30)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer, beginning = kind([always, frozen], lr=0.1, **options), kind([fresh], lr=0.1, **options)
    rng = np.random.default_rng(1)
    for k in range(6):
        grad = rng.normal(size=30)
        frozen.requires_grad_(k >= 3)
        step(optimizer, [always, frozen], [grad, grad if k >= 3 else None])
        if k >= 3:
            step(beginning, [fresh], [grad])
    assert not torch.equal(frozen, torch.ones(30))
    assert torch.equal(frozen, fresh)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("is_schedule", [False, True])
def test_a_rate_of_zero_with_a_gradient_of_zero(capturable, is_schedule):
    """PyTorch's capturable Adam divided by lr: NaN weights at the first step of a warm-up (pytorch PR #186444)."""
    param = parameter(np.ones(3), torch.float32)
    lr = 1e-3 * schedules.step if is_schedule else 0.0
    optimizer = ours.Adam([param], lr=lr, capturable=capturable, foreach=False)
    step(optimizer, [param], [[0.0, 1.0, -1.0]])
    assert torch.all(param == 1)
    step(optimizer, [param], [[0.0, 1.0, -1.0]])
    assert torch.all(torch.isfinite(param))
    assert torch.all(param == 1) == (not is_schedule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grad", [0.0, 1e-7, 1e-5, 1e-4, -1e-3, 1.0])
def test_16_bits_with_zero_and_small_gradients(grad, dtype):
    """PyTorch's Adam in float16: eps and squares vanish; NaN of a 0, -inf of 1e-4 (pytorch#147437, optax#1754)."""
    param = parameter(np.ones(4), dtype)
    optimizer, given = ours.Adam([param], lr=0.125), float(torch.tensor(grad, dtype=dtype))
    for _ in range(3):
        step(optimizer, [param], [[grad] * 4])
    expected = oracle.adam(np.ones(4), [np.full(4, given)] * 3, lr=0.125).param
    assert np.allclose(param.detach().double(), expected, rtol=3 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_zero_does_not_drift_and_a_nan_is_not_hidden(name):
    """DeepSpeed's Lion took the sign of 0 for 1 on GPUs and for -1 on the CPU, and that of NaN for 1; optax' Adam in
    float16 makes NaN of 0 (optax#1754)."""
    for dtype in (torch.float16, torch.float32):
        param = parameter(np.ones(3), dtype)
        optimizer = getattr(ours, name)([param], lr=0.1, **RULES[name])
        step(optimizer, [param], [[0.0, -0.0, math.nan]])
        step(optimizer, [param], [[0.0, 0.0, 0.0]])
        assert torch.equal(param[:2], torch.ones(2, dtype=dtype))
        assert torch.isnan(param[2])


def test_states_of_16_bit_parameters_stay_in_float32():
    """DeepSpeed and PyTorch keep them in 16 bits, and PyTorch's `load_state_dict` puts them there (pytorch#43706)."""
    param = parameter(np.ones(4), torch.bfloat16)
    optimizer = ours.Adam([param], lr=0.1)
    step(optimizer, [param], [[0.3, 1e-6, 1.0, 2.0]])
    saved = optimizer.state_dict()
    again = ours.Adam([param], lr=0.1)
    again.load_state_dict(saved)
    for own in (optimizer.state[param], again.state[param]):
        assert own["exp_avg"].dtype == own["exp_avg_sq"].dtype == torch.float32
        squares = np.square(torch.tensor([0.3, 1e-6, 1.0, 2.0], dtype=torch.bfloat16).double().numpy())
        assert np.allclose(own["exp_avg_sq"], 1e-3 * squares, rtol=1e-6, atol=0)


@pytest.mark.parametrize("places", [[0], [39], [35, 36], list(range(0, 40, 2))])
def test_empty_tensors_anywhere(places):
    """An empty last tensor made apex drop the whole launch in silence; in slot 36 it wrote out of bounds."""
    params = [parameter(np.ones((0, 3) if i in places else 5)) for i in range(40)]
    optimizer = ours.AdamW(params, lr=0.125, clip_norm=1e6)
    for _ in range(2):
        before = [param.detach().clone() for param in params]
        step(optimizer, params, [torch.ones_like(param) for param in params])
        assert all(torch.all(a < b) for a, b in zip(params, before, strict=True))


def test_gradients_that_come_and_go_have_their_own_bias_correction():
    """With one count for a group (apex, TransformerEngine#1986) a late first update is too small."""
    params = [parameter(np.zeros(3)), parameter(np.zeros(3))]
    optimizer = ours.Adam(params, lr=0.01, eps=0.0)
    for _ in range(99):
        step(optimizer, params, [[1.0] * 3, None])
    step(optimizer, params, [[1.0] * 3, [0.5] * 3])
    assert np.allclose(params[1].detach(), -0.01, rtol=1e-12)
    assert [float(optimizer.state[param]["step"]) for param in params] == [100, 1]


def test_dtypes_in_one_group_count_each_step_once():
    """DeepSpeed's FusedAdam counted once for each dtype, and for the last parameter alone (DeepSpeed#8471)."""
    params = [parameter(np.ones(5), dtype) for dtype in DTYPES * 2]
    optimizer = ours.Adam(params, lr=0.01)
    for k in range(4):
        step(optimizer, params, [None if k == 1 and i == 5 else [2.0] * 5 for i in range(8)])
    assert [float(optimizer.state[param]["step"]) for param in params] == [4, 4, 4, 4, 4, 3, 4, 4]
    for i, param in enumerate(params):
        expected = oracle.adam(np.ones(5), [np.full(5, 2.0)] * (3 if i == 5 else 4), lr=0.01).param
        assert np.allclose(param.detach().double(), expected, rtol=2 * max(torch.finfo(param.dtype).eps, 1e-7))


def test_a_parameter_stays_where_it_is():
    """bitsandbytes puts `p.data = p.data.contiguous()` in its place: views and tied weights are left behind."""
    for values in (torch.ones(4, 5), torch.ones(5, 4).T, torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)):
        param = parameter(values)
        address, strides, view = param.data_ptr(), param.stride(), param.detach()[1:]
        optimizer = ours.AdamW([param], lr=0.1)
        for _ in range(2):
            step(optimizer, [param], [torch.ones_like(param)])
        assert (param.data_ptr(), param.stride()) == (address, strides)
        assert torch.equal(view, param.detach()[1:])
        assert torch.all(view < 1)


@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_a_scheduler_of_pytorch_multiplies_each_rate_once(kind):
    """With a tensor as lr `initial_lr` and `get_last_lr` may be that tensor, and a scheduler multiplies what it has
    multiplied before (pytorch#126854, #162359, #163103)."""
    param, peak = parameter(np.zeros(3)), 0.5
    optimizer = ours.SGD([param], lr=peak)
    if kind == "tensor":
        optimizer.param_groups[0]["lr"] = torch.tensor(peak, dtype=torch.float64)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    rates = [peak / (1 + t) for t in range(5)]
    for rate in rates:
        assert float(optimizer.hyperparameters()[0]["lr"]) == pytest.approx(rate, rel=1e-12)
        before = param.detach().clone()
        step(optimizer, [param], [[1.0] * 3])
        scheduler.step()
        assert np.allclose(before - param.detach(), rate, rtol=1e-12)


def test_rates_of_a_schedule_that_were_written_down_stay():
    """As above, where nobody multiplies: a schedule is a function of the step."""
    param = parameter(np.zeros(3))
    optimizer = ours.SGD([param], lr=0.8 * schedules.exponential_decay(1.0, 2, 0.5))
    seen, places = [], [0.0]
    for _ in range(6):
        seen.append(optimizer.hyperparameters()[0])
        step(optimizer, [param], [[1.0] * 3])
        places.append(-float(param.detach()[0]))
    assert [own["lr"] for own in seen] == pytest.approx([0.8 * 0.5 ** (t / 2) for t in range(6)], rel=1e-12)
    assert np.allclose(np.diff(places), [own["lr"] for own in seen], rtol=1e-12)
    assert optimizer.param_groups[0]["lr"] == 1.0

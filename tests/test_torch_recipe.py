"""The training recipe by keyword in `gpuadam.torch`: against PyTorch's own pieces, or the formula written anew."""

import numpy as np
import oracle_adaptive
import oracle_lamb
import oracle_schedule_free
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import (  # noqa: E402
    F32,
    F64,
    assert_same_bits,
    assert_same_run,
    copied,
    error,
    flat,
    give_gradients,
    train,
    weights,
)

import gpuadam.torch as ours  # noqa: E402

BF16 = torch.bfloat16
CLIPS = {
    "clip_norm": torch.nn.utils.clip_grad_norm_,
    "clip_value": torch.nn.utils.clip_grad_value_,
}


@pytest.mark.parametrize("kind", CLIPS)
def test_clipping_is_theirs(kind):
    a, b = ours.SGD(weights(), lr=0.1, momentum=0.9, **{kind: 0.7}), torch.optim.SGD(weights(), lr=0.1, momentum=0.9)
    train(a, range(10))
    norms = []

    def clip(optimizer, step):
        norms.append(CLIPS[kind](flat(optimizer), 0.7))

    train(b, range(10), clip)
    assert_same_run(a, b)
    if kind == "clip_norm":
        assert a.gradient_norms() == pytest.approx([float(norms[-1])], rel=1e-6)
        a.param_groups[0]["clip_norm"] = 0.1
        train(a, [10])
        train(b, [10], lambda own, step: CLIPS[kind](flat(own), 0.1))
        assert_same_run(a, b)


def test_averages_of_the_weights():
    optimizer = ours.AdamW(weights(F64), lr=0.05, ema_decay=0.9)
    with optimizer.ema():  # before the first gradient they are the weights
        assert_same_bits(flat(optimizer), weights(F64))
    average = copied(flat(optimizer))
    for step in range(8):
        train(optimizer, [step])
        with torch.no_grad():
            for mean, param in zip(average, flat(optimizer), strict=True):
                mean.add_(param - mean, alpha=1 - 0.9)
    trained = copied(flat(optimizer))
    with optimizer.ema():
        assert error(flat(optimizer), average) < 1e-14
        with pytest.raises(RuntimeError, match="the parameters hold their averages now"):
            optimizer.step()
    assert_same_bits(flat(optimizer), trained)
    assert error(trained, average) > 0.01
    optimizer.reset_ema()
    with optimizer.ema():
        assert_same_bits(flat(optimizer), trained)
    assert error([optimizer.state[param]["ema"] for param in flat(optimizer)], trained) == 0


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(nonfinite):
    optimizer = ours.AdamW(weights(), lr=0.05, nonfinite=nonfinite)
    train(optimizer, range(3))
    before = copied(flat(optimizer))
    give_gradients(flat(optimizer), 3)
    flat(optimizer)[0].grad[0, 0] = torch.nan
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError, match="gradient"):
            optimizer.step()
    else:
        optimizer.step()
    assert_same_bits(flat(optimizer), before)
    assert optimizer.skipped_steps == 1
    assert optimizer.state_dict()["param_groups"][0]["skipped_steps"] == 1
    train(optimizer, range(3, 6))
    fresh = ours.AdamW(weights(), lr=0.05)
    train(fresh, range(6))
    assert_same_bits(flat(optimizer), flat(fresh))


def bf16_gradients(params, step):
    give_gradients(params, step)
    for param in params:
        param.grad = param.grad.to(BF16).to(param.dtype)


@pytest.mark.parametrize("master", ["float32", "remainder"])
def test_master_weights_are_those_of_a_float32_run(master):
    narrow = ours.AdamW(weights(BF16), lr=1e-3, master=master)
    wide = torch.optim.AdamW([torch.nn.Parameter(param.detach().to(F32)) for param in weights(BF16)], lr=1e-3)
    for step in range(30):
        for optimizer in (narrow, wide):
            bf16_gradients(flat(optimizer), step)
            optimizer.step()
    rounding = 2.0**-8
    assert error(flat(narrow), flat(wide)) < rounding
    if master == "float32":
        assert error([narrow.state[param]["master"] for param in flat(narrow)], flat(wide)) < 1e-6
    plain = ours.AdamW(weights(BF16), lr=1e-4)
    kept = ours.AdamW(weights(BF16), lr=1e-4, master=master)
    for optimizer in (plain, kept):
        train(optimizer, range(100))
    start = [param[0] for param in weights(BF16)[:1]]
    assert error([flat(kept)[0][0]], start) > error([flat(plain)[0][0]], start)


def test_stochastic_rounding_loses_nothing_on_average():
    """Steps of 2**-12, 64 times, where a bfloat16 next to 1 is 2**-7 away: to the nearest nothing would move."""
    param = torch.nn.Parameter(torch.ones(20_000, dtype=BF16))
    optimizer = ours.SGD([param], lr=2.0**-12, rounding="stochastic", seed=3)
    param.grad = -torch.ones_like(param)
    for _ in range(64):
        optimizer.step()
    deviation = 2.0**-7 * (64 * 2.0**-5) ** 0.5 / 20_000**0.5  # of the mean of a binomial walk
    assert abs(float(param.detach().to(F64).mean()) - (1 + 64 * 2.0**-12)) < 5 * deviation


@pytest.mark.parametrize(("state_dtype", "bound"), [("bfloat16", 0.01), ("int8", 0.05)])
def test_states_of_fewer_bits(state_dtype, bound):
    shapes = [(64, 64), (5,)]
    narrow = ours.AdamW(weights(F32, shapes), lr=0.01, state_dtype=state_dtype, int8_from=16)
    wide = ours.AdamW(weights(F32, shapes), lr=0.01)
    for optimizer in (narrow, wide):
        train(optimizer, range(30))
    big, small = flat(narrow)
    stored = narrow.state[big]["exp_avg" if state_dtype == "bfloat16" else "exp_avg_codes"]
    assert stored.element_size() == {"bfloat16": 2, "int8": 1}[state_dtype]
    assert 0 < error([big], [flat(wide)[0]]) < bound
    expected = {"bfloat16": BF16, "int8": F32}[state_dtype]  # one axis is too little for blocks
    assert narrow.state[small]["exp_avg"].dtype == expected


def test_zero_grads_leaves_gradients_zero_and_tells_autograd():
    optimizer, other = ours.AdamW(weights(), lr=0.01, zero_grads=True), ours.AdamW(weights(), lr=0.01)
    for step in range(3):
        give_gradients(flat(optimizer), step)
        versions = [param.grad._version for param in flat(optimizer)]
        optimizer.step()
        assert not any(param.grad.any() for param in flat(optimizer))
        assert all(param.grad._version > old for param, old in zip(flat(optimizer), versions, strict=True))
    train(other, range(3))
    assert_same_bits(flat(optimizer), flat(other))
    assert all(param.grad.any() for param in flat(other) if param.numel())


def test_a_factor_of_the_rate():
    a, b = ours.SGD(weights(), lr=0.1, lr_scale=0.5), torch.optim.SGD(weights(), lr=0.05)
    for optimizer in (a, b):
        train(optimizer, range(3))
    assert_same_run(a, b)


def follow(name, **options):
    """A run of float64, and its parameters and gradients for an oracle: one tensor."""
    param = torch.nn.Parameter(torch.linspace(-1.0, 2.0, 21, dtype=F64))
    start, grads = param.detach().numpy().copy(), []
    optimizer = getattr(ours, name)([param], **options)
    for step in range(12):
        give_gradients([param], step)
        grads.append(param.grad.numpy().copy())
        optimizer.step()
    return optimizer, param, start, grads


@pytest.mark.parametrize(
    ("name", "oracle"), [("LAMB", oracle_lamb.lamb), ("Lion", oracle_adaptive.lion), ("QHAdam", oracle_adaptive.qhadam)]
)
def test_rules_that_pytorch_has_not(name, oracle):
    options = {"lr": 0.05, "weight_decay": 0.1}
    _, param, start, grads = follow(name, **options)
    assert np.allclose(param.detach().numpy(), oracle(start, grads, **options).param, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_schedule_free_optimizers_train_y_and_evaluate_x(name):
    oracle = {"A": oracle_schedule_free.adamw_schedule_free, "S": oracle_schedule_free.sgd_schedule_free}[name[0]]
    optimizer, param, start, grads = follow(name, lr=0.05, warmup_steps=3)
    expected = oracle(start, grads, lr=0.05, warmup_steps=3)
    assert np.allclose(param.detach().numpy(), expected.param, rtol=1e-12)
    optimizer.eval()
    assert np.allclose(param.detach().numpy(), expected.x, rtol=1e-12)
    with pytest.raises(RuntimeError, match=r"the parameters hold their averages now: call train\(\) first"):
        optimizer.step()
    optimizer.train()
    assert np.allclose(param.detach().numpy(), expected.param, rtol=1e-12)
    mixing = {"betas": (0.5, 0.999)} if name[0] == "A" else {"momentum": 0.5}
    optimizer.param_groups[0].update(mixing)
    with pytest.raises(ValueError, match=r"is 0.5; allowed is 0.9 alone, with which the parameters are mixed"):
        optimizer.step()

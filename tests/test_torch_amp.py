"""`torch.amp.GradScaler`: it hands the step what it found, on the device; a step that overflows is none."""

import importlib

import pytest

from gpuadam import schedules

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

ours = importlib.import_module("gpuadam.torch")
LR, STEPS = 0.05, 12
OVERFLOWS = (0, 3, 4)  # the very first step among them
COSINE = schedules.cosine_decay(LR, decay_steps=40)


def make_param(dtype=torch.float32, seed=0):
    return torch.nn.Parameter(torch.randn(40, generator=torch.Generator().manual_seed(seed)).to(dtype))


def make_scaler(**keywords):
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4, **keywords)


def backward(scaler, param, step, overflows=OVERFLOWS):
    """The gradient of a scaled loss, which depends on the step alone; infinite in some of them."""
    inputs = torch.randn(40, generator=torch.Generator().manual_seed(100 + step))
    if step in overflows:
        inputs[step] = torch.inf
    scaler.scale((param.float() * inputs).sum()).backward()


def train(scaler, optimizer, param, overflows=OVERFLOWS, unscales=False):
    """Train, and give the scales."""
    scales = []
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(scaler, param, step, overflows)
        if unscales:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([param], 1.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


@pytest.mark.parametrize("unscales", [False, True], ids=["inside", "unscale_"])
def test_the_trajectory_is_that_of_pytorchs_fused_optimizer(unscales):
    mine, theirs = make_param(), make_param()
    optimizer = ours.AdamW([mine], lr=LR)
    peer = torch.optim.AdamW([theirs], lr=LR, fused=True)
    scales = train(make_scaler(), optimizer, mine, unscales=unscales)
    assert scales == train(make_scaler(), peer, theirs, unscales=unscales)
    assert min(scales) < 1024.0 < max([2048.0, *scales])
    assert len(set(scales)) >= 3  # it backed off, and grew
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    for name in ("step", "exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(optimizer.state[mine][name], peer.state[theirs][name], rtol=1e-6, atol=1e-7)
    assert optimizer.skipped_steps == len(OVERFLOWS)


def test_clipping_inside_is_clipping_after_unscale_():
    mine, theirs = make_param(), make_param()
    train(make_scaler(), ours.AdamW([mine], lr=LR, clip_norm=1.0), mine)
    train(make_scaler(), ours.AdamW([theirs], lr=LR), theirs, unscales=True)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_an_overflow_is_no_step_of_the_schedule():
    param = make_param()
    optimizer = ours.AdamW([param], lr=COSINE)
    scaler = make_scaler()
    before = param.detach().clone()
    backward(scaler, param, 0)
    scaler.step(optimizer)
    assert torch.equal(param, before)
    assert optimizer.state[param]["step"] == 0
    assert not optimizer.state[param]["exp_avg"].any()
    assert optimizer.hyperparameters()[0]["lr"] == COSINE(0)
    scaler.update()
    assert (scaler.get_scale(), optimizer.skipped_steps) == (512.0, 1)
    train(make_scaler(), optimizer, param)
    assert optimizer.hyperparameters()[0]["lr"] == COSINE(STEPS - len(OVERFLOWS))


def test_steps_without_a_scaler_go_on_between():
    """What a scaler said holds for its own step alone."""
    mine, theirs = make_param(), make_param()
    optimizer, peer = ours.AdamW([mine], lr=LR), torch.optim.AdamW([theirs], lr=LR, fused=True)
    for own, param in ((optimizer, mine), (peer, theirs)):
        scaler = make_scaler()
        for step in range(STEPS):
            own.zero_grad()
            backward(scaler, param, step, overflows=(2,))
            if step % 2:
                param.grad /= scaler.get_scale()
                own.step()
            else:
                scaler.step(own)
                scaler.update()
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert optimizer.skipped_steps == 1


def test_two_optimizers_have_one_scaler():
    """Each of them skips its own overflow; the scale falls for both."""
    pairs = []
    for kind, keywords in ((ours.AdamW, {}), (torch.optim.AdamW, {"fused": True})):
        params = [make_param(seed=seed) for seed in (1, 2)]
        optimizers = [kind([param], lr=LR, **keywords) for param in params]
        scaler = make_scaler()
        for step in range(STEPS):
            for param, optimizer, overflows in zip(params, optimizers, ((1, 5), (5, 7)), strict=True):
                optimizer.zero_grad()
                backward(scaler, param, step, overflows)
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
        pairs.append((params, scaler.get_scale(), optimizers))
    (mine, scale, optimizers), (theirs, their_scale, _) = pairs
    assert scale == their_scale
    assert [optimizer.skipped_steps for optimizer in optimizers] == [2, 2]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_gradients_of_16_bits_are_unscaled_in_the_step():
    """Of float16 weights too, which GradScaler itself refuses to unscale; they are those of gradients never scaled."""
    scaled, plain = make_param(torch.float16), make_param(torch.float16)
    optimizer, peer = (ours.AdamW([param], lr=LR, master="float32") for param in (scaled, plain))
    train(make_scaler(), optimizer, scaled, overflows=(4,))
    for step in (step for step in range(STEPS) if step != 4):
        peer.zero_grad()
        backward(torch.amp.GradScaler("cpu", enabled=False), plain, step, overflows=())
        peer.step()
    assert torch.equal(scaled, plain)
    assert optimizer.skipped_steps == 1
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        backward(scaler := make_scaler(), scaled, 0, ()) or scaler.unscale_(optimizer)


def test_autocast_with_flat_gradients():
    mine, theirs = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)
    theirs.load_state_dict(mine.state_dict())
    optimizers = [
        ours.AdamW(mine.parameters(), lr=LR, flat_grads=True),
        torch.optim.AdamW(theirs.parameters(), lr=LR, fused=True),
    ]
    for model, optimizer in zip((mine, theirs), optimizers, strict=True):
        scaler = make_scaler()
        for step in range(STEPS):
            optimizer.zero_grad()
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(inputs).square().mean() * (torch.inf if step == 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert optimizers[0].skipped_steps == 1
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_nothing_of_the_scaler_is_left_behind():
    param = make_param()
    optimizer, scaler = ours.AdamW([param], lr=LR), make_scaler()
    backward(scaler, param, 1)
    scaler.step(optimizer)
    assert not hasattr(optimizer, "grad_scale")
    assert not hasattr(optimizer, "found_inf")

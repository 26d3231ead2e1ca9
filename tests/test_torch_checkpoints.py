"""`torch.distributed.checkpoint` in one process: states asked for before there are any, saved, flattened, loaded."""

import copy
import importlib

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import_module = importlib.import_module
dcp = import_module("torch.distributed.checkpoint")
states = import_module("torch.distributed.checkpoint.state_dict")
ours = import_module("gpuadam.torch")
schedules = import_module("gpuadam.schedules")

STEPS = 5
COSINE = schedules.warmup_cosine_decay(0.0, 0.1, warmup_steps=2, decay_steps=20)
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # it is


def make_model(dtype=torch.float32):
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 1)).to(dtype)


def train(model, optimizer, steps, scheduler=None):
    """Steps on gradients that depend on the step alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    optimizer.zero_grad()


def weights(model):
    return [param.detach().clone() for param in model.parameters()]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.signbit(), b.signbit())


# ---- states before the first step

CASES = {
    "decay": (ours.AdamW, {"lr": 0.1, "weight_decay": 0.5}),
    "coupled": (ours.Adam, {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}),
    "scheduled": (ours.AdamW, {"lr": 0.1, "weight_decay": 0.5, "decay": "scheduled"}),
    "schedule": (ours.AdamW, {"lr": COSINE, "weight_decay": 0.5}),
    "momentum": (ours.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}),
    "plain": (ours.SGD, {"lr": 0.1}),
    "average": (ours.AdamW, {"lr": 0.1, "ema_decay": schedules.step / (schedules.step + 10)}),
    "schedule_free": (ours.AdamWScheduleFree, {"lr": 0.1, "warmup_steps": 3}),
    "lamb": (ours.LAMB, {"lr": 0.1, "weight_decay": 0.5}),
    "clipped": (ours.RMSprop, {"lr": 0.1, "clip_norm": 0.1, "nonfinite": "skip", "momentum": 0.9}),
}


@pytest.mark.parametrize("name", CASES)
def test_asking_for_states_is_no_step(name):
    """It is `step` with gradients and rates of zero; what is trained then is bit for bit what would have been."""
    kind, settings = CASES[name]
    model, peer = make_model(), make_model()
    with torch.no_grad():
        for each in (model, peer):
            each[0].weight[0, :3] = torch.tensor([-0.0, 1e-40, 1e10])
    optimizer, alone = kind(model.parameters(), **settings), kind(peer.parameters(), **settings)
    before = list(optimizer.param_groups[0].items())
    found = states.get_optimizer_state_dict(model, optimizer)
    assert_same(weights(model), weights(peer))
    assert {float(entry["step"]) for entry in found["state"].values()} == {0.0}
    assert list(optimizer.param_groups[0].items()) == before
    train(model, optimizer, range(STEPS))
    train(peer, alone, range(STEPS))
    assert_same(weights(model), weights(peer))


@pytest.mark.parametrize("kept", [{"master": "remainder"}, {"rounding": "stochastic"}, {"master": "float32"}])
def test_asking_for_states_is_no_step_with_16_bits(kept):
    model, peer = make_model(torch.bfloat16), make_model(torch.bfloat16)
    settings = {"lr": 0.1, "weight_decay": 0.5, "ema_decay": 0.9, **kept}
    optimizer, alone = (ours.AdamW(each.parameters(), **settings) for each in (model, peer))
    states.get_optimizer_state_dict(model, optimizer)
    assert_same(weights(model), weights(peer))
    train(model, optimizer, range(STEPS))
    train(peer, alone, range(STEPS))
    assert_same(weights(model), weights(peer))


def test_with_flat_gradients_there_are_states_from_the_start(tmp_path):
    """Gradients are there, so nobody asks for states by a step of zeros; what is loaded would have no place."""
    model, resumed = make_model(), make_model()
    optimizers = [ours.AdamW(each.parameters(), lr=COSINE, flat_grads=True) for each in (model, resumed)]
    assert {float(entry["step"]) for entry in optimizers[0].state_dict()["state"].values()} == {0.0}
    train(model, optimizers[0], range(STEPS))
    save(tmp_path, model, optimizers[0])
    load(tmp_path, resumed, optimizers[1])
    for each, own in zip((model, resumed), optimizers, strict=True):
        train(each, own, range(STEPS, 2 * STEPS))
    assert_same(weights(resumed), weights(model))


def test_a_first_step_at_lr_0_counts_where_there_is_a_gradient():
    model, peer = make_model(), make_model()
    optimizers = [kind(each.parameters(), lr=0.1) for kind, each in ((ours.AdamW, model), (torch.optim.AdamW, peer))]
    for each, optimizer in zip((model, peer), optimizers, strict=True):
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / STEPS)
        train(each, optimizer, range(STEPS), scheduler)
    for mine, theirs in zip(weights(model), weights(peer), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_later_step_of_zeros_counts():
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), lr=0.0)
    train(model, optimizer, [0])
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"] == 2


# ---- there and back


def both_ways(flat):
    options = states.StateDictOptions(flatten_optimizer_state_dict=flat)
    return (
        lambda model, optimizer: states.get_state_dict(model, optimizer, options=options),
        lambda model, optimizer, model_state, own: states.set_state_dict(
            model, optimizer, model_state_dict=model_state, optim_state_dict=own, options=options
        ),
    )


def save(folder, model, optimizer, flat=False):
    get, _ = both_ways(flat)
    model_state, own = get(model, optimizer)
    dcp.save({"model": model_state, "optimizer": own}, checkpoint_id=folder, no_dist=True)


def load(folder, model, optimizer, flat=False):
    get, put = both_ways(flat)
    model_state, own = get(model, optimizer)
    state = {"model": model_state, "optimizer": own}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    put(model, optimizer, state["model"], state["optimizer"])


SETTINGS = {
    "number": {"lr": 0.1, "weight_decay": 0.1},
    "schedule": {"lr": COSINE, "clip_norm": 0.5, "ema_decay": 0.9, "nonfinite": "skip"},
}


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_goes_on(name, flat, tmp_path):
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), **SETTINGS[name])
    train(model, optimizer, range(STEPS))
    save(tmp_path, model, optimizer, flat)
    resumed = make_model()
    other = ours.AdamW(resumed.parameters(), **SETTINGS[name])
    load(tmp_path, resumed, other, flat)
    for each, own in ((model, optimizer), (resumed, other)):
        train(each, own, range(STEPS, 2 * STEPS))
    assert_same(weights(resumed), weights(model))
    assert optimizer.hyperparameters() == other.hyperparameters()
    for index, entry in optimizer.state_dict()["state"].items():
        assert_same(entry.values(), other.state_dict()["state"][index].values())


def test_the_multiplier_of_a_schedule_and_skipped_steps_are_kept(tmp_path):
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), **SETTINGS["schedule"])
    optimizer.param_groups[0]["lr"] = 0.5
    train(model, optimizer, range(STEPS))
    for param in model.parameters():
        param.grad = torch.full_like(param, torch.inf)
    optimizer.step()
    optimizer.zero_grad()
    save(tmp_path, model, optimizer)
    resumed = make_model()
    other = ours.AdamW(resumed.parameters(), **SETTINGS["schedule"])
    load(tmp_path, resumed, other)
    assert (other.param_groups[0]["lr"], other.skipped_steps) == (0.5, 1)
    assert other.hyperparameters()[0]["lr"] == pytest.approx(0.5 * COSINE(STEPS))


def test_a_file_that_is_read_with_weights_only_goes_on(tmp_path):
    """Here, and in PyTorch's optimizer, which ignores the average and the rest of each weight."""
    model, resumed, peer = (make_model(torch.bfloat16) for _ in range(3))
    settings = {"lr": COSINE, "ema_decay": 0.9, "master": "remainder", "nonfinite": "skip"}
    optimizer, other = (ours.AdamW(each.parameters(), **settings) for each in (model, resumed))
    train(model, optimizer, range(STEPS))
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "run.pt")
    weights_then, states_then = torch.load(tmp_path / "run.pt", weights_only=True)
    theirs = torch.optim.AdamW(peer.parameters())
    for each, own in ((resumed, other), (peer, theirs)):
        each.load_state_dict(weights_then)
        own.load_state_dict(copy.deepcopy(states_then))
    for each, own in ((model, optimizer), (resumed, other)):
        train(each, own, range(STEPS, 2 * STEPS))
    assert_same(weights(resumed), weights(model))
    assert theirs.param_groups[0]["lr"] == pytest.approx(COSINE(STEPS))
    train(peer, theirs, range(STEPS, 2 * STEPS))


def test_with_a_schedule_pytorchs_file_goes_through_pytorchs_optimizer(tmp_path):
    model, resumed = make_model(), make_model()
    theirs = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, theirs, range(STEPS))
    save(tmp_path, model, theirs)
    optimizer = ours.AdamW(resumed.parameters(), lr=COSINE)
    with pytest.raises(dcp.CheckpointException, match="Missing key in checkpoint state_dict"):
        load(tmp_path, resumed, optimizer)
    between = torch.optim.AdamW(resumed.parameters(), lr=0.1)
    load(tmp_path, resumed, between)
    optimizer.load_state_dict(between.state_dict())
    assert optimizer.hyperparameters()[0]["lr"] == COSINE(STEPS)


def test_what_is_refused_leaves_the_groups_as_they_were():
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    before = list(optimizer.param_groups[0].items())
    state["param_groups"][0].update(eps_placement="hat", lr=0.3)
    state["state"][0]["exp_avg"] = torch.zeros(2)
    with pytest.raises(ValueError, match="exp_avg of tensor 0"):
        optimizer.load_state_dict(state)
    assert list(optimizer.param_groups[0].items()) == before


PAIRS = {
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "Adam": {"lr": 0.1, "amsgrad": True},
    "SGD": {"lr": 0.1, "momentum": 0.9},
}


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_checkpoint_of_pytorch_goes_on_here_and_back(name, flat, tmp_path):
    theirs, mine = getattr(torch.optim, name), getattr(ours, name)
    for first, second in ((theirs, mine), (mine, theirs)):
        model, resumed = make_model(), make_model()
        optimizer = first(model.parameters(), **PAIRS[name])
        train(model, optimizer, range(STEPS))
        options = states.StateDictOptions(flatten_optimizer_state_dict=flat)
        found = copy.deepcopy(states.get_optimizer_state_dict(model, optimizer, options=options))
        resumed.load_state_dict(model.state_dict())
        other = second(resumed.parameters(), **PAIRS[name])
        states.set_optimizer_state_dict(resumed, other, found, options=options)
        for each, own in ((model, optimizer), (resumed, other)):
            train(each, own, range(STEPS, 2 * STEPS))
        for a, b in zip(weights(model), weights(resumed), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)

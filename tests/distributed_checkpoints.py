"""Checks that run on every rank: `torch.distributed.checkpoint`, from two ranks to two, to one, and from one to two.

Gradients are given, the same whole tensors however they are sharded: so runs can be compared to the last bit.
"""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from distributed_checks import sharded
from distributed_worker import distance, make_model, train, whole
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from gpuadam import schedules
from gpuadam.torch import AdamW

BEFORE, AFTER = range(5), range(5, 10)
SCHEDULE = schedules.warmup_cosine_decay(0.0, 0.1, warmup_steps=3, decay_steps=20)
SETTINGS = {"lr": SCHEDULE, "weight_decay": 0.1, "ema_decay": 0.9}
PLAIN = {"lr": 0.05, "weight_decay": 0.1}


def give_gradients(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in model.parameters():
            grad = torch.randn(param.shape, generator=generator)
            is_sharded = isinstance(param, DTensor)
            param.grad = distribute_tensor(grad, param.device_mesh, param.placements) if is_sharded else grad
        optimizer.step()
    optimizer.zero_grad()


def read_state(model, optimizer, flat=False):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def load(model, optimizer, folder, flat=False, **keywords):
    state = read_state(model, optimizer, flat)
    dcp.load(state, checkpoint_id=folder, **keywords)
    set_model_state_dict(model, state["model"])
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)


def snapshot(model, optimizer):
    """Everything of a run, in whole tensors."""
    state = get_optimizer_state_dict(model, optimizer)["state"]
    states = {f"{name}.{own}": value for name, entry in state.items() for own, value in entry.items()}
    tensors = {**dict(model.named_parameters()), **states}
    return {name: whole(tensor).clone() for name, tensor in tensors.items()}


def assert_same_bits(left, right):
    assert set(left) == set(right)
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def two_ranks_save_and_go_on(ranks):
    """The runs that the test loads on one rank; and here they are loaded on two."""
    for name, settings, flat in (("schedule", SETTINGS, False), ("flat", SETTINGS, True), ("plain", PLAIN, False)):
        ours = sharded()
        optimizer = AdamW(ours.parameters(), **settings)
        give_gradients(ours, optimizer, BEFORE)
        dcp.save(read_state(ours, optimizer, flat), checkpoint_id=ranks.folder / name)
        give_gradients(ours, optimizer, AFTER)
        went_on = snapshot(ours, optimizer)
        if ranks.rank == 0:
            torch.save(went_on, ranks.folder / f"{name}.pt")
        resumed = sharded(model=make_model(seed=1))
        other = AdamW(resumed.parameters(), **settings)
        load(resumed, other, ranks.folder / name, flat)
        assert other.hyperparameters()[0]["lr"] == (SCHEDULE(len(BEFORE)) if settings is SETTINGS else PLAIN["lr"])
        give_gradients(resumed, other, AFTER)
        assert_same_bits(snapshot(resumed, other), went_on)


def two_ranks_go_on_where_one_was(ranks):
    for name, settings in (("one", SETTINGS), ("one_of_pytorch", PLAIN)):
        ours = sharded(model=make_model(seed=1))
        optimizer = AdamW(ours.parameters(), **settings)
        load(ours, optimizer, ranks.folder / name)
        give_gradients(ours, optimizer, AFTER)
        went_on = torch.load(ranks.folder / f"{name}.pt")
        found = snapshot(ours, optimizer)
        assert set(found) >= set(went_on)
        for own, value in went_on.items():
            torch.testing.assert_close(found[own], value, rtol=0, atol=1e-6 if name == "one_of_pytorch" else 0)


def pytorch_goes_on_with_ours(ranks):
    peer, ours = sharded(model=make_model(seed=1)), sharded(model=make_model(seed=1))
    theirs = torch.optim.AdamW(peer.parameters(), **PLAIN)
    optimizer = AdamW(ours.parameters(), **PLAIN)
    for model, own in ((peer, theirs), (ours, optimizer)):
        load(model, own, ranks.folder / "plain")
        give_gradients(model, own, AFTER)
    assert distance(peer.parameters(), ours.parameters()) < 1e-6


def whole_states_on_one_rank(ranks):
    """What rank 0 gathers to save by itself, and spreads again."""
    full = {"full_state_dict": True}
    ours = sharded()
    optimizer = AdamW(ours.parameters(), **SETTINGS)
    give_gradients(ours, optimizer, BEFORE)
    state = get_optimizer_state_dict(ours, optimizer, options=StateDictOptions(cpu_offload=True, **full))
    assert bool(state) == (ranks.rank == 0)
    if ranks.rank == 0:
        assert {type(value) for entry in state["state"].values() for value in entry.values()} == {torch.Tensor}
    resumed = sharded()
    other = AdamW(resumed.parameters(), **SETTINGS)
    with torch.no_grad():
        for param, value in zip(resumed.parameters(), ours.parameters(), strict=True):
            param.to_local().copy_(value.to_local())
    options = StateDictOptions(broadcast_from_rank0=True, **full)
    set_optimizer_state_dict(resumed, other, state, options=options)
    for model, own in ((ours, optimizer), (resumed, other)):
        give_gradients(model, own, AFTER)
    assert_same_bits(snapshot(resumed, other), snapshot(ours, optimizer))


def states_before_the_first_step(ranks):
    """Asked for on all ranks; one has nothing of some tensors, and still both agree that it was no step."""
    ours, alone = sharded(), sharded()
    optimizer, other = AdamW(ours.parameters(), **SETTINGS), AdamW(alone.parameters(), **SETTINGS)
    state = get_optimizer_state_dict(ours, optimizer)["state"]
    assert {float(entry["step"]) for entry in state.values()} == {0.0}
    assert distance(ours.parameters(), alone.parameters()) == 0
    for model, own in ((ours, optimizer), (alone, other)):
        train(model, own, range(3), ranks.rank)
    assert_same_bits(snapshot(ours, optimizer), snapshot(alone, other))


def a_first_step_at_lr_0_that_one_rank_has_no_part_in(ranks):
    """One element alone has a gradient, on rank 0: both ranks count the step."""
    ours = sharded()
    optimizer = AdamW(ours.parameters(), lr=0.0)
    for param in ours.parameters():
        param.grad = torch.zeros_like(param)
    if ranks.rank == 0:
        ours[0].weight.grad.to_local()[0, 0] = 1e-30
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"] == 1
    dist.barrier()

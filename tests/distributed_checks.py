"""Checks that run on every rank: DDP and FSDP2 against one process, and against PyTorch's optimizer."""

import pytest
import torch
import torch.distributed as dist
from distributed_worker import (
    STEPS,
    WORLD,
    assert_same_on_all_ranks,
    backward,
    batch,
    distance,
    make_model,
    train,
    whole,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gpuadam import schedules
from gpuadam.torch import AdamW

LR, SETTINGS = 0.01, {"weight_decay": 0.1}
NEAR = 2e-6  # of weights around 0.3 after 8 steps of 0.01


def reference(rate=lambda step: LR, before=None, steps=STEPS):
    """One process, the whole batch, PyTorch's optimizer."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, **SETTINGS)

    def set_rate(step):
        optimizer.param_groups[0]["lr"] = rate(step)
        if before is not None:
            before(model, step)

    return train(model, optimizer, range(steps), before=set_rate)


def sharded(mesh=None, model=None, **keywords):
    model = make_model() if model is None else model
    mesh = init_device_mesh("cpu", (WORLD,)) if mesh is None else mesh
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh, **keywords)
    return fully_shard(model, mesh=mesh, **keywords)


# ---- DDP


def _check_ddp(ranks, flat_grads=False, **keywords):
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=LR, flat_grads=flat_grads, **SETTINGS)
    train(DistributedDataParallel(model, **keywords), optimizer, range(STEPS), ranks.rank)
    assert_same_on_all_ranks(model.parameters())
    assert distance(model.parameters(), reference().parameters()) < NEAR


def ddp(ranks):
    _check_ddp(ranks)


def ddp_bucket_view(ranks):
    _check_ddp(ranks, gradient_as_bucket_view=True)


def ddp_static_graph(ranks):
    _check_ddp(ranks, static_graph=True)


def ddp_flat_grads(ranks):
    _check_ddp(ranks, flat_grads=True)


def ddp_flat_grads_and_bucket_view(ranks):
    _check_ddp(ranks, flat_grads=True, gradient_as_bucket_view=True)
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=LR, flat_grads=True)
    backward(DistributedDataParallel(model, gradient_as_bucket_view=True), 0, ranks.rank)
    optimizer.zero_grad()  # without a step before it: what DDP has put in our place is forgotten too
    assert all(param.grad is None or not param.grad.any() for param in model.parameters())


# ---- FSDP2


def fsdp(ranks):
    peer, ours = sharded(), sharded()
    train(peer, torch.optim.AdamW(peer.parameters(), lr=LR, foreach=True, **SETTINGS), range(STEPS), ranks.rank)
    optimizer = AdamW(ours.parameters(), lr=LR, **SETTINGS)
    train(ours, optimizer, range(STEPS), ranks.rank)
    assert distance(ours.parameters(), peer.parameters()) < NEAR
    assert distance(ours.parameters(), reference().parameters()) < NEAR
    sizes = [param.to_local().numel() for param in ours.parameters()]
    assert (0 in sizes) == (ranks.rank == 1)
    _assert_states_are_sharded(optimizer, ours)


def _assert_states_are_sharded(optimizer, model):
    state = optimizer.state_dict()["state"]
    for index, param in enumerate(model.parameters()):
        for name in ("exp_avg", "exp_avg_sq"):
            assert isinstance(state[index][name], DTensor)
            assert (state[index][name].placements, state[index][name].shape) == (param.placements, param.shape)
            assert torch.equal(whole(optimizer.state[param][name]), whole(state[index][name]))
        assert state[index]["step"] == STEPS


def fsdp_schedule(ranks):
    lr = schedules.warmup_cosine_decay(0.0, 0.02, warmup_steps=3, decay_steps=STEPS)
    ours = sharded()
    train(ours, AdamW(ours.parameters(), lr=lr, **SETTINGS), range(STEPS), ranks.rank)
    assert distance(ours.parameters(), reference(lr).parameters()) < NEAR


def fsdp_replicated_and_sharded(ranks):
    for shape in ((WORLD, 1), (1, WORLD)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
        ours = sharded(mesh)
        optimizer = AdamW(ours.parameters(), lr=LR, clip_norm=0.5, **SETTINGS)
        train(ours, optimizer, range(STEPS), ranks.rank)
        clip = reference(before=lambda model, step: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        assert distance(ours.parameters(), clip.parameters()) < NEAR


def fsdp_mixed_precision(ranks):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    peer, ours = sharded(mp_policy=policy), sharded(mp_policy=policy)
    train(peer, torch.optim.AdamW(peer.parameters(), lr=LR, **SETTINGS), range(STEPS), ranks.rank)
    train(ours, AdamW(ours.parameters(), lr=LR, **SETTINGS), range(STEPS), ranks.rank)
    assert next(ours.parameters()).dtype == torch.float32
    assert distance(ours.parameters(), peer.parameters()) < 1e-5


def fsdp_of_bfloat16_with_remainders(ranks):
    ours = sharded(model=make_model().bfloat16())
    optimizer = AdamW(ours.parameters(), lr=LR, master="remainder", ema_decay=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        inputs, targets = batch(step, ranks.rank)
        (ours(inputs.bfloat16()) - targets.bfloat16()).square().mean().backward()
        optimizer.step()
    entry = optimizer.state_dict()["state"][0]
    assert all(isinstance(entry[name], DTensor) for name in ("exp_avg", "remainder", "ema"))
    before = [whole(param).clone() for param in ours.parameters()]
    with optimizer.ema():
        assert distance(ours.parameters(), before) > 0
    assert distance(ours.parameters(), before) == 0


def fsdp_one_mesh_a_layer(ranks):
    model = make_model()
    fully_shard(model[0], mesh=init_device_mesh("cpu", (WORLD,)))
    fully_shard(model[2], mesh=init_device_mesh("cpu", (1, WORLD), mesh_dim_names=("replicate", "shard")))
    optimizer = AdamW(model.parameters(), lr=LR, clip_norm=0.5, **SETTINGS)
    train(model, optimizer, range(STEPS), ranks.rank)
    peer = reference(before=lambda model, step: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
    assert distance(model.parameters(), peer.parameters()) < NEAR


def _beside_plain_parameters(ranks, **keywords):
    """A sharded layer and a plain one, whose gradients the ranks exchange themselves."""
    model = make_model()
    fully_shard(model[0], mesh=init_device_mesh("cpu", (WORLD,)))
    optimizer = AdamW(model.parameters(), lr=LR, **SETTINGS, **keywords)

    def exchange(step):
        for param in model[2].parameters():
            dist.all_reduce(param.grad)
            param.grad /= WORLD

    return train(model, optimizer, range(STEPS), ranks.rank, exchange), optimizer


def fsdp_beside_plain_parameters(ranks):
    model, optimizer = _beside_plain_parameters(ranks)
    assert distance(model.parameters(), reference().parameters()) < NEAR
    kinds = [type(entry["exp_avg"]) for entry in optimizer.state_dict()["state"].values()]
    assert kinds == [DTensor, DTensor, torch.Tensor, torch.Tensor]


def fsdp_norms_beside_plain_parameters(ranks):
    with pytest.raises(ValueError, match="parameter 0 and parameter 2 share a norm, but are sharded over different"):
        _beside_plain_parameters(ranks, clip_norm=1.0)

    def clip(model, step):
        for param in model.parameters():
            torch.nn.utils.clip_grad_norm_([param], 0.1)

    model, _ = _beside_plain_parameters(ranks, clip_norm=0.1, clip_scope="tensor")
    assert distance(model.parameters(), reference(before=clip).parameters()) < NEAR

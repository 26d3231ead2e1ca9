"""Checks that run on every rank: norms of sharded gradients, steps that all ranks skip, and what is refused."""

import pytest
import torch
from distributed_checks import LR, NEAR, SETTINGS, reference, sharded
from distributed_worker import (
    STEPS,
    assert_same_on_all_ranks,
    backward,
    batch,
    distance,
    gathered,
    make_model,
    train,
    whole,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.placement_types import Partial

from gpuadam.torch import LAMB, AdamW

CLIP = 0.1


def clip_norm(ranks):
    norms, theirs, single = [], [], []
    peer, ours = sharded(), sharded()
    theirs_optimizer = torch.optim.AdamW(peer.parameters(), lr=LR, **SETTINGS)
    train(peer, theirs_optimizer, range(STEPS), ranks.rank, lambda step: theirs.append(_clip(peer, whole)))
    optimizer = AdamW(ours.parameters(), lr=LR, clip_norm=CLIP, **SETTINGS)
    for step in range(STEPS):
        train(ours, optimizer, [step], ranks.rank)
        norms += optimizer.gradient_norms()
    alone = reference(before=lambda model, step: single.append(_clip(model, float)))
    assert min(norms) > 2 * CLIP
    assert norms == pytest.approx([float(norm) for norm in theirs], rel=1e-5)
    assert norms == pytest.approx(single, rel=1e-5)
    assert distance(ours.parameters(), peer.parameters()) < NEAR
    assert distance(ours.parameters(), alone.parameters()) < NEAR
    assert_same_on_all_ranks([torch.tensor(norms, dtype=torch.float64)])


def _clip(model, read):
    return read(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP))


def norms_of_scaled_gradients(ranks):
    """The norm is that of the loss itself, in each scope, whatever it was multiplied by; the step is the same."""
    for scope, count in (("global", 1), ("group", 2), ("tensor", 4)):
        plain, scaled = sharded(), sharded()
        settings = {"lr": LR, "clip_norm": CLIP, "clip_scope": scope}
        one, other = AdamW(_two_groups(plain), **settings), AdamW(_two_groups(scaled), **settings)
        backward(plain, 0, ranks.rank)
        expected = _norms(plain, scope)
        one.step()
        backward(scaled, 0, ranks.rank, scale=1024.0)
        other.grad_scale = torch.tensor(1024.0)  # as a GradScaler leaves it
        other.step()
        assert len(expected) == count
        assert one.gradient_norms() == pytest.approx(expected, rel=1e-6)
        assert other.gradient_norms() == one.gradient_norms()
        assert distance(plain.parameters(), scaled.parameters()) == 0


def _two_groups(model):
    return [{"params": list(layer.parameters())} for layer in (model[0], model[2])]


def _norms(model, scope):
    grads = [whole(param.grad).double().square().sum() for param in model.parameters()]
    scopes = {"global": [grads], "group": [grads[:2], grads[2:]], "tensor": [[grad] for grad in grads]}[scope]
    return [float(sum(own).sqrt()) for own in scopes]


def skipped_on_all_ranks(ranks):
    ours = sharded()
    optimizer = AdamW(ours.parameters(), lr=LR, nonfinite="skip", **SETTINGS)
    train(ours, optimizer, [0], ranks.rank)
    before = [whole(param).clone() for param in ours.parameters()]
    train(ours, optimizer, [1], ranks.rank, lambda step: _spoil(ours, ranks.rank))
    assert distance(ours.parameters(), before) == 0
    train(ours, optimizer, range(1, STEPS), ranks.rank)
    counts = torch.tensor([optimizer.skipped_steps, int(optimizer.state_dict()["state"][0]["step"])])
    assert [part.tolist() for part in gathered(counts)] == [[1, STEPS]] * 2
    assert distance(ours.parameters(), reference().parameters()) < NEAR


def _spoil(model, rank):
    """An infinity in the second half of a gradient."""
    if rank == 1:
        model[0].weight.grad.to_local()[0, 0] = torch.inf


def raised_on_all_ranks(ranks):
    ours = sharded()
    optimizer = AdamW(ours.parameters(), lr=LR, nonfinite="raise")
    with pytest.raises(FloatingPointError):
        train(ours, optimizer, [0], ranks.rank, lambda step: _spoil(ours, ranks.rank))


def scaled_losses(ranks):
    """GradScaler as FSDP2 has it: what one rank finds reaches the others, and no rank takes the step."""
    peer, ours = sharded(), sharded()
    mine = AdamW(ours.parameters(), lr=LR, clip_norm=CLIP, **SETTINGS)
    theirs = torch.optim.AdamW(peer.parameters(), lr=LR, **SETTINGS)
    for model, optimizer in ((ours, mine), (peer, theirs)):
        scaler = ShardedGradScaler(device="cpu", init_scale=1024.0)
        for step in range(STEPS):
            optimizer.zero_grad()
            inputs, targets = batch(step, ranks.rank)
            scaler.scale((model(inputs) - targets).square().mean()).backward()
            if step in (0, 3):
                _spoil(model, ranks.rank)
            if optimizer is theirs:
                scaler.unscale_(optimizer)
                _clip(model, whole)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 256.0
    assert distance(ours.parameters(), peer.parameters()) < NEAR
    assert [int(part) for part in gathered(torch.tensor(mine.skipped_steps))] == [2, 2]


def refused_for_shards(ranks):
    ours = sharded()
    with pytest.raises(ValueError, match=r"lamb needs norms of whole tensors, but parameter 'weight' is sharded"):
        LAMB([("weight", ours[0].weight)], lr=LR)
    with pytest.raises(ValueError, match=r"state_dtype is 'int8', but parameter 0 is sharded.*allowed are 'float32'"):
        AdamW(ours.parameters(), lr=LR, state_dtype="int8")
    with pytest.raises(ValueError, match="flat_grads is True, but a parameter is a DTensor"):
        AdamW(ours.parameters(), lr=LR, flat_grads=True)
    optimizer = AdamW(make_model().parameters(), lr=LR, state_dtype="int8")
    with pytest.raises(ValueError, match="state_dtype is 'int8', but parameter 4 is sharded"):
        optimizer.add_param_group({"params": [ours[0].weight]})
    assert len(optimizer.param_groups) == 1


def whole_tensors_as_dtensors(ranks):
    """Replicated DTensors are whole, and nothing is refused; gradients that are still to be added up are added."""
    mesh = init_device_mesh("cpu", (2,))
    plain = torch.nn.Parameter(torch.linspace(-1, 1, 600).reshape(2, 300))
    placed = torch.nn.Parameter(distribute_tensor(plain.detach().clone(), mesh, [Replicate()]))
    LAMB([placed], lr=LR)
    AdamW([placed], lr=LR, state_dtype="int8")
    one, other = (AdamW([param], lr=LR, clip_norm=CLIP) for param in (plain, placed))
    for step in range(3):
        parts = [torch.full_like(plain, 0.5 + rank + step) for rank in range(2)]
        plain.grad = parts[0] + parts[1]
        placed.grad = DTensor.from_local(parts[ranks.rank], mesh, [Partial()])
        one.step()
        other.step()
    assert torch.equal(placed.to_local(), plain)

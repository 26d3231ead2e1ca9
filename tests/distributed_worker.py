"""What each rank does in the tests of training over several processes: one start serves all checks.

A check is a function of one argument, `ranks`; it fails by an exception. If it fails on one rank alone, the ranks end
there: the others may be waiting for that one.
"""

import os
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORLD = 2
STEPS = 8
BATCH = 4  # of each rank


@dataclass
class Ranks:
    """Where a check runs: its rank, and a folder that all ranks and the tests share."""

    rank: int
    folder: Path


def run(rank: int, folder: Path, checks: list[Any]) -> None:
    """Start a rank, and write down what came of each check: nothing, or why it failed."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=60))
    found = {}
    for check in checks:
        name = check.__name__
        try:
            check(Ranks(rank, folder))
        except BaseException:
            found[name] = f"rank {rank}: {traceback.format_exc()}"
        else:
            found[name] = ""
        torch.save(found, folder / f"rank{rank}.pt")
        if not have_all_ended(store, name, rank):
            break
    os._exit(0)  # without waiting for a rank that may have ended


def have_all_ended(store: Any, name: str, rank: int) -> bool:
    store.set(f"{name} on {rank}", "ended")
    try:
        store.wait([f"{name} on {other}" for other in range(WORLD)], timedelta(seconds=20))
    except RuntimeError:
        return False
    return True


def gathered(tensor: Any) -> list[Any]:
    """The tensor as each rank has it."""
    parts = [torch.empty_like(tensor) for _ in range(WORLD)]
    dist.all_gather(parts, tensor.detach().contiguous())
    return parts


def assert_same_on_all_ranks(tensors: Any) -> None:
    for tensor in tensors:
        first, *others = gathered(tensor)
        assert all(torch.equal(first, other) for other in others)


def distance(left: Any, right: Any) -> float:
    """The largest difference between two lists of tensors, whole ones of DTensors; NaN if there is one."""
    differences = [(whole(a) - whole(b)).abs().max() for a, b in zip(left, right, strict=True)]
    return float(torch.stack(differences).max())


def whole(tensor: Any) -> Any:
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# ---- a model small enough that one rank has nothing of some of its tensors


def make_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def batch(step: int, rank: int | None = None) -> Any:
    """Inputs and targets of a step: those of a rank, or those of all of them."""
    generator = torch.Generator().manual_seed(1000 + step)
    inputs = torch.randn(WORLD * BATCH, 7, generator=generator)
    targets = torch.randn(WORLD * BATCH, 1, generator=generator)
    rows = slice(None) if rank is None else slice(rank * BATCH, (rank + 1) * BATCH)
    return inputs[rows], targets[rows]


def backward(model: Any, step: int, rank: int | None = None, scale: float = 1.0) -> None:
    inputs, targets = batch(step, rank)
    (scale * (model(inputs) - targets).square().mean()).backward()


def train(model: Any, optimizer: Any, steps: Any, rank: int | None = None, before: Any = None) -> Any:
    """Train for some steps; `before` is called ahead of each optimizer step."""
    for step in steps:
        optimizer.zero_grad()
        backward(model, step, rank)
        if before is not None:
            before(step)
        optimizer.step()
    return model

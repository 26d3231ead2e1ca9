"""Norms of gradients that are sharded over processes: the squares of all shards are added between the two launches."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from .engine import Engine
from .groups import Group, name_tensor
from .torch_arrays import local

LARGEST = float(np.finfo(np.float64).max)


def require_shards_to_do(engine: Engine, groups: Iterable[Group], names: Sequence[Any], params: Sequence[Any]) -> None:
    """Raise if what is asked for needs more of a parameter than the shard that is here.

    Args:
        engine: Of the same rule.
        groups: Which have
        names, params: these parameters.
    """
    name = next((title for title, param in zip(names, params, strict=True) if _sharded_over(param)), None)
    if name is None:
        return
    if engine.defaults.rule.measure is not None:
        raise ValueError(
            f"{engine.defaults.rule.name} needs norms of whole tensors, but {name_tensor('parameter', name)} is sharded"
        )
    if any(group.storage.state_dtype == "int8" for group in groups):
        raise ValueError(
            f"state_dtype is 'int8', but {name_tensor('parameter', name)} is sharded, and blocks of states cannot be "
            "shared out anew; allowed are 'float32' and 'bfloat16'"
        )


def reduce_norms_of_shards(engine: Engine, names: Sequence[Any], params: Sequence[Any]) -> None:
    """Let the engine reckon with the shards of other processes, where its parameters are DTensors.

    Args:
        engine: Whose norms they are.
        names, params: Its parameters, in its order.

    Raises:
        ValueError: Tensors share a norm that are not sharded alike.
    """
    placed = [_sharded_over(param) for param in params]
    if any(placed) and engine.tensors.scope_count:
        engine.tables.after_sums = Reduction(engine, names, placed)


def local_gradient(param: Any) -> Any:
    """The gradient of the part of a parameter that is here; None if it has none.

    Of a DTensor it may lie otherwise than its parameter, as a sum that is not added up yet: then it is brought to where
    it belongs, as PyTorch's own optimizers do.
    """
    grad = param.grad
    if getattr(grad, "placements", None) != getattr(param, "placements", None) and grad is not None:
        param.grad = grad = grad.redistribute(placements=param.placements)
    return None if grad is None else local(grad)


def _sharded_over(param: Any) -> tuple[Any, ...]:
    """The process groups over which a parameter is sharded; none for a whole or a replicated one."""
    placements = getattr(param, "placements", ())
    return tuple(
        param.device_mesh.get_group(i) for i, placement in enumerate(placements) if not placement.is_replicate()
    )


class Reduction:
    """Adds the squared norms of each scope over the processes that hold its shards."""

    def __init__(self, engine: Engine, names: Sequence[Any], placed: Sequence[tuple[Any, ...]]) -> None:
        self._engine = engine
        self._scopes: dict[tuple[Any, ...], list[int]] = {}  # by the groups over which they are added
        first: dict[int, int] = {}
        for index, scope in enumerate(engine.tensors.scopes()[0].tolist()):
            other = first.setdefault(scope, index)
            if placed[other] != placed[index]:
                raise ValueError(
                    f"{name_tensor('parameter', names[other])} and {name_tensor('parameter', names[index])} share a "
                    "norm, but are sharded over different processes (or one of them is not); allowed is "
                    "clip_scope='tensor', or tensors that are all sharded alike"
                )
            if other == index:
                self._scopes.setdefault(placed[index], []).append(scope)

    def __call__(self) -> None:
        norms = torch.as_tensor(self._engine.tables.live("norms"))
        for groups, scopes in self._scopes.items():
            if groups:
                which = slice(None) if len(self._scopes) == 1 else scopes  # a list would be copied to the device
                squares = norms[which].square()
                for group in groups:
                    torch.distributed.all_reduce(squares, group=group)
                norms[which] = squares.sqrt_()
        nonfinite = torch.as_tensor(self._engine.tables.live("progress", "nonfinite").view(np.int32))
        nonfinite.copy_((~(norms <= LARGEST)).any())

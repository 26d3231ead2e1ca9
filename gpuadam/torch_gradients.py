"""Where the gradients of PyTorch's parameters lie: looked at before each step, checked where something has changed."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .arrays import Array, borrow
from .engine import Engine
from .groups import name_tensor
from .torch_arrays import local, refuse_in_capture
from .torch_buffers import FlatGradients, grad_of
from .torch_layouts import MOVED, SAME, Layouts
from .torch_sharding import local_gradient


class Gradients:
    """The gradients of the parameters of an engine. None of them is kept alive: PyTorch frees them when it will.

    Args:
        engine: Whose tensors are
        params: these, in the same order.
        flat: The buffers in which they lie, if they do.
    """

    def __init__(self, engine: Engine, params: Sequence[Any], flat: FlatGradients | None = None) -> None:
        self._engine, self._params, self._flat = engine, params, flat
        self._is_sharded = any(local(param) is not param for param in params)
        axes = [local(param).dim() for param in params]
        self._own, self._theirs = Layouts(axes), Layouts(axes)

    def refresh(self) -> None:
        """Bind the gradients as they are now; if all lie where they lay, that costs one comparison a tensor."""
        grads = self._grads()
        stay, moved = self._own.look(self._shards(self._params)), self._theirs.look(grads)
        if moved != SAME and self._flat is not None:
            self._flat.attach()
            grads = self._grads()
            moved = self._theirs.look(grads)
        if (stay, moved) == (SAME, SAME):
            return
        refuse_in_capture(
            self._engine.tensors.device(),
            "gradients do not lie where they did in the step before: let them stay there, by "
            "zero_grad(set_to_none=False) or flat_grads=True, and take a step before the capture",
        )
        may_follow = (stay, moved) == (SAME, MOVED) and self._can_follow(grads)
        self.forget()  # an interrupt leaves nothing that is taken for bound
        if may_follow:
            self._engine.relocate(self._theirs.addresses())
        else:
            self._bind(grads)
        self._own.accept()
        self._theirs.accept()

    def _can_follow(self, grads: npt.NDArray[np.object_]) -> bool:
        """Whether gradients that have moved have memory that holds their values, not the negative of these."""
        present = compress(grads, self._theirs.addresses().tolist())
        return self._theirs.are_readable() and not any(map(torch.Tensor.is_neg, present))

    def forget(self) -> None:
        """Check everything at the next step."""
        self._own.forget()
        self._theirs.forget()

    def _shards(self, tensors: Sequence[Any]) -> npt.NDArray[np.object_]:
        found = map(local, tensors) if self._is_sharded else tensors
        return np.fromiter(found, object, len(self._params))

    def _grads(self) -> npt.NDArray[np.object_]:
        if self._is_sharded:
            return np.fromiter(map(local_gradient, self._params), object, len(self._params))
        return np.fromiter(map(grad_of, self._params), object, len(self._params))

    def _bind(self, grads: npt.NDArray[np.object_]) -> None:
        tensors = self._engine.tensors
        arrays: list[Array | None] = []
        for name, grad in zip(tensors.names, grads, strict=True):
            title = name_tensor("gradient", name)
            if grad is not None and grad.is_sparse:
                raise TypeError(f"{title} is sparse; allowed are dense ones: sparse=False, or to_dense()")
            arrays.append(None if grad is None else borrow(grad, title))
        binding = tensors.check(arrays, [])
        for array in arrays:
            if array is not None:
                array.owner = array.memory = array.layout = None
        self._engine.put(binding)

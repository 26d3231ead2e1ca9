"""Where the gradients of PyTorch's parameters lie: looked at before each step, checked where something has changed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .arrays import Array, borrow
from .engine import Engine
from .groups import name_tensor
from .torch_arrays import local
from .torch_buffers import FlatGradients
from .torch_sharding import local_gradient


class Look(NamedTuple):
    """What may change from step to step, by tensor; None where there is no gradient."""

    params: list[int]
    grads: list[int | None]
    strides: list[Any]


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
        self._seen: Look | None = None

    def refresh(self) -> None:
        """Bind the gradients as they are now; if all lie where they lay, that costs one comparison a tensor."""
        if self._flat is not None and self._flat.attach() and self._lie_in(self._flat):
            return
        look = self._look()
        if look != self._seen:
            before, self._seen = self._seen, None  # an interrupt leaves nothing that is taken for bound
            self._follow(before, look)
            self._seen = look

    def _lie_in(self, flat: FlatGradients) -> bool:
        """Whether nothing has changed, of gradients that all lie in buffers."""
        if self._seen is None or len(flat.params) != len(self._params):
            return False
        return [param.data_ptr() for param in self._params] == self._seen.params

    def forget(self) -> None:
        """Check everything at the next step."""
        self._seen = None

    def _grads(self) -> list[Any]:
        if self._is_sharded:
            return [local_gradient(param) for param in self._params]
        return [param.grad for param in self._params]

    def _look(self) -> Look:
        grads = self._grads()
        params = [local(param) for param in self._params] if self._is_sharded else self._params
        lie = [param.data_ptr() for param in params]
        try:
            return Look(lie, [grad.data_ptr() for grad in grads], [grad.stride() for grad in grads])
        except (AttributeError, RuntimeError):  # one is None, or sparse
            there = [None if grad is None or grad.is_sparse else grad for grad in grads]
            pointers = [None if grad is None else grad.data_ptr() for grad in there]
            self._refuse_sparse(grads)
            return Look(lie, pointers, [None if grad is None else grad.stride() for grad in there])

    def _refuse_sparse(self, grads: Sequence[Any]) -> None:
        for name, grad in zip(self._engine.tensors.names, grads, strict=True):
            if grad is not None and grad.is_sparse:
                raise TypeError(
                    f"{name_tensor('gradient', name)} is sparse; allowed are dense ones: sparse=False, or to_dense()"
                )

    def _follow(self, before: Look | None, look: Look) -> None:
        moved: dict[int, int] = {}
        if before and (before.params, before.strides) == (look.params, look.strides):
            pairs = enumerate(zip(before.grads, look.grads, strict=True))
            moved = {index: new for index, (old, new) in pairs if old != new and new is not None}
        if moved and self._have_their_formats(moved):
            self._engine.relocate(moved)
        else:
            self._bind()

    def _have_their_formats(self, moved: dict[int, int]) -> bool:
        """Of the same strides as before, they are what they were if dtype and device are; PyTorch sees to the shape."""
        params, grads = self._engine.tensors.params, self._grads()
        return all(
            params[index].owner.dtype is grads[index].dtype and params[index].owner.device == grads[index].device
            for index in moved
        )

    def _bind(self) -> None:
        tensors, grads = self._engine.tensors, self._grads()
        arrays: list[Array | None] = []
        for name, grad in zip(tensors.names, grads, strict=True):
            array = None if grad is None else borrow(grad, name_tensor("gradient", name))
            arrays.append(array)
        binding = tensors.check(arrays, [])
        for array in arrays:
            if array is not None:
                array.owner = array.memory = array.layout = None
        self._engine.put(binding)

"""All gradients in one buffer: filled with zeros at once, and always where they were."""

import operator
from collections.abc import Iterable
from typing import Any

import torch

from .torch_arrays import local

ALIGNMENT = 64  # bytes: each gradient starts on a cache line of its own
grad_of = operator.attrgetter("grad")
_may_have_one = operator.attrgetter("requires_grad")


class FlatGradients:
    """The gradients of parameters as views of one buffer for each dtype and device.

    Autograd adds to a gradient that is there, so it stays where it is. Somebody may still put another in its place, or
    None: the next step moves it into the buffer, and without a gradient a parameter rests, as it does anywhere.
    """

    def __init__(self, params: Iterable[Any]) -> None:
        self._params: list[Any] = []
        self._places: list[Any] = []  # in a buffer, of each gradient
        self._views: list[Any] = []  # that are, or were, the gradients
        self._buffers: list[Any] = []
        self._loose: list[Any] = []  # parameters that were frozen when they came
        self.add(params)

    @staticmethod
    def check(params: Iterable[Any]) -> None:
        """Refuse parameters whose gradients cannot be placed."""
        if any(local(param) is not param for param in params):
            raise ValueError("flat_grads is True, but a parameter is a DTensor, whose gradients FSDP places itself")

    def add(self, params: Iterable[Any]) -> None:
        """Make buffers for more parameters. Gradients that are there already keep their values."""
        params, kinds = list(params), dict[Any, list[Any]]()
        self.check(params)
        for param in params:
            if param.requires_grad:
                kinds.setdefault((param.dtype, param.device), []).append(param)
            else:
                self._loose.append(param)
        for (dtype, device), members in kinds.items():
            step = ALIGNMENT // dtype.itemsize
            rooms = [-(-param.numel() // step) * step for param in members]
            buffer = torch.zeros(sum(rooms), dtype=dtype, device=device)
            self._buffers.append(buffer)
            for place, param in zip(buffer.split(rooms), members, strict=True):
                self._params.append(param)
                self._places.append(place)
                self._views.append(view_of(place, param))
                if param.grad is None:
                    param.grad = self._views[-1]
        self.attach()

    def attach(self) -> None:
        """Move gradients that lie elsewhere into the buffer; what is no gradient of its parameter's kind is left."""
        for i, (param, place) in enumerate(zip(self._params, self._places, strict=True)):
            grad = param.grad
            if grad is None or (grad is self._views[i] and grad.data_ptr() == place.data_ptr()):
                continue
            if (grad.layout, grad.shape, grad.dtype) == (torch.strided, param.shape, param.dtype):
                param.grad = self._views[i] = view_of(place, param).copy_(grad)

    def zero(self) -> None:
        """One fill for each buffer. Parameters that are frozen now have no gradient from here on."""
        for buffer in self._buffers:
            buffer.zero_()
        if not (
            all(map(operator.is_, map(grad_of, self._params), self._views)) and all(map(_may_have_one, self._params))
        ):
            for param, view in zip(self._params, self._views, strict=True):
                param.grad = view if param.requires_grad else None
        for param in self._loose:
            param.grad = None


def view_of(place: Any, param: Any) -> Any:
    """Memory as a gradient, in its parameter's order of elements."""
    return place.as_strided(param.shape, param.stride())

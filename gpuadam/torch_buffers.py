"""All gradients in one buffer: filled with zeros at once, and never looked for."""

import operator
from collections.abc import Iterable
from typing import Any

import torch

from .torch_arrays import local

ALIGNMENT = 64  # bytes: each gradient starts on a cache line of its own
_grad_of = operator.attrgetter("grad")


class FlatGradients:
    """The gradients of parameters as views of one buffer for each dtype and device.

    Autograd adds to a gradient that is there, so it stays where it is. Somebody may still put another in its place, or
    None: that is seen by comparing objects, in a loop of C's, and mended.
    """

    def __init__(self, params: Iterable[Any]) -> None:
        self.params: list[Any] = []
        self._views: list[Any] = []
        self._buffers: list[Any] = []
        self._loose: list[Any] = []  # without a gradient to come, for now
        self.add(params)

    def add(self, params: Iterable[Any]) -> None:
        """Make buffers for more parameters. Gradients that are there already keep their values."""
        kinds: dict[Any, list[Any]] = {}
        for param in params:
            if local(param) is not param:
                raise ValueError("flat_grads is True, but a parameter is a DTensor, whose gradients FSDP places itself")
            if param.requires_grad:
                kinds.setdefault((param.dtype, param.device), []).append(param)
            else:
                self._loose.append(param)
        for (dtype, device), members in kinds.items():
            step = ALIGNMENT // dtype.itemsize
            rooms = [-(-param.numel() // step) * step for param in members]
            buffer = torch.zeros(sum(rooms), dtype=dtype, device=device)
            pieces = buffer.split(rooms)
            self._views += [
                piece.as_strided(param.shape, param.stride()) for piece, param in zip(pieces, members, strict=True)
            ]
            self._buffers.append(buffer)
            self.params += members
        self.attach()

    def attach(self) -> bool:
        """Put the views in place where something else stands; whether all of them stood there already."""
        if self._are_attached():
            return True
        for param, view in zip(self.params, self._views, strict=True):
            if param.grad is not view:
                if param.grad is None:
                    view.zero_()
                else:
                    view.copy_(param.grad)
                param.grad = view
        return False

    def _are_attached(self) -> bool:
        return all(map(operator.is_, map(_grad_of, self.params), self._views))

    def zero(self) -> None:
        """One fill for each buffer; what somebody has put in a view's place is forgotten."""
        for buffer in self._buffers:
            buffer.zero_()
        if not self._are_attached():
            for param, view in zip(self.params, self._views, strict=True):
                param.grad = view
        for param in self._loose:
            param.grad = None

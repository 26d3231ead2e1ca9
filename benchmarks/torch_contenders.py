"""PyTorch's optimizers and those that other packages have for PyTorch, on the CPU.

The recipe is what trainers write: `clip_grad_norm_`, the optimizer, a scheduler, and a lerp towards the weights.
`clip_grad_norm_` scales the gradients in place, to the threshold in the first step, and later by 1: it has no branch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from cpu_cases import CLIP_NORM, EMA_DECAY, HYPERPARAMETERS, Case, arrays_of, in_groups
from cpu_contenders import Contender

NAMES = {"adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}


class Torch(Contender):
    """What those for PyTorch share."""

    package = "torch"
    form: ClassVar[dict[str, bool]] = {}
    is_foreach: ClassVar[bool] = True

    @classmethod
    def refuses(cls, case: Case) -> str:
        if case.does("clip each"):
            return "PyTorch has no call that clips each gradient by its own norm"
        return "it keeps no remainders of 16-bit weights" if case.master == "remainder" else ""

    def __init__(self, case: Case) -> None:
        arrays, self.grads = arrays_of(case)
        self._params = [as_tensor(array).requires_grad_() for array in arrays]
        for param, grad in zip(self._params, self.grads, strict=True):
            param.grad = as_tensor(grad)
        masters = make_masters(self._params) if case.master else self._params
        self._averages = [master.detach().clone() for master in masters] if case.does("ema") else []
        before, after = self._around(case, masters)
        optimizer = self.make_optimizer(case, in_groups(case, masters))
        after += [make_scheduler(optimizer, case).step] if case.does("schedule") else []
        self.step = in_turn([*before, optimizer.step, *after])

    def make_optimizer(self, case: Case, groups: list[dict[str, Any]]) -> Any:
        import torch

        return getattr(torch.optim, NAMES[case.rule])(groups, **HYPERPARAMETERS[case.rule], **self.form)

    def _around(self, case: Case, masters: list[Any]) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]]]:
        """What is called before the optimizer and after it."""
        import torch

        before, after = [], []
        if case.master:
            before.append(partial(copy_all, [master.grad for master in masters], [p.grad for p in self._params]))
            after.append(partial(copy_all, self._params, masters))
        if case.does("clip"):
            before.append(partial(torch.nn.utils.clip_grad_norm_, masters, CLIP_NORM, foreach=self.is_foreach))
        if case.does("ema"):
            after.append(partial(lerp_all, self._averages, masters, self.is_foreach))
        return before, after

    def weights(self) -> list[np.ndarray]:
        return [param.detach().double().numpy() for param in self._params]

    def averages(self) -> list[np.ndarray]:
        return [average.double().numpy() for average in self._averages]


class Fused(Torch):
    name, title, form = "torch-fused", "PyTorch, fused", {"fused": True}

    @classmethod
    def refuses(cls, case: Case) -> str:
        return super().refuses(case) or ("PyTorch's RMSprop has no fused form" if case.rule == "rmsprop" else "")


class Unfused(Torch):
    """Whose states are rounded to the format of the weights several times in a step."""

    @classmethod
    def refuses(cls, case: Case) -> str:
        overflow = "in float16 small moments and eps are 0, and weights become infinite"
        return super().refuses(case) or (overflow if case.dtype == "float16" else "")


class Foreach(Unfused):
    name, title, form, extra = "torch-foreach", "PyTorch, foreach", {"foreach": True}, 8


class Loop(Unfused):
    name, title, form, extra = "torch-loop", "PyTorch, loop", {"foreach": False}, 8
    is_foreach = False


class Bitsandbytes(Torch):
    """With states of 32 bits."""

    name, title, package, extra = "bitsandbytes", "bitsandbytes", "bitsandbytes", 8

    @classmethod
    def refuses(cls, case: Case) -> str:
        return super().refuses(case) or only_float32(case)

    def make_optimizer(self, case: Case, groups: list[dict[str, Any]]) -> Any:
        import bitsandbytes

        return getattr(bitsandbytes.optim, NAMES[case.rule])(groups, **HYPERPARAMETERS[case.rule])


class DeepSpeed(Torch):
    """DeepSpeedCPUAdam; its C++ source is compiled when it is first made."""

    name, title, package = "deepspeed", "DeepSpeed CPU Adam", "deepspeed"

    @classmethod
    def refuses(cls, case: Case) -> str:
        other = "its CPU optimizers are AdamW, Adagrad and Lion" if case.rule != "adamw" else ""
        return super().refuses(case) or only_float32(case) or other

    def make_optimizer(self, case: Case, groups: list[dict[str, Any]]) -> Any:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, **HYPERPARAMETERS[case.rule], adamw_mode=True)


def only_float32(case: Case) -> str:
    return "" if case.dtype == "float32" else "it is measured in float32 only"


def as_tensor(array: np.ndarray) -> Any:
    """A tensor over the memory of an array."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def make_masters(params: Sequence[Any]) -> list[Any]:
    """float32 copies of 16-bit weights, with gradients of their own."""
    masters = [param.detach().float().requires_grad_() for param in params]
    for master in masters:
        master.grad = master.detach().clone()
    return masters


def make_scheduler(optimizer: Any, case: Case) -> Any:
    import torch

    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, case.decay_steps)


def copy_all(targets: Sequence[Any], sources: Sequence[Any]) -> None:
    import torch

    with torch.no_grad():
        torch._foreach_copy_(targets, sources)


def lerp_all(averages: Sequence[Any], weights: Sequence[Any], is_foreach: bool) -> None:
    import torch

    with torch.no_grad():
        if is_foreach:
            torch._foreach_lerp_(averages, weights, 1 - EMA_DECAY)
            return
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1 - EMA_DECAY)


def in_turn(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    """All of them as one call; one alone as it is."""
    if len(calls) == 1:
        return calls[0]

    def step() -> None:
        for call in calls:
            call()

    return step

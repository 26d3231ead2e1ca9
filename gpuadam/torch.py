"""For those who come from PyTorch; nothing else of the package imports it.

The optimizers of this package as `torch.optim.Optimizer`s, with PyTorch's arguments; `as_schedule` makes a schedule of
a scheduler.

>>> import torch
>>> from gpuadam import schedules
>>> model = torch.nn.Linear(3, 1)
>>> lr = schedules.warmup_cosine_decay(0.0, 3e-4, warmup_steps=10, decay_steps=100)
>>> optimizer = AdamW(model.parameters(), lr=lr, clip_norm=1.0)
>>> for _ in range(3):
...     optimizer.zero_grad()
...     model(torch.ones(2, 3)).sum().backward()
...     optimizer.step()
>>> optimizer.param_groups[0]["lr"]  # a factor of the schedule
1.0
>>> round(optimizer.hyperparameters()[0]["lr"], 12)  # the rate of the step that comes next
9e-05
"""

from typing import Any

from . import adam_variants, adaptive_algorithms, algorithms, layerwise_algorithms, momentum_algorithms, schedule_free
from .extras import needed

with needed("torch"):
    from .torch_optimizer import Optimizer
    from .torch_schedules import as_schedule

__all__ = [
    "LAMB",
    "SGD",
    "SGDW",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdamWScheduleFree",
    "Adamax",
    "Lion",
    "NAdam",
    "NadamW",
    "Optimizer",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "SGDScheduleFree",
    "as_schedule",
]


class Adam(Optimizer):
    """`gpuadam.Adam` for PyTorch."""

    core_class = algorithms.Adam

    def __init__(self, params: Any, *arguments: Any, decoupled_weight_decay: bool = False, **keywords: Any) -> None:
        if decoupled_weight_decay:
            keywords["decay"] = "decoupled"
        super().__init__(params, *arguments, **keywords)


class AdamW(Optimizer):
    """`gpuadam.AdamW` for PyTorch."""

    core_class = algorithms.AdamW


class NAdam(Optimizer):
    """`gpuadam.NAdam` for PyTorch."""

    core_class = algorithms.NAdam


class NadamW(Optimizer):
    """`gpuadam.NadamW` for PyTorch."""

    core_class = algorithms.NadamW


class RAdam(Optimizer):
    """`gpuadam.RAdam` for PyTorch."""

    core_class = adam_variants.RAdam


class QHAdam(Optimizer):
    """`gpuadam.QHAdam` for PyTorch."""

    core_class = adam_variants.QHAdam


class Adamax(Optimizer):
    """`gpuadam.Adamax` for PyTorch."""

    core_class = adaptive_algorithms.Adamax


class Adagrad(Optimizer):
    """`gpuadam.Adagrad` for PyTorch."""

    core_class = adaptive_algorithms.Adagrad


class Adadelta(Optimizer):
    """`gpuadam.Adadelta` for PyTorch."""

    core_class = adaptive_algorithms.Adadelta


class Lion(Optimizer):
    """`gpuadam.Lion` for PyTorch."""

    core_class = adaptive_algorithms.Lion


class RMSprop(Optimizer):
    """`gpuadam.RMSprop` for PyTorch."""

    core_class = momentum_algorithms.RMSprop


class SGD(Optimizer):
    """`gpuadam.SGD` for PyTorch."""

    core_class = momentum_algorithms.SGD


class SGDW(Optimizer):
    """`gpuadam.SGDW` for PyTorch."""

    core_class = momentum_algorithms.SGDW


class LAMB(Optimizer):
    """`gpuadam.LAMB` for PyTorch."""

    core_class = layerwise_algorithms.LAMB


class ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: parameters that hold y in training and x in evaluation."""

    def eval(self) -> None:
        """See `gpuadam.AdamWScheduleFree.eval`."""
        self._swap("eval")

    def train(self) -> None:
        """See `gpuadam.AdamWScheduleFree.train`."""
        self._swap("train")


class AdamWScheduleFree(ScheduleFree):
    """`gpuadam.AdamWScheduleFree` for PyTorch."""

    core_class = schedule_free.AdamWScheduleFree


class SGDScheduleFree(ScheduleFree):
    """`gpuadam.SGDScheduleFree` for PyTorch."""

    core_class = schedule_free.SGDScheduleFree

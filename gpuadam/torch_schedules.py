"""Schedulers of torch.optim.lr_scheduler as schedules; `gpuadam.torch` shows what is for users."""

import copy
import warnings
from typing import Any

from torch.optim import lr_scheduler as theirs

from . import schedules
from .expressions import Expr
from .hyperparameters import check_choice
from .torch_formulas import NoFormulaError, Wanted, convert, group_of, name_of


def as_schedule(scheduler: Any, *, group: int = 0, of: str = "lr", steps: int | None = None) -> Expr:
    """What a scheduler of torch.optim.lr_scheduler gives one group, as a schedule of ours; it is not stepped.

    It is the whole schedule, from step 0 and the learning rate that PyTorch keeps as `initial_lr`, wherever the
    scheduler stands by now (`last_epoch`), and goes on past its end as PyTorch does. But OneCycleLR, which PyTorch lets
    nobody step further, holds its last value.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10)
    >>> as_schedule(scheduler)([0, 10, 20])
    array([0.1  , 0.01 , 0.001])

    Args:
        scheduler: Any but ReduceLROnPlateau, for which there is `gpuadam.ReduceLROnPlateau`. The schedules of
            transformers are known too.
        group: Which of the optimizer's groups.
        of: "lr"; of CyclicLR and OneCycleLR also "momentum" or "beta1", whichever they move.
        steps: For what is no formula (the Python functions of LambdaLR and MultiplicativeLR, classes of your own, a
            ChainedScheduler whose members do more than multiply): so many steps are sampled, on a copy of the
            scheduler, and the last value stays.

    Raises:
        TypeError: It is no scheduler, or follows a metric.
        ValueError: It is no formula, and there are no `steps`.
    """
    if isinstance(scheduler, theirs.ReduceLROnPlateau):
        raise TypeError(
            f"{name_of(scheduler)} follows a metric, not the step: multiply lr by schedules.parameter('plateau', 1.0), "
            "and give gpuadam.ReduceLROnPlateau the same arguments"
        )
    if not isinstance(scheduler, theirs.LRScheduler):
        raise TypeError(f"scheduler must be one of torch.optim.lr_scheduler, got {name_of(scheduler)}")
    check_choice(of, ("lr", "momentum", "beta1"), "of")
    count = len(scheduler.optimizer.param_groups)
    if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < count:
        raise ValueError(f"group is {group!r}; allowed are 0 to {count - 1}")
    wanted = Wanted(group, of, steps)
    try:
        return convert(scheduler, wanted)
    except NoFormulaError as reason:
        if steps is None:
            raise NoFormulaError(f"{reason}; give `steps` to sample so many of them") from None
        return _sampled(scheduler, wanted)


def _sampled(scheduler: Any, wanted: Wanted) -> Expr:
    """Its values as it is stepped: on a copy, which shares the parameters of the optimizer and has no states."""
    if _last_epoch(scheduler) > 0:
        raise ValueError(
            f"this {name_of(scheduler)} has been stepped, and can be sampled from its beginning only: make it anew"
        )
    optimizer = scheduler.optimizer
    parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    twin = copy.deepcopy(scheduler, {id(tensor): tensor for tensor in parameters} | {id(optimizer.state): {}})

    def value(k: int) -> float:
        if k > 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nobody steps the copy of the optimizer
                twin.step()
        group = group_of(twin, wanted)
        return float(group["betas"][0] if wanted.of == "beta1" else group[wanted.of])

    return schedules.sampled(value, wanted.steps or 0)


def _last_epoch(scheduler: Any) -> int:
    members = getattr(scheduler, "_schedulers", None)
    return max(map(_last_epoch, members)) if members else int(scheduler.last_epoch)

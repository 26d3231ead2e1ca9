"""The schedule that no formula of the step can be: it waits for a metric to stand still."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .compiler import walk
from .expressions import Expr, Parameter, as_number
from .hyperparameters import check_choice, check_whole
from .optimizer import Optimizer
from .program import Op
from .schedule_arguments import read_list, read_number, read_result, require
from .strangers import refuse_frontend

STATE = ("best", "cooldown_counter", "last_epoch", "num_bad_epochs", "pending")


class ReduceLROnPlateau:
    """Reduces the learning rate when a metric has stopped improving, as PyTorch's class of that name.

    What it reduces is a named parameter of the schedule, which it rewrites in place: nothing else is uploaded, and CUDA
    graphs go on. So it multiplies with any other schedule, and the optimizer's own files hold how far it has come.

    >>> import numpy as np
    >>> from gpuadam import SGD, schedules
    >>> optimizer = SGD([np.ones(3, np.float32)], lr=0.5 * schedules.parameter("plateau", 1.0))
    >>> plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    >>> for loss in (2.0, 1.0, 1.0, 1.0):
    ...     plateau.step(loss)
    >>> optimizer.hyperparameters()[0]["lr"]
    0.05

    Args:
        optimizer: Ours; the learning rate of its groups holds the parameter as a factor, or is it.
        mode: "min": the metric is to fall; "max": to rise.
        factor: What the rate is multiplied by, > 0 and < 1.
        patience: Metrics in a row without improvement that are borne; the next one reduces.
        threshold: Least improvement on the best metric.
        threshold_mode: "rel": a part of the best metric; "abs": a difference.
        cooldown: Metrics after a reduction that do not count as bad.
        min_lr: Lower bound of `number * parameter`: the learning rate itself, where that is all there is of it; a list
            has one for each name. With a schedule as a factor there is no such number: give `min_scale`, or bound the
            whole, `lr=maximum(schedule * parameter, min_lr)`.
        eps: A reduction of `number * parameter` that is not larger is left out.
        name: Name of the parameter, or a list: one for each group, reduced together, each down to its own bound.
        min_scale: Lower bound of the parameter itself (optax).
        atol: With "rel", a difference that is asked for beside `threshold` (optax).
        accumulation_size: Metrics of which the mean counts as one (optax).

    Attributes:
        best: The best metric so far; at first the worst there is.
        num_bad_epochs: Metrics in a row without improvement.
        cooldown_counter: Metrics that do not count as bad from here on.
        last_epoch: Metrics so far.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0, eps: float = 1e-8, *, name: str | Sequence[str] = "plateau",
                 min_scale: float = 0.0, atol: float = 0.0, accumulation_size: int = 1) -> None:  # fmt: skip
        if not isinstance(optimizer, Optimizer):
            refuse_frontend(
                optimizer, "for PyTorch take torch.optim.lr_scheduler.ReduceLROnPlateau, which multiplies its schedule"
            )
            raise TypeError(f"optimizer must be one of gpuadam, got {type(optimizer).__name__}")
        check_choice(mode, ("min", "max"), "mode")
        check_choice(threshold_mode, ("rel", "abs"), "threshold_mode")
        for title, whole in (("patience", patience), ("cooldown", cooldown), ("accumulation_size", accumulation_size)):
            check_whole(whole, title)
        require(accumulation_size > 0, "accumulation_size", ">= 1", accumulation_size)
        require(read_number(factor, "factor") < 1, "factor", "< 1", factor)
        self.optimizer = optimizer
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor, self.patience, self.cooldown = factor, patience, cooldown
        self.threshold = read_number(threshold, "threshold", ">= 0")
        self.eps, self.atol = read_number(eps, "eps", ">= 0"), read_number(atol, "atol", ">= 0")
        self.accumulation_size, self.min_scale = accumulation_size, read_number(min_scale, "min_scale", ">= 0")
        self.names = [name] if isinstance(name, str) else read_list(name, "name")
        require(0 < len(self.names) == len(set(self.names)), "name", "a text, or a list of different ones", name)
        self.min_lrs = self._read_bounds(min_lr)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self.pending = (0.0, 0)  # mean and number of the metrics that have not counted yet

    def step(self, metric: Any) -> None:
        """Take a metric, and reduce if it is one too many that has not improved; a NaN has not.

        Args:
            metric: A number, or what `float` makes one of (an array of one element; that of a GPU waits for it).
        """
        mean, count = self.pending
        mean, count = (count * mean + read_result(metric, "metric")) / (count + 1), count + 1
        if count < self.accumulation_size:
            self.pending = (mean, count)
        else:
            self._judge(mean)
            self.pending = (0.0, 0)
        self.last_epoch += 1

    def _judge(self, metric: float) -> None:
        improved = self._is_better(metric)
        bad = 0 if improved or self.cooldown_counter > 0 else self.num_bad_epochs + 1
        cooldown = max(self.cooldown_counter - 1, 0)
        if bad > self.patience:
            self._reduce()
            bad, cooldown = 0, self.cooldown
        self.best = metric if improved else self.best
        self.num_bad_epochs, self.cooldown_counter = bad, cooldown

    def _is_better(self, metric: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * metric < sign * self.best * (1 - sign * self.threshold) - self.atol
        return sign * metric < sign * self.best - self.threshold

    def _reduce(self) -> None:
        """Rewrite each parameter by which the learning rate falls by more than eps."""
        values = self.optimizer.parameters()
        for name, min_lr in zip(self.names, self.min_lrs, strict=True):
            if name not in values:
                raise ValueError(f"name is {name!r}, which the schedules hold no more; allowed are {sorted(values)}")
            bases = self._bases(name)
            base = max([base for base in bases if base is not None]) if bases and None not in bases else 1.0
            old = base * values[name]
            new = max(old * self.factor, min_lr, self.min_scale * base)
            if old - new > self.eps:
                self.optimizer.set_parameter(name, new / base)

    def _bases(self, name: str) -> list[float | None]:
        """What the parameter is multiplied by in each learning rate that holds it; None where that is no number."""
        rates = [group.hyperparameters["lr"] for group in self.optimizer._engine.groups]
        return [factor_beside(rate, name) for rate in rates if any(is_parameter(part, name) for part in walk([rate]))]

    def _read_bounds(self, min_lr: float | Sequence[float]) -> list[float]:
        """One bound for each name, and each name that of a parameter to which it can apply."""
        bounds = (
            [min_lr] * len(self.names) if isinstance(min_lr, int | float | np.number) else read_list(min_lr, "min_lr")
        )
        require(len(bounds) == len(self.names), "min_lr", f"a number, or {len(self.names)} as of name", min_lr)
        known = self.optimizer.parameters()
        for name, bound in zip(self.names, bounds, strict=True):
            if name not in known:
                raise ValueError(
                    f"name is {name!r}; allowed are the named parameters of the optimizer, {sorted(known)}: "
                    f"write lr=0.1 * schedules.parameter({name!r}, 1.0)"
                )
            if read_number(bound, "min_lr", ">= 0") > 0 and (
                None in self._bases(name) or len({*self._bases(name)}) != 1
            ):
                raise ValueError(
                    f"min_lr is {bound!r}, but {name!r} is not multiplied by one and the same number in every group: "
                    "give min_scale, or a name to each group, or bound the whole by lr=maximum(schedule, min_lr)"
                )
        return [float(bound) for bound in bounds]

    def state_dict(self) -> dict[str, Any]:
        """How far it has come, beside the parameters, which the optimizer's own state holds."""
        return {key: getattr(self, key) for key in STATE}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; the arguments stay the constructor's. Load the optimizer's state too."""
        if set(state_dict) != set(STATE):
            raise ValueError(f"state_dict has {sorted(map(str, state_dict))}; allowed are {list(STATE)}, all of them")
        best, cooldown_counter, last_epoch, num_bad_epochs, pending = (state_dict[key] for key in STATE)
        for key in ("cooldown_counter", "last_epoch", "num_bad_epochs"):
            check_whole(state_dict[key], key)
        require(len(read_list(pending, "pending")) == 2, "pending", "a mean and a count", pending)
        check_whole(pending[1], "the count of pending")
        mean = as_number(pending[0], "the mean of pending")
        self.best, self.pending = as_number(best, "best"), (mean, pending[1])
        self.cooldown_counter, self.last_epoch, self.num_bad_epochs = cooldown_counter, last_epoch, num_bad_epochs


def is_parameter(part: Expr, name: str) -> bool:
    return isinstance(part.payload, Parameter) and part.payload.is_named and part.payload.name == name


def factor_beside(rate: Expr, name: str) -> float | None:
    """The number that a parameter is multiplied by; None if it is anything else."""
    number, uses, waiting = 1.0, 0, [rate]
    while waiting:
        part = waiting.pop()
        if part.op is Op.MULTIPLY:
            waiting.extend(part.operands)
        elif is_parameter(part, name):
            uses += 1
        elif part.is_constant:
            number *= part.payload
        else:
            return None
    return number if uses == 1 else None

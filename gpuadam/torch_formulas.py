"""What a scheduler of torch.optim.lr_scheduler does, as a formula of its own attributes."""

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from torch.optim import lr_scheduler as theirs
from torch.optim.swa_utils import SWALR

from . import schedules, transformers_schedules
from .expressions import Expr, as_expr, step, where
from .schedule_arguments import interpolate

METHODS = ("get_lr", "_get_closed_form_lr", "step", "_update_lr", "_initial_step", "scale_fn", "_anneal_func")


class NoFormulaError(ValueError):
    """A scheduler that can be sampled only."""


class Wanted(NamedTuple):
    """What of a scheduler.

    Attributes:
        start: Of a member of a SequentialLR: the learning rate before it.
        is_later: Of a member of a SequentialLR: not its first one, so that PyTorch begins it by its closed form.
    """

    group: int
    of: str
    steps: int | None
    start: float | None = None
    is_later: bool = False


def name_of(scheduler: object) -> str:
    return type(scheduler).__name__


def convert(scheduler: Any, wanted: Wanted) -> Expr:
    kind = _kind(scheduler)
    if wanted.of != "lr" and kind in {**FACTORS, **FORMULAS} and kind not in (theirs.CyclicLR, theirs.OneCycleLR):
        raise ValueError(f"of is {wanted.of!r}, but {name_of(scheduler)} moves the learning rate alone")
    if kind in FACTORS:
        lr = _base(scheduler, wanted) if wanted.start is None or wanted.is_later else wanted.start
        return lr * FACTORS[kind](scheduler, wanted)
    if kind not in FORMULAS:
        raise NoFormulaError(f"{name_of(scheduler)} is no scheduler whose formula is known")
    return FORMULAS[kind](scheduler, wanted)


def _kind(scheduler: Any) -> type:
    """The class of PyTorch that says what it does: its own, or that of which it overrides nothing that counts."""
    for kind in type(scheduler).__mro__:
        if kind in FACTORS or kind in FORMULAS:
            is_same = all(getattr(kind, name, None) is getattr(type(scheduler), name, None) for name in METHODS)
            return kind if is_same else type(scheduler)
    return type(scheduler)


def _base(scheduler: Any, wanted: Wanted) -> float:
    return float(scheduler.base_lrs[wanted.group])


def group_of(scheduler: Any, wanted: Wanted) -> dict[str, Any]:
    found: dict[str, Any] = scheduler.optimizer.param_groups[wanted.group]
    return found


# ---- what multiplies the learning rate by a factor


def _whole(s: Any, name: str) -> int:
    """A length; PyTorch compares it with whole steps, so that it never comes to the end of a broken one."""
    length = getattr(s, name)
    if length % 1:
        raise NoFormulaError(f"{name} of {name_of(s)} is {length!r}, no whole number of steps")
    return int(length)


def _step(s: Any, wanted: Wanted) -> Expr:
    return schedules.step_decay(1.0, _whole(s, "step_size"), s.gamma)


def _multi_step(s: Any, wanted: Wanted) -> Expr:
    reached = sorted(m for m in s.milestones.elements() if m >= 0 and m % 1 == 0)
    return schedules.multi_step_decay(1.0, reached, s.gamma) if reached else schedules.constant(1.0)


def _constant(s: Any, wanted: Wanted) -> Expr:
    if _whole(s, "total_iters") > 0:
        return schedules.piecewise_constant([s.total_iters], [s.factor, 1.0], boundary="right")
    return schedules.constant(1.0 if wanted.is_later else s.factor)


def _linear(s: Any, wanted: Wanted) -> Expr:
    if _is_moving(s, wanted):
        return schedules.linear_decay(s.start_factor, s.total_iters, s.end_factor)
    return schedules.constant(s.start_factor)


def _polynomial(s: Any, wanted: Wanted) -> Expr:
    if _is_moving(s, wanted):
        return schedules.polynomial_decay(1.0, s.total_iters, 0.0, s.power)
    return schedules.constant(1.0)


def _is_moving(s: Any, wanted: Wanted) -> bool:
    if _whole(s, "total_iters") <= 0 and wanted.is_later:
        raise ValueError(f"total_iters of {name_of(s)} is {s.total_iters!r}; allowed within a SequentialLR is > 0")
    return bool(s.total_iters > 0)


def _exponential(s: Any, wanted: Wanted) -> Expr:
    return schedules.exponential_decay(1.0, 1, s.gamma)


FACTORS: dict[type, Callable[[Any, Wanted], Expr]] = {
    theirs.ConstantLR: _constant,
    theirs.ExponentialLR: _exponential,
    theirs.LinearLR: _linear,
    theirs.MultiStepLR: _multi_step,
    theirs.PolynomialLR: _polynomial,
    theirs.StepLR: _step,
}


# ---- what gives the learning rate itself


def _cosine(s: Any, wanted: Wanted) -> Expr:
    base, low = _base(s, wanted), float(s.eta_min)
    if wanted.start not in (None, base) and not wanted.is_later:
        raise NoFormulaError("initial_lr was changed after the CosineAnnealingLR was made")
    return low + (base - low) * schedules.cosine_decay(1.0, s.T_max, beyond="continue")


def _warm_restarts(s: Any, wanted: Wanted) -> Expr:
    low = float(s.eta_min)
    return low + (_base(s, wanted) - low) * schedules.cosine_decay_restarts(1.0, s.T_0, s.T_mult)


def _require_cycled(s: Any, of: str) -> None:
    if of != "lr" and not s.cycle_momentum:
        raise ValueError(f"of is {of!r}, but this {name_of(s)} moves the learning rate alone (cycle_momentum=False)")
    if of != "lr" and of != ("beta1" if s.use_beta1 else "momentum"):
        raise ValueError(f"of is {of!r}; allowed is {'beta1' if s.use_beta1 else 'momentum'!r}, as the optimizer's")


def _cyclic(s: Any, wanted: Wanted) -> Expr:
    _require_cycled(s, wanted.of)
    if s._scale_fn_custom is not None:
        raise NoFormulaError("the scale_fn of this CyclicLR is a Python function")
    up = s.step_ratio * s.total_size
    up = round(up) if abs(up - round(up)) < 1e-9 * up else up
    ends = (s.base_lrs, s.max_lrs) if wanted.of == "lr" else (s.max_momentums, s.base_momentums)
    first, top = (float(end[wanted.group]) for end in ends)
    rate = s.gamma if s.mode == "exp_range" else 1.0
    return schedules.cyclic(first, top, up, step_size_down=s.total_size - up, mode=s.mode, gamma=rate)


def _one_cycle(s: Any, wanted: Wanted) -> Expr:
    _require_cycled(s, wanted.of)
    group, what = group_of(s, wanted), "lr" if wanted.of == "lr" else "momentum"
    anneal = {"cos": "cosine", "linear": "linear"}[s._anneal_func_type]
    ends = [0.0, *(phase["end_step"] for phase in s._schedule_phases)]
    found = None
    for (begin, end), phase in reversed([*zip(pairwise(ends), s._schedule_phases, strict=True)]):
        levels = [as_expr(float(group[phase[f"{side}_{what}"]])) for side in ("start", "end")]
        piece = interpolate(levels[0], levels[1], begin, end, anneal)
        found = piece if found is None else where(step > end, found, piece)
    assert found is not None
    return found


def _swa(s: Any, wanted: Wanted) -> Expr:
    start = _base(s, wanted) if wanted.start is None else wanted.start
    anneal = {"cos": "cosine", "linear": "linear"}[s._anneal_strategy]
    return interpolate(as_expr(start), as_expr(float(group_of(s, wanted)["swa_lr"])), 0, s.anneal_epochs, anneal)


def _lambda(s: Any, wanted: Wanted) -> Expr:
    function, base = s.lr_lambdas[wanted.group], _base(s, wanted)
    try:
        factor = transformers_schedules.factor(function)
    except ValueError:
        if wanted.steps is None:
            raise
        factor = None
    if factor is not None:
        return base * factor
    if wanted.steps is None:
        raise NoFormulaError(f"the function of {name_of(s)} is Python, which a kernel cannot call")
    return schedules.sampled(lambda k: base * function(k), wanted.steps)


def _multiplicative(s: Any, wanted: Wanted) -> Expr:
    """Each step's value is that of the step before times the function; as one function of the step, called in order."""
    if wanted.steps is None:
        raise NoFormulaError(f"the function of {name_of(s)} is Python, which a kernel cannot call")
    lr = _base(s, wanted) if wanted.start is None else wanted.start

    def next_lr(k: int) -> float:
        nonlocal lr
        if k > 0 or wanted.is_later:
            lr *= s.lr_lambdas[wanted.group](k)
        return lr

    return schedules.sampled(next_lr, wanted.steps)


# ---- what is made of others


def _sequential(s: Any, wanted: Wanted) -> Expr:
    places = [0, *s._milestones, inf]
    if places != sorted(places) or any(place % 1 for place in s._milestones):
        raise ValueError(f"the milestones of a SequentialLR are {s._milestones}; allowed are whole numbers in order")
    pieces: list[Expr] = []
    before = float(group_of(s, wanted)["initial_lr"])
    begins = []
    for member, (begin, end) in zip(s._schedulers, pairwise(places), strict=True):
        if _kind(member) in (theirs.SequentialLR, theirs.ChainedScheduler):
            raise NoFormulaError(
                f"PyTorch begins a {name_of(member)} within a SequentialLR in a way that is no formula"
            )
        if begin == end:
            continue
        pieces.append(convert(member, wanted._replace(start=before, is_later=bool(pieces))))
        begins.append(begin)
        before = pieces[-1](int(end - begin - 1)) if end < inf else before
    return schedules.join(pieces, begins[1:])


def _chained(s: Any, wanted: Wanted) -> Expr:
    first, *others = s._schedulers
    if not others:
        return convert(first, wanted)
    product = as_expr(1.0)
    for member in _flat(s):
        if _kind(member) not in FACTORS:
            raise NoFormulaError(f"a ChainedScheduler with {name_of(member)} in it is no product of factors")
        product = product * FACTORS[_kind(member)](member, wanted)
    return float(group_of(s, wanted)["initial_lr"]) * product


def _flat(s: Any) -> list[Any]:
    """The members of a scheduler, and of ChainedSchedulers in it."""
    return [leaf for m in s._schedulers for leaf in (_flat(m) if type(m) is theirs.ChainedScheduler else [m])]


FORMULAS: dict[type, Callable[[Any, Wanted], Expr]] = {
    theirs.ChainedScheduler: _chained,
    theirs.CosineAnnealingLR: _cosine,
    theirs.CosineAnnealingWarmRestarts: _warm_restarts,
    theirs.CyclicLR: _cyclic,
    theirs.LambdaLR: _lambda,
    theirs.MultiplicativeLR: _multiplicative,
    theirs.OneCycleLR: _one_cycle,
    theirs.SequentialLR: _sequential,
    SWALR: _swa,
}

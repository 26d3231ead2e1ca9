"""What PyTorch's param_groups say, and what the engine is told of it.

With a number as lr, `group["lr"]` is the rate. With a schedule it is a multiplier of that, which starts at 1: so
whatever rewrites it (a scheduler of PyTorch's, a warm-up of a trainer's, a checkpoint's 0) has its usual effect, and
nothing is divided.
"""

import inspect
import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch

from .changes import check_mixing, numbers_for_numbers
from .engine import Engine
from .expressions import Expr, Parameter
from .groups import Defaults, name_tensor
from .hyperparameters import check_range
from .program import Op
from .recipe import HYPERPARAMETERS, Storage
from .rules import FINITE

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SWITCHES = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}  # PyTorch's, without effect

ROUNDING = -1e-12  # rates above it are 0: LinearLR(start_factor=1 / 3, end_factor=0) ends a little below


def defaults_of(core: Defaults) -> dict[str, Any]:
    """What a group is filled up with: hyperparameters and options, of the recipe only what was asked for."""
    settings = {
        n: v for n, v in core.settings.items() if n != "lr_scale" and (v is not None or n not in HYPERPARAMETERS)
    }
    plain = asdict(Storage())
    storage = {name: value for name, value in asdict(core.storage).items() if value != plain[name]}
    return {**settings, **asdict(core.options), **storage}


def settings_of_peer(core_class: type) -> frozenset[str]:
    """What the groups of PyTorch's class of the same name say; nothing if there is no such class."""
    peer = getattr(torch.optim, core_class.__name__, None)
    return frozenset(peer([torch.zeros(1)]).param_groups[0] if peer else ())


def unshown(core_class: type, settings: Mapping[str, Any]) -> set[str]:
    """Options and switches that stand as they do by default, and that PyTorch's class of the same name has not.

    Groups do not show them, so that `torch.distributed.checkpoint`, which looks in a checkpoint for all that they show,
    finds it in those of PyTorch's class.
    """
    theirs = settings_of_peer(core_class)
    parameters = inspect.signature(core_class).parameters
    usual = {**settings, **{name: parameter.default for name, parameter in parameters.items()}, **SWITCHES}
    return {name for name, value in settings.items() if theirs and name not in theirs and value == usual[name]}


def plain(value: Any, title: str) -> Any:
    """A hyperparameter that may have been given as a tensor of one element, as PyTorch allows."""
    if isinstance(value, tuple | list):
        return tuple(plain(member, title) for member in value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.device.type != "cpu" or value.numel() != 1:
        raise TypeError(
            f"{title} is a tensor of shape {tuple(value.shape)} on {value.device}; allowed are a number, a schedule, "
            "which a captured graph follows as well, or a tensor of one element on cpu"
        )
    return value.item()


def split_tensors(core: type, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The arguments of a class of ours by name, tensors made numbers; and those that were tensors, as they are.

    Schedulers of PyTorch's write in place to a rate that is a tensor, so it stays in the groups.
    """
    names = list(inspect.signature(core).bind(None, *arguments, **keywords).arguments)[1:]  # refuses what is too much
    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    members = {name: value if isinstance(value, tuple | list) else (value,) for name, value in given.items()}
    tensors = {n: given[n] for n, own in members.items() if any(isinstance(member, torch.Tensor) for member in own)}
    return {**given, **{name: plain(value, name) for name, value in tensors.items()}}, tensors


def titles_of(groups: Sequence[Mapping[str, Any]], group: Mapping[str, Any]) -> list[Any]:
    """What errors call the parameters of a group: PyTorch's names, or their positions among all."""
    if "param_names" in group:
        return list(group["param_names"])
    before = sum(len(other["params"]) for other in itertools.takewhile(lambda other: other is not group, groups))
    return [before + i for i in range(len(group["params"]))]


def name_params(
    groups: Sequence[Mapping[str, Any]], members: Container[Any], known: Mapping[Any, Any]
) -> dict[Any, Any]:
    """A name for each member, none twice: the one that it has, or its title."""
    found: dict[Any, Any] = {}
    taken = set(known.values())
    for group in groups:
        for title, param in zip(titles_of(groups, group), group["params"], strict=True):
            if param in known and param in members:
                found[param] = known[param]
            elif param in members:
                others = (f"{title} ({i})" for i in itertools.count(2))
                found[param] = title if title not in taken else next(name for name in others if name not in taken)
                taken.add(found[param])
    return found


def check_params(titles: Sequence[Any], params: Sequence[Any]) -> None:
    """Refuse parameters of a group that no step could update. Frozen ones may be anything."""
    seen: dict[int, Any] = {}
    for title, param in zip(titles, params, strict=True):
        name = name_tensor("parameter", title)
        if id(param) in seen:
            raise ValueError(f"{name} is {name_tensor('parameter', seen[id(param)])} once more; each is given once")
        seen[id(param)] = title
        if isinstance(param, torch.nn.Parameter) and not param.requires_grad:
            continue
        if param.dtype not in DTYPES:
            allowed = ", ".join(str(dtype) for dtype in DTYPES)
            raise TypeError(f"{name} has dtype {param.dtype}; allowed are {allowed}")
        if param.layout is not torch.strided:
            raise TypeError(f"{name} has layout {param.layout}; allowed is torch.strided")


class Groups:
    """The hyperparameters of all groups: kept as PyTorch shows them, and compared before each step.

    Args:
        defaults: What the optimizer was given.
    """

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._names = sorted(set(defaults.allowed()) - {"lr_scale"})
        self._options = {field.name for kind in (defaults.options, defaults.storage) for field in fields(kind)}
        self._schedules: list[Expr | None] = []  # of lr, by group
        self._multipliers: list[Parameter] = []
        self._seen: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._schedules)

    def schedule(self, index: int) -> Expr | None:
        """The schedule of lr of a group."""
        return self._schedules[index]

    def add(self, group: dict[str, Any]) -> None:
        """Take up a new group: the schedule of its lr is kept here, and a multiplier stands in its place."""
        self._schedules.append(None)
        self._multipliers.append(Parameter("lr", 1.0, is_named=False))
        self._seen.append({})
        self._take_schedule(len(self._schedules) - 1, group)

    def keep(self, count: int) -> None:
        """As if only so many groups had been added."""
        for own in (self._schedules, self._multipliers, self._seen):
            del own[count:]

    def _take_schedule(self, index: int, group: dict[str, Any]) -> None:
        if isinstance(group["lr"], Expr):
            self._schedules[index], group["lr"] = group["lr"], 1.0
            self._seen[index] = {}  # all is news: the engine has another schedule, or none
            self._multipliers[index] = Parameter("lr", 1.0, is_named=False)

    def settings(self, index: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """The group as the engine takes it, but for its tensors."""
        found = self._values(index, group)
        schedule = self._schedules[index]
        if schedule is not None:
            title = f"lr of group {index}, a multiplier of its schedule"
            self._multipliers[index] = Parameter(title, check_range(found["lr"], FINITE, title), is_named=False)
            found["lr"] = schedule * Expr(Op.VALUE, payload=self._multipliers[index])
        return found

    def note(self, groups: list[dict[str, Any]]) -> None:
        """The engine knows all that the groups say now."""
        self._seen = [self._values(index, group) for index, group in enumerate(groups)]

    def _values(self, index: int, group: Mapping[str, Any]) -> dict[str, Any]:
        found = {n: plain(group[n], f"{n} of group {index}") for n in self._names if n in group}
        if isinstance(found["lr"], float) and ROUNDING < found["lr"] < 0:
            found["lr"] = 0.0
        return found

    def changed(self, index: int, group: dict[str, Any]) -> dict[str, Any]:
        """The settings that are not what they were at the step before."""
        self._take_schedule(index, group)
        seen = self._seen[index]
        return {n: value for n, value in self._values(index, group).items() if differs(value, seen.get(n))}

    def numbers(self, engine: Engine, index: int, changed: Mapping[str, Any]) -> dict[Parameter, float] | None:
        """Slots of the engine's program and their new numbers, checked; None where a number is not enough."""
        if index >= len(engine.groups):
            return None
        settings = {name: value for name, value in changed.items() if name not in self._options}
        multiplier: dict[Parameter, float] = {}
        if "lr" in settings and self._schedules[index] is not None:
            slot = self._multipliers[index]
            if slot not in engine.program.pool.parameters:
                return None
            multiplier[slot] = check_range(settings.pop("lr"), FINITE, slot.name)
        group = engine.groups[index]
        new = group.changed(engine.defaults.rule, settings)
        check_mixing(engine.defaults.rule, group, new)
        numbers = numbers_for_numbers({index: new}, engine)
        return None if numbers is None or set(changed) & self._options else {**numbers, **multiplier}


def differs(a: Any, b: Any) -> bool:
    """Whether two settings are not the same; of schedules, whether they are not the same object."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return any(map(differs, a, b))
    if isinstance(a, Expr) or isinstance(b, Expr):
        return a is not b
    return bool(a != b)

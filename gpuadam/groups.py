"""Parameter groups: what the user hands over, read and checked as a whole before anything is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .arrays import Array, borrow
from .expressions import Expr
from .formats import FORMATS, IS_16_BIT, Specialisation, computes_in
from .hyperparameters import check_range, read_hyperparameters, read_options
from .recipe import HYPERPARAMETERS, POSITIVE, Policy, Storage
from .rules import Rule


@dataclass(frozen=True)
class Defaults:
    """What the constructor was given: for groups that have no setting of their own, and for the whole optimizer."""

    rule: Rule
    settings: Mapping[str, Any]
    options: Any
    storage: Storage
    policy: Policy

    def allowed(self) -> list[str]:
        """The settings that a group may have of its own."""
        names = (field.name for kind in (self.options, self.storage) for field in fields(kind))
        return sorted({*self.settings, *names})


def read_defaults(rule: Rule, settings: Mapping[str, Any], options: Any, given: Mapping[str, Any]) -> Defaults:
    """Sort what an optimizer was given by keyword beside the arguments of its rule (see `recipe.Recipe`)."""
    known = {"lr_scale": 1.0, **dict.fromkeys(HYPERPARAMETERS)}
    names = {kind: {field.name for field in fields(kind)} for kind in (Storage, Policy)}
    unknown = sorted(set(given) - set(known) - names[Storage] - names[Policy])
    if unknown:
        own_names = [field.name for field in fields(options)]
        allowed = sorted({*settings, *own_names, *known, *names[Storage], *names[Policy]})
        raise TypeError(f"there is no argument {unknown[0]!r}; there are {', '.join(allowed)}")
    own = {kind: {name: given[name] for name in given if name in names[kind]} for kind in names}
    values = {**settings, **known, **{name: given[name] for name in given if name in known}}
    policy = read_options(Policy(), own[Policy], "")
    return Defaults(rule, values, options, read_options(Storage(), own[Storage], ""), policy)


@dataclass
class Group:
    """Tensors that share hyperparameters and options."""

    index: int
    names: list[Any]
    arrays: list[Array]
    hyperparameters: dict[str, Expr]
    options: Any
    storage: Storage
    lr_scales: list[float]  # of its tensors
    absent: frozenset[str] = frozenset()  # states that this group does without

    @property
    def where(self) -> str:
        """How an error names a setting of this group."""
        return f" of group {self.index}"

    @property
    def computes_in_float32(self) -> bool:
        """Whether the rule computes in float32 for one of its tensors."""
        return any(computes_in(array.dtype.name) == "float32" for array in self.arrays)

    def read(self, rule: Rule, settings: Mapping[str, Any]) -> dict[str, Expr]:
        """Hyperparameters of this group, checked."""
        return read_hyperparameters(rule, settings, self.where, self.computes_in_float32)

    def changed(self, rule: Rule, settings: Mapping[str, Any]) -> dict[str, Expr]:
        """The hyperparameters with some of them replaced; the group itself is left alone."""
        for name in set(settings) & set(HYPERPARAMETERS):
            if (settings[name] is None) != (name not in self.hyperparameters):
                raise ValueError(
                    f"{name}{self.where} is {settings[name]!r}, but the constructor had "
                    f"{'none' if settings[name] is not None else 'one'}; it can be changed, but not begun or ended"
                )
        changed = {**self.hyperparameters, **self.read(rule, settings)}
        missing = sorted(self.absent - self.options.absent_states(changed))
        if missing:
            raise ValueError(
                f"group {self.index} was made without the state {missing[0]!r}, which {', '.join(settings)} would "
                "need: give the constructor a value other than 0, or a schedule"
            )
        return changed


def read_groups(params: Any, defaults: Defaults, index: int = 0, first: int = 0) -> list[Group]:
    """Make groups of what the user gives.

    Args:
        params: List or dict of arrays, or a list of groups: dicts with `params` and any setting of their own.
        defaults: Settings for groups that have none of their own.
        index, first: Numbers of the first group and of its first tensor.

    Raises:
        TypeError, ValueError: Anything malformed, named by group and tensor.
    """
    groups: list[Group] = []
    for member in _split(params):
        groups.append(_read_group(dict(member), defaults, index + len(groups), first))
        first += len(groups[-1].arrays)
    return groups


def _read_group(own: dict[str, Any], defaults: Defaults, index: int, first: int) -> Group:
    names, arrays = _read_arrays(own.pop("params", None), index, first)
    unknown = [name for name in own if name not in defaults.allowed()]
    if unknown:
        allowed = defaults.allowed()
        raise ValueError(f"group {index} has the unknown setting {unknown[0]!r}; allowed are params and {allowed}")
    values = {name: own.get(name, value) for name, value in defaults.settings.items()}
    scales = _read_scales(values.pop("lr_scale"), names, index)
    where = f" of group {index}"
    options, storage = (
        read_options(kind, {f.name: own[f.name] for f in fields(kind) if f.name in own}, where)
        for kind in (defaults.options, defaults.storage)
    )
    _check_storage(storage, names, arrays, where)
    group = Group(index, names, arrays, {}, options, storage, scales)
    group.hyperparameters = group.read(defaults.rule, values)
    if defaults.rule.mixing and "ema_decay" in group.hyperparameters:
        raise ValueError(
            f"ema_decay{where} is {values['ema_decay']!r}, but {defaults.rule.name} averages its weights itself, as "
            "eval() shows; allowed is None"
        )
    group.absent = options.absent_states(group.hyperparameters)
    return group


def _read_scales(given: Any, names: list[Any], index: int) -> list[float]:
    """A factor of the learning rate for each tensor."""
    title = f"lr_scale of group {index}"
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"{title} names {unknown[0]!r}, which is none of its tensors; these are {names}")
        pairs = [(name, given.get(name, 1.0)) for name in names]
    elif isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ValueError(f"{title} has {len(given)} entries for {len(names)} tensors")
        pairs = list(zip(names, given, strict=True))
    else:
        return [check_range(given, POSITIVE, title)] * len(names)
    return [check_range(value, POSITIVE, f"{title} for {name!r}") for name, value in pairs]


def _check_storage(storage: Storage, names: list[Any], arrays: list[Array], where: str) -> None:
    """Refuse modes that contradict each other, or that a parameter's dtype has no use for."""
    if storage.master and storage.rounding == "stochastic":
        raise ValueError(
            f"rounding{where} is 'stochastic', but master is {storage.master!r}, which keeps what rounding loses; "
            "allowed is one of them"
        )
    for name, array in zip(names, arrays, strict=True):
        if storage.master == "remainder" and array.dtype.name == "float16":
            raise ValueError(
                f"master{where} is 'remainder', but {name_tensor('parameter', name)} is float16, whose exponent is too "
                "short for that; allowed are bfloat16 parameters, or master='float32'"
            )


def _split(params: Any) -> list[Mapping[str, Any]]:
    if isinstance(params, Mapping):
        return [{"params": params}]
    if hasattr(params, "__array_interface__") or hasattr(params, "__dlpack__"):
        raise TypeError(f"params must be a list or dict of arrays, got a single {type(params).__name__}: write [array]")
    if isinstance(params, str) or not hasattr(params, "__iter__"):
        raise TypeError(f"params must be a list or dict of arrays, or a list of groups, got {type(params).__name__}")
    members = list(params)
    if members and all(isinstance(member, Mapping) for member in members):
        return members
    if any(isinstance(member, Mapping) for member in members):
        raise TypeError("params mixes arrays and groups; allowed are arrays only, or groups (dicts) only")
    return [{"params": members}]


def _read_arrays(params: Any, index: int, first: int) -> tuple[list[Any], list[Array]]:
    if params is None:
        raise ValueError(f"group {index} has no entry 'params'")
    if isinstance(params, Mapping):
        pairs = list(params.items())
    elif hasattr(params, "__dlpack__"):
        pairs = [(first, params)]
    elif isinstance(params, str) or not hasattr(params, "__iter__"):
        raise TypeError(f"params of group {index} must be a list or dict of arrays, got {type(params).__name__}")
    else:
        pairs = list(enumerate(params, first))
    arrays = [
        value if isinstance(value, Array) else borrow(value, name_tensor("parameter", name)) for name, value in pairs
    ]
    for (name, _), array in zip(pairs, arrays, strict=True):
        check_param(array, name_tensor("parameter", name))
    return [name for name, _ in pairs], arrays


def name_tensor(kind: str, name: Any) -> str:
    """How errors call a tensor: parameter 3, gradient 'head.weight'."""
    return f"{kind} {name!r}"


def check_param(array: Array, name: str) -> None:
    if array.dtype.name not in FORMATS:
        raise TypeError(f"{name} has dtype {array.dtype}; allowed are {', '.join(FORMATS)}")
    if not array.dtype.isnative:
        raise TypeError(f"{name} has the byte order of another machine ({array.dtype.str}); allowed is the native one")
    if not array.is_writable:
        raise ValueError(f"{name} is read-only; an optimizer updates its parameters in place")


def check_gradient(grad: Array, param: Array, name: str, zero_grads: bool) -> None:
    """A gradient must lie as its parameter lies, element for element."""
    if zero_grads and not grad.is_writable:
        raise ValueError(f"{name} is read-only, but zero_grads=True leaves gradients zero")
    if (grad.shape, grad.strides, grad.dtype, grad.device) == (param.shape, param.strides, param.dtype, param.device):
        return
    if grad.shape != param.shape:
        raise ValueError(f"{name} has shape {grad.shape}, its parameter has {param.shape}")
    if grad.dtype != param.dtype:
        _check_gradient_dtype(grad, param, name)
    if grad.device != param.device:
        raise ValueError(f"{name} lies on {grad.device}, its parameter on {param.device}; nothing is copied in silence")
    if any(a != b for a, b, n in zip(grad.steps, param.steps, param.shape, strict=True) if n > 1) and param.numel:
        raise ValueError(
            f"{name} has strides {grad.strides} bytes, its parameter {param.strides}; allowed is the same order of "
            "elements"
        )


def _check_gradient_dtype(grad: Array, param: Array, name: str) -> None:
    allowed = list(FORMATS) if param.dtype.name == "float64" else [form for form in FORMATS if form != "float64"]
    if grad.dtype.name not in allowed or not grad.dtype.isnative:
        raise TypeError(
            f"{name} has dtype {grad.dtype}, its parameter has {param.dtype}; allowed for it are {', '.join(allowed)}"
        )


def check_names(groups: Sequence[Group]) -> None:
    seen: dict[Any, int] = {}
    for group in groups:
        for name in group.names:
            if name in seen:
                raise ValueError(
                    f"parameter {name!r} is in group {seen[name]} and in group {group.index}; each goes into one"
                )
            seen[name] = group.index


def specialise(defaults: Defaults, group: Group, array: Array, grad: str) -> Specialisation:
    """The kernel that an array of this group needs for gradients of a format."""
    rule, storage, form = defaults.rule, group.storage, array.dtype.name
    is_16_bit = IS_16_BIT[form]
    return Specialisation(
        rule,
        form,
        grad,
        tuple(None if name in group.absent else state_format(rule, storage, array, name) for name in rule.states),
        companion=storage.master if is_16_bit else None,
        rounding=storage.rounding if is_16_bit else "nearest",
        ema="ema_decay" in group.hyperparameters,
        zero_grads=defaults.policy.zero_grads,
    )


def is_exempt(storage: Storage, array: Array) -> bool:
    """Whether a tensor is too small for 8-bit states, or too fragile: biases and norms have one axis."""
    return len(array.shape) < 2 or array.numel < storage.int8_from


def state_format(rule: Rule, storage: Storage, array: Array, state: str) -> str:
    """How a state of an array is kept: float64 parameters keep float64, small or fragile tensors float32."""
    compute = computes_in(array.dtype.name)
    if compute == "float64" or storage.state_dtype == "float32" or state in rule.weight_states:
        return compute
    if storage.state_dtype == "bfloat16":
        return "bfloat16"
    if is_exempt(storage, array):
        return compute
    return "uint8" if state in rule.nonnegative else "int8"

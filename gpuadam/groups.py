"""Parameter groups: what the user hands over, read and checked as a whole before anything is made."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np

from .arrays import Array, borrow
from .compiler import Output, Program
from .expressions import Expr, Parameter, as_expr, as_number
from .program import Op
from .rules import FINITE, Range, Rule
from .tables import DTYPES, Specialisation


@dataclass
class Group:
    """Tensors that share hyperparameters and options."""

    index: int
    names: list[Any]
    arrays: list[Array]
    hyperparameters: dict[str, Expr]
    options: Any
    absent: frozenset[str] = frozenset()  # states that this group does without

    def describe(self, name: str) -> str:
        return f"{name} of group {self.index}"


def read_groups(params: Any, rule: Rule, settings: Mapping[str, Any], options: Any) -> list[Group]:
    """Make groups of what the constructor was given.

    Args:
        params: List or dict of arrays, or a list of groups: dicts with `params` and any setting of their own.
        rule: Which settings there are.
        settings: The constructor's hyperparameters, for groups that have none of their own.
        options: The constructor's options, likewise.

    Raises:
        TypeError, ValueError: Anything malformed, named by group and tensor.
    """
    members = _split(params)
    groups = []
    first = 0
    for index, member in enumerate(members):
        own = dict(member)
        names, arrays = _read_arrays(own.pop("params", None), index, first)
        values = {**settings, **own}
        allowed = sorted({*settings, *(field.name for field in fields(options))})
        unknown = [name for name in own if name not in allowed]
        if unknown:
            raise ValueError(f"group {index} has the unknown setting {unknown[0]!r}; allowed are params and {allowed}")
        group_options = read_options(options, {name: own[name] for name in own if name not in settings}, index)
        group = Group(index, names, arrays, {}, group_options)
        group.hyperparameters = read_hyperparameters(rule, group, {name: values[name] for name in settings})
        group.absent = group_options.absent_states(group.hyperparameters)
        groups.append(group)
        first += len(arrays)
    _check_names(groups)
    return groups


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
    arrays = [borrow(value, name_tensor("parameter", name)) for name, value in pairs]
    for (name, _), array in zip(pairs, arrays, strict=True):
        check_param(array, name_tensor("parameter", name))
    return [name for name, _ in pairs], arrays


def name_tensor(kind: str, name: Any) -> str:
    """How errors call a tensor: parameter 3, gradient 'head.weight'."""
    return f"{kind} {name!r}"


def check_param(array: Array, name: str) -> None:
    if array.dtype.name not in DTYPES:
        raise TypeError(f"{name} has dtype {array.dtype}; allowed are {', '.join(DTYPES)}")
    if not array.dtype.isnative:
        raise TypeError(f"{name} has the byte order of another machine ({array.dtype.str}); allowed is the native one")
    if not array.is_writable:
        raise ValueError(f"{name} is read-only; an optimizer updates its parameters in place")


def check_gradient(grad: Array, param: Array, name: str) -> None:
    """A gradient must lie as its parameter lies, element for element."""
    if (grad.shape, grad.strides, grad.dtype, grad.device) == (param.shape, param.strides, param.dtype, param.device):
        return
    if grad.shape != param.shape:
        raise ValueError(f"{name} has shape {grad.shape}, its parameter has {param.shape}")
    if grad.dtype != param.dtype:
        raise TypeError(f"{name} has dtype {grad.dtype}, its parameter has {param.dtype}; allowed is the same dtype")
    if grad.device != param.device:
        raise ValueError(f"{name} lies on {grad.device}, its parameter on {param.device}; nothing is copied in silence")
    if any(a != b for a, b, n in zip(grad.strides, param.strides, param.shape, strict=True) if n > 1) and param.numel:
        raise ValueError(
            f"{name} has strides {grad.strides} bytes, its parameter {param.strides}; allowed is the same order of "
            "elements"
        )


def _check_names(groups: Sequence[Group]) -> None:
    seen: dict[Any, int] = {}
    for group in groups:
        for name in group.names:
            if name in seen:
                raise ValueError(
                    f"parameter {name!r} is in group {seen[name]} and in group {group.index}; each goes into one"
                )
            seen[name] = group.index


def read_options(options: Any, own: Mapping[str, Any], index: int) -> Any:
    """The options of one group: the constructor's, with its own in their place."""
    changed = replace(options, **own)
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(changed, name)
        allowed = (False, True) if kind is bool else get_args(kind)
        if kind is float:
            check_range(value, FINITE, f"{name} of group {index}")
        elif not isinstance(value, bool | np.bool_ | str) or value not in allowed:
            raise ValueError(f"{name} of group {index} is {value!r}; allowed are {allowed}")
    return changed


def check_range(value: Any, allowed: Range, title: str) -> float:
    number = as_number(value, title)
    if not allowed.low <= number <= allowed.high:
        raise ValueError(f"{title} is {number!r}; allowed is {allowed.text}")
    return number


def read_hyperparameters(rule: Rule, group: Group, settings: Mapping[str, Any]) -> dict[str, Expr]:
    """Numbers become slots that can be rewritten, expressions stay what they are; `betas` is beta1 and beta2."""
    values = dict(split_betas(settings, group))
    return {name: read_hyperparameter(rule, group, name, value) for name, value in values.items()}


def split_betas(settings: Mapping[str, Any], group: Group) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name != "betas":
            yield name, value
            continue
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(f"{group.describe(name)} must be a tuple of two, beta1 and beta2, got {value!r}")
        yield from zip(("beta1", "beta2"), value, strict=True)


def read_hyperparameter(rule: Rule, group: Group, name: str, value: Any) -> Expr:
    if name not in rule.hyperparameters:
        raise ValueError(f"{rule.name} has no hyperparameter {name!r}; allowed are {sorted(rule.hyperparameters)}")
    if isinstance(value, Expr) or callable(value):
        return as_expr(value, group.describe(name))
    allowed = rule.hyperparameters[name]
    number = check_range(value, allowed._replace(text=f"{allowed.text}, or a schedule"), group.describe(name))
    if name == "eps" and number > 0 and np.float32(number) == 0 and any(a.dtype == np.float32 for a in group.arrays):
        raise ValueError(f"{group.describe(name)} is {number!r}, which is 0 in float32; allowed is 0 or >= 1.4e-45")
    return Expr(Op.VALUE, payload=Parameter(group.describe(name), number, is_named=False))


def changed_hyperparameters(rule: Rule, group: Group, settings: Mapping[str, Any]) -> dict[str, Expr]:
    """The hyperparameters of a group with some of them replaced; the group itself is left alone."""
    changed = {**group.hyperparameters, **read_hyperparameters(rule, group, settings)}
    missing = sorted(group.absent - group.options.absent_states(changed))
    if missing:
        raise ValueError(
            f"group {group.index} was made without the state {missing[0]!r}, which {', '.join(settings)} would need: "
            "give the constructor a value other than 0, or a schedule"
        )
    return changed


def outputs(rule: Rule, group: Group) -> list[Output]:
    """What the group's program puts out: the rule's coefficients, then its hyperparameters, which are checked first."""
    coefficients = rule.coefficients(group.hyperparameters, group.options)
    first = len(coefficients)
    checked = [
        Output(name, group.hyperparameters[name], first + i, *allowed)
        for i, (name, allowed) in enumerate(rule.hyperparameters.items())
    ]
    form = "float32" if any(array.dtype == np.float32 for array in group.arrays) else "float64"
    largest = float(np.finfo(form).max)
    for place, (name, value) in enumerate(zip(coefficients._fields, coefficients, strict=True)):
        checked.append(Output(name, as_expr(value), place, -largest, largest, f"a number that is finite in {form}"))
    return checked


def warn_of_flips(rule: Rule, group: Group, row: Any) -> None:
    """Say so if a decoupled decay takes more than there is."""
    decay = row[rule.row._fields.index("decay")]  # type: ignore[attr-defined]
    if decay > 1:
        text = (
            f"weight decay takes {decay:.3g} times the parameters of group {group.index} a step: it flips their signs"
        )
        warnings.warn(text, stacklevel=5)


def compile_groups(rule: Rule, own: Sequence[Group], old: Program | None = None) -> Program:
    """The program of all groups; what it shares with an older one keeps the values that it has there."""
    program = Program()
    for group in own:
        program.add(outputs(rule, group))
    if old is not None:
        program.keep_values(old)
    values = program.named_parameters()
    for parameter, slot in program.pool.parameters.items():
        both = program.pool.values[slot], values.get(parameter.name)
        if parameter.is_named and repr(both[0]) != repr(both[1]):
            raise ValueError(f"the parameter {parameter.name!r} has two values, {both}; a name stands for one number")
    return program


def specialise(rule: Rule, group: Group, array: Array) -> Specialisation:
    """The kernel that an array of this group needs."""
    form = array.dtype.name
    return Specialisation(rule, form, form, tuple(None if state in group.absent else form for state in rule.states))

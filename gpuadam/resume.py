"""A run in one file: what an optimizer writes so that the run can go on, and how it takes that up, all or nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checkpoint, state
from .arrays import borrow
from .checkpoint import CheckpointError
from .expressions import Accumulator, Expr
from .groups import Group, check_param, name_tensor
from .schedule_data import from_data, to_data

if TYPE_CHECKING:
    from .engine import Engine

Differences = Iterator[str]


def collect(engine: "Engine", path: checkpoint.Path, params: bool) -> dict[str, Any]:
    """The state, a description of the groups and, if asked, the parameters' values (see `Optimizer.save`)."""
    for name in engine.tensors.names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise CheckpointError(path, f"{name!r} is a name of type {type(name).__name__}; allowed are str and int")
    content = state.collect(engine)
    content["settings"] = [describe(engine, group) for group in engine.groups]
    content["policy"] = describe_policy(engine)
    if params:
        views = parameter_views(engine)
        content["params"] = {name: engine.backend.to_host(view) for name, view in views.items()}
    return content


def install(engine: "Engine", path: checkpoint.Path, saved: Any, hyperparameters: bool) -> list[str]:
    """Take up what `collect` gave, and say in which settings the run is another one (see `Optimizer.load`)."""
    found = list(differences(engine, saved, hyperparameters))
    if found:
        text = "it does not fit the optimizer, and nothing was changed:\n- " + "\n- ".join(found)
        raise CheckpointError(path, text)
    other = {group.index: list(setting_differences(engine, group, saved)) for group in engine.groups}
    changed = {}
    if hyperparameters:
        changed = {g.index: saved_hyperparameters(engine, g, saved) for g in engine.groups if other[g.index]}
    values = saved.get("params", {})
    views = parameter_views(engine) if values else {}
    writes = [(views[name], values[name]) for name in values]
    try:
        state.install(engine, saved, changed, writes)
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error
    engine.tensors.note_writes()
    return [*policy_differences(engine, saved), *(text for group in other.values() for text in group)]


# ---- what is written beside the state


def describe(engine: "Engine", group: Group) -> dict[str, Any]:
    """A group as data: its tensors, its options, and its hyperparameters, of which a schedule is a program."""
    options = {**asdict(group.options), **asdict(group.storage), "lr_scale": group.lr_scales}
    given = state.numbers(group.hyperparameters, engine.program)
    schedules = {name: to_data(h) for name, h in group.hyperparameters.items() if name not in given}
    return {
        "tensors": tensor_kinds(group),
        "order": list(group.names),
        "options": plain(options),
        "hyperparameters": {**given, **schedules},
    }


def describe_policy(engine: "Engine") -> dict[str, Any]:
    """What is the same for all groups and changes the steps to come."""
    policy = asdict(engine.defaults.policy)
    return plain({n: policy[n] for n in ("clip_scope", "nonfinite", "per_tensor_step", "zero_grads", "seed")})


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without NumPy's scalars, which no file holds."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}


def tensor_kinds(group: Group) -> dict[Any, dict[str, Any]]:
    """Dtype and shape of each tensor of a group."""
    pairs = zip(group.names, group.arrays, strict=True)
    return {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in pairs}


def parameter_views(engine: "Engine") -> dict[Any, Any]:
    """The parameters by name, where they lie now, as arrays of the backend."""
    tensors = engine.tensors
    return {name: engine.backend.view_of(tensors.reread(i)) for i, name in enumerate(tensors.names)}


# ---- what must be the same


def differences(engine: "Engine", saved: Any, hyperparameters: bool) -> Differences:
    """Everything in which a file differs from what this optimizer can take up."""
    malformed = list(malformations(saved))
    yield from malformed
    if malformed:
        return
    yield from state.differences(engine, saved, False)
    yield from tensor_differences(engine, saved["settings"])
    if "params" in saved:
        yield from parameter_differences(engine, saved["params"])
    if not hyperparameters:
        yield from state.mixing_differences(engine, saved["groups"])
    if not hyperparameters or saved["rule"] != engine.defaults.rule.name:
        return
    for group in engine.groups[: len(saved["settings"])]:
        own = describe(engine, group)["options"]
        for name, value in saved["settings"][group.index]["options"].items():
            if own.get(name) != value:
                yield f"{name}{group.where} is {value!r} in the file, {own.get(name)!r} here: options are not taken"
        try:
            saved_hyperparameters(engine, group, saved)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            yield f"the hyperparameters of group {group.index} cannot be taken: {error}"


def malformations(saved: Any) -> Differences:
    """What keeps a file from being compared at all: somebody else has used the format."""
    entries = saved if isinstance(saved, dict) else {}
    settings, groups, params = entries.get("settings"), entries.get("groups"), entries.get("params", {})
    are_lists = isinstance(settings, list) and isinstance(groups, list) and len(settings) == len(groups)
    are_lists = are_lists and isinstance(entries.get("policy"), dict)
    are_arrays = isinstance(params, dict) and all(isinstance(values, np.ndarray) for values in params.values())
    if not are_lists or not are_arrays or not all(map(is_description, settings or ())):
        yield "it holds something else than what Optimizer.save wrote"


def is_description(saved: Any) -> bool:
    """Whether it has the form of what `describe` gives."""
    kinds = ("tensors", "options", "hyperparameters")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(kind), dict) for kind in kinds):
        return False
    if not isinstance(saved.get("order"), list):
        return False
    return all(isinstance(own, dict) and {"dtype", "shape"} == set(own) for own in saved["tensors"].values())


def tensor_differences(engine: "Engine", settings: list[dict[str, Any]]) -> Differences:
    """Tensors that lie in another group, or are of another shape or dtype."""
    places = {name: (index, kind) for index, own in enumerate(settings) for name, kind in own["tensors"].items()}
    for group, saved in zip(engine.groups, settings, strict=False):
        if saved["order"] != group.names and set(saved["order"]) == set(group.names):
            yield f"the tensors of group {group.index} are in another order: {saved['order']} in the file"
    for group in engine.groups:
        for name, kind in tensor_kinds(group).items():
            index, saved = places.get(name, (group.index, kind))
            if index != group.index:
                yield f"tensor {name!r} is in group {index} of the file, here in group {group.index}"
            if saved != kind:
                there, here = (f"{own['dtype']} of shape {own['shape']}" for own in (saved, kind))
                yield f"tensor {name!r} is {there} in the file, {here} here"


def parameter_differences(engine: "Engine", params: Mapping[Any, Any]) -> Differences:
    """Parameters without values, values that do not fit, and parameters that cannot be written any more."""
    tensors = engine.tensors
    for name in [name for name in params if name not in set(tensors.names)]:
        yield f"it has values of the parameter {name!r}, which this optimizer has not"
    for index, (name, array) in enumerate(zip(tensors.names, tensors.params, strict=True)):
        title = name_tensor("parameter", name)
        values = params.get(name)
        if values is None:
            yield f"it has no values of {title}"
        elif (values.shape, values.dtype) != (array.shape, array.dtype):
            there, here = (f"{own.dtype} of shape {list(own.shape)}" for own in (values, array))
            yield f"{title} is {there} in the file, {here} here"
        try:
            check_param(borrow(tensors.reread(index).owner, title), title)
        except (TypeError, ValueError) as error:
            yield str(error)


# ---- what may be another


def setting_differences(engine: "Engine", group: Group, saved: Mapping[str, Any]) -> Differences:
    """Hyperparameters and options that are not those of the file."""
    own, theirs = describe(engine, group), saved["settings"][group.index]
    for kind in ("hyperparameters", "options"):
        for name in sorted({*own[kind], *theirs[kind]}):
            here, there = own[kind].get(name), theirs[kind].get(name)
            if not is_same(here, there):
                text = [f"{value!r}" if not isinstance(value, dict) else "a schedule" for value in (there, here)]
                if text[0] == text[1]:
                    text[1] = "another"
                yield f"{name}{group.where} is {text[0]} in the file, {text[1]} here"


def policy_differences(engine: "Engine", saved: Mapping[str, Any]) -> Differences:
    """Settings of the whole optimizer that are not those of the file."""
    for name, here in describe_policy(engine).items():
        there = saved["policy"].get(name)
        if here != there:
            yield f"{name} is {there!r} in the file, {here!r} here"


def is_same(here: Any, there: Any) -> bool:
    """Whether two settings are the same number, option or schedule."""
    if isinstance(here, dict) and isinstance(there, dict):
        pools = [np.asarray(schedule.get("pool")).tobytes() for schedule in (here, there)]
        return pools[0] == pools[1] and {**here, "pool": 0} == {**there, "pool": 0}
    return bool(here == there)


def saved_hyperparameters(engine: "Engine", group: Group, saved: Mapping[str, Any]) -> dict[str, Expr]:
    """The hyperparameters of a group as the file has them; one that it has not is None, and so refused."""
    accumulators: dict[str, Accumulator] = {}
    values = dict.fromkeys(group.hyperparameters) | {
        name: from_data(value, accumulators) if isinstance(value, dict) else value
        for name, value in saved["settings"][group.index]["hyperparameters"].items()
    }
    return group.changed(engine.defaults.rule, values)

"""The state of an optimizer as plain arrays and numbers, and its way back: all of it, or nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import changes
from .clocks import make_clock, read_clock
from .cohorts import Cohorts, cohorts_of
from .compiler import CLOCK, Program, Section
from .expressions import Expr, Parameter, as_number
from .hyperparameters import read_hyperparameter
from .tables import new_progress

if TYPE_CHECKING:
    from .engine import Engine

FORMAT_VERSION = 1
LAST_COUNT = 2**53  # the last step that a schedule can tell from the next


def numbers(hyperparameters: Mapping[str, Any], program: Program) -> dict[str, float]:
    """Those hyperparameters that are numbers, not schedules."""
    slots = program.pool.parameters
    return {
        name: program.pool.values[slots[h.payload]]
        for name, h in hyperparameters.items()
        if isinstance(h.payload, Parameter) and not h.payload.is_named
    }


def collect(engine: "Engine") -> dict[str, Any]:
    tensors, cohorts, sections = engine.tensors, engine.cohorts, engine.program.sections
    clocks = engine.tables.download("clocks")

    def of_tensor(index: int) -> dict[str, Any]:
        cohort = cohorts.of[index]
        dtypes = tensors.host_dtypes(index)
        arrays = {
            name: engine.backend.to_host(array).view(dtypes[name]) for name, array in tensors.arrays[index].items()
        }
        return {**read_clock(clocks[cohort], sections[cohorts.groups[cohort]]), **arrays}

    speakers = cohorts.speakers(clocks)
    groups = [
        {**read_clock(clocks[speakers[g.index]], sections[g.index]), **numbers(g.hyperparameters, engine.program)}
        for g in engine.groups
    ]
    return {
        "format_version": FORMAT_VERSION,
        "rule": engine.defaults.rule.name,
        "groups": groups,
        "state": {name: of_tensor(i) for i, name in enumerate(tensors.names)},
        "parameters": engine.program.named_parameters(),
        "skipped_steps": int(engine.tables.download("progress")["skipped"][0]),
    }


def restore(engine: "Engine", saved: Mapping[str, Any], hyperparameters: bool) -> None:
    found = list(differences(engine, saved, hyperparameters))
    if not found and not hyperparameters:
        found = list(mixing_differences(engine, saved["groups"]))
    if found:
        raise ValueError("this state does not fit the optimizer, and nothing was changed:\n- " + "\n- ".join(found))
    changed = {}
    for group, values in zip(engine.groups, saved["groups"], strict=True) if hyperparameters else ():
        settings = {name: values[name] for name in numbers(group.hyperparameters, engine.program)}
        changed[group.index] = group.changed(engine.defaults.rule, settings)
    install(engine, saved, changed)


def install(
    engine: "Engine",
    saved: Mapping[str, Any],
    changed: Mapping[int, dict[str, Expr]],
    writes: Sequence[tuple[Any, Any]] = (),
) -> None:
    """Put in force a state that was compared.

    Args:
        engine, saved: Between which there is no difference.
        changed: The hyperparameters of those groups that get others.
        writes: Arrays and the values that they get in the same change: the parameters, where they were saved too.
    """
    engine.check_own_weights()
    groups, program = changes.prepare(engine, changed)
    for name, value in saved["parameters"].items():
        program.set_parameter(name, float(value))
    cohorts, clocks = _restored_cohorts(engine, saved)
    cohorts, splits = cohorts.activated(engine.tensors.binding.present())
    clocks = np.concatenate([clocks, clocks[[source for source, _ in splits]]])
    progress = new_progress()
    progress["skipped"] = saved["skipped_steps"]
    engine.interrupted = "load_state_dict"
    for array, values in writes:
        engine.backend.overwrite(array, values)
    for own, name in zip(engine.tensors.arrays, engine.tensors.names, strict=True):
        for state, array in own.items():
            engine.backend.overwrite(array, np.asarray(saved["state"][name][state]).view(array.dtype))
    engine.tables.upload("clocks", 0, clocks)
    engine.tables.upload("tensors", 0, engine.tensors.rows(engine.tensors.binding, cohorts.of))
    engine.tables.reset(progress)
    engine.cohorts, engine.is_swapped = cohorts, False
    changes.install(engine, groups, program, "load_state_dict")


def _restored_cohorts(engine: "Engine", saved: Mapping[str, Any]) -> tuple[Cohorts, Any]:
    """Tensors sorted into cohorts by their saved clocks; factors of the learning rate stay the constructor's."""
    tensors, sections = engine.tensors, engine.program.sections
    group_of = tensors.group_of.tolist()
    scales = [scale for group in engine.groups for scale in group.lr_scales]
    own = [make_clock(group, section) for group, section in zip(saved["groups"], sections, strict=True)]
    clocks = [
        make_clock(saved["state"][name], sections[group], scale)
        for name, group, scale in zip(tensors.names, group_of, scales, strict=True)
    ]
    return cohorts_of(group_of, np.array(clocks, CLOCK), np.array(own, CLOCK))


def differences(engine: "Engine", saved: Any, hyperparameters: bool) -> Iterator[str]:
    """Everything in which a saved state differs from what this optimizer can take up."""
    malformed = list(_malformations(saved))
    yield from malformed
    if malformed:
        return
    if saved["rule"] != engine.defaults.rule.name:
        yield f"it is of the rule {saved['rule']!r}, this optimizer is {engine.defaults.rule.name!r}"
    if len(saved["groups"]) != len(engine.groups):
        yield f"it has {len(saved['groups'])} groups, this optimizer has {len(engine.groups)}"
    for index, (group, own) in enumerate(zip(saved["groups"], engine.program.sections, strict=False)):
        yield from _clock_differences(f"group {index}", group, own)
        if hyperparameters and isinstance(group, Mapping):
            yield from _hyperparameter_differences(engine, index, group)
    given, own_parameters = set(saved["parameters"]), set(engine.program.named_parameters())
    if given != own_parameters:
        yield f"its named parameters are {_listed(given)}, this optimizer's {_listed(own_parameters)}"
    yield from _number_differences(saved["parameters"], "the parameter")
    known = set(engine.tensors.names)
    for name in [name for name in saved["state"] if name not in known]:
        yield f"it has the tensor {name!r}, which this optimizer has not"
    for index, name in enumerate(engine.tensors.names):
        yield from _tensor_differences(engine, index, name, saved["state"].get(name))


def _malformations(saved: Any) -> Iterator[str]:
    """What keeps a saved state from being compared at all."""
    if not isinstance(saved, Mapping):
        yield f"it is a {type(saved).__name__}; allowed is the dict that state_dict gave"
        return
    kinds = {
        "format_version": int,
        "rule": str,
        "groups": list | tuple,
        "state": Mapping,
        "parameters": Mapping,
        "skipped_steps": int,
    }
    for name, kind in kinds.items():
        if name not in saved:
            yield f"it has no entry {name!r}; it is not what state_dict gave"
        elif not isinstance(saved[name], kind):
            yield f"its entry {name!r} is a {type(saved[name]).__name__}; it is not what state_dict gave"
        elif name == "format_version" and saved[name] != FORMAT_VERSION:
            yield f"its format version is {saved[name]!r}; allowed is {FORMAT_VERSION}"
        elif name == "skipped_steps" and not 0 <= saved[name] <= LAST_COUNT:
            yield f"its entry 'skipped_steps' is {saved[name]!r}; allowed are whole numbers from 0 to 2**53"


def _listed(names: Iterable[Any]) -> list[Any]:
    return sorted(names, key=str)


def _number_differences(values: Mapping[Any, Any], kind: str) -> Iterator[str]:
    for name, value in values.items():
        try:
            as_number(value, f"{kind} {name!r}")
        except (TypeError, OverflowError) as error:
            yield str(error)


def _hyperparameter_differences(engine: "Engine", index: int, saved: Mapping[str, Any]) -> Iterator[str]:
    group = engine.groups[index]
    for name in numbers(group.hyperparameters, engine.program):
        try:
            read_hyperparameter(engine.defaults.rule, name, saved.get(name), group.where, group.computes_in_float32)
        except (TypeError, ValueError, OverflowError) as error:
            yield str(error)


def mixing_differences(engine: "Engine", saved: Sequence[Any]) -> Iterator[str]:
    """Parameters that are mixed with one number cannot be taken apart with another."""
    name = engine.defaults.rule.mixing
    if name is None:
        return
    for there, group in zip(saved, engine.groups, strict=False):
        here = numbers(group.hyperparameters, engine.program)
        if isinstance(there, Mapping) and there.get(name) != here[name]:
            yield f"{name}{group.where} is {there.get(name)!r}, with which parameters are mixed, here {here[name]!r}"


def _clock_differences(title: str, saved: Any, section: Section) -> Iterator[str]:
    if not isinstance(saved, Mapping):
        yield f"{title} is a {type(saved).__name__}; allowed is a dict"
        return
    for count in ("step", "updates"):
        value = saved.get(count)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= LAST_COUNT:
            yield f"{count} of {title} is {value!r}; allowed are whole numbers from 0 to 2**53"
    names = {accumulator.name for accumulator in section.accumulators}
    accumulators = saved.get("accumulators")
    if not isinstance(accumulators, Mapping):
        yield f"the accumulators of {title} are {accumulators!r}; allowed is a dict"
        return
    if set(accumulators) != names:
        yield f"the accumulators of {title} are {_listed(accumulators)}, here they are {sorted(names)}"
    yield from _number_differences(accumulators, f"in {title}, the accumulator")


def _tensor_differences(engine: "Engine", index: int, name: Any, saved: Any) -> Iterator[str]:
    title = f"tensor {name!r}"
    if saved is None:
        yield f"it has no {title}"
        return
    yield from _clock_differences(title, saved, engine.program.sections[engine.tensors.group_of[index]])
    if not isinstance(saved, Mapping):
        return
    own, dtypes = engine.tensors.arrays[index], engine.tensors.host_dtypes(index)
    given = set(saved) - {"step", "updates", "accumulators"}
    if given != set(own):
        yield f"the states of {title} are {_listed(given)}, here they are {sorted(own)}"
    for state in sorted(given & set(own)):
        here = f"here it is {dtypes[state]} {own[state].shape}"
        try:
            array = np.asarray(saved[state])
        except (TypeError, ValueError, RuntimeError) as error:
            yield f"{state} of {title} is a {type(saved[state]).__name__} and no array ({error}), {here}"
            continue
        if (array.shape, array.dtype) != (own[state].shape, dtypes[state]):
            yield f"{state} of {title} is {array.dtype} {array.shape}, {here}"

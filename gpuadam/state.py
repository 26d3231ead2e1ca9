"""The state of an optimizer as plain arrays and numbers, and its way back: all of it, or nothing."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .cohorts import Cohorts
from .compiler import CLOCK, Program, Section
from .expressions import Parameter, as_number
from .groups import changed_hyperparameters, read_hyperparameter

if TYPE_CHECKING:
    from .optimizer import Optimizer

FORMAT_VERSION = 1
LAST_COUNT = 2**53  # the last step that a schedule can tell from the next


def read_clock(clock: Any, section: Section) -> dict[str, Any]:
    names = [accumulator.name for accumulator in section.accumulators]
    values = clock["accumulators"][: len(names)]
    return {
        "step": int(clock["step"]),
        "updates": int(clock["updates"]),
        "accumulators": dict(zip(names, map(float, values), strict=True)),
    }


def make_clock(saved: Mapping[str, Any], section: Section) -> Any:
    clock = np.zeros((), CLOCK)
    clock["step"], clock["updates"] = saved["step"], saved["updates"]
    for i, accumulator in enumerate(section.accumulators):
        clock["accumulators"][i] = saved["accumulators"][accumulator.name]
    return clock


def numbers(hyperparameters: Mapping[str, Any], program: Program) -> dict[str, float]:
    """Those hyperparameters that are numbers, not schedules."""
    slots = program.pool.parameters
    return {
        name: program.pool.values[slots[h.payload]]
        for name, h in hyperparameters.items()
        if isinstance(h.payload, Parameter) and not h.payload.is_named
    }


def collect(optimizer: "Optimizer") -> dict[str, Any]:
    tensors, cohorts, sections = optimizer._tensors, optimizer._cohorts, optimizer._program.sections
    clocks = optimizer._tables.download("clocks")

    def of_tensor(index: int) -> dict[str, Any]:
        cohort = cohorts.of[index]
        states = tensors.states[index].items()
        arrays = {name: optimizer._backend.to_host(array) for name, array in states if array is not None}
        return {**read_clock(clocks[cohort], sections[cohorts.groups[cohort]]), **arrays}

    speakers = cohorts.speakers(clocks)
    groups = [
        {**read_clock(clocks[speakers[g.index]], sections[g.index]), **numbers(g.hyperparameters, optimizer._program)}
        for g in optimizer._groups
    ]
    return {
        "format_version": FORMAT_VERSION,
        "rule": optimizer.rule.name,
        "groups": groups,
        "state": {name: of_tensor(i) for i, name in enumerate(tensors.names)},
        "parameters": optimizer.parameters(),
    }


def restore(optimizer: "Optimizer", saved: Mapping[str, Any], hyperparameters: bool) -> None:
    found = list(differences(optimizer, saved, hyperparameters))
    if found:
        raise ValueError("this state does not fit the optimizer, and nothing was changed:\n- " + "\n- ".join(found))
    changed = {}
    for group, values in zip(optimizer._groups, saved["groups"], strict=True) if hyperparameters else ():
        settings = {name: values[name] for name in numbers(group.hyperparameters, optimizer._program)}
        changed[group.index] = changed_hyperparameters(optimizer.rule, group, settings)
    groups, program = optimizer._prepare(changed)
    for name, value in saved["parameters"].items():
        program.set_parameter(name, float(value))
    cohorts, clocks = _restored_cohorts(optimizer, saved)
    cohorts, splits = cohorts.activated(optimizer._tensors.binding.present())
    clocks = np.concatenate([clocks, clocks[[source for source, _ in splits]]])
    optimizer._interrupted = "load_state_dict"
    for own, name in zip(optimizer._tensors.states, optimizer._tensors.names, strict=True):
        for state, array in own.items():
            if array is not None:
                optimizer._backend.overwrite(array, np.asarray(saved["state"][name][state]))
    optimizer._tables.upload("clocks", 0, clocks)
    optimizer._tables.upload("tensors", 0, optimizer._tensors.rows(optimizer._tensors.binding, cohorts.of))
    optimizer._tables.reset()
    optimizer._cohorts = cohorts
    optimizer._install(groups, program, "load_state_dict")


def _restored_cohorts(optimizer: "Optimizer", saved: Mapping[str, Any]) -> tuple[Cohorts, Any]:
    """Tensors sorted into cohorts by their clocks, and these; the first cohorts are the groups' own, in order."""
    tensors, sections = optimizer._tensors, optimizer._program.sections
    clocks = [make_clock(group, section) for group, section in zip(saved["groups"], sections, strict=True)]
    cohorts = Cohorts(tensors.group_of, len(clocks))
    known = {(group, clock.tobytes()): group for group, clock in enumerate(clocks)}
    for index, name in enumerate(tensors.names):
        group = int(tensors.group_of[index])
        clock = make_clock(saved["state"][name], sections[group])
        cohort = known.setdefault((group, clock.tobytes()), len(clocks))
        if cohort == len(clocks):
            clocks.append(clock)
            cohorts.groups.append(group)
            cohorts.active.append(True)
        cohorts.of[index] = cohort
    return cohorts, np.array(clocks, CLOCK)


def differences(optimizer: "Optimizer", saved: Any, hyperparameters: bool) -> Iterator[str]:
    """Everything in which a saved state differs from what this optimizer can take up."""
    malformed = list(_malformations(saved))
    yield from malformed
    if malformed:
        return
    if saved["rule"] != optimizer.rule.name:
        yield f"it is of the rule {saved['rule']!r}, this optimizer is {optimizer.rule.name!r}"
    if len(saved["groups"]) != len(optimizer._groups):
        yield f"it has {len(saved['groups'])} groups, this optimizer has {len(optimizer._groups)}"
    for index, (group, own) in enumerate(zip(saved["groups"], optimizer._program.sections, strict=False)):
        yield from _clock_differences(f"group {index}", group, own)
        if hyperparameters and isinstance(group, Mapping):
            yield from _hyperparameter_differences(optimizer, index, group)
    given, own_parameters = set(saved["parameters"]), set(optimizer.parameters())
    if given != own_parameters:
        yield f"its named parameters are {_listed(given)}, this optimizer's {_listed(own_parameters)}"
    yield from _number_differences(saved["parameters"], "the parameter")
    known = set(optimizer._tensors.names)
    for name in [name for name in saved["state"] if name not in known]:
        yield f"it has the tensor {name!r}, which this optimizer has not"
    for index, name in enumerate(optimizer._tensors.names):
        yield from _tensor_differences(optimizer, index, name, saved["state"].get(name))


def _malformations(saved: Any) -> Iterator[str]:
    """What keeps a saved state from being compared at all."""
    if not isinstance(saved, Mapping):
        yield f"it is a {type(saved).__name__}; allowed is the dict that state_dict gave"
        return
    kinds = {"format_version": int, "rule": str, "groups": list | tuple, "state": Mapping, "parameters": Mapping}
    for name, kind in kinds.items():
        if name not in saved:
            yield f"it has no entry {name!r}; it is not what state_dict gave"
        elif not isinstance(saved[name], kind):
            yield f"its entry {name!r} is a {type(saved[name]).__name__}; it is not what state_dict gave"
        elif name == "format_version" and saved[name] != FORMAT_VERSION:
            yield f"its format version is {saved[name]!r}; allowed is {FORMAT_VERSION}"


def _listed(names: Iterable[Any]) -> list[Any]:
    return sorted(names, key=str)


def _number_differences(values: Mapping[Any, Any], kind: str) -> Iterator[str]:
    for name, value in values.items():
        try:
            as_number(value, f"{kind} {name!r}")
        except (TypeError, OverflowError) as error:
            yield str(error)


def _hyperparameter_differences(optimizer: "Optimizer", index: int, saved: Mapping[str, Any]) -> Iterator[str]:
    group = optimizer._groups[index]
    for name in numbers(group.hyperparameters, optimizer._program):
        try:
            read_hyperparameter(optimizer.rule, group, name, saved.get(name))
        except (TypeError, ValueError, OverflowError) as error:
            yield str(error)


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


def _tensor_differences(optimizer: "Optimizer", index: int, name: Any, saved: Any) -> Iterator[str]:
    title = f"tensor {name!r}"
    if saved is None:
        yield f"it has no {title}"
        return
    yield from _clock_differences(title, saved, optimizer._program.sections[optimizer._tensors.group_of[index]])
    if not isinstance(saved, Mapping):
        return
    own = {state: array for state, array in optimizer._tensors.states[index].items() if array is not None}
    given = set(saved) - {"step", "updates", "accumulators"}
    if given != set(own):
        yield f"the states of {title} are {_listed(given)}, here they are {sorted(own)}"
    for state in sorted(given & set(own)):
        here = f"here it is {own[state].dtype} {own[state].shape}"
        try:
            array = np.asarray(saved[state])
        except (TypeError, ValueError, RuntimeError) as error:
            yield f"{state} of {title} is a {type(saved[state]).__name__} and no array ({error}), {here}"
            continue
        if (array.shape, array.dtype) != (own[state].shape, own[state].dtype):
            yield f"{state} of {title} is {array.dtype} {array.shape}, {here}"


def carried_accumulators(tables: Any, cohorts: Cohorts, old: Program, new: Program) -> Any:
    """The clocks to upload for a changed program: none if its accumulators are the old ones.

    Those of the same name go on from where they are; others start afresh.
    """
    if all(a.accumulators == b.accumulators for a, b in zip(old.sections, new.sections, strict=True)):
        return np.empty(0, CLOCK)
    clocks = tables.download("clocks")[: len(cohorts)]
    for clock, group in zip(clocks, cohorts.groups, strict=True):
        held = read_clock(clock, old.sections[group])
        fresh = {accumulator.name: accumulator.initial for accumulator in new.sections[group].accumulators}
        held["accumulators"] = {**fresh, **{name: v for name, v in held["accumulators"].items() if name in fresh}}
        clock["accumulators"] = make_clock(held, new.sections[group])["accumulators"]
    return clocks

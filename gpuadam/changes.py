"""Changes to a running optimizer: worked out first, then written to the tables, then in force."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .clocks import carried_accumulators
from .coefficients import compile_groups, read_row, warn_of_flips
from .compiler import Program, run_section
from .expressions import Expr, Parameter, as_number
from .faults import range_error
from .groups import Group
from .program import VALID
from .rules import Rule

if TYPE_CHECKING:
    from .engine import Engine


def hyperparameters(engine: "Engine") -> list[dict[str, float]]:
    clocks = engine.tables.download("clocks")
    speakers = engine.cohorts.speakers(clocks)
    found = []
    for group, section in zip(engine.groups, engine.program.sections, strict=True):
        clock = clocks[[speakers[group.index]]]
        rows, faults = run_section(engine.program, section, clock)
        if faults[0] != VALID:
            raise range_error(section, group.index, int(faults[0]), rows[0], int(clock["step"][0]))
        found.append(read_row(engine.defaults.rule, group, rows[0]))
    return found


def set_hyperparameters(engine: "Engine", group: int | None, settings: Mapping[str, Any]) -> None:
    own = engine.groups
    chosen = own if group is None else [own[as_index(group, len(own))]]
    changed = {member.index: member.changed(engine.defaults.rule, settings) for member in chosen}
    for member in chosen:
        check_mixing(engine.defaults.rule, member, changed[member.index])
    engine.check_whole(repeated="set_hyperparameters")
    numbers = numbers_for_numbers(changed, engine)
    if numbers is not None:
        for member in chosen:  # the rule refuses what does not go together
            engine.defaults.rule.coefficients(changed[member.index], member.options)
        set_numbers(engine, numbers)
        warn_where_signs_flip(engine, engine.groups, engine.program, changed)
        return
    install(engine, *prepare(engine, changed))


def numbers_for_numbers(changed: Mapping[int, dict[str, Expr]], engine: "Engine") -> dict[Parameter, float] | None:
    """What slots get where numbers take the place of numbers; None where programs must be made anew."""
    found = {}
    for index, hyperparameters in changed.items():
        old = engine.groups[index].hyperparameters
        for name, new in hyperparameters.items():
            if new is not old[name]:
                payloads = [h.payload for h in (old[name], new)]
                if not all(isinstance(payload, Parameter) and not payload.is_named for payload in payloads):
                    return None
                found[payloads[0]] = payloads[1].value
    return found


def set_numbers(engine: "Engine", numbers: Mapping[Parameter, float]) -> None:
    """Rewrite numbers that were checked, in their slots: no program is compiled, and one table goes to the device."""
    engine.check_whole(repeated="set_hyperparameters")
    engine.tables.require_writable()
    engine.interrupted = "set_hyperparameters"
    write_numbers(engine.program, numbers)
    engine.tables.upload("values", 0, engine.program.values())
    engine.announce(len(engine.cohorts))
    engine.interrupted = ""


def write_numbers(program: Program, numbers: Mapping[Parameter, float]) -> None:
    """Rewrite parameters in their slots; those without a name are plain numbers, and show what they are now."""
    for parameter, number in numbers.items():
        program.pool.values[program.pool.parameters[parameter]] = number
        if not parameter.is_named:
            parameter.value = number


def check_mixing(rule: Rule, group: Group, changed: Mapping[str, Expr]) -> None:
    """The parameters are mixed with this number, so nobody can make another of it."""
    if rule.mixing:
        old, new = (h[rule.mixing].payload.value for h in (group.hyperparameters, changed))
        if new != old:
            raise ValueError(
                f"{rule.mixing}{group.where} is {new!r}; allowed is {old!r} alone, with which the parameters are mixed"
            )


def as_index(group: Any, count: int) -> int:
    if isinstance(group, bool) or not isinstance(group, int | np.integer) or not -count <= group < count:
        raise ValueError(f"group is {group!r}; allowed are 0 to {count - 1}")
    return int(group)


def prepare(engine: "Engine", changed: Mapping[int, dict[str, Expr]]) -> tuple[list[Group], Program]:
    """The groups with other hyperparameters and their program, checked; nothing is in force yet."""
    own = [replace(g, hyperparameters=changed.get(g.index, g.hyperparameters)) for g in engine.groups]
    program = compile_groups(engine.defaults.rule, own, engine.program)
    for name, needed in (("program", len(program.code)), ("values", len(program.pool.values))):
        if needed > engine.room[name]:
            raise ValueError(
                f"the schedules need {needed} rows of the table {name!r}, which has room for {engine.room[name]}: "
                "give them to a new optimizer, and load this one's state_dict into it"
            )
    warn_where_signs_flip(engine, own, program, changed)
    engine.tables.require_writable()
    return own, program


def warn_where_signs_flip(engine: "Engine", own: Sequence[Group], program: Program, changed: Iterable[int]) -> None:
    for index in changed:
        rows, _ = run_section(program, program.sections[index], program.sections[index].new_clock())
        warn_of_flips(engine.defaults.rule, own[index], rows[0])


def install(engine: "Engine", own: list[Group], program: Program, what: str = "set_hyperparameters") -> None:
    """Put in force what was prepared."""
    tables = engine.tables
    engine.interrupted = what
    clocks = carried_accumulators(tables, engine.cohorts, engine.program, program)
    tables.upload("program", 0, program.instructions())
    tables.upload("values", 0, program.values())
    tables.upload("cohorts", 0, engine.cohort_rows(engine.cohorts, program))
    tables.upload("clocks", 0, clocks)
    engine.announce(len(engine.cohorts))
    engine.groups, engine.program = own, program
    engine.interrupted = ""


def set_parameter(engine: "Engine", name: str, value: float) -> None:
    number = as_number(value, f"parameter {name!r}")
    known = engine.program.named_parameters()
    if name not in known:
        raise KeyError(f"there is no parameter {name!r}; there are {sorted(known)}")
    engine.check_whole(repeated="set_parameter")
    engine.tables.require_writable()
    engine.interrupted = "set_parameter"
    for slot in engine.program.set_parameter(name, number):
        engine.tables.upload("values", slot, np.array([number]))
    engine.announce(len(engine.cohorts))
    engine.interrupted = ""

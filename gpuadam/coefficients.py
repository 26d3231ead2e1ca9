"""From the hyperparameters of groups to the program that puts out their coefficients, each in a range of its own."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compiler import Output, Program
from .expressions import as_expr, lr_scale
from .groups import Group
from .hyperparameters import ranges
from .recipe import RecipeCoefficients, recipe_coefficients
from .rules import Rule


def row_fields(rule: Rule) -> tuple[str, ...]:
    """What a row begins with: the coefficients of the rule, then those of the recipe."""
    return (*rule.row._fields, *RecipeCoefficients._fields)  # type: ignore[attr-defined]


def outputs(rule: Rule, group: Group) -> list[Output]:
    """What the group's program puts out: coefficients, then hyperparameters, which are checked first."""
    h = group.hyperparameters
    values = rule.coefficients({**h, "lr": h["lr"] * lr_scale}, group.options)
    extra = recipe_coefficients(h)
    first = len(values) + len(extra)
    allowed = ranges(rule)
    checked = [Output(name, value, first + i, *allowed[name]) for i, (name, value) in enumerate(h.items())]
    form = "float32" if group.computes_in_float32 else "float64"
    largest = float(np.finfo(form).max)
    for place, (name, value) in enumerate(zip(values._fields, values, strict=True)):
        checked.append(Output(name, as_expr(value), place, -largest, largest, f"a number that is finite in {form}"))
    for place, (name, value) in enumerate(zip(extra._fields, extra, strict=True), len(values)):
        checked.append(Output(name, as_expr(value), place))
    return checked


def read_row(rule: Rule, group: Group, row: Any) -> dict[str, float]:
    """The hyperparameters in a row that the group's program has put out."""
    values = row[len(row_fields(rule)) :]
    return {name: float(value) for name, value in zip(group.hyperparameters, values, strict=False)}


def warn_of_flips(rule: Rule, group: Group, row: Any) -> None:
    """Say so if a decoupled decay takes more than there is."""
    fields = row_fields(rule)
    decay = row[fields.index("decay")] if "decay" in fields else 0.0
    if decay > 1:
        text = (
            f"weight decay takes {decay:.3g} times the parameters of group {group.index} a step: it flips their signs"
        )
        warnings.warn(text, stacklevel=5)


def compile_groups(rule: Rule, own: Sequence[Group], old: Program | None = None) -> Program:
    """The program of all groups; what it shares with an older one keeps the values that it has there."""
    program = Program()
    for group in own:
        section = program.add(outputs(rule, group))
        if rule.mixing:
            section.mixing = program.pool.parameters[group.hyperparameters[rule.mixing].payload]
    if old is not None:
        program.keep_values(old)
    values = program.named_parameters()
    for parameter, slot in program.pool.parameters.items():
        both = program.pool.values[slot], values.get(parameter.name)
        if parameter.is_named and repr(both[0]) != repr(both[1]):
            raise ValueError(f"the parameter {parameter.name!r} has two values, {both}; a name stands for one number")
    return program

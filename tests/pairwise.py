"""Covering arrays: few cases in which every pair of values of two factors occurs together."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Case = dict[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]
CANDIDATES = 30  # cases of which the one with the most new pairs is taken


def pairs_of(case: Mapping[str, Any]) -> set[Pair]:
    return set(itertools.combinations(sorted(case.items()), 2))


def allowed_pairs(factors: Mapping[str, Sequence[Any]], allows: Callable[[Case], bool]) -> set[Pair]:
    values = [(name, value) for name in sorted(factors) for value in factors[name]]
    pairs = itertools.combinations(values, 2)
    return {pair for pair in pairs if pair[0][0] != pair[1][0] and allows(dict(pair))}


def covering_array(factors: Mapping[str, Sequence[Any]], allows: Callable[[Case], bool]) -> list[Case]:
    """Cases in which each pair that is allowed occurs, found greedily; the same ones in every run.

    Args:
        factors: The values of each factor.
        allows: Whether values may occur together; it is asked of a part of a case too.
    """
    left, cases = allowed_pairs(factors, allows), []
    generator = random.Random(0)
    while left:
        seeds = generator.choices(sorted(left, key=repr), k=CANDIDATES)
        found = [_completed(dict(seed), factors, allows, left, generator) for seed in seeds]
        cases.append(max(found, key=lambda case: len(pairs_of(case) & left)))
        left -= pairs_of(cases[-1])
    return cases


def _completed(
    case: Case, factors: Mapping[str, Sequence[Any]], allows: Callable[[Case], bool], left: set[Pair], generator: Any
) -> Case:
    """The case with a value of every factor, each the one that adds the most new pairs."""
    for name in generator.sample(sorted(set(factors) - set(case)), len(factors) - len(case)):
        grown = [{**case, name: value} for value in generator.sample(list(factors[name]), len(factors[name]))]
        case = max(filter(allows, grown), key=lambda grown: len(pairs_of(grown) & left))
    return {name: case[name] for name in factors}


def values_of(cases: Sequence[Case]) -> set[tuple[str, Any]]:
    return {item for case in cases for item in case.items()}


def smallest_subset(cases: Sequence[Case]) -> list[Case]:
    """A few of the cases in which each value occurs, found greedily."""
    left, chosen = values_of(cases), []
    while left:
        chosen.append(max(cases, key=lambda case: len(values_of([case]) & left)))
        left -= values_of(chosen)
    return chosen

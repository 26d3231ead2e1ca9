"""The hyperparameters of an optimizer as thinc hands them over, and the step that its schedules stand at.

A formula is evaluated in the kernel. Its clock counts launches, while thinc counts calls of `step_schedules`: the named
parameter LAG is the difference, which in a usual loop never changes. What nobody can see into, a generator or a
function, is read on the host before each launch, and is a named parameter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from .expressions import Expr, parameter, step
from .retiming import retimed
from .thinc_schedules import as_schedule, as_theirs, is_object, is_own, own

LAG = "thinc_lag"
LEARN_RATE = "learn_rate"  # the one that may be set at any time, so always a named parameter or a formula


class Successive:
    """The values of a list or generator, one for each step; the last one stays."""

    def __init__(self, name: str, values: Any) -> None:
        try:
            if isinstance(values, str | bytes):
                raise ValueError("text is no row of numbers")
            self._values = iter(values)
            self._value = float(next(self._values))
        except (StopIteration, TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} is {values!r}; allowed are a number, a schedule, or numbers in a row") from error

    def at(self, values: "Values") -> float:
        return self._value

    def advance(self) -> None:
        self._value = float(next(self._values, self._value))


class Asked:
    """A schedule of thinc 9 that is asked for its value, since it has no formula: `plateau`, and those of users."""

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule

    def at(self, values: "Values") -> float:
        return float(self._schedule(values.step, key=None, last_score=values.last_score))

    def advance(self) -> None:
        """It is asked with the step."""

    def memory(self) -> list[dict[str, Any]]:
        """What `plateau` remembers, and what it is made of."""
        return [asdict(memory) for memory in _memories(self._schedule)]

    def recall(self, saved: list[dict[str, Any]]) -> None:
        for memory, fields in zip(_memories(self._schedule), saved, strict=True):
            for name, value in fields.items():
                setattr(memory, name, value)


def _memories(schedule: Any) -> Iterator[Any]:
    for value in schedule.attrs.values():
        if is_object(value):
            yield from _memories(value)
        elif is_dataclass(value):
            yield value


class Values:
    """All hyperparameters of an optimizer, by the names that they have in thinc.

    Attributes:
        step: How many times `step_schedules` was called.
        last_score: The last score that thinc was told, and the step at which.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.step = 0
        self.last_score: tuple[int, float] | None = None
        self._given = dict(given)
        self._read: dict[str, Successive | Asked] = {}
        self._numbers: dict[str, float] = {}
        self._lag = parameter(LAG, 0.0)
        self.expressions = {name: self._expression(name, value) for name, value in given.items()}

    def _expression(self, name: str, value: Any) -> Any:
        """A number, or an expression of named parameters and of the step that thinc counts."""
        self._read.pop(name, None)
        self._numbers.pop(name, None)
        value = value.item() if isinstance(value, np.number) else value
        if value is None or isinstance(value, int | float):
            if name != LEARN_RATE or isinstance(value, bool) or value is None:
                return value
            self._numbers[name] = float(value)
            return parameter(name, float(value))
        formula = formula_of(value)
        if formula is not None:
            return retimed(formula, step + self._lag, "and thinc counts the steps of its own accord", name)
        self._read[name] = Asked(value) if is_object(value) else Successive(name, value)
        return parameter(name, self._read[name].at(self))

    def given(self, name: str) -> Any:
        """As the user gave it; 0 if the rule has none of that name."""
        return self._given.get(name, 0.0)

    def now(self, name: str) -> float:
        """The value of the step that comes."""
        if name in self._read:
            return self._read[name].at(self)
        given = self.given(name)
        formula = formula_of(given)
        return float(given) if formula is None else float(formula(self.step))

    def set_number(self, name: str, value: float) -> bool:
        """Set it to another number; whether that was a number before, and so needs no other formula."""
        was_number = name in self._numbers
        self._given[name] = value
        if was_number:
            self._numbers[name] = value
        else:
            self.expressions[name] = self._expression(name, value)
        return was_number

    def parameters(self, launches: int) -> dict[str, float]:
        """The named parameters for the next launch, so many having been before it."""
        read = {name: source.at(self) for name, source in self._read.items()}
        return {LAG: float(self.step - launches), **self._numbers, **read}

    def advance(self) -> None:
        """The next step of every schedule."""
        self.step += 1
        for source in self._read.values():
            source.advance()

    def collect(self) -> dict[str, Any]:
        """Where the schedules stand."""
        asked = {name: source.memory() for name, source in self._read.items() if isinstance(source, Asked)}
        return {"step": self.step, "last_score": list(self.last_score) if self.last_score else None, "asked": asked}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise if the schedules cannot stand where those stood that were saved."""
        ahead = [name for name, source in self._read.items() if isinstance(source, Successive)]
        if ahead and self.step > saved["step"]:
            raise ValueError(
                f"{ahead[0]} is a generator at step {self.step}, and cannot go back to step {saved['step']}: give its "
                "values to a new optimizer"
            )
        for name, source in self._read.items():
            if isinstance(source, Asked) and len(source.memory()) != len(saved["asked"].get(name, [])):
                raise ValueError(f"{name} is another schedule than the one that was saved")

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go to where those stood that were saved."""
        for name, source in self._read.items():
            if isinstance(source, Asked):
                source.recall(saved["asked"][name])
            else:
                for _ in range(saved["step"] - self.step):
                    source.advance()
        self.step = saved["step"]
        self.last_score = tuple(saved["last_score"]) if saved["last_score"] else None


def formula_of(value: Any) -> Expr | None:
    """The formula of a schedule, if it has one that can be seen."""
    if isinstance(value, Expr):
        return value
    if is_own(value):
        return own(value)
    if is_object(value):
        try:
            return as_schedule(value)
        except TypeError:
            return None
    return None


def as_schedule_of_theirs(values: Values, name: str) -> Any:
    """A hyperparameter as thinc 9 shows it: a schedule, whatever it was given as."""
    given = values.given(name)
    if is_object(given):
        return given
    formula = formula_of(given)
    return as_theirs(formula if formula is not None else parameter(name, values.now(name)))

"""What a schedule is called elsewhere, and what it is here: every row of docs/equivalents.md, which is made of them.

A module stands for a home: its HOME, its ROWS, and `values(there, steps)`, which asks the library itself. Where no
library can be asked, a row brings numbers that were worked out by hand from the source it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpuadam import schedules
from gpuadam.expressions import Expr

BASE = 0.1  # the learning rate of the optimizer that a library's schedule is made for


@dataclass(frozen=True)
class Row:
    """One schedule, as its home calls it and as we do.

    Attributes:
        there: What one writes there; in code, the library's own names.
        here: The same in the names of `gpuadam.schedules`.
        steps: Where both are compared: past the end too, where the home goes on.
        remark: In what they are equal, if not in everything, or what to watch.
        numbers: Of a home without a library: values by step, worked out by hand.
    """

    there: str
    here: str
    steps: Sequence[int] = field(default=range(120), repr=False)
    remark: str = ""
    numbers: Mapping[int, float] | None = None

    def ours(self) -> np.ndarray:
        return np.asarray(evaluate(self.here)(np.array(list(self.numbers or self.steps))))


def evaluate(here: str) -> Expr:
    """The schedule that a text of ours makes."""
    names = {name: getattr(schedules, name) for name in schedules.__all__}
    return eval(here, {"__builtins__": {"abs": abs}, **names})  # names that a lambda sees too

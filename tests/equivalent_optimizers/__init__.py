"""What an optimizer is called elsewhere, and what it is here: every row of docs/equivalents.md, which is made of them.

A module stands for a home: its HOME, its ROWS, and `trajectory(there, param, grads)`, which runs the library itself.
Where no library can be asked, a row names the oracle that stands for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpuadam
from gpuadam import schedules

STEPS = 20


@dataclass(frozen=True)
class Row:
    """One optimizer, as its home calls it and as we do.

    Attributes:
        there: What one writes there; `params` are the parameters.
        here: The same in the names of `gpuadam`.
        remark: In what they are equal, if not in everything, or what to watch.
        reference: Of a home without a library: (param, grads) -> the parameter after each step.
        tolerance: Largest difference, of 1 + |parameter|.
    """

    there: str
    here: str
    remark: str = ""
    reference: Callable[[np.ndarray, list[np.ndarray]], list[np.ndarray]] | None = None
    tolerance: float = 1e-12

    def ours(self, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
        """The parameter after each step."""
        own = param.copy()
        names = {name: getattr(gpuadam, name) for name in gpuadam.__all__}
        optimizer = eval(self.here, {"__builtins__": {}}, {**names, "schedules": schedules, "params": [own]})
        found = []
        for grad in grads:
            optimizer.step([grad])
            found.append(own.copy())
        return found


def problem() -> tuple[np.ndarray, list[np.ndarray]]:
    """A parameter in double, and gradients that differ in size, sign and from step to step."""
    generator = np.random.default_rng(0)
    size = 10.0 ** generator.uniform(-3, 1, 12)
    return generator.standard_normal(12), [size * generator.standard_normal(12) for _ in range(STEPS)]


def each_step(
    oracle: Callable[..., Any], **settings: Any
) -> Callable[[np.ndarray, list[np.ndarray]], list[np.ndarray]]:
    """The trajectory of an oracle, which itself gives the last parameter of a run."""

    def trajectory(param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
        runs = [oracle(param, grads[: k + 1], **settings) for k in range(len(grads))]
        return [getattr(run, "param", run) for run in runs]

    return trajectory

"""Who steps on the CPU: gpuadam, and what all contenders have in common."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from cpu_cases import Case, arrays_of, in_groups, settings_of

from gpuadam.planning import OPTIMIZERS


class Contender(ABC):
    """A step of a case. Each is made in a process of its own, and only there its framework is imported.

    Attributes:
        name: On the command line and in the JSON.
        title: In tables.
        package: What must be installed.
        extra: Bytes an element that it takes at most beside what gpuadam does, for a guess of what fits into memory.
        step: What is timed.
        grads: The gradients, whose elements may be changed between steps.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[int] = 0
    step: Callable[[], Any]
    grads: list[np.ndarray]

    @abstractmethod
    def __init__(self, case: Case) -> None:
        """Make what is timed."""

    @classmethod
    def refuses(cls, case: Case) -> str:
        """Why it does not take part; nothing if it does."""
        return ""

    def refresh(self) -> None:  # noqa: B027 (most have nothing to put back)
        """Put back what steps have changed beside the weights; before each sample, and not timed."""

    def feed(self, grads: Sequence[np.ndarray]) -> None:
        """Let the next step find other gradients."""
        for own, new in zip(self.grads, grads, strict=True):
            own[...] = new

    @abstractmethod
    def weights(self) -> list[np.ndarray]:
        """In float64."""

    def averages(self) -> list[np.ndarray]:
        """Of the weights, in float64; none where there are none."""
        return []


class Gpuadam(Contender):
    """With gradients bound."""

    name, title, package = "gpuadam", "gpuadam", "numba"

    def __init__(self, case: Case) -> None:
        self._params, self.grads = arrays_of(case)
        self._optimizer = OPTIMIZERS[case.rule](in_groups(case, self._params), **settings_of(case))
        self._optimizer.bind(self.grads)
        self.step = self._optimizer.step

    def weights(self) -> list[np.ndarray]:
        return [param.astype(np.float64) for param in self._params]

    def averages(self) -> list[np.ndarray]:
        with self._optimizer.ema():
            return self.weights()


def is_missing(package: str) -> str:
    """Why a contender cannot be made: its package is not there."""
    return "" if importlib.util.find_spec(package) else f"{package} is not installed"

"""A snapshot of a running optimizer in host memory: whatever is done after it, `restore` brings everything back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import borrow
from .changes import write_numbers
from .groups import name_tensor
from .optimizer import Optimizer

PROGRESS_TABLES = "clocks", "progress", "norms"  # what steps write beside the arrays; rows follow from clocks


class Snapshot:
    """Values of parameters, bound gradients and other arrays, and all that the optimizer holds; nothing is changed yet.

    Args:
        optimizer: Of which.
        others: Arrays beside the parameters, on their device, that are to be brought back with them.

    Raises:
        RuntimeError: Something was interrupted and must be repeated first, the parameters hold their averages, or the
            stream is being captured.
        TypeError, ValueError: One of the other arrays cannot be read and written in place.
    """

    def __init__(self, optimizer: Optimizer, others: Sequence[Any] = ()) -> None:
        self._optimizer = optimizer
        with optimizer._lock:
            self.engine = engine = optimizer._engine
            engine.check_whole()
            engine.tables.require_writable()
            self._groups, self._program, self._cohorts = engine.groups, engine.program, engine.cohorts
            pool = self._program.pool
            self._numbers = {parameter: pool.values[slot] for parameter, slot in pool.parameters.items()}
            self._owners, self._scalars = engine.tensors.owners, engine.bound_scalars()
            self._borrowed = [self._copy(owner, title) for owner, title in self._arrays_of_others(others)]
            to_host = engine.backend.to_host
            self._own = [{name: to_host(array) for name, array in own.items()} for own in engine.tensors.arrays]
            self._tables = {name: engine.tables.download(name) for name in PROGRESS_TABLES}

    def _arrays_of_others(self, others: Sequence[Any]) -> list[tuple[Any, str]]:
        """Whatever a training step may write and is not the optimizer's own, with names for errors."""
        tensors, binding = self.engine.tensors, self.engine.tensors.binding
        grads = [grad if self._owners is not None and grad and grad.is_writable else None for grad in binding.grads]
        return [
            *(
                (array.owner, name_tensor("parameter", n))
                for n, array in zip(tensors.names, tensors.params, strict=True)
            ),
            *((grad.owner, name_tensor("gradient", n)) for n, grad in zip(tensors.names, grads, strict=True) if grad),
            *((array, f"buffer {i}") for i, array in enumerate(others)),
        ]

    def _copy(self, owner: Any, title: str) -> tuple[Any, str, Any]:
        array = borrow(owner, title)
        if not array.is_writable:
            raise ValueError(f"{title} is read-only; allowed are arrays that can be brought back in place")
        if array.device != self.engine.tensors.device():
            raise ValueError(f"{title} lies on {array.device}; allowed is {self.engine.tensors.device()}")
        return owner, title, self.engine.backend.to_host(self.engine.backend.view_of(array))

    def restore(self) -> None:
        """Bring everything back; where that was interrupted, no step is taken until it is repeated."""
        with self._optimizer._lock:
            engine, overwrite = self.engine, self.engine.backend.overwrite
            self._optimizer._engine = engine  # a group that was added is gone again
            engine.tables.require_writable()
            views = [engine.backend.view_of(borrow(owner, title)) for owner, title, _ in self._borrowed]
            engine.interrupted = "LRFinder.reset"
            for view, (_, _, values) in zip(views, self._borrowed, strict=True):
                overwrite(view, values)
            for own, saved in zip(engine.tensors.arrays, self._own, strict=True):
                for name, values in saved.items():
                    overwrite(own[name], values)
            engine.groups, engine.program, engine.cohorts = self._groups, self._program, self._cohorts
            write_numbers(engine.program, self._numbers)
            engine.is_swapped = False
            self._upload()
            self._bind()
            engine.interrupted = ""
            engine.tensors.note_writes()

    def _upload(self) -> None:
        engine, tables = self.engine, self.engine.tables
        tables.upload("program", 0, self._program.instructions())
        tables.upload("values", 0, self._program.values())
        tables.upload("cohorts", 0, engine.cohort_rows(self._cohorts, self._program))
        tables.upload("clocks", 0, self._tables["clocks"])
        tables.upload("norms", 0, self._tables["norms"])
        tables.reset(self._tables["progress"])
        engine.announce(len(self._cohorts))

    def _bind(self) -> None:
        """Put in force the gradients and scalars that were bound, or none."""
        engine = self.engine
        engine.bind([None] * len(engine.tensors.names) if self._owners is None else self._owners)
        if self._owners is None:
            engine.tensors.release()
        engine.set_scalars(*engine.read_scalars(**self._scalars))

    # ---- what has happened since

    def begins(self) -> list[int]:
        """The step at which each group stood."""
        speakers = self._cohorts.speakers(self._tables["clocks"])
        return [int(self._tables["clocks"]["step"][speakers[group.index]]) for group in self._groups]


def count_steps(engine: Any) -> tuple[Any, int]:
    """The steps of each group and tensor, and how many were skipped; waits for the device."""
    clocks = engine.tables.download("clocks")["step"]
    steps = np.concatenate([clocks[: len(engine.groups)], clocks[engine.cohorts.of]])
    return steps, int(engine.tables.download("progress")["skipped"][0])

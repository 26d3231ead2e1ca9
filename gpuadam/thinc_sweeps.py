"""Sweeps: the parameters of a model, which thinc hands over one by one, updated in one launch.

The first sweep is applied at once, parameter by parameter, and shows which they are. From the second one on they wait
until the last of them has come, or the sweep is said to be over, and are updated together.

Where all gradients have one norm, all sweeps wait for their end, and the first is no exception.

Only what is surely still there by then may wait: a parameter in the very array in which it came before, or in the same
memory of PyTorch, whose gradient is copied since thinc clears it as soon as the call returns. All else is applied at
once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import borrow
from .groups import check_gradient, name_tensor
from .optimizer import Optimizer
from .thinc_states import Claims, Key, Place, State, as_saved, install, title
from .thinc_values import Values

Make = Callable[[Mapping[str, Any], Mapping[str, float]], Optimizer]


@dataclass(eq=False)
class Entry:
    """A parameter.

    Attributes:
        weights, gradient: The arrays in which it came last.
        buffer: Where its gradient waits, if that may not stay where it is.
        is_settled: It is in the main optimizer, as it came last.
    """

    place: Place
    name: str
    weights: Any
    gradient: Any = None
    buffer: Any = None
    lr_scale: float = 1.0
    is_settled: bool = False


class Sweeps:
    """All parameters that have come so far, and what of them waits.

    Args:
        make: An optimizer of ours for arrays by name, with their factors of the learning rate.
        values: The hyperparameters.
        averages_begin_at_zero: As thinc's do; ours begin at the weights.
        is_whole: Gradients have one norm, so that a sweep is never split: its end launches it, and nothing else.
        saved: What `collect` gave, for a run that goes on.
    """

    def __init__(
        self,
        make: Make,
        values: Values,
        averages_begin_at_zero: bool,
        is_whole: bool,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._make, self._values, self._is_whole = make, values, is_whole
        self._averages_begin_at_zero = averages_begin_at_zero
        self._claims = Claims(saved["parameters"] if saved else [])
        self._launches = int(saved["launches"]) if saved else 0
        self._entries: dict[Place, Entry] = {}
        self._native: dict[Key, Entry] = {}  # those of thinc's own layers once more, which are found faster here
        self._main: Optimizer | None = None  # of all parameters but those that have just come, or changed
        self._order: list[Entry] = []  # its parameters
        self._states: dict[str, State] | None = None  # and their states, until it goes on
        self._alone: dict[str, tuple[Entry, Optimizer]] = {}  # updated by themselves until they can join the others
        self._pending: dict[str, tuple[Entry, Any]] = {}
        self._applied: dict[str, Entry] = {}  # in this sweep,
        self._was_launched = False  # and whether the main optimizer was launched in it
        self._before: list[Entry] = []  # the sweep before this one, in its order
        self._last = ""  # with this parameter the launch comes

    # ---- the sweep

    def update(self, key: Key, weights: Any, gradient: Any, lr_scale: float) -> None:
        """A parameter has come."""
        entry = self._native.get(key)
        if entry is None or entry.weights is not weights:
            entry = self._find(key, weights)
        if entry.name in self._pending or entry.name in self._applied:
            self._begin_anew(entry)
        if entry.lr_scale != lr_scale:
            entry.lr_scale, entry.is_settled = lr_scale, False
        own = self._lasting(entry, gradient)
        if (not entry.is_settled or self._was_launched) and not self._is_whole:
            self._apply(entry, own)
            return
        self._pending[entry.name] = (entry, own)
        if entry.name == self._last and not self._is_whole:
            self.flush()

    def _find(self, key: Key, weights: Any) -> Entry:
        is_foreign = lies_in_pytorch(weights)
        place = (key, is_foreign)
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = Entry(place, title(place), weights)
            if not is_foreign:
                self._native[key] = entry
        elif not (is_foreign and layout_of(entry.weights) == layout_of(weights)):
            entry.weights, entry.gradient, entry.buffer, entry.is_settled = weights, None, None, False
        return entry

    def _lasting(self, entry: Entry, gradient: Any) -> Any:
        """The gradient where it lies; or a copy, if others may clear it, or it lies unlike its parameter."""
        weights, is_foreign = entry.weights, entry.place[1]
        if gradient is entry.gradient:
            return gradient
        if gradient.shape != weights.shape or (gradient.strides == weights.strides and not is_foreign):
            require_fit(entry, gradient)
            entry.gradient = gradient
            return gradient
        if entry.buffer is None or entry.buffer.dtype != gradient.dtype:
            buffer = weights.astype(gradient.dtype, order="K")
            require_fit(entry, buffer)
            entry.buffer = buffer
        entry.buffer[...] = gradient
        gradient.fill(0)
        return entry.buffer

    def _begin_anew(self, entry: Entry) -> None:
        """A parameter comes for the second time: this is another sweep."""
        if self._pending:
            raise RuntimeError(
                f"{entry.name} comes again while {len(self._pending)} parameters of the sweep before wait for "
                f"{self._awaited()}; their gradients have changed by now: call step_schedules() after each sweep"
            )
        self._close()

    def _awaited(self) -> str:
        return "its end, as clip_scope is 'global'" if self._is_whole else f"{self._last}, which did not come"

    def _apply(self, entry: Entry, gradient: Any) -> None:
        """Update one parameter at once."""
        if entry.is_settled:
            self._run({entry.name: gradient})
        else:
            optimizer = self._single(entry)
            self._step(optimizer, [gradient])
            self._alone[entry.name] = (entry, optimizer)
        if self._was_launched or self._main is None:
            self._last = entry.name
        self._applied[entry.name] = entry

    def flush(self) -> None:
        """Apply what waits."""
        if self._pending:
            for name, (entry, _) in self._pending.items():
                if not entry.is_settled and name not in self._alone:
                    self._alone[name] = entry, self._single(entry)
            self.join()
            self._run({name: gradient for name, (_, gradient) in self._pending.items()})
            self._applied.update({name: entry for name, (entry, _) in self._pending.items()})
            self._pending.clear()
            self._was_launched = True

    def end(self) -> None:
        """The sweep is over."""
        self.flush()
        self._close()

    def _close(self) -> None:
        self.join()
        self._before = list(self._applied.values()) or self._before
        self._applied.clear()
        self._was_launched = False

    # ---- the optimizers

    def _run(self, gradients: Mapping[str, Any]) -> None:
        """One launch of the main optimizer."""
        assert self._main is not None
        self._states = None
        self._step(self._main, [gradients.get(entry.name) for entry in self._order])
        self._launches += 1

    def _step(self, optimizer: Optimizer, gradients: list[Any]) -> None:
        known = optimizer.parameters()
        for name, value in self._values.parameters(self._launches).items():
            if name in known and known[name] != value:
                optimizer.set_parameter(name, value)
        optimizer.step(gradients)

    def _single(self, entry: Entry) -> Optimizer:
        """An optimizer for one parameter, which goes on from the state that it has."""
        optimizer = self._make({entry.name: entry.weights}, {entry.name: entry.lr_scale})
        state = self._states_of_main().get(entry.name) or self._claims.take(entry.place, entry.weights.shape)
        if state is None and self._averages_begin_at_zero:
            fresh = optimizer.state_dict()["state"][entry.name]
            state = {**fresh, **{name: np.zeros_like(fresh[name]) for name in fresh if name == "ema"}}
        install(optimizer, {entry.name: state or {}}, self._launches)
        return optimizer

    def _states_of_main(self) -> dict[str, State]:
        if self._states is None:
            self._states = self._main.state_dict()["state"] if self._main else {}
        return self._states

    def join(self) -> None:
        """Put what was updated by itself among the others."""
        if self._alone:
            self.remake()

    def remake(self) -> None:
        """Make the main optimizer anew, for all parameters as they came last."""
        states = dict(self._states_of_main())
        launches = self._launches
        for name, (_, optimizer) in self._alone.items():
            saved = optimizer.state_dict()
            states[name] = saved["state"][name]
            launches = launches if self._main else saved["groups"][0]["step"]
        known = {entry.name for entry in self._order}
        order = [*self._order, *(entry for name, (entry, _) in self._alone.items() if name not in known)]
        if not order:
            return
        main = self._make({e.name: e.weights for e in order}, {e.name: e.lr_scale for e in order})
        install(main, states, launches)
        self._main, self._order, self._launches, self._states = main, order, launches, None
        for entry, _ in self._alone.values():
            entry.is_settled = True
        self._alone.clear()

    # ---- what is asked of all parameters

    def averages(self) -> dict[Key, Any]:
        """The averages by key, as they stand; where keys are the same, those of thinc's own layers."""
        self.flush()
        self.join()
        arrays = self._main._engine.tensors.arrays if self._main else []
        found = [(entry.place, own["ema"]) for entry, own in zip(self._order, arrays, strict=True)]
        return {key: ema for wanted in (True, False) for (key, is_foreign), ema in found if is_foreign == wanted}

    def collect(self) -> dict[str, Any]:
        """All that a run needs to go on, in the order of the last sweep; those that rested in it come after it."""
        self.flush()
        self.join()
        states = self._states_of_main()
        order = list(dict.fromkeys([*self._before, *self._applied.values(), *self._order]))
        own = [as_saved(entry.place, entry.weights.shape, states[entry.name]) for entry in order]
        return {"launches": self._launches, "parameters": [*own, *self._claims.left.values()]}


def require_fit(entry: Entry, gradient: Any) -> None:
    """Refuse a gradient when it comes: among those that wait it would hold up all of them."""
    title = name_tensor("gradient", entry.name)
    parameter = borrow(entry.weights, name_tensor("parameter", entry.name))
    check_gradient(borrow(gradient, title), parameter, title, zero_grads=True)


def lies_in_pytorch(array: Any) -> bool:
    """Whether an array shows the memory of a PyTorch tensor."""
    owner = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if owner is array:  # CuPy, which has such memory by DLPack
        owner = getattr(getattr(array, "data", None), "mem", None)
        return type(owner).__name__ == "DLPackMemory"
    return type(owner).__module__.partition(".")[0] == "torch"


def layout_of(array: Any) -> tuple[Any, ...]:
    """Where an array lies, and how."""
    address = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr
    return address, array.shape, array.strides, array.dtype

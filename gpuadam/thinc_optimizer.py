"""An optimizer of ours as thinc and spaCy have one."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from thinc.optimizers import Optimizer as Theirs

from . import checkpoint
from .checkpoint import CheckpointError
from .hyperparameters import check_range
from .optimizer import Optimizer as Core
from .recipe import POSITIVE
from .rules import FINITE
from .thinc_forms import Algorithm, hyperparameters_of, settings_of
from .thinc_schedules import Schedule
from .thinc_states import Key
from .thinc_sweeps import Sweeps
from .thinc_values import LEARN_RATE, Values, as_schedule_of_theirs

FORMAT = "gpuadam.thinc 1"


class Optimizer(Theirs):  # type: ignore[misc]
    """What `gpuadam.thinc.Adam` and the others give: an optimizer of thinc that updates a whole sweep in one launch.

    From the second sweep on a call returns before its parameter is updated: that happens when the parameter that came
    last in the sweep before has come, or in `step_schedules()`. With one norm for all gradients (`clip_scope="global"`)
    it happens there alone, in the first sweep too.

    Args:
        algorithm: Our class.
        arguments: What it is given, by the names of `thinc_forms.defaults_of`, all of them.

    Raises:
        TypeError, ValueError: An argument is not allowed; the message names it.
    """

    def __init__(self, algorithm: Algorithm, arguments: Mapping[str, Any]) -> None:
        self._algorithm, self._arguments = algorithm, dict(arguments)
        self._values = Values({name: arguments[name] for name in hyperparameters_of(algorithm)})
        self._settings = settings_of(algorithm, arguments, self._values.expressions)
        self._rule = self._make({}, {}).rule.name  # whatever is wrong with the settings is said here
        self._has_averages = bool(arguments["use_averages"])
        self._begins_at_zero = self._has_averages and arguments.get("numerics") == "thinc"
        self._sweeps = self._make_sweeps()

    def _make_sweeps(self, saved: Mapping[str, Any] | None = None) -> Sweeps:
        is_whole = self._arguments["clip_scope"] == "global" and self._settings["clip_norm"] is not None
        return Sweeps(self._make, self._values, self._begins_at_zero, is_whole, saved)

    def _make(self, params: Mapping[str, Any], lr_scales: Mapping[str, float]) -> Core:
        return self._algorithm(dict(params), lr_scale=dict(lr_scales), zero_grads=True, **self._settings)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in (LEARN_RATE, "last_score"):
            raise AttributeError(
                f"an optimizer of gpuadam.thinc has no {name!r} to set; there are learn_rate, last_score"
            )
        super().__setattr__(name, value)

    def __call__(self, key: Key, weights: Any, gradient: Any, *, lr_scale: float = 1.0) -> tuple[Any, Any]:
        """Update a parameter, now or with the rest of its sweep; its gradient is zero after that.

        Raises:
            RuntimeError: It came before, and its sweep was not ended: call `step_schedules()` after each.
        """
        if len(gradient) < 1:
            return weights, gradient
        if lr_scale != 1.0:
            check_range(lr_scale, POSITIVE, "lr_scale")
        self._sweeps.update(key, weights, gradient, lr_scale)
        return weights, gradient

    def step_schedules(self) -> None:
        """The sweep is over: update what waits, and go on to the next step of all schedules."""
        self._sweeps.end()
        self._values.advance()

    @property
    def averages(self) -> Any:
        """The averages of the parameters, by key, as they stand; None without `use_averages`."""
        return self._sweeps.averages() if self._has_averages else None

    def _shown(self, name: str) -> Any:
        return self._values.now(name) if Schedule is None else as_schedule_of_theirs(self._values, name)

    @property
    def b1(self) -> Any:
        """As `learn_rate`: what thinc calls `beta1`, 0 without momentum. spaCy's `rehearse` reads it."""
        return self._shown("beta1")

    @property
    def b2(self) -> Any:
        """As `b1`: what thinc calls `beta2`."""
        return self._shown("beta2")

    @property
    def learn_rate(self) -> Any:
        """The learning rate: in thinc 8 that of the step that comes, in thinc 9 a schedule. A number may be set."""
        return self._shown(LEARN_RATE)

    @learn_rate.setter
    def learn_rate(self, value: float) -> None:
        number = check_range(value, FINITE, LEARN_RATE)
        self._sweeps.flush()
        self._arguments[LEARN_RATE] = number  # which copies are given
        if not self._values.set_number(LEARN_RATE, number):
            self._settings = settings_of(self._algorithm, self._arguments, self._values.expressions)
            self._sweeps.remake()

    @property
    def step(self) -> int:
        """How many times `step_schedules` was called."""
        return self._values.step

    @property
    def last_score(self) -> tuple[int, float] | None:
        """The score that was set last, and the step at which; schedules of thinc 9 may follow it."""
        return self._values.last_score

    @last_score.setter
    def last_score(self, score: float) -> None:
        self._values.last_score = (self._values.step, float(score))

    # ---- saving

    def to_bytes(self) -> bytes:
        """All that a run needs to go on beside its model and its config: states, counts, and where schedules stand."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "optimizer")
            self.to_disk(path)
            with open(path, "rb") as file:
                return file.read()

    def from_bytes(self, data: bytes) -> "Optimizer":
        """Go on from what `to_bytes` gave, with a model as it was then; hyperparameters stay those of the constructor.

        Until the first sweep there are no averages to be read.

        Raises:
            CheckpointError: It is damaged, or of another rule.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "optimizer")
            with open(path, "wb") as file:
                file.write(data)
            return self.from_disk(path)

    def to_disk(self, path: checkpoint.Path) -> None:
        """As `to_bytes`, into a file; an older one stays untouched until it is complete."""
        own = {"format": FORMAT, "rule": self._rule, "settings": self._saved_settings()}
        checkpoint.write(path, {**own, **self._sweeps.collect(), "schedules": self._values.collect()})

    def from_disk(self, path: checkpoint.Path) -> "Optimizer":
        """As `from_bytes`, from a file."""
        saved = checkpoint.read(path)
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise CheckpointError(path, "it is not what to_disk or to_bytes of an optimizer of gpuadam.thinc wrote")
        here = {"rule": self._rule, "settings": self._saved_settings()}
        for name, own in here.items():
            if saved[name] != own:
                raise CheckpointError(path, f"its {name} is {saved[name]!r}, that of this optimizer is {own!r}")
        try:
            self._values.check(saved["schedules"])
        except ValueError as error:
            raise CheckpointError(path, str(error)) from error
        self._values.restore(saved["schedules"])
        self._sweeps = self._make_sweeps(saved)
        return self

    def _saved_settings(self) -> dict[str, Any]:
        """What must be the same for states to fit."""
        names = ("use_averages", "numerics", "state_dtype")
        return {name: self._arguments[name] for name in names if name in self._arguments}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return restored, (self._algorithm, self._arguments, self.to_bytes())


def restored(algorithm: Algorithm, arguments: Mapping[str, Any], data: bytes) -> Optimizer:
    """What pickle and copy make of an optimizer."""
    return Optimizer(algorithm, arguments).from_bytes(data)

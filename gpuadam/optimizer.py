"""The optimizer on the host: it reads what the user gives, keeps the tables true, and launches the walk over them."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

from . import changes, checkpoint, resume, state
from .engine import Engine
from .groups import read_defaults, read_groups
from .rules import Rule


class Optimizer:
    """An optimizer step over many tensors, the evaluation of every schedule included, in one launch.

    `Adam`, `AdamW`, `RMSprop` and the others are made of it; it holds what they share.

    Args:
        params: List or dict of arrays (NumPy, CuPy, or any with DLPack or the CUDA array interface), or a list of
            groups: dicts with `params` and settings of their own. float16, bfloat16, float32 or float64, any shape;
            updated in place.
        rule: What is done to an element.
        settings: Hyperparameters under their public names (`lr`, `betas`, ...): numbers or schedules.
        options: The options of the rule.
        recipe: What every optimizer takes (`gpuadam.Recipe`).
    """

    def __init__(self, params: Any, rule: Rule, settings: Mapping[str, Any], options: Any, recipe: Any) -> None:
        self._lock = threading.RLock()
        defaults = read_defaults(rule, settings, options, recipe)
        self._engine = Engine(defaults, read_groups(params, defaults))

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"an optimizer has no {name!r} to set: write set_hyperparameters({name}=...)")
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an optimizer holds addresses: make a new one, and give it this one's state_dict()")

    @property
    def rule(self) -> Rule:
        """What is done to an element."""
        return self._engine.defaults.rule

    def step(self, grads: Any = None, *, grad_scale: Any = None, found_inf: Any = None) -> None:
        """Update in place every parameter that has a gradient.

        Args:
            grads, grad_scale, found_inf: As `bind` takes them. Without gradients those that are bound are used, and of
                the other two what is not given stays as it is bound.

        Raises:
            TypeError, ValueError: A gradient does not fit its parameter; nothing was written.
            ScheduleError: A hyperparameter has left its range; nothing was written.
            FloatingPointError: A gradient is not finite, with `nonfinite="raise"`; the step was skipped.
            RuntimeError: The parameters hold their averages, or something was interrupted and must be repeated.
        """
        with self._lock:
            engine = self._engine
            engine.check_own_weights()
            scalars = {"grad_scale": grad_scale, "found_inf": found_inf}
            given = {name: value for name, value in scalars.items() if value is not None}
            if grads is not None:
                self.bind(grads, **given)
            elif given:
                self.bind(engine.tensors.owners, **{**engine.bound_scalars(), **given})
            elif engine.tensors.owners is None:
                raise ValueError("there are no gradients: give step(grads), or bind(grads) once before step()")
            else:
                engine.reread_bound()
            engine.run()

    def bind(self, grads: Any, *, grad_scale: Any = None, found_inf: Any = None) -> None:
        """Take gradients for this and the following steps; each step reads them where they lie.

        Gradients of other formats than before need other launches: a CUDA graph of before must be captured again.

        Args:
            grads: List in the order of the parameters (group after group), or a dict with their keys: arrays of the
                shape, device and order of elements of their parameter. None, or a key that is missing: that tensor
                rests; its schedules go on (unless `per_tensor_step`), its own count of updates does not.
            grad_scale: What the loss was multiplied by; gradients are divided by it. A number, or an array of one
                float32 or float64 on the device of the parameters, read in each step.
            found_inf: Anything but 0 skips the step; a number or an array, likewise.

        Raises:
            TypeError, ValueError: A gradient does not fit its parameter; the gradients before stay in force.
        """
        with self._lock:
            if grads is None:
                raise ValueError("there are no gradients to bind: give a list or a dict of arrays")
            owners = self._engine.tensors.in_order(grads)
            record, arrays = self._engine.read_scalars(grad_scale, found_inf)
            if not self._engine.tensors.is_bound_to(owners):
                self._engine.bind(owners)
            self._engine.set_scalars(record, arrays)

    def add_group(self, group: Any) -> None:
        """Add tensors: they begin anew, all others go on where they are. Gradients must be bound again.

        A CUDA graph that holds a step of before must not be replayed any more: its tables are gone. Capture again.

        Args:
            group: A list or dict of arrays, or a dict with `params` and settings of its own.

        Raises:
            TypeError, ValueError: As the constructor's; then nothing is changed.
        """
        with self._lock:
            old = self._engine
            old.check_whole()
            members = [group] if isinstance(group, Mapping) and "params" in group else [{"params": group}]
            added = read_groups(members, old.defaults, len(old.groups), len(old.tensors.names))
            self._engine = Engine(old.defaults, [*old.groups, *added], old)

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped, by `found_inf` or `nonfinite`; waits for the device."""
        with self._lock:
            return int(self._engine.tables.download("progress")["skipped"][0])

    def gradient_norms(self) -> list[float]:
        """The norms of the last step, unscaled and before clipping, one for each scope of `clip_scope`; waits.

        Raises:
            ValueError: Nobody asks for norms: neither `clip_norm` nor `nonfinite` is set.
        """
        with self._lock:
            if not self._engine.tensors.scope_count:
                raise ValueError("norms are summed only with clip_norm, or with nonfinite='skip' or 'raise'")
            return [float(norm) for norm in self._engine.tables.download("norms")]

    def swap_ema(self) -> None:
        """Exchange the parameters and their averages in place; until the next call there is no step.

        Raises:
            ValueError: There is no average: the constructor had no `ema_decay`.
        """
        with self._lock:
            self._engine.swap_ema()

    def reset_ema(self) -> None:
        """Begin the averages anew from the parameters as they are stored, for instance when others were loaded.

        Raises:
            ValueError: There is no average.
        """
        with self._lock:
            self._engine.reset_ema()

    @contextmanager
    def ema(self) -> Iterator[None]:
        """The parameters hold their averages within the block.

        >>> import numpy as np
        >>> from gpuadam import SGD
        >>> weight = np.array([1.0], np.float32)
        >>> optimizer = SGD([weight], lr=0.5, ema_decay=0.75)
        >>> optimizer.step([np.array([1.0], np.float32)])
        >>> with optimizer.ema():
        ...     print(weight)
        [0.875]
        >>> weight
        array([0.5], dtype=float32)
        """
        self.swap_ema()
        try:
            yield
        finally:
            self.swap_ema()

    def hyperparameters(self) -> list[dict[str, float]]:
        """The hyperparameters of each group, as the next step will use them; waits for the device.

        Where tensors of a group differ, since some have rested, those of the tensor with the most updates.

        Raises:
            ScheduleError: One of them has left its range.
        """
        with self._lock:
            return changes.hyperparameters(self._engine)

    def set_hyperparameters(self, group: int | None = None, **settings: Any) -> None:
        """Rewrite hyperparameters in place, from the next step on; captured graphs see them too.

        A schedule goes on with the steps that there have been: one that is to begin now takes `step - now`.

        Args:
            group: Position of the group; None: every group.
            **settings: `lr`, `betas`, ...: numbers or schedules.

        Raises:
            TypeError, ValueError: A value out of range, one that needs a state that the constructor left out, or
                schedules that the tables have no room for; then nothing is changed.
        """
        with self._lock:
            changes.set_hyperparameters(self._engine, group, settings)

    def parameters(self) -> dict[str, float]:
        """The named parameters of all schedules, as they stand."""
        return self._engine.program.named_parameters()

    def set_parameter(self, name: str, value: float) -> None:
        """Rewrite a named parameter in place, from the next step on.

        Raises:
            KeyError: No schedule has a parameter of that name.
        """
        with self._lock:
            changes.set_parameter(self._engine, name, value)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside the parameters, as NumPy arrays and numbers; waits for the device.

        The layout: `format_version`; `rule`; `groups`: for each its clock (`step`, `updates`, `accumulators`) and those
        hyperparameters that are numbers; `state`: for each tensor its clock and its states; `parameters`.
        """
        with self._lock:
            self._engine.check_whole()
            return state.collect(self._engine)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, hyperparameters: bool = False) -> None:
        """Take up a state from either backend; the steps that follow are those of the run that was saved, bit for bit.

        Args:
            state_dict: What `state_dict` gave. Hyperparameters and schedules stay the constructor's.
            hyperparameters: Take the numbers of the saved hyperparameters too.

        Raises:
            ValueError: It does not fit, with every difference named; then nothing is changed.
        """
        with self._lock:
            state.restore(self._engine, state_dict, hyperparameters)

    def save(self, path: str | PathLike[str], *, params: bool = True) -> None:
        """Write one file from which the run goes on exactly; an older file stays untouched until it is complete.

        Args:
            path: Where; of a symbolic link the target is replaced.
            params: Write the values of the parameters too.

        Raises:
            CheckpointError: It cannot be written, or a tensor's name is neither a str nor an int.
        """
        with self._lock:
            self._engine.check_whole()
            content = resume.collect(self._engine, path, params)
        checkpoint.write(path, content)

    def load(self, path: str | PathLike[str], *, hyperparameters: bool = False) -> list[str]:
        """Take up what `save` wrote, on either backend; the steps that follow are those of the run that was saved.

        Args:
            path: The file.
            hyperparameters: Take the file's hyperparameters and schedules too, in place of the constructor's.

        Returns:
            The settings in which the file and the constructor differ, a sentence each.

        Raises:
            CheckpointError: The file is not there, damaged, or does not fit, with every difference named; then nothing
                is changed.
        """
        saved = checkpoint.read(path)
        with self._lock:
            return resume.install(self._engine, path, saved, hyperparameters)

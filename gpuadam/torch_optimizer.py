"""`torch.optim.Optimizer` over our engine: what all classes of `gpuadam.torch` share."""

import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from . import torch_state
from .arrays import CPU, Device
from .changes import set_numbers, set_parameter
from .engine import Engine
from .expressions import Parameter
from .groups import read_groups
from .optimizer import Optimizer as Core
from .torch_arrays import check_closure, check_given, current_stream, local, refuse_in_capture
from .torch_buffers import FlatGradients
from .torch_controls import Controls
from .torch_gradients import Gradients
from .torch_groups import SWITCHES, Groups, check_params, defaults_of, name_params, split_tensors, titles_of, unshown
from .torch_sharding import reduce_norms_of_shards, require_shards_to_do


class Optimizer(Controls, torch.optim.Optimizer):  # type: ignore[misc]
    """A PyTorch optimizer whose step is one launch over all parameters, the schedules inside.

    It has `param_groups`, `state`, `state_dict`, hooks and closures as PyTorch's have, and states that PyTorch's class
    of the same name can go on with. States are made at the first gradient of a parameter, in float32 (float64 for
    float64 parameters) unless `state_dtype` says otherwise.

    Args:
        params: What PyTorch takes: tensors, named tensors, or groups. Tensors on the CPU or on one CUDA device;
            DTensors (FSDP2) are updated shard by shard.
        arguments, keywords: Those of the class of the same name in `gpuadam`, which are PyTorch's in PyTorch's order,
            and what `gpuadam.Recipe` has. With a schedule as lr, `group["lr"]` is a multiplier of it, 1.0 at first.
        flat_grads: Keep all gradients in one buffer: `zero_grad` is then one fill, and they never move.
        foreach, fused, capturable: Accepted, and without effect: every step is one capturable launch.
        differentiable: Refused.
    """

    core_class: ClassVar[type[Core]]
    _step_supports_amp_scaling = True

    def __init__(self, params: Any, *arguments: Any, flat_grads: bool = False, **keywords: Any) -> None:
        switches = {name: keywords.pop(name, value) for name, value in SWITCHES.items()}
        if switches["differentiable"]:
            raise ValueError("differentiable is True; allowed is False: the step writes in place, outside of autograd")
        given, tensors = split_tensors(self.core_class, arguments, keywords)
        self._core = self.core_class([{"params": []}], **given)
        self._groups = Groups(self._core._engine.defaults)
        self._names: dict[Any, Any] = {}  # of the parameters that the engine holds, in its order
        self._seen: list[Any] = []  # parameters, and how many in each group, that were there at the step before
        self._seen_counts: list[int] = []
        self._waiting: list[Any] = []  # parameters that have had no gradient yet
        self._flat: FlatGradients | None = None
        self._gradients = Gradients(self._core._engine, [])
        self._shards: list[Any] = []  # DTensors, whose shards the engine knows
        self._has_scalars = False
        self._early_parameters = {}
        shown = {**defaults_of(self._core._engine.defaults), **tensors, **switches}
        self._unshown = {name: shown.pop(name) for name in unshown(self.core_class, shown)}
        check_given(params)
        super().__init__(params, shown)
        if flat_grads:
            self._flat = FlatGradients([param for group in self.param_groups for param in group["params"]])
            with self._at_work():
                self._admit()

    # ---- what PyTorch asks of an optimizer

    @property
    def state(self) -> Mapping[Any, Any]:
        """The states of each parameter that has had a gradient, by name: tensors that look into our own memory."""
        return torch_state.States(self)

    @state.setter
    def state(self, value: Mapping[Any, Any]) -> None:
        if value or self._names:
            raise AttributeError("state cannot be set; write load_state_dict(...)")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; those that are there go on as they are.

        Args:
            param_group: A dict with `params`, and settings of its own.

        Raises:
            TypeError, ValueError: Something in it is not allowed; then nothing is changed.
        """
        super().add_param_group(param_group)
        group, index = self.param_groups[-1], len(self.param_groups) - 1
        try:
            if self._flat is not None:
                self._flat.check(group["params"])
            self._groups.add(group)
            self._check_new_group(index, group)
        except BaseException:
            self.param_groups.pop()
            self._groups.keep(index)
            raise
        if self._flat is not None:
            self._flat.add(group["params"])

    def _check_new_group(self, index: int, group: Mapping[str, Any]) -> None:
        check_params(titles_of(self.param_groups, group), group["params"])
        defaults = self._core._engine.defaults
        before: list[dict[str, Any]] = [{"params": []}] * index
        own = read_groups([*before, {"params": [], **self._groups.settings(index, group)}], defaults)
        require_shards_to_do(Engine(defaults, own), own[index:], titles_of(self.param_groups, group), group["params"])

    @torch._disable_dynamo  # type: ignore[untyped-decorator]
    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in one launch.

        Args:
            closure: Evaluates the model again, and returns the loss.

        Returns:
            What the closure returned; else None.

        Raises:
            TypeError, ValueError: A gradient or a setting of a group is not allowed; nothing was written.
            gpuadam.ScheduleError, FloatingPointError, RuntimeError: As `gpuadam.Optimizer.step`.
        """
        loss = None
        if closure is not None:
            check_closure(closure)
            with torch.enable_grad():
                loss = closure()
        with self._at_work():
            self._core._engine.check_own_weights()
            is_first = not self._names
            self._admit()
            self._follow_groups()
            if self._names:
                self._follow_scaler()
                self._gradients.refresh()
                if not (is_first and torch_state.are_asked_for(self.param_groups)):
                    self._core._engine.run()
                    self._note_writes()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; with `flat_grads` they become zero, in one fill, and stay where they are."""
        if self._flat is None:
            super().zero_grad(set_to_none)
        else:
            self._flat.zero()

    def state_dict(self) -> dict[str, Any]:
        """The states and settings, in PyTorch's layout, for `torch.save`, for another of these, or for PyTorch's class.

        Of schedules it has what they are now, so PyTorch goes on with the rate of this step.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        with self._at_work():
            found = torch_state.collect(self)
        for hook in self._optimizer_state_dict_post_hooks.values():
            found = hook(self, found) or found
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, here or in PyTorch's class of the same name; tensors are copied.

        States keep our formats: float32 for parameters of 16 bits. Schedules stay the constructor's, and go on where
        they were.

        Raises:
            ValueError: It does not fit, with every difference named; then nothing is changed.
        """
        state_dict = torch_state.as_dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        with self._at_work():
            torch_state.restore(self, state_dict)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # ---- what a step does before the launch

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Alone, and in the order of PyTorch's current stream."""
        with self._core._lock, current_stream(self._place()):
            yield

    def _place(self) -> Device:
        """Where the engine's parameters lie, or those that it is to get; frozen ones may lie anywhere."""
        if self._names:
            return self._core._engine.tensors.device()
        params = (local(param) for group in self.param_groups for param in group["params"] if param.requires_grad)
        device = next((param.device for param in params), None)
        return CPU if device is None or device.type != "cuda" else ("cuda", device.index)

    def _admit(self) -> None:
        """Parameters that have a gradient for the first time get their states."""
        if len(self.param_groups) != len(self._groups):
            raise ValueError(
                f"param_groups has {len(self.param_groups)} groups, the optimizer knows {len(self._groups)}: groups "
                "are added by add_param_group, and none can be taken away"
            )
        counts = [len(group["params"]) for group in self.param_groups]
        every = [param for group in self.param_groups for param in group["params"]]
        if counts != self._seen_counts or not all(map(operator.is_, every, self._seen)):
            kept = {p: i for i, group in enumerate(self.param_groups) for p in group["params"] if p in self._names}
            places = self._core._engine.tensors.group_of.tolist()
            if list(kept.values()) != places or not all(map(operator.is_, kept, self._names)):
                self._rebuild(kept)  # somebody has taken some out, or put them elsewhere
            self._waiting = [param for param in every if param not in self._names]
            self._seen, self._seen_counts = every, counts
        if any(param.grad is not None for param in self._waiting):
            self._rebuild({*self._names, *(param for param in self._waiting if param.grad is not None)})

    def _rebuild(self, members: Collection[Any]) -> None:
        """Make the engine anew for these parameters and for what the groups say now; states and clocks stay."""
        old = self._core._engine
        old.check_whole()
        refuse_in_capture(self._place(), "states are yet to be made: take a step before the capture")
        self._install(self._engine_for(members, old if self._names else None), members)

    def _engine_for(self, members: Collection[Any], old: Engine | None) -> Engine:
        names = self._name(members)
        own = [
            {
                "params": {names[param]: local(param) for param in group["params"] if param in members},
                **self._groups.settings(index, group),
            }
            for index, group in enumerate(self.param_groups)
        ]
        defaults = self._core._engine.defaults
        engine = Engine(defaults, read_groups(own, defaults), old)
        reduce_norms_of_shards(engine, list(names.values()), list(names))
        return engine

    def _engine_with(self, members: Collection[Any]) -> Engine:
        """An engine for states of these parameters that are to be loaded: the one that is there, if it has them."""
        is_same = self._names and set(members) == set(self._names) and self._new_numbers() is not None
        return self._core._engine if is_same else self._engine_for(members, None)

    def _install(self, engine: Engine, members: Collection[Any]) -> None:
        self._names = self._name(members)
        self._waiting = [param for group in self.param_groups for param in group["params"] if param not in members]
        is_new = engine is not self._core._engine
        self._core._engine = engine
        if not is_new:
            return
        for name, value in self._early_parameters.items():
            set_parameter(engine, name, value)
        self._early_parameters = {} if self._names else self._early_parameters
        self._gradients = Gradients(engine, list(self._names), self._flat)
        self._shards = [param for param in self._names if local(param) is not param]
        self._groups.note(self.param_groups)

    def _name(self, members: Collection[Any]) -> dict[Any, Any]:
        return name_params(self.param_groups, members, self._names)

    def _follow_groups(self) -> None:
        """What somebody has written into the groups since the step before is in force from this one on."""
        numbers = self._new_numbers()
        if numbers is None:
            try:
                self._rebuild(self._names)
            except ValueError as error:
                changed = [self._groups.changed(index, group) for index, group in enumerate(self.param_groups)]
                error.add_note(f"somebody has written into the groups since the step before: {changed}")
                raise
        elif numbers:
            set_numbers(self._core._engine, numbers)
            self._groups.note(self.param_groups)

    def _new_numbers(self) -> dict[Parameter, float] | None:
        """What the groups say that the engine has not heard yet, checked; None where it takes another engine."""
        numbers: dict[Parameter, float] = {}
        for index, group in enumerate(self.param_groups):
            changed = self._groups.changed(index, group)
            if changed:
                slots = self._groups.numbers(self._core._engine, index, changed) if self._names else None
                if slots is None:
                    return None
                numbers.update(slots)
        return numbers

    def _follow_scaler(self) -> None:
        """A GradScaler leaves what it found in two attributes while it calls `step`."""
        scalars = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        has_scalars = any(scalar is not None for scalar in scalars)
        if has_scalars or self._has_scalars:
            self._core._engine.set_scalars(*self._core._engine.read_scalars(*scalars))
            self._has_scalars = has_scalars

    def _note_writes(self) -> None:
        """Tell autograd of what the engine wrote and does not know: DTensors, and gradients."""
        written = [param for param in self._shards if param.grad is not None]
        if self._core._engine.defaults.policy.zero_grads:
            written += [param.grad for param in self._names if param.grad is not None]
        if written:
            torch.autograd.graph.increment_version(written)

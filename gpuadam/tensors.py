"""The tensors of an optimizer: parameters and gradients that are borrowed, states that are its own."""

import functools
import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import CPU, Array, Device, borrow, check_overlap
from .formats import GRAD_FORMATS, Specialisation
from .groups import Defaults, Group, check_gradient, check_param, is_exempt, name_tensor, specialise
from .recipe import Policy
from .slots import Slot, make_arrays, slots_of
from .tables import NO_SCOPE, TENSOR, WIDE


@functools.cache
def name_of(dtype: np.dtype[Any]) -> str:
    """NumPy makes the name anew each time that it is asked for."""
    return dtype.name


@dataclass
class Binding:
    """Parameters and gradients, read and checked together; not in force yet."""

    params: list[Array]
    owners: list[Any]
    grads: list[Array | None]

    def present(self) -> npt.NDArray[np.bool_]:
        """Which tensors have a gradient."""
        return np.array([grad is not None for grad in self.grads], bool)

    @functools.cached_property
    def addresses(self) -> npt.NDArray[np.int64]:
        """Where each gradient lies; 0 if there is none."""
        return np.array([0 if grad is None else grad.address for grad in self.grads], np.int64)

    @functools.cached_property
    def param_addresses(self) -> npt.NDArray[np.int64]:
        """Where each parameter lies."""
        return np.array([param.address for param in self.params], np.int64)

    @functools.cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each parameter, then of each gradient."""
        return np.array([0 if array is None else array.nbytes for array in (*self.params, *self.grads)], np.int64)

    @functools.cached_property
    def format_numbers(self) -> npt.NDArray[np.int64]:
        """Their formats, as the tensor table has them."""
        return np.array([GRAD_FORMATS.index(form) for form in self.grad_formats], np.int64)

    @functools.cached_property
    def grad_formats(self) -> list[str]:
        """How each gradient is stored; one that is not there is taken to be like its parameter."""
        pairs = zip(self.grads, self.params, strict=True)
        return [name_of((param if grad is None else grad).dtype) for grad, param in pairs]


class Tensors:
    """All tensors of an optimizer, in the order of its groups.

    Attributes:
        names: Key or position of each parameter.
        group_of: Its group.
        slots: What of our own each has, and
        arrays: these by name, in the parameter's order of elements.
    """

    def __init__(self, defaults: Defaults, groups: Sequence[Group], backend: Any, old: "Tensors | None" = None) -> None:
        self.defaults = defaults
        self.groups = groups
        self.names = [name for group in groups for name in group.names]
        self.group_of = np.repeat(np.arange(len(groups)), [len(group.names) for group in groups])
        self._parameter_titles = [name_tensor("parameter", name) for name in self.names]
        self._gradient_titles = [name_tensor("gradient", name) for name in self.names]
        self.params = [array for group in groups for array in group.arrays]
        self.binding = Binding(self.params, [], [None] * len(self.params))
        self._check_overlap(self.binding)
        kinds = self.specialisations(self.binding)
        self.slots: list[list[Slot]] = [
            slots_of(kind, groups[group].options) for kind, group in zip(kinds, self.group_of.tolist(), strict=True)
        ]
        self.arrays: list[dict[str, Any]] = self._take_over(old, backend)
        self._fixed_rows = self._slot_rows()
        self.owners: list[Any] | None = None
        self._movable = [array for array in self.params if array.is_movable]
        self._stepped: list[Any] = []  # what a step writes of PyTorch's

    def _take_over(self, old: "Tensors | None", backend: Any) -> list[dict[str, Any]]:
        """Our own arrays: those of tensors that were there before, by their names, and new ones for the others."""
        kept = dict(zip(old.names, zip(old.slots, old.arrays, strict=True), strict=True)) if old else {}
        fresh = [i for i, name in enumerate(self.names) if name not in kept]
        made = make_arrays([self.params[i] for i in fresh], [self.slots[i] for i in fresh], backend)
        arrays = dict(zip(fresh, made, strict=True))
        for i, name in enumerate(self.names):
            slots, own = kept.get(name, (self.slots[i], arrays.get(i)))
            if slots != self.slots[i]:
                was, now = ([slot.name for slot in found] for found in (slots, self.slots[i]))
                raise ValueError(
                    f"{self._parameter_titles[i]} has the states {was}, and would need {now}: formats, and options "
                    "that decide upon states, cannot be changed in the middle of a run"
                )
            arrays[i] = own
        return [arrays[i] for i in range(len(self.names))]

    def specialisations(self, binding: Binding) -> list[Specialisation]:
        """The kernel that each tensor needs."""
        known: dict[tuple[Any, ...], Specialisation] = {}
        found: list[Specialisation] = []
        for index, form in zip(self.group_of.tolist(), binding.grad_formats, strict=True):
            group, param = self.groups[index], self.params[len(found)]
            key = index, name_of(param.dtype), form, is_exempt(group.storage, param)
            if key not in known:
                known[key] = specialise(self.defaults, group, param, form)
            found.append(known[key])
        return found

    def host_dtypes(self, index: int) -> dict[str, np.dtype[Any]]:
        """The dtypes under which a state dict shows the arrays of a tensor."""
        shown = {slot.name: slot.host_dtype() for slot in self.slots[index]}
        return {name: shown.get(name, array.dtype) for name, array in self.arrays[index].items()}

    def device(self) -> Device:
        """Where all of them lie."""
        return self.params[0].device if self.params else CPU

    def default_kind(self) -> Specialisation:
        """A kernel for an optimizer without tensors, whose clocks tick all the same."""
        rule = self.defaults.rule
        return Specialisation(rule, "float32", "float32", ("float32",) * len(rule.states))

    def numels(self) -> list[int]:
        return [param.numel for param in self.params]

    def in_order(self, grads: Any) -> list[Any]:
        """The gradients of a list or dict, one for each parameter, None where there is none."""
        if isinstance(grads, Mapping):
            known = set(self.names)
            unknown = [name for name in grads if name not in known]
            if unknown:
                raise ValueError(f"gradient {unknown[0]!r} belongs to no parameter; allowed are {self.names}")
            return [grads.get(name) for name in self.names]
        if isinstance(grads, str) or not hasattr(grads, "__iter__") or hasattr(grads, "dtype"):
            raise TypeError(f"grads must be a list or a dict of arrays, got {type(grads).__name__}")
        owners = list(grads)
        if len(owners) != len(self.params):
            raise ValueError(
                f"got {len(owners)} gradients for {len(self.params)} parameters; give None where there is none"
            )
        return owners

    def is_bound_to(self, owners: list[Any]) -> bool:
        """Whether these very gradients are in force, and neither they nor the parameters have moved."""
        return self.owners is not None and all(map(operator.is_, owners, self.owners)) and not self.have_moved()

    def have_moved(self) -> bool:
        return any(array.has_moved for array in self._movable)

    def read(self, owners: list[Any]) -> Binding:
        """Check gradients against their parameters; nothing is changed."""
        pairs = zip(owners, self._gradient_titles, strict=True)
        return self.check([None if owner is None else borrow(owner, title) for owner, title in pairs], owners)

    def check(self, grads: list[Array | None], owners: list[Any]) -> Binding:
        """A binding of gradients that were borrowed already."""
        params = [self.reread(i) for i in range(len(self.params))] if self._movable else self.params
        for title, grad, param in zip(self._gradient_titles, grads, params, strict=True):
            if grad is not None:
                check_gradient(grad, param, title, self.defaults.policy.zero_grads)
        binding = Binding(params, owners, grads)
        self._check_overlap(binding)
        return binding

    def reread(self, index: int) -> Array:
        """The parameter as it lies now: it may have moved, but must be what it was."""
        old = self.params[index]
        if not old.has_moved:
            return old
        title = self._parameter_titles[index]
        new = borrow(old.owner, title)
        check_param(new, title)
        if (new.shape, new.strides, new.dtype, new.device) != (old.shape, old.strides, old.dtype, old.device):
            raise ValueError(
                f"{title} was {old.dtype} of shape {old.shape} and strides {old.strides} on {old.device}; now it is "
                f"{new.dtype} of shape {new.shape} and strides {new.strides} on {new.device}: its states no longer fit"
            )
        return new

    def relocate(self, addresses: npt.NDArray[np.int64]) -> None:
        """Gradients lie elsewhere now, and are in all else what they were."""
        before, self.binding.addresses = self.binding.addresses, addresses
        try:
            self._check_overlap(self.binding)
        except ValueError:
            self.binding.addresses = before
            raise

    def release(self) -> None:
        """Nothing is bound from here to `accept`: an interrupt between them leaves no half of a change."""
        self.owners = None

    def accept(self, binding: Binding) -> None:
        """Put a checked binding in force."""
        self.binding, self.params = binding, binding.params
        pairs = [(param, grad) for param, grad in zip(binding.params, binding.grads, strict=True) if grad is not None]
        grads = [grad for _, grad in pairs]
        self._movable = [array for array in (*binding.params, *grads) if array.is_movable]
        written = [param for param, _ in pairs] + (grads if self.defaults.policy.zero_grads else [])
        self._stepped = [array.owner for array in written if hasattr(array.owner, "_version")]
        self.owners = binding.owners

    def note_step(self) -> None:
        """Tell PyTorch what a step has written, so that autograd refuses values that it saved before."""
        if self._stepped:
            sys.modules["torch"].autograd.graph.increment_version(self._stepped)

    def note_writes(self) -> None:
        """Tell PyTorch that all of its parameters were written."""
        written = [param.owner for param in self.params if hasattr(param.owner, "_version")]
        if written:
            sys.modules["torch"].autograd.graph.increment_version(written)

    def _check_overlap(self, binding: Binding) -> None:
        titles = self._parameter_titles + self._gradient_titles
        begins = np.concatenate([binding.param_addresses, binding.addresses])
        check_overlap(begins, binding.sizes, titles.__getitem__)

    def scopes(self) -> tuple[npt.NDArray[np.int32], int]:
        """The scope of each tensor over which its gradient has a norm, and how many there are."""
        return scopes_of(self.defaults.policy, self.groups, self.group_of)

    @property
    def scope_count(self) -> int:
        """How many norms there are."""
        return self.scopes()[1]

    def _slot_rows(self) -> npt.NDArray[Any]:
        """The tensor table as far as it never changes."""
        rows = np.zeros(len(self.params), TENSOR)
        for i, state in enumerate(self.defaults.rule.states):
            rows["states"][:, i] = [address_of(own.get(state)) for own in self.arrays]
        rows["companion"] = [address_of(own.get("master", own.get("remainder"))) for own in self.arrays]
        rows["ema"] = [address_of(own.get("ema")) for own in self.arrays]
        rows["numel"] = self.numels()
        rows["scope"], _ = self.scopes()
        return rows

    def rows(self, binding: Binding, cohort_of: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """The tensor table. A tensor without a gradient has none in its row, and rests."""
        rows = self._fixed_rows.copy()
        rows["param"], rows["grad"] = binding.param_addresses, binding.addresses
        rows["cohort"] = cohort_of
        rows["grad_format"] = binding.format_numbers
        own = np.bitwise_or.reduce(rows["states"], axis=1) | rows["companion"] | rows["ema"]
        rows["wide"] = (rows["param"] | rows["grad"] | own) % WIDE == 0
        return rows


def scopes_of(
    policy: Policy, groups: Sequence[Group], group_of: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], int]:
    """The scopes of tensors of these groups, and how many there are; none if nobody asks for norms."""
    count = len(group_of)
    if policy.nonfinite == "propagate" and not any("clip_norm" in group.hyperparameters for group in groups):
        return np.full(count, NO_SCOPE, np.int32), 0
    kinds = {"global": (np.zeros(count), 1), "group": (group_of, len(groups))}
    scope_of, scope_count = kinds.get(policy.clip_scope, (np.arange(count), count))
    return scope_of.astype(np.int32), scope_count


def address_of(array: Any) -> int:
    """First byte of one of our own arrays; 0 where there is none."""
    if array is None:
        return 0
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)

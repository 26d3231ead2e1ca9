"""The tensors of an optimizer: parameters and gradients that are borrowed, states that are its own."""

import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, borrow, check_overlap, shaped_like
from .groups import Group, check_gradient, check_param, name_tensor, specialise
from .rules import Rule
from .tables import TENSOR, WIDE

STATE_ALIGNMENT = 16  # elements: each state starts on a cache line of its own
POOLED_ELEMENTS = 65_536  # states up to this size share a block of memory


@dataclass
class Binding:
    """Parameters and gradients, read and checked together; not in force yet."""

    params: list[Array]
    owners: list[Any]
    grads: list[Array | None]

    def present(self) -> npt.NDArray[np.bool_]:
        """Which tensors have a gradient."""
        return np.array([grad is not None for grad in self.grads], bool)


class Tensors:
    """All tensors of an optimizer, in the order of its groups.

    Attributes:
        names: Key or position of each parameter.
        group_of: Its group.
        states: Its states by name, None where the options leave one out; in the parameter's order of elements.
    """

    def __init__(self, rule: Rule, groups: Sequence[Group], backend: Any) -> None:
        self.rule = rule
        self.names = [name for group in groups for name in group.names]
        self.group_of = np.repeat(np.arange(len(groups)), [len(group.names) for group in groups])
        self._parameter_titles = [name_tensor("parameter", name) for name in self.names]
        self._gradient_titles = [name_tensor("gradient", name) for name in self.names]
        self.params = [array for group in groups for array in group.arrays]
        self.binding = Binding(self.params, [], [None] * len(self.params))
        self._check_overlap(self.params, [])
        pairs = [(group, array) for group in groups for array in group.arrays]
        self.states = new_states(rule, pairs, backend)
        self.specialisations = [specialise(rule, group, param) for group, param in pairs]
        self._fixed_rows = self._state_rows()
        self.owners: list[Any] | None = None
        self._movable = [array for array in self.params if array.is_movable]
        self._versioned = [array.owner for array in self.params if hasattr(array.owner, "_version")]

    def device(self) -> int:
        """Number of the device on which all of them lie."""
        return self.params[0].device[1] if self.params else 0

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
        params = [self._reread(i) for i in range(len(self.params))] if self._movable else self.params
        grads: list[Array | None] = []
        for title, owner, param in zip(self._gradient_titles, owners, params, strict=True):
            grad = None if owner is None else borrow(owner, title)
            if grad is not None:
                check_gradient(grad, param, title)
            grads.append(grad)
        self._check_overlap(params, grads)
        return Binding(params, owners, grads)

    def _reread(self, index: int) -> Array:
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

    def release(self) -> None:
        """Nothing is bound from here to `accept`: an interrupt between them leaves no half of a change."""
        self.owners = None

    def accept(self, binding: Binding) -> None:
        """Put a checked binding in force."""
        self.binding, self.params = binding, binding.params
        arrays = [*binding.params, *(grad for grad in binding.grads if grad is not None)]
        self._movable = [array for array in arrays if array.is_movable]
        self.owners = binding.owners

    def note_writes(self) -> None:
        """Tell PyTorch that its tensors were written, so that autograd refuses values that it saved before."""
        if self._versioned:
            sys.modules["torch"].autograd.graph.increment_version(self._versioned)

    def _check_overlap(self, params: Sequence[Array], grads: Sequence[Array | None]) -> None:
        arrays = [*params, *grads]
        begins = [array.address if array else 0 for array in arrays]
        sizes = [array.nbytes if array else 0 for array in arrays]
        titles = self._parameter_titles + self._gradient_titles
        check_overlap(begins, sizes, titles.__getitem__)

    def _state_rows(self) -> npt.NDArray[Any]:
        """The tensor table as far as it never changes."""
        rows = np.zeros(len(self.params), TENSOR)
        for i, state in enumerate(self.rule.states):
            rows["states"][:, i] = [address_of(own[state]) for own in self.states]
        rows["numel"] = self.numels()
        return rows

    def rows(self, binding: Binding, cohort_of: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """The tensor table. A tensor without a gradient has none in its row, and rests."""
        rows = self._fixed_rows.copy()
        rows["param"] = [param.address for param in binding.params]
        rows["grad"] = [0 if grad is None else grad.address for grad in binding.grads]
        rows["cohort"] = cohort_of
        every = rows["param"] | rows["grad"] | np.bitwise_or.reduce(rows["states"], axis=1)
        rows["wide"] = every % WIDE == 0
        return rows


def new_states(rule: Rule, pairs: Sequence[tuple[Group, Array]], backend: Any) -> list[dict[str, Any]]:
    """The states of all tensors, None where the options leave one out.

    Small ones of one kind lie in one block of memory, one after another: thousands of them then cost neither as many
    allocations nor as many cache and page misses.
    """
    states: list[dict[str, Any]] = [dict.fromkeys(rule.states) for _ in pairs]
    blocks: dict[tuple[Any, ...], list[int]] = {}
    for index, (group, param) in enumerate(pairs):
        alone = index if param.numel > POOLED_ELEMENTS else None
        for state in rule.states:
            if state not in group.absent:
                kind = state, param.dtype, rule.initial(state, group.options), alone
                blocks.setdefault(kind, []).append(index)
    for (state, dtype, value, _), members in blocks.items():
        room = [-(-pairs[i][1].numel // STATE_ALIGNMENT) * STATE_ALIGNMENT for i in members]
        block = backend.filled(sum(room), dtype, value, pairs[0][1].device[1])
        starts = np.cumsum([0, *room[:-1]])
        for i, start in zip(members, starts.tolist(), strict=True):
            param = pairs[i][1]
            states[i][state] = shaped_like(block[start : start + param.numel], param)
    return states


def address_of(array: Any) -> int:
    """First byte of one of our own arrays; 0 where there is none."""
    if array is None:
        return 0
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)

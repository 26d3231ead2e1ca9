"""What a training asks of each GPU: memory, bytes that a step moves, and the time that these take at least.

What is held and moved for a parameter is counted by `traffic`, of an optimizer that is made as users make theirs; here
it is only multiplied. The stages are those of ZeRO (Rajbhandari et al. 2020, sections 5 and 7).
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import (
    LAMB,
    SGD,
    SGDW,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdamWScheduleFree,
    Lion,
    NAdam,
    NadamW,
    Optimizer,
    QHAdam,
    RAdam,
    RMSprop,
    SGDScheduleFree,
)
from .arrays import bfloat16, borrow
from .formats import Specialisation
from .groups import check_gradient, read_defaults, read_groups, specialise
from .rules import Rule
from .tensors import scopes_of
from .traffic import Held, held, traffic

ADAMS: tuple[Any, ...] = (Adam, AdamW, AdamWScheduleFree, Adamax, NAdam, NadamW, QHAdam, RAdam)
OTHERS: tuple[Any, ...] = (Adadelta, Adagrad, LAMB, Lion, RMSprop, SGD, SGDScheduleFree, SGDW)
OPTIMIZERS = {kind.__name__.lower(): kind for kind in (*ADAMS, *OTHERS)}
SHAPE = (64, 64)  # of the weight that stands for all: large enough, with axes enough, for states of 8 bits
STATES = frozenset({"states", "companion", "ema"})
SHARDED = {  # what a device has a share of only
    "none": frozenset[str](),  # DDP
    "states": STATES,  # ZeRO-1
    "gradients": STATES | {"grad"},  # ZeRO-2
    "all": frozenset(Held._fields),  # ZeRO-3, FSDP
}
MODES: Mapping[str, tuple[str, Mapping[str, str]]] = {  # the ways to keep a model: dtype, settings
    "float32": ("float32", {}),
    "float32, states int8": ("float32", {"state_dtype": "int8"}),
    "bfloat16, master float32": ("bfloat16", {"master": "float32"}),
    "bfloat16, master remainder": ("bfloat16", {"master": "remainder"}),
    "bfloat16, master remainder, states bfloat16": ("bfloat16", {"master": "remainder", "state_dtype": "bfloat16"}),
    "bfloat16, master remainder, states int8": ("bfloat16", {"master": "remainder", "state_dtype": "int8"}),
    "bfloat16 alone": ("bfloat16", {}),
    "bfloat16 alone, states int8": ("bfloat16", {"state_dtype": "int8"}),
}


class Work(NamedTuple):
    """What is done to each parameter, and whether the gradients are summed before."""

    kind: Specialisation
    sums: bool


class Reader(Optimizer):
    """Stands behind an optimizer in the place of `Optimizer`: reads and checks what that would, and makes nothing."""

    def __init__(self, params: Any, rule: Rule, settings: Mapping[str, Any], options: Any, recipe: Any) -> None:
        self._defaults = read_defaults(rule, settings, options, recipe)
        self._groups = read_groups(params, self._defaults)


def work_of(rule: str, dtype: str, grad_dtype: str, settings: Mapping[str, Any]) -> Work:
    """That of an optimizer with these settings.

    Raises:
        TypeError, ValueError: Its constructor refuses them, or `bind` the gradients.
        ImportError: It is bfloat16, and ml_dtypes is missing.
    """
    param, grad = (np.zeros(SHAPE, bfloat16() if name == "bfloat16" else name) for name in (dtype, grad_dtype))
    reader = type("PlannedOptimizer", (OPTIMIZERS[rule], Reader), {})([param], **settings)
    defaults, (group,) = reader._defaults, reader._groups
    check_gradient(borrow(grad, "gradient 0"), group.arrays[0], "gradient 0", defaults.policy.zero_grads)
    _, norms = scopes_of(defaults.policy, [group], np.zeros(1, np.int64))
    return Work(specialise(defaults, group, group.arrays[0], grad_dtype), norms > 0)


def takers(settings: Mapping[str, Any]) -> list[str]:
    """The optimizers that have these arguments."""

    def takes(rule: str) -> bool:
        try:
            work_of(rule, "float32", "float32", settings)
        except TypeError:
            return False
        except ValueError:
            return True  # it has them, but not with its other settings
        return True

    return [rule for rule in OPTIMIZERS if takes(rule)]


@dataclass(frozen=True)
class Plan:
    """So many parameters on so many GPUs.

    Attributes:
        work: What is done to each.
        params: How many there are.
        gpus: Over how many GPUs the batch is spread.
        shard: What these share out among themselves; a key of SHARDED.
    """

    work: Work
    params: int
    gpus: int = 1
    shard: str = "none"

    @property
    def share(self) -> int:
        """Parameters that the largest shard has."""
        return -(-self.params // self.gpus)

    @property
    def memory(self) -> Held:
        """Bytes on each GPU."""
        sharded = SHARDED[self.shard]
        own = held(self.work.kind)._asdict()
        return Held(**{name: size * (self.share if name in sharded else self.params) for name, size in own.items()})

    @property
    def moved(self) -> float:
        """Bytes that the step of the optimizer moves on each GPU: where states are shared out, each steps its shard."""
        return traffic(*self.work) * (self.params if self.shard == "none" else self.share)

    @property
    def sent(self) -> float:
        """Bytes that each GPU sends to others for a training step, whatever the way between them.

        An all-reduce is a reduce-scatter and an all-gather, and each of these sends all but the GPU's own share.
        Gradients are all-reduced, or reduce-scattered where states are shared out, and the new parameters gathered;
        parameters that are shared out are gathered twice, for the forward and for the backward pass.
        """
        own = held(self.work.kind)
        each = {"none": 2 * own.grad, "all": own.grad + 2 * own.param}.get(self.shard, own.grad + own.param)
        return each * self.params * (self.gpus - 1) / self.gpus

    def shortest(self, bandwidth: float) -> float:
        """Seconds below which the step of the optimizer cannot come, at so many bytes a second."""
        return self.moved / bandwidth


def has_bfloat16() -> bool:
    return importlib.util.find_spec("ml_dtypes") is not None


def choices(rule: str, settings: Mapping[str, Any]) -> dict[str, Work]:
    """The same training in every way to keep a model; those that come to the same bytes stand once.

    Where NumPy has no bfloat16, as ml_dtypes is missing, weights of it are left out.
    """
    modes = {name: own for name, own in MODES.items() if own[0] != "bfloat16" or has_bfloat16()}
    found = {name: work_of(rule, dtype, dtype, {**settings, **own}) for name, (dtype, own) in modes.items()}
    first = {work.kind.name: name for name, work in reversed(found.items())}
    return {name: work for name, work in found.items() if first[work.kind.name] == name}

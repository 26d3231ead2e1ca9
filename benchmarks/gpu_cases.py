"""What `gpu.py` steps: tensors, how they are stored, what is done to them, and who is asked to do it.

The order is that of importance: a run whose time is over has the figures that matter most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gpuadam import schedules
from gpuadam.planning import Work, work_of
from gpuadam.traffic import held, traffic
from gpuadam.workloads import NETWORKS, Workload, llama_within, network, uniform

LR, WEIGHT_DECAY, CLIP_NORM, EMA_DECAY = 1e-3, 0.01, 1.0, 0.999
WARMUP, LENGTH = 100, 100_000
SCHEDULE = schedules.warmup_cosine_decay(0.0, LR, WARMUP, LENGTH)
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {"lr": LR},
    "schedule": {"lr": SCHEDULE},
    "clip": {"lr": LR, "clip_norm": CLIP_NORM},
    "ema": {"lr": LR, "ema_decay": EMA_DECAY},
    "all": {"lr": SCHEDULE, "clip_norm": CLIP_NORM, "ema_decay": EMA_DECAY, "nonfinite": "skip"},
}
STORAGE: Mapping[str, Mapping[str, Any]] = {"float32": {}, "bfloat16": {"master": "float32"}, "float16": {}}
SCALED = "llama-7b"  # the network that is cut to what memory holds

SIMPLE = ("gpuadam", "torch fused", "torch foreach")
GRAPHS = ("gpuadam, graph", "torch capturable, graph")
PEERS = ("CuPy kernel", "bitsandbytes")
USUAL = (*SIMPLE, *GRAPHS, *PEERS)
OWN = 16  # bytes an element that a contender needs at most beside parameters and gradients
TEMPORARY = 12  # what PyTorch's foreach steps need beside that


@dataclass(frozen=True)
class Case:
    """Tensors to be stepped by AdamW.

    Attributes:
        workload: Their shapes and groups.
        dtype: Of parameters and gradients; a key of STORAGE.
        recipe: A key of RECIPES.
        contenders: Who does it.
    """

    workload: Workload
    dtype: str = "float32"
    recipe: str = "plain"
    contenders: Sequence[str] = USUAL

    @property
    def name(self) -> str:
        groups = f"{self.workload.groups} groups" if self.workload.groups > 1 else ""
        return ", ".join(filter(None, [self.workload.name, groups, *self._unusual]))

    @property
    def title(self) -> str:
        return ", ".join([self.workload.title, *self._unusual])

    @property
    def _unusual(self) -> list[str]:
        usual = {"float32", "plain"}
        storage = {"bfloat16": "bfloat16 with a float32 master"}.get(self.dtype, self.dtype)
        return [text for text in (storage, self.recipe) if text not in usual]

    @property
    def settings(self) -> dict[str, Any]:
        return {**RECIPES[self.recipe], **STORAGE[self.dtype]}

    @cached_property
    def work(self) -> Work:
        """What our step does to each element."""
        return work_of("adamw", self.dtype, self.dtype, self.settings)

    @property
    def moved(self) -> int:
        """Bytes that our step must move."""
        return round(traffic(*self.work) * self.workload.elements)

    @property
    def needed_each(self) -> float:
        """Bytes of device memory an element that all contenders together take at most."""
        own = held(self.work.kind)
        temporary = TEMPORARY if "torch foreach" in self.contenders else 0
        return own.param + own.grad + OWN * len(self.contenders) + temporary

    @property
    def needed(self) -> int:
        """Bytes of device memory; a small tensor takes 512 of them at least, in several arrays."""
        least = 4096 * len(self.workload.shapes) * len(self.contenders)
        return round(self.needed_each * self.workload.elements) + least

    def within(self, room: int) -> "Case":
        """The case, or of the scaled network as many layers as there is room for."""
        if self.workload.name != SCALED or self.needed <= room:
            return self
        return replace(self, workload=llama_within(int(0.95 * room / self.needed_each)))

    def spread(self, tensors: Sequence[Any]) -> list[Sequence[Any]]:
        """The tensors of each group."""
        count, groups = len(tensors), self.workload.groups
        return [tensors[k * count // groups : (k + 1) * count // groups] for k in range(groups)]


def rate_of(group: int) -> float:
    """A factor for the rate of each group, as layer-wise rates have them."""
    return 1 - group / 1000


def large() -> list[Case]:
    few = ("gpuadam", "torch fused", "torch foreach", "CuPy kernel")
    return [Case(uniform(1, 10**9), contenders=few), Case(network(SCALED), contenders=SIMPLE)]


def small() -> list[Case]:
    return [Case(uniform(1000, 1000)), Case(uniform(10_000, 128))]


def grouped() -> list[Case]:
    """The same tensors in more and more groups; most first."""
    contenders = (*SIMPLE, *GRAPHS)
    return [Case(uniform(465, 60_000, groups), contenders=contenders) for groups in (465, 10, 1)]


def recipes() -> list[Case]:
    """All that a training step does beside the rule; together first, then each thing."""
    works = (uniform(1, 10**8), network("resnet50"), uniform(1000, 1000))
    whole = [Case(work, recipe="all", contenders=SIMPLE) for work in works]
    parts = [Case(w, recipe=name, contenders=SIMPLE[:2]) for w in works for name in ("clip", "ema", "schedule")]
    return [*whole, *parts]


def networks() -> list[Case]:
    others = [Case(network(name)) for name in NETWORKS if name not in (SCALED, "resnet50")]
    return [Case(network("resnet50"), contenders=(*USUAL, "optax")), *others]


def formats() -> list[Case]:
    works = (network("resnet50"), uniform(1, 10**8))
    return [Case(work, dtype, contenders=SIMPLE[:2]) for dtype in ("bfloat16", "float16") for work in works]


def growth() -> list[Case]:
    """More elements in one tensor, more tensors of one size."""
    single = [Case(uniform(1, 10**power), contenders=(*USUAL, "optax")) for power in (8, 7, 6, 5, 4, 3)]
    return [*single, *(Case(uniform(count, 1000)) for count in (10, 100, 10_000))]


CASES = [*large(), *small(), *grouped(), *recipes(), *networks(), *formats(), *growth()]

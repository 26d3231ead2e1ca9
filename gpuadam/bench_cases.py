"""What `bench` steps: workloads under a recipe, as optimizers whose gradients are bound."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import schedules
from .arrays import bfloat16
from .planning import OPTIMIZERS, Work, work_of
from .traffic import held, traffic
from .workloads import Shape, Workload, llama_within, network, uniform

BLOCK = 1_000_003  # random numbers, which are repeated in larger tensors
BESIDE = 4096  # bytes that a tensor takes at most beside its elements: tables, objects, what an allocator adds
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "schedule": {"lr": schedules.warmup_cosine_decay(0.0, 1e-3, 1_000, 1_000_000)},
    "clip": {"clip_norm": 1.0},
    "ema": {"ema_decay": 0.999},
}
ALL = "all"  # of them at once
LARGEST = {"cpu": 8, "cuda": 9}  # power of ten of the largest tensor: what is stepped some hundred times a minute
QUICK = (uniform(1, 1000), uniform(1, 10**6), uniform(1, 10**7), uniform(1000, 1000), network("resnet50"))
SCALED = "llama-7b"  # the network that is cut to what memory holds


@dataclass(frozen=True)
class Case:
    """Tensors to be stepped.

    Attributes:
        workload: Their shapes.
        rule: A key of OPTIMIZERS.
        dtype: Of parameters and gradients.
        recipe: A key of RECIPES, or ALL.
        settings: What the optimizer is given.
        work: What is done to each element.
    """

    workload: Workload
    rule: str
    dtype: str
    recipe: str
    settings: Mapping[str, Any]
    work: Work

    @property
    def title(self) -> str:
        return self.workload.title + ("" if self.recipe == "plain" else f", {self.recipe}")

    @property
    def held(self) -> int:
        """Bytes of its arrays."""
        return round(sum(held(self.work.kind)) * self.workload.elements)

    @property
    def moved(self) -> int:
        """Bytes that a step must move."""
        return round(traffic(*self.work) * self.workload.elements)

    @property
    def needed(self) -> int:
        """Bytes of memory, with all that stands beside the arrays."""
        return self.held + BESIDE * len(self.workload.shapes)

    def within(self, room: int) -> "Case":
        """The case, or of the scaled network as many layers as there is room for."""
        if self.workload.name != SCALED or self.needed <= room:
            return self
        return replace(self, workload=llama_within(int(room / sum(held(self.work.kind)))))


def make_cases(
    workloads: Sequence[Workload], rule: str, dtype: str, recipes: Sequence[str], storage: Mapping[str, Any]
) -> list[Case]:
    """Every workload under every recipe.

    Args:
        storage: How weights are kept, as the optimizer takes it.

    Raises:
        TypeError, ValueError: The optimizer refuses these settings.
        ImportError: It is bfloat16, and ml_dtypes is missing.
    """
    settings = {name: {**recipe_named(name), **storage} for name in recipes}
    works = {name: work_of(rule, dtype, dtype, settings[name]) for name in recipes}
    return [
        Case(workload, rule, dtype, name, settings[name], works[name])
        for workload, name in itertools.product(workloads, recipes)
    ]


def recipe_named(name: str) -> Mapping[str, Any]:
    return {key: value for own in RECIPES.values() for key, value in own.items()} if name == ALL else RECIPES[name]


def default_workloads(backend: str) -> list[Workload]:
    """From one small tensor to one that fills a good part of the memory, many small ones, and two networks."""
    single = [uniform(1, 10**power) for power in range(3, LARGEST[backend] + 1)]
    return [*single, uniform(1000, 1000), uniform(10_000, 128), network("resnet50"), network("gpt2")]


def given_workloads(tensors: Sequence[int], sizes: Sequence[int], models: Sequence[str]) -> list[Workload]:
    """Each number of tensors in each size, of which one alone may be given, and networks by their names."""
    pairs = itertools.product(tensors or (1,), sizes or (1000,)) if tensors or sizes else ()
    return [*itertools.starmap(uniform, pairs), *map(network, models)]


def make_step(case: Case, xp: ModuleType) -> Callable[[], Any]:
    """A step of the case, with random gradients bound."""
    params, grads = (random_arrays(xp, case.workload.shapes, dtype_named(case.dtype), seed) for seed in (1, 2))
    optimizer = OPTIMIZERS[case.rule](params, **case.settings)
    optimizer.bind(grads)
    step: Callable[[], Any] = optimizer.step
    return step


def dtype_named(name: str) -> npt.DTypeLike:
    """NumPy has no bfloat16 of its own."""
    return bfloat16() if name == "bfloat16" else name


def random_arrays(xp: ModuleType, shapes: Sequence[Shape], dtype: npt.DTypeLike, seed: Any) -> list[Any]:
    """Arrays of numpy or cupy, each an allocation of its own."""
    most = min(BLOCK, max(map(math.prod, shapes)))
    numbers = np.random.default_rng(seed).standard_normal(most).astype(dtype)
    block = xp.asarray(numbers.view(np.uint8))  # as bytes, of which any CuPy can make a copy
    return list(repeated(xp, block, shapes, numbers.dtype))


def repeated(xp: ModuleType, block: Any, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> Iterator[Any]:
    for shape in shapes:
        array = xp.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        for begin in range(0, array.size, block.size):
            piece = array[begin : begin + block.size]
            piece[...] = block[: piece.size]
        yield array.view(dtype).reshape(shape)

"""What is stepped on the CPU, the same for all contenders: workloads, rules, formats, recipes, and the sets of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuadam import schedules
from gpuadam.bench_cases import dtype_named, random_arrays
from gpuadam.planning import Work, work_of
from gpuadam.traffic import held, traffic
from gpuadam.workloads import Workload, llama_within, network, uniform

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "rmsprop": {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8},
    "sgd": {"lr": 1e-3, "momentum": 0.9},
}
RULES = {"adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD with momentum"}
CLIP_NORM, EMA_DECAY, DECAY_STEPS = 1.0, 0.999, 1_000_000
RECIPES = {
    "plain": (),
    "schedule": ("schedule",),
    "clip": ("clip",),
    "ema": ("ema",),
    "all": ("schedule", "clip", "ema"),
    "spacy": ("schedule", "clip each"),
}


@dataclass(frozen=True)
class Case:
    """Tensors to be stepped, and how.

    Attributes:
        workload: Their shapes, and over how many groups they are spread; the groups differ in their rates.
        rule: A key of HYPERPARAMETERS.
        dtype: Of parameters and gradients.
        master: How the rest of 16-bit weights is kept, as gpuadam takes it.
        recipe: A key of RECIPES: the rate decays by a cosine, the gradients are clipped by their common norm or each by
            its own, an average of the weights goes along.
        decay_steps: Over which the rate decays.
    """

    workload: Workload
    rule: str = "adamw"
    dtype: str = "float32"
    master: str | None = None
    recipe: str = "plain"
    decay_steps: int = DECAY_STEPS

    @property
    def name(self) -> str:
        """As the command line and the JSON have it: the workload, and what is not the default."""
        groups = f"{self.workload.groups}groups" if self.workload.groups > 1 else ""
        master = self.master and f"master-{self.master}"
        own = [groups, self.rule, self.dtype, master, self.recipe]
        return "-".join([self.workload.name, *(part for part in own if part not in ("", None, *DEFAULTS))])

    def does(self, part: str) -> bool:
        return part in RECIPES[self.recipe]

    @property
    def work(self) -> Work:
        """What a step does to each element."""
        return work_of(self.rule, self.dtype, self.dtype, settings_of(self))

    @property
    def moved(self) -> int:
        """Bytes that a step must move."""
        return round(traffic(*self.work) * self.workload.elements)

    @property
    def held(self) -> int:
        """Bytes of all arrays."""
        return round(sum(held(self.work.kind)) * self.workload.elements)


DEFAULTS = (Case.rule, Case.dtype, Case.recipe)


def settings_of(case: Case) -> dict[str, Any]:
    """The case as gpuadam takes it."""
    found = dict(HYPERPARAMETERS[case.rule])
    if case.does("schedule"):
        found["lr"] = schedules.cosine_decay(found["lr"], case.decay_steps)
    if case.does("clip") or case.does("clip each"):
        found |= {"clip_norm": CLIP_NORM, "clip_scope": "global" if case.does("clip") else "tensor"}
    if case.does("ema"):
        found["ema_decay"] = EMA_DECAY
    return found | ({"master": case.master} if case.master else {})


def arrays_of(case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients: the same numbers for each contender."""
    params, grads = (random_arrays(np, case.workload.shapes, dtype_named(case.dtype), seed) for seed in (1, 2))
    return params, grads


def in_groups(case: Case, arrays: Sequence[Any]) -> list[dict[str, Any]]:
    """Neighbouring arrays in groups as even as it goes, each with a rate of its own, as optimizers take them."""
    count = case.workload.groups
    if count == 1:
        return [{"params": list(arrays)}]
    bounds = [len(arrays) * i // count for i in range(count + 1)]
    lr = HYPERPARAMETERS[case.rule]["lr"]
    return [{"params": list(arrays[bounds[i] : bounds[i + 1]]), "lr": lr * (1 - i / (2 * count))} for i in range(count)]


LARGE, SMALL, MANY = uniform(1, 20_000_000), uniform(1000, 1000), uniform(10_000, 128)
RESNET, SPACY = network("resnet50"), network("spacy-small")
TARGETS = [
    *map(Case, (LARGE, RESNET, SMALL, MANY, uniform(1, 1000))),
    *(Case(work, recipe="all") for work in (RESNET, SMALL)),
    *(Case(work, rule="rmsprop") for work in (LARGE, RESNET, SMALL)),
    *(Case(SPACY, recipe=recipe) for recipe in ("plain", "spacy")),
]
FORMATS = (("bfloat16", "float32"), ("bfloat16", "remainder"), ("bfloat16", None), ("float16", None))


def make_sets(room: int) -> dict[str, list[Case]]:
    """The cases by what they show; some stand in several sets.

    Args:
        room: Bytes that gpuadam and one contender may take for the network that is cut to what fits.
    """
    llama = llama_within(room // (2 * 16))
    networks = [RESNET, *map(network, ("vit-b16", "gpt2", "gpt2-medium")), llama, SPACY]
    spread = uniform(465, 60_000)
    few = uniform(465, 1000)
    return {
        "targets": TARGETS,
        "sizes": [Case(uniform(1, 10**power)) for power in range(3, 10)],
        "networks": [*map(Case, networks)],
        "groups": [Case(replace(spread, groups=groups)) for groups in (1, 10, 465)],
        "formats": [Case(RESNET), *(Case(RESNET, dtype=dtype, master=master) for dtype, master in FORMATS)],
        "recipes": [Case(work, recipe=recipe) for work in (RESNET, SMALL) for recipe in RECIPES if recipe != "spacy"],
        "rules": [Case(work, rule=rule) for rule in ("rmsprop", "sgd") for work in (LARGE, RESNET, SMALL)],
        "growth-in-tensors": [Case(uniform(10**power, 128)) for power in range(1, 5)],
        "growth-in-groups": [Case(replace(few, groups=groups)) for groups in (1, 10, 100, 465)],
    }

"""`python -m gpuadam plan`: what a training asks of each GPU, before one is rented."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .figures import digits, duration, print_table
from .gpus import GPU, GPUS, Source
from .planning import SHARDED, Plan, Work, choices, has_bfloat16, takers, work_of
from .traffic import Held, held, traffic

GB = 1e9
PARTS = ("parameters", "gradients", "states", "master", "average")  # names of the fields of Held, for people
EXTRAS: dict[str, dict[str, Any]] = {  # what an option without a value sets
    **{name: {name: True} for name in ("amsgrad", "centered", "zero_grads")},
    "ema": {"ema_decay": 0.999},
    "clip_norm": {"clip_norm": 1.0},
    "momentum": {"momentum": 0.9},
}
UNKNOWN = "-"


class PlanError(Exception):
    """There is no such optimizer; the message is one line."""


@dataclass(frozen=True)
class Options:
    """What the command line sets: `python -m gpuadam plan --help` explains each."""

    params: int
    dtype: str = "float32"
    grad_dtype: str | None = None
    rule: str = "adamw"
    master: str | None = None
    state_dtype: str = "float32"
    amsgrad: bool = False
    centered: bool = False
    momentum: bool = False
    ema: bool = False
    clip_norm: bool = False
    zero_grads: bool = False
    gpus: int = 1
    shard: str = "none"
    gpu: GPU | None = None
    bandwidth: float | None = None
    memory: float | None = None
    json: bool = False

    def extras(self) -> dict[str, Any]:
        """Settings that do not depend on how the model is kept."""
        return {key: value for name, own in EXTRAS.items() if getattr(self, name) for key, value in own.items()}

    def devices(self) -> Sequence[GPU]:
        """The GPUs to tell of, the fastest first; figures that are given replace those of the table."""
        if self.gpu or self.bandwidth or self.memory:
            named = self.gpu or GPU("your GPU", 0.0, 0.0, Source(""))
            return [named._replace(memory=self.memory or named.memory, bandwidth=self.bandwidth or named.bandwidth)]
        return sorted(GPUS, key=lambda gpu: (-gpu.bandwidth, -gpu.memory, gpu.name))


def run(options: Options) -> None:
    """Print the plan.

    Raises:
        PlanError: The settings contradict each other, or ml_dtypes is missing, which has bfloat16.
    """
    settings = {"master": options.master, "state_dtype": options.state_dtype, **options.extras()}
    try:
        work = work_of(options.rule, options.dtype, options.grad_dtype or options.dtype, settings)
        ways = choices(options.rule, options.extras())
    except (TypeError, ValueError, ImportError) as error:
        raise PlanError(reason(options, error)) from error
    if options.master and not work.kind.companion:
        raise PlanError(
            f"master is {options.master!r}, but weights of {options.dtype} leave nothing out; allowed is none"
        )
    plan = Plan(work, options.params, options.gpus, options.shard)
    if options.json:
        print(json.dumps(describe(options, plan, ways), indent=1))
        return
    print_table(title_of(options), *memory_table(plan))
    print(f"each step moves {digits(plan.moved / GB)} GB on each GPU, {traffic(*work):.7g} bytes a parameter", end="")
    print(f"; a GPU sends {digits(plan.sent / GB)} GB a training step\n" if plan.gpus > 1 else "\n")
    print_table("on each GPU", *device_table(plan, options.devices()))
    print_table("other ways to keep the same model", *choice_table(plan, ways, options.devices()))
    if not has_bfloat16():
        print("bfloat16 is left out: it needs ml_dtypes (pip install 'gpuadam[bfloat16]')")


def reason(options: Options, error: Exception) -> str:
    """What is wrong: by the name of the option, where the optimizer has no such argument."""
    for name, own in EXTRAS.items():
        if getattr(options, name) and options.rule not in (allowed := takers(own)):
            return f"argument --{name.replace('_', '-')}: {options.rule} has none; allowed with {', '.join(allowed)}"
    return str(error)


def title_of(options: Options) -> str:
    where = "one GPU" if options.gpus == 1 else f"{options.gpus} GPUs, sharded: {options.shard}"
    return f"{options.rule}, {options.params:,} parameters of {options.dtype}, {where}"


def memory_table(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """What lies on each GPU."""
    each, memory = held(plan.work.kind), plan.memory
    rows = [
        [part, f"{size:.7g}", "a share" if name in SHARDED[plan.shard] and plan.gpus > 1 else "all", digits(whole / GB)]
        for part, name, size, whole in zip(PARTS, Held._fields, each, memory, strict=True)
        if size
    ]
    total = ["total", f"{sum(each):.7g}", "", digits(sum(memory) / GB)]
    return ["memory", "bytes a parameter", "on each GPU", "GB"], [*rows, total]


def left(plan: Plan, gpu: GPU) -> float | None:
    """GB that a GPU has left for activations, if its memory is known; below 0 the model does not fit."""
    return gpu.memory - sum(plan.memory) / GB if gpu.memory else None


def shortest(plan: Plan, gpu: GPU) -> float | None:
    """Seconds that the step takes at least, if the bandwidth is known."""
    return plan.shortest(gpu.bandwidth * GB) if gpu.bandwidth else None


def told_left(plan: Plan, gpu: GPU) -> str:
    room = left(plan, gpu)
    if room is None:
        return UNKNOWN
    return digits(room) if room > 0 else "does not fit"


def told_shortest(plan: Plan, gpu: GPU) -> str:
    seconds, room = shortest(plan, gpu), left(plan, gpu)
    return UNKNOWN if seconds is None or (room is not None and room <= 0) else duration(seconds)


def device_table(plan: Plan, gpus: Sequence[GPU]) -> tuple[list[str], list[list[str]]]:
    """Whether it fits, and how long a step takes at least."""
    rows = [
        [
            gpu.name,
            f"{gpu.memory:g}" if gpu.memory else UNKNOWN,
            f"{gpu.bandwidth:,g}" if gpu.bandwidth else UNKNOWN,
            told_left(plan, gpu),
            told_shortest(plan, gpu),
        ]
        for gpu in gpus
    ]
    return ["GPU", "GB", "GB/s", "GB left for activations", "shortest step"], rows


def plans(plan: Plan, ways: dict[str, Work]) -> dict[str, Plan]:
    """The same plan in other ways to keep the model."""
    return {name: Plan(work, plan.params, plan.gpus, plan.shard) for name, work in ways.items()}


def choice_table(plan: Plan, ways: dict[str, Work], gpus: Sequence[GPU]) -> tuple[list[str], list[list[str]]]:
    """How memory and time change with the way to keep the model; of one GPU what is left and how long, else not."""
    header = ["weights, master, states", "bytes a parameter", "GB on each GPU", "GB moved"]
    header += ["GB left", "shortest step"] if len(gpus) == 1 else []
    rows = []
    for name, other in plans(plan, ways).items():
        row = [name, f"{sum(held(other.work.kind)):.7g}", digits(sum(other.memory) / GB), digits(other.moved / GB)]
        rows.append(row + [cell(other, gpus[0]) for cell in (told_left, told_shortest) if len(gpus) == 1])
    return header, rows


def describe(options: Options, plan: Plan, ways: dict[str, Work]) -> dict[str, Any]:
    """All of it as data: bytes and seconds."""

    def of(one: Plan) -> dict[str, Any]:
        return {
            "bytes_per_parameter": held(one.work.kind)._asdict(),
            "memory": one.memory._asdict(),
            "moved_per_parameter": traffic(*one.work),
            "moved": one.moved,
            "sent": one.sent,
            "gpus": [
                {**gpu._asdict(), "source": gpu.source._asdict(), "left": left(one, gpu), "seconds": shortest(one, gpu)}
                for gpu in options.devices()
            ],
        }

    given = asdict(options) | {"gpu": options.gpu.name if options.gpu else None}
    return {"options": given, "plan": of(plan), "ways": {name: of(one) for name, one in plans(plan, ways).items()}}

"""Cases measured: all contenders by turns with the loops over memory, and what their samples come to."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from cpu_cases import Case
from cpu_contenders import Contender
from cpu_memory import make_loop, stream_sizes
from cpu_registry import OURS
from cpu_workers import ContenderError, Workers

from gpuadam.bench_host import free_in_groups, free_in_machine, last_level_cache
from gpuadam.figures import digits
from gpuadam.samples import interleave, quantiles, ratios

ROOM = 0.8  # of the free memory that a case may take
MOST_SAMPLES = 101
MEMORY = "memory "  # how the names of loops over memory begin
METHOD = {
    "samples": "interleaved; each the mean of some steps, after one that is not counted; a process for each contender",
    "speed_up": "quantiles of the ratios of paired samples, to gpuadam's: above 1 where gpuadam is faster",
    "of_memory": "bytes that gpuadam's step must move, a second, over the faster of copy and triad; of paired samples",
    "of_scale": "the same, over a scaling in place",
}

Samples = Mapping[str, Sequence[float]]


class Room:
    """What memory is free, less what contenders that are chosen will take."""

    def __init__(self) -> None:
        self.left = int(ROOM * min([free_in_machine(), *free_in_groups()]))

    def take(self, kind: type[Contender], case: Case) -> str:
        """Take what this one needs; else why not."""
        needed = case.held + kind.extra * case.workload.elements
        if needed > self.left:
            return f"it needs {digits(needed / 1e9)} GB beside the others; there are {digits(self.left / 1e9)} GB"
        self.left -= needed
        return ""


def choose(case: Case, kinds: Mapping[str, type[Contender]]) -> tuple[dict[str, type[Contender]], dict[str, str]]:
    """Who takes part, and why the others do not."""
    room, taken, left_out = Room(), {}, {}
    for name, kind in kinds.items():
        reason = kind.refuses(case) or room.take(kind, case)
        if reason:
            left_out[name] = reason
        else:
            taken[name] = kind
    return taken, left_out


def measure_case(
    case: Case, kinds: Mapping[str, type[Contender]], workers: Workers, loops: Mapping[str, int], seconds: float
) -> dict[str, Any]:
    """Figures of a case.

    Args:
        loops: Those over memory that `workers` have made, and how many bytes they move.
        seconds: How long samples are taken.
    """
    taken, left_out = choose(case, kinds)
    failures = workers.make({name: partial(kind, case) for name, kind in taken.items()})
    able = {name: workers.sampler(name) for name in taken if name not in failures}
    for name in list(able):
        try:
            able[name]()
        except ContenderError as error:
            failures[name] = str(error)
            del able[name]
    end = time.perf_counter() + seconds
    every = able | {name: workers.sampler(name) for name in loops}
    samples = interleave(every, MOST_SAMPLES, lambda: time.perf_counter() < end) if able else {}
    for name in able:
        workers.drop(name)
    return {**about(case), **(figures(case, samples, loops) if able else {}), "left_out": left_out | failures}


def about(case: Case) -> dict[str, Any]:
    work = case.workload
    return {
        "case": case.name,
        "title": work.title,
        "rule": case.rule,
        "dtype": case.dtype,
        "master": case.master,
        "recipe": case.recipe,
        "tensors": len(work.shapes),
        "groups": work.groups,
        "elements": work.elements,
        "bytes_moved": case.moved,
        "in_cache": case.held < 2 * last_level_cache(),
    }


def figures(case: Case, samples: Samples, loops: Mapping[str, int]) -> dict[str, Any]:
    """What the samples come to."""
    steps = {name: own for name, own in samples.items() if name not in loops}
    given = {name: [moved / time for time in samples[name]] for name, moved in loops.items()}
    scale = given.pop(f"{MEMORY}scale")
    limit = max(given.values(), key=median)
    rates = {name: [case.moved / time for time in own] for name, own in steps.items()}
    ours = steps.get(OURS)
    return {
        "seconds": {name: quantiles(own) for name, own in steps.items()},
        "speed_up": {name: ratios(own, ours) for name, own in steps.items() if ours and name != OURS},
        "of_memory": {name: ratios(own, limit) for name, own in rates.items()},
        "of_scale": {name: ratios(own, scale) for name, own in rates.items()},
        "memory_bytes_per_second": {
            name.removeprefix(MEMORY): quantiles([moved / time for time in samples[name]])
            for name, moved in loops.items()
        },
    }


def make_loops(workers: Workers) -> dict[str, int]:
    """The loops over memory, ready to be sampled, and the bytes that each moves."""
    sizes = workers["memory"].ask("call", stream_sizes)
    loops = {f"{MEMORY}{name}": size for name, size in sizes.items()}
    for name in loops:
        workers[name].ask("make", name, partial(make_loop, name.removeprefix(MEMORY)))
    return loops


def measure_cases(
    cases: Sequence[Case], kinds: Mapping[str, type[Contender]], seconds: float, end: float
) -> Iterator[dict[str, Any]]:
    """Figures of each, until the clock shows `end`."""
    with Workers() as workers:
        loops = make_loops(workers)
        for case in cases:
            if time.perf_counter() > end:
                return
            yield measure_case(case, kinds, workers, loops, seconds)

"""How fast a machine can step: each case by turns with what memory gives, as plain figures.

The samples of a case and those of the streams over memory are interleaved, and the part of the limit is the ratio of
samples that were taken one right after the other; so whatever slows the machine down slows down both.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from subprocess import CalledProcessError
from types import ModuleType
from typing import Any, Protocol

from .bandwidth import Stream
from .bench_cases import Case, make_step
from .figures import digits
from .first_use import measure_first_use
from .planning import OPTIMIZERS
from .samples import interleave, quantiles, ratios
from .workloads import uniform

MOST_SAMPLES = 101  # of a case
CALL = "call"
ROOM = 0.8  # of the free memory that a case may take
STARTS = {"cold": 1, "warm": 3}  # new processes in which the first use is timed

Sampler = Callable[[], dict[str, float]]
Samples = Mapping[str, Sequence[Mapping[str, float]]]


class Device(Protocol):
    """Where steps are timed: `bench_host.Host` or `bench_cuda.GPU`."""

    name: str
    xp: ModuleType
    cache: int

    def about(self) -> dict[str, Any]: ...
    def free(self) -> int: ...
    def streams(self) -> dict[str, Stream]: ...
    def sampler(self, step: Callable[[], Any]) -> Sampler: ...
    def release(self) -> None: ...


def measure(
    cases: Sequence[Case], device: Device, seconds: float, first_use: bool, result: dict[str, Any]
) -> Iterator[str]:
    """Measure all cases. Yields what comes next, as it begins; what has been found so far is in `result`."""
    begin = time.perf_counter()
    result |= {"benchmark": "gpuadam bench", "backend": device.name, "machine": device.about(), "method": method(cases)}
    result |= {"cases": [], "left_out": {}}
    yield "memory"
    streams = device.streams()
    samplers = make_samplers(cases[0], device, streams)
    calls: list[float] = []
    for case in cases:
        yield case.title
        device.release()
        room = int(ROOM * device.free())
        fitting = case.within(room)
        if fitting.needed > room:
            result["left_out"][case.title] = (
                f"it needs {gigabytes(fitting.needed)}; there is room for {gigabytes(room)}"
            )
            continue
        try:
            samples = take(fitting, device, samplers, seconds)
        except MemoryError as error:  # somebody else has taken some since
            result["left_out"][case.title] = f"memory ran out: {error}"
            continue
        calls += [one.get("host_seconds", one["seconds"]) for one in samples[CALL]]
        result["call_seconds"] = quantiles(calls)
        result["cases"].append(figures(fitting, device.cache, samples, streams))
        result["seconds"] = time.perf_counter() - begin
    if first_use:
        yield "first use"
        try:
            found = measure_first_use(**STARTS, rule=OPTIMIZERS[cases[0].rule].__name__, module=device.xp.__name__)
            result["first_use"] = {name: quantiles(times) for name, times in found.items()}
        except CalledProcessError as error:
            result["left_out"]["first use"] = error.stderr.strip().rpartition("\n")[2]
    result["seconds"] = time.perf_counter() - begin


def method(cases: Sequence[Case]) -> dict[str, Any]:
    """What is measured, and how."""
    first = cases[0]
    return {
        "rule": first.rule,
        "optimizer": OPTIMIZERS[first.rule].__name__,
        "dtype": first.dtype,
        "master": first.settings.get("master"),
        "recipes": {case.recipe: f"{case.work.kind.name}{', sums' if case.work.sums else ''}" for case in cases},
        "samples": "interleaved with the streams over memory; each the mean of some steps, after one not counted",
        "part_of_limit": "quantiles of the ratios of paired samples, to the stream that moved most bytes a second",
    }


def gigabytes(size: int) -> str:
    return f"{digits(size / 1e9)} GB"


def make_samplers(case: Case, device: Device, streams: Mapping[str, Stream]) -> dict[str, Sampler]:
    """What each case is sampled by turns with: the streams, and the step of a single element, which a call costs."""
    smallest = make_step(replace(case, workload=uniform(1, 1)), device.xp)
    return {CALL: device.sampler(smallest), **{name: device.sampler(stream.run) for name, stream in streams.items()}}


def take(
    case: Case, device: Device, samplers: Mapping[str, Sampler], seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Interleaved samples of a case and of the others, for so many seconds."""
    step = device.sampler(make_step(case, device.xp))
    end = time.perf_counter() + seconds
    return interleave({"step": step, **samplers}, MOST_SAMPLES, lambda: time.perf_counter() < end)


def figures(case: Case, cache: int, samples: Samples, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """What the samples of a case come to."""
    steps = samples["step"]
    rates = [case.moved / one["seconds"] for one in steps]
    given = {name: [stream.moved / one["seconds"] for one in samples[name]] for name, stream in streams.items()}
    limit = max(given, key=lambda name: median(given[name]))
    return {
        "case": case.workload.name,
        "title": case.title,
        "recipe": case.recipe,
        "tensors": len(case.workload.shapes),
        "elements": case.workload.elements,
        "bytes_moved": case.moved,
        "bytes_held": case.held,
        "in_cache": case.held < 2 * cache,
        **{what: quantiles([one[what] for one in steps]) for what in steps[0]},
        "elements_per_second": quantiles([case.workload.elements / one["seconds"] for one in steps]),
        "bytes_per_second": quantiles(rates),
        "memory_bytes_per_second": {name: quantiles(found) for name, found in given.items()},
        "limit": limit,
        "part_of_limit": ratios(rates, given[limit]),
    }

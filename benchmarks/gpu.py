"""A step on a GPU: the bandwidth it reaches, against copies, PyTorch, optax, CuPy's kernels; and its cost to the host.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --show benchmarks/results/gpu.json

All contenders of a case step the same parameters with the same gradients, sample after sample by turns; medians are
told. A sample takes each step between two CUDA events, with the L2 cache emptied before it, by reading an array of four
times its size; then as many steps in a row. So there are the time of the device with nothing in the cache, the time
until the host may go on, and the time on the wall of a step in a row. A CUDA graph that is replayed shows what is left
without the host. The bytes of a step are counted from what it must read and write; the copies are measured in turn with
the steps.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import cupy
from gpu_cases import CASES, Case
from gpu_contenders import absence, makers_of
from gpu_memory import free_memory, watched
from gpu_tables import print_result

from gpuadam import cuda
from gpuadam.bandwidth import Stream
from gpuadam.device_bandwidth import device_streams, flusher, l2_bytes
from gpuadam.device_samples import device_sampler
from gpuadam.machine import machine
from gpuadam.samples import interleave, quantiles, ratios

ARRAY = 2**30  # bytes of each array of the streams
SPARE = 3 * 2**30  # bytes of device memory to leave alone
COPIES = ("copy", "copy kernel")
UNSEEN = ("optax",)  # whose memory is in no pool that is asked
MOST_SAMPLES = 101
WHAT = ("seconds", "host_seconds", "wall_seconds")
QUERY = "name,driver_version,pstate,clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
METHOD = {
    "samples": "interleaved; each the mean of some steps, after steps that are not counted",
    "seconds": "between CUDA events around each step; before it the L2 cache is emptied by reading four times its size",
    "host_seconds": "until the host may go on",
    "wall_seconds": "of a step in an unbroken row, until all is done; optax, whose streams are XLA's, has this alone",
    "ratio": "quantiles of the ratios of paired samples of `seconds`, to gpuadam's; wall_ratio: of `wall_seconds`",
    "memory": "bytes by the pools' statistics: what making a contender and its first steps left, and took beside that",
}
Samples = dict[str, list[dict[str, float]]]


def describe_machine() -> dict[str, Any]:
    device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    about = {
        "device": device["name"].decode(),
        "device_bytes": device["totalGlobalMem"],
        "multiprocessors": device["multiProcessorCount"],
        "l2_bytes": l2_bytes(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }
    return {**machine(), **about}


def device_state() -> str:
    """Clocks, power and temperature as the driver tells them."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"


class Bench:
    """What all cases are measured with.

    Args:
        seconds: For the samples of a case.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.flush = seconds, flusher()
        self.streams = device_streams(max(ARRAY, 4 * l2_bytes()))
        self._stream_samplers = {name: device_sampler(stream.run) for name, stream in self.streams.items()}

    def memory(self, repeats: int = 20) -> dict[str, Any]:
        """Bytes a second of each stream."""
        found = interleave(self._stream_samplers, repeats)
        return {name: quantiles(rates(self.streams[name], samples)) for name, samples in found.items()}

    def measure(self, case: Case) -> dict[str, Any]:
        """All that is told of a case."""
        failures: dict[str, str] = {}
        samplers, memory = {}, {}
        for name, make in makers_of(case, partial(device_sampler, flush=self.flush)).items():
            try:
                samplers[name], taken = watched(make)
                memory |= {name: taken} if name not in UNSEEN else {}
            except Exception as error:  # one contender that fails must not cost the figures of the others
                failures[name] = f"{type(error).__name__}: {error}"
        samplers |= {name: self._stream_samplers[name] for name in COPIES}
        end = time.perf_counter() + self.seconds
        samples = interleave(samplers, MOST_SAMPLES, lambda: time.perf_counter() < end)
        return {**about(case), **figures(case, samples, self.streams), "memory": memory, "failures": failures}


def rates(stream: Stream, samples: list[dict[str, float]]) -> list[float]:
    return [stream.moved / sample["seconds"] for sample in samples]


def about(case: Case) -> dict[str, Any]:
    elements = case.workload.elements
    return {
        "case": case.name,
        "title": case.title,
        "dtype": case.dtype,
        "recipe": case.recipe,
        "groups": case.workload.groups,
        "tensors": len(case.workload.shapes),
        "elements": elements,
        "bytes_moved": case.moved,
        "bytes_an_element": case.moved / elements,
    }


def figures(case: Case, samples: Samples, streams: dict[str, Stream]) -> dict[str, Any]:
    """What the samples of a case come to."""
    copies = {name: rates(streams[name], samples.pop(name)) for name in COPIES}
    found: dict[str, Any] = {}
    for what in WHAT:
        own = {name: [one[what] for one in taken] for name, taken in samples.items() if what in taken[0]}
        found[what] = {name: quantiles(times) for name, times in own.items()}
        if "gpuadam" in own and what != "host_seconds":
            ours = own.pop("gpuadam")
            found[what.replace("seconds", "ratio")] = {name: ratios(times, ours) for name, times in own.items()}
    best = max(copies, key=lambda name: quantiles(copies[name])["median"])
    ours = {name: [case.moved / one["seconds"] for one in samples[name]] for name in samples if "gpuadam" in name}
    return {
        **found,
        "bytes_per_second": {name: quantiles(own) for name, own in ours.items()},
        "memory_bytes_per_second": {name: quantiles(own) for name, own in copies.items()},
        "limit": best,
        "part_of_limit": {name: ratios(own, copies[best]) for name, own in ours.items()},
    }


def room() -> int:
    """Bytes of device memory for a case."""
    return int(cupy.cuda.runtime.memGetInfo()[0]) - SPARE


def measure(cases: list[Case], arguments: argparse.Namespace) -> dict[str, Any]:
    """All cases; figures are saved after each, so that a run that is cut off leaves what it has."""
    begin = time.perf_counter()
    result: dict[str, Any] = {"benchmark": "step on a GPU", "machine": describe_machine(), "method": METHOD}
    result |= {"state_before": device_state(), "cases": [], "left_out": {}, "broken": {}}
    bench = Bench(arguments.seconds)
    result["memory"] = bench.memory()
    result["absent"] = {name: why for case in cases for name in case.contenders if (why := absence(name))}
    for case in cases:
        if time.perf_counter() - begin > arguments.limit:
            result["left_out"][case.name] = f"the limit of {arguments.limit:g} s was reached"
        else:
            measure_one(bench, case, result)
        result["seconds"] = time.perf_counter() - begin
        save(result, arguments.json)
    result["state_after"] = device_state()
    save(result, arguments.json)
    return result


def measure_one(bench: Bench, case: Case, result: dict[str, Any]) -> None:
    free_memory()
    most = room()
    fitting = case.within(most)
    if fitting.needed > most:
        needed = f"it needs {fitting.needed / 1e9:.1f} GB of device memory, there is room for {most / 1e9:.1f}"
        result["left_out"][case.name] = needed
        return
    begin = time.perf_counter()
    try:
        found = bench.measure(fitting)
    except Exception as error:  # the other cases are worth having
        result["broken"][case.name] = f"{type(error).__name__}: {error}"
        return
    result["cases"].append({**found, "seconds_taken": time.perf_counter() - begin})
    print(f"{case.title}: {found['seconds'].get('gpuadam', {}).get('median', 0) * 1e6:,.1f} us", flush=True)


def save(result: dict[str, Any], path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="parts of the names of the cases wanted, with semicolons between")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for the samples of a case (default 2)")
    parser.add_argument("--limit", type=float, default=360.0, help="seconds after which no case is begun (default 360)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing; print the tables of this file")
    arguments = parser.parse_args()
    arguments.parts = [part.strip() for part in arguments.cases.split(";")]
    for part in arguments.parts:
        if not any(part in case.name for case in CASES):
            parser.error(f"argument --cases: there is no case with {part!r} in its name")
    return arguments


def main() -> int:
    arguments = read_arguments()
    if arguments.show:
        print_result(json.loads(arguments.show.read_text()))
        return 0
    reason = cuda.unavailable_reason()
    if reason:
        print(f"nothing to measure: {reason}")
        return 1
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or JAX would take most of the memory
    wanted = [case for case in CASES if any(part in case.name for part in arguments.parts)]
    result = measure(wanted, arguments)
    print_result(result)
    return 1 if result["broken"] or any(case["failures"] for case in result["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())

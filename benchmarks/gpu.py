"""A step on a GPU: the memory bandwidth it reaches, against a copy and PyTorch's fused step; and its cost to the host.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json

Every sample is a batch of steps between two CUDA events; samples of all contenders are interleaved, and medians of at
least 20 are told. AdamW in float32 moves 28 bytes an element: it reads parameter, gradient and two moments, and writes
all but the gradient. The copy, from device to device, moves as many bytes, half read and half written. Where the arrays
of one optimizer would fit into the L2 cache, a single tensor is stepped by several optimizers in turn; cases of many
small tensors are marked "in L2".
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from gpu_contenders import CASES, Case, l2_bytes, makers_of, torch_reason

from gpuadam import cuda
from gpuadam.figures import digits, duration, print_table
from gpuadam.machine import machine
from gpuadam.samples import interleave, quantiles, ratios

BATCH = 4e-3  # seconds that a batch is to take
MOST_STEPS = 60  # of a batch: more would fill the queue of launches


def sampler(step: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    """A function that takes one sample: seconds of a step to the device, to the host, and until all is done."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    null = cupy.cuda.Stream.null

    def run(steps: int) -> dict[str, float]:
        step()
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        begin.record(null)
        for _ in range(steps):
            step()
        end.record(null)
        enqueued = time.perf_counter()
        end.synchronize()
        done = time.perf_counter()
        device = cupy.cuda.get_elapsed_time(begin, end) / 1e3
        found = {"device": device, "host": enqueued - start, "wall": done - start}
        return {name: seconds / steps for name, seconds in found.items()}

    for _ in range(3):
        run(2)
    steps = int(min(MOST_STEPS, max(2, BATCH / max(run(5)["wall"], 1e-7))))
    return lambda: run(steps)


def made(makers: dict[str, Callable[[], Any]], failures: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Samplers of all that can be made and run; the reasons of the others are noted."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = sampler(make())
        except Exception as error:  # one contender that fails must not cost the figures of the others
            failures[name] = f"{type(error).__name__}: {error}"
    return found


def measure_case(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    failures: dict[str, str] = {}
    samplers = made(makers_of(case), failures)
    end = time.perf_counter() + arguments.seconds
    samples = interleave(samplers, arguments.repeats, lambda: time.perf_counter() < end)
    result: dict[str, Any] = {"case": case.name, "rule": case.rule, "dtype": np.dtype(case.dtype).name}
    result |= {"tensors": len(case.shapes), "elements": case.elements, "bytes_moved": case.moved, "failures": failures}
    result |= {"sets_in_turn": case.sets, "in_l2": case.sets * case.held < 2 * l2_bytes()}
    for what in ("device", "host", "wall"):
        result[f"{what}_seconds"] = {name: quantiles([s[what] for s in found]) for name, found in samples.items()}
    device = {name: [s["device"] for s in found] for name, found in samples.items()}
    result["bytes_per_second"] = {name: quantiles([case.moved / s for s in found]) for name, found in device.items()}
    if "copy" in device:
        result["part_of_copy"] = {name: ratios(device["copy"], found) for name, found in device.items()}
    if {"torch", "gpuadam"} <= set(device):
        result["speedup_over_torch"] = ratios(device["torch"], device["gpuadam"])
    return result


def free_memory() -> None:
    """Give back what the last case held."""
    gc.collect()
    cupy.cuda.Device().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


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


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All cases; figures are saved after each, so that a run that is cut off leaves what it has."""
    begin = time.perf_counter()
    result: dict[str, Any] = {"benchmark": "step on a GPU", "machine": describe_machine(), "cases": [], "left_out": {}}
    result["torch"] = torch_reason() or "compared"
    for case in CASES:
        if not any(part in case.name for part in arguments.cases.split(",")):
            continue
        free_memory()
        free = cupy.cuda.runtime.memGetInfo()[0]
        if time.perf_counter() - begin > arguments.limit:
            result["left_out"][case.name] = f"the limit of {arguments.limit:g} s was reached"
        elif case.needed > free:
            result["left_out"][case.name] = f"it needs {case.needed} bytes of device memory, {free} are free"
        else:
            try:
                result["cases"].append(measure_case(case, arguments))
            except Exception as error:  # the other cases are worth having
                result["left_out"][case.name] = f"{type(error).__name__}: {error}"
        result["seconds"] = time.perf_counter() - begin
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def median(case: dict[str, Any], what: str, name: str, show: Callable[[float], str]) -> str:
    """One figure of a case, or nothing where the contender is not there."""
    found = case.get(what, {}).get(name)
    return show(found["median"]) if found else ""


def bandwidth_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["case", "copy GB/s", "gpuadam GB/s", "of the copy", "torch GB/s", "of the copy", "speed-up"]
    rows = []
    for case in result["cases"]:
        row = [case["case"] + (" (in L2)" if case["in_l2"] else ""), bandwidth(case, "copy")]
        for name in ("gpuadam", "torch"):
            row += [bandwidth(case, name), median(case, "part_of_copy", name, lambda part: f"{100 * part:.1f} %")]
        speedup = case.get("speedup_over_torch")
        rows.append([*row, f"{digits(speedup['median'])} x" if speedup else ""])
    return header, rows


def bandwidth(case: dict[str, Any], name: str) -> str:
    return median(case, "bytes_per_second", name, lambda rate: f"{rate / 1e9:,.0f}")


def time_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Time of a step: until all is done, and (in brackets) until the host may go on."""
    names = ["gpuadam", "gpuadam, graph", "gpuadam, torch tensors", "torch", "torch, graph"]
    rows = []
    for case in result["cases"]:
        row = [case["case"]]
        for name in names:
            wall = median(case, "wall_seconds", name, duration)
            row.append(f"{wall} ({median(case, 'host_seconds', name, duration)})" if wall else "")
        rows.append(row)
    return ["wall time of a step (host)", *names], rows


def print_result(result: dict[str, Any]) -> None:
    about = result["machine"]
    print(f"{about['device']}, {about['packages']}, {about['date']}; torch: {result['torch']}")
    if result["cases"]:
        print_table("Bandwidth", *bandwidth_table(result))
        print_table("Time", *time_table(result))
    for case in result["cases"]:
        for name, reason in case["failures"].items():
            print(f"{case['case']}: {name} failed: {reason[:200]}")
    for name, reason in result["left_out"].items():
        print(f"{name} was left out: {reason[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="parts of the names of the cases wanted, with commas between")
    parser.add_argument("--repeats", type=int, default=30, help="samples of each contender (default 30)")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for the samples of a case (default 8)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which no case is begun (default 120)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    reason = cuda.unavailable_reason()
    if reason:
        print(f"nothing to measure: {reason}")
        return 1
    result = measure(arguments)
    print_result(result)
    is_complete = not result["left_out"] and not any(case["failures"] for case in result["cases"])
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())

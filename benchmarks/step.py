"""A step on the CPU, float32, gradients bound, against PyTorch's fused one; and how long gpuadam takes to start.

    python benchmarks/step.py --json benchmarks/results/step-cpu.json
    python benchmarks/step.py --markdown benchmarks/results/step-cpu.json

Samples are interleaved (A B A B ...); a sample is the mean of as many steps as take some milliseconds, after one that
is not counted. Each contender lives in a process of its own, as two pools of threads in one would get in each other's
way. A speed-up is the median of PyTorch's time over ours, pair by pair.
"""

import argparse
import importlib.util
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from measure import CASES as COMMON

import gpuadam
from gpuadam import schedules
from gpuadam.figures import digits, duration, markdown_table, print_table
from gpuadam.first_use import COLD, IMPORT, WARM, measure_first_use
from gpuadam.machine import count_cores, machine
from gpuadam.samples import interleave, quantiles, ratios, sampler
from gpuadam.workloads import Shape

CASES = [*COMMON, "schedule", "startup"]
OURS = {"adamw": gpuadam.AdamW, "adam": gpuadam.Adam, "rmsprop": gpuadam.RMSprop}
THEIRS = {"adamw": "AdamW(fused=True)", "adam": "Adam(fused=True)", "rmsprop": "RMSprop(), which has no fused form"}
TARGETS = {"step": 15e-6, IMPORT: 0.5, COLD: 10.0, WARM: 0.5}


def random_arrays(shapes: Sequence[Shape], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, np.float32) for shape in shapes]


def make_ours(rule: str, shapes: Sequence[Shape], **settings: Any) -> Callable[[], None]:
    optimizer = OURS[rule](random_arrays(shapes, 1), **settings)
    optimizer.bind(random_arrays(shapes, 2))
    return optimizer.step


def make_scheduled(shapes: Sequence[Shape]) -> Callable[[], None]:
    """AdamW with schedules for lr and weight decay."""
    lr = schedules.warmup_cosine_decay(0.0, 1e-3, 1_000, 1_000_000)
    return make_ours("adamw", shapes, lr=lr, weight_decay=schedules.cosine_decay(1e-4, 1_000_000), decay="scheduled")


def make_torch(rule: str, shapes: Sequence[Shape]) -> Callable[[], Any]:
    import torch

    params = [torch.from_numpy(array).requires_grad_() for array in random_arrays(shapes, 1)]
    for param, grad in zip(params, random_arrays(shapes, 2), strict=True):
        param.grad = torch.from_numpy(grad)
    makers = {
        "adamw": lambda: torch.optim.AdamW(params, fused=True),
        "adam": lambda: torch.optim.Adam(params, fused=True),
        "rmsprop": lambda: torch.optim.RMSprop(params),
    }
    return makers[rule]().step  # type: ignore[no-any-return]


def serve(connection: Connection, set_threads: Callable[[int], None], threads: int, make: Any, *arguments: Any) -> None:
    """Take a sample whenever asked. Runs in a process of its own."""
    set_threads(threads)
    sample = sampler(make(*arguments))
    connection.send(None)
    while connection.recv():
        connection.send(sample())


def set_our_threads(threads: int) -> None:
    import numba

    numba.set_num_threads(threads)


def set_torch_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def compare(contenders: dict[str, tuple[Any, ...]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Interleaved samples of some steps, as quantiles, and the ratio of each to the first."""
    context = multiprocessing.get_context("spawn")
    ends, processes = {}, []
    for name, (set_threads, *making) in contenders.items():
        ends[name], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(other, set_threads, arguments.threads, *making)))
        processes[-1].start()
        other.close()
        ends[name].recv()

    def ask(end: Connection) -> float:
        end.send(True)
        return float(end.recv())

    last = time.perf_counter() + arguments.seconds
    samplers = {name: partial(ask, end) for name, end in ends.items()}
    found = interleave(samplers, arguments.repeats, lambda: time.perf_counter() < last)
    for end, process in zip(ends.values(), processes, strict=True):
        end.send(False)
        process.join()
    first, *others = found
    return {
        "seconds": {name: quantiles(samples) for name, samples in found.items()},
        "ratio": {name: ratios(found[name], found[first]) for name in others},
    }


def measure_case(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    work = COMMON[name]
    contenders: dict[str, tuple[Any, ...]] = {"gpuadam": (set_our_threads, make_ours, arguments.rule, work.shapes)}
    if has_torch():
        contenders["torch"] = (set_torch_threads, make_torch, arguments.rule, work.shapes)
    about = {"case": name, "tensors": len(work.shapes), "elements": work.elements}
    return {**about, **compare(contenders, arguments)}


def measure_schedule(arguments: argparse.Namespace) -> dict[str, Any]:
    """What it costs that lr and weight decay are schedules."""
    shapes = COMMON["1000"].shapes
    contenders = {
        "numbers": (set_our_threads, make_ours, "adamw", shapes),
        "schedules": (set_our_threads, make_scheduled, shapes),
    }
    return compare(contenders, arguments)


def measure_startup(arguments: argparse.Namespace) -> dict[str, Any]:
    repeats = min(arguments.repeats, 7)
    found = measure_first_use(min(repeats, 3), repeats)
    return {name: quantiles(samples) for name, samples in found.items()}


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "step on the CPU", "machine": machine()}
    result["method"] = {
        "rule": arguments.rule,
        "dtype": "float32",
        "threads": arguments.threads,
        "against": f"torch.optim.{THEIRS[arguments.rule]}" if has_torch() else None,
        "samples": "interleaved; each the mean of some steps, after one that is not counted; a process for each",
        "ratio": "quantiles of the ratios of paired samples, to the first of the case",
    }
    result["cases"] = [measure_case(name, arguments) for name in COMMON if name in arguments.cases]
    if "schedule" in arguments.cases:
        result["schedule"] = measure_schedule(arguments)
    if "startup" in arguments.cases:
        result["startup"] = measure_startup(arguments)
    return result


def spread(found: dict[str, float]) -> str:
    return f"{duration(found['median'])} ({duration(found['p25'])} to {duration(found['p75'])})"


def step_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    with_torch = result["method"]["against"] is not None
    header = ["case", "gpuadam: median (middle half)", *(["PyTorch", "speed-up"] if with_torch else [])]
    rows = []
    for case in result["cases"]:
        row = [COMMON[case["case"]].title, spread(case["seconds"]["gpuadam"])]
        if with_torch:
            row += [spread(case["seconds"]["torch"]), f"{digits(case['ratio']['torch']['median'])} x"]
        rows.append(row)
    return header, rows


def other_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [[name, spread(found), f"< {duration(TARGETS[name])}"] for name, found in result.get("startup", {}).items()]
    small = {case["case"]: case["seconds"]["gpuadam"] for case in result["cases"]}.get("1000")
    rows += [["step, 1,000 elements", spread(small), f"< {duration(TARGETS['step'])}"]] if small else []
    scheduled = result.get("schedule", {}).get("seconds", {})
    rows += [[f"the same, lr and decay are {name}", spread(found), ""] for name, found in scheduled.items()]
    return ["what", "median (middle half)", "target"], rows


def describe(result: dict[str, Any]) -> str:
    about, method = result["machine"], result["method"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    against = method["against"] or "PyTorch is not installed, so there is nothing to compare with"
    return (
        f"{method['rule']}, float32, threads: {method['threads']}; {about['processor']}, {about['cores']} cores, "
        f"load {about['load_average_before']:.1f}; Python {about['python']}, {packages}; {about['date']}. "
        f"Against: {against}."
    )


def as_markdown(result: dict[str, Any]) -> str:
    tables = [markdown_table(*table(result)) for table in (step_table, other_table)]
    return "\n\n".join([describe(result), *tables])


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--rule", choices=OURS, default="adamw")
    parser.add_argument("--repeats", type=int, default=101, help="samples of each, at most (default 101)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for a case (default 20)")
    parser.add_argument("--threads", type=int, default=count_cores(), help="of both (default all)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="measure nothing; print the tables of this file")
    arguments = parser.parse_args()
    arguments.cases = arguments.cases.split(",")
    unknown = sorted(set(arguments.cases) - set(CASES))
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    return arguments


def main() -> None:
    arguments = read_arguments()
    if arguments.markdown:
        print(as_markdown(json.loads(arguments.markdown.read_text())))
        return
    result = measure(arguments)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(describe(result))
    if result["cases"]:
        print_table("Time of a step", *step_table(result))
    print_table("Overhead and start", *other_table(result))


if __name__ == "__main__":
    main()

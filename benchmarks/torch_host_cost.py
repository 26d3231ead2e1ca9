"""What a step of many small tensors costs the host, in PyTorch: gpuadam.torch against torch.optim, on the CPU.

    python benchmarks/torch_host_cost.py --json benchmarks/results/torch-host-cost.json
    python benchmarks/torch_host_cost.py --counts 1000 --cases still moving
    python benchmarks/torch_host_cost.py --markdown benchmarks/results/torch-host-cost.json

The tensors have 16 elements each, so nearly all of it is bookkeeping: what a trainer on a GPU waits for, too, between
the launches.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cpu_workers import Step, Workers

from gpuadam.figures import digits, markdown_table, print_table
from gpuadam.machine import machine
from gpuadam.samples import interleave, quantiles

COUNTS = (10, 100, 1000, 10_000)
ELEMENTS = 16
CASES = {
    "still": "gradients stay where they are",
    "scheduled": "the same, and group['lr'] is written before each step",
    "moving": "zero_grad() and a backward before each step",
}
CONTENDERS = {
    "gpuadam": "gpuadam.torch.AdamW(...)",
    "flat": "gpuadam.torch.AdamW(..., flat_grads=True)",
    "fused": "torch.optim.AdamW(..., fused=True)",
    "foreach": "torch.optim.AdamW(..., foreach=True)",
    "nothing": "no optimizer, gradients set to None",
}


def make_optimizer(name: str, params: list[Any]) -> Any:
    import torch

    if name in ("fused", "foreach"):
        return torch.optim.AdamW(params, lr=1e-3, **{name: True})
    from gpuadam.torch import AdamW

    return AdamW(params, lr=1e-3, flat_grads=name == "flat")


def make(name: str, case: str, count: int) -> Callable[[], None]:
    """One step of a case."""
    import torch

    params = [torch.nn.Parameter(torch.full((ELEMENTS,), float(i))) for i in range(count)]
    backward = backward_of(params)
    if name == "nothing":

        def forget_and_go_back() -> None:
            for param in params:
                param.grad = None
            backward()

        return forget_and_go_back
    optimizer = make_optimizer(name, params)
    backward()
    return {"still": lambda: optimizer.step, "scheduled": lambda: scheduled(optimizer)}.get(
        case, lambda: moving(optimizer, backward)
    )()


def backward_of(params: list[Any]) -> Callable[[], None]:
    import torch

    return lambda: torch.cat(params).square().sum().backward()


def made(name: str, case: str, count: int) -> Step:
    return Step(make(name, case, count))


def scheduled(optimizer: Any) -> Callable[[], None]:
    group = optimizer.param_groups[0]

    def step() -> None:
        group["lr"] *= 0.999_999
        optimizer.step()

    return step


def moving(optimizer: Any, backward: Callable[[], None]) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        backward()
        optimizer.step()

    return step


def measure_case(case: str, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in CONTENDERS if name != "nothing" or case == "moving"]
    with Workers() as workers:
        failures = workers.make({name: partial(made, name, case, count) for name in names})
        end = time.perf_counter() + arguments.seconds
        samplers = {name: workers.sampler(name) for name in names if name not in failures}
        found = interleave(samplers, arguments.repeats, lambda: time.perf_counter() < end)
    times = {name: quantiles(samples) for name, samples in found.items()}
    return {"case": case, "tensors": count, "elements": ELEMENTS * count, "seconds": times, "failures": failures}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": "host time of a step of many small tensors in PyTorch, on the CPU",
        "machine": machine(),
        "method": {
            "dtype": "float32",
            "threads": arguments.threads,
            "elements_a_tensor": ELEMENTS,
            "contenders": CONTENDERS,
            "cases": CASES,
            "samples": "interleaved; each the mean of some steps, after one that is not counted; a process for each",
        },
        "cases": [measure_case(case, count, arguments) for case in arguments.cases for count in arguments.counts],
    }


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for case in result["cases"]:
        medians = {name: 1e6 * found["median"] for name, found in case["seconds"].items()}
        cells = [digits(medians[name]) if name in medians else "" for name in CONTENDERS]
        rows.append([case["case"], f"{case['tensors']:,}", *cells])
    return ["case", "tensors", *(f"{name}, us" for name in CONTENDERS)], rows


def describe(result: dict[str, Any]) -> str:
    about, method = result["machine"], result["method"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    cases = "; ".join(f"{name}: {text}" for name, text in method["cases"].items())
    return (
        f"AdamW, float32, {method['elements_a_tensor']} elements a tensor, threads: {method['threads']}; "
        f"{about['processor']}, {about['cores']} cores, load {about['load_average_before']:.1f}; "
        f"Python {about['python']}, {packages}; {about['date']}. Medians. {cases}."
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, metavar="COUNT", help="of tensors")
    parser.add_argument("--repeats", type=int, default=51, help="samples of each, at most (default 51)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for a case (default 10)")
    parser.add_argument("--threads", type=int, default=1, help="of all (default 1)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="measure nothing; print the table of this file")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    if arguments.markdown:
        result = json.loads(arguments.markdown.read_text())
        print(describe(result), markdown_table(*table(result)), sep="\n\n")
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])  # processes inherit it
    result = measure(arguments)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(describe(result))
    print_table("Host time of a step", *table(result))


if __name__ == "__main__":
    main()

"""A whole training step's update on the CPU: clip by the global norm, AdamW, average of the weights; against PyTorch's.

    python benchmarks/recipe.py --json benchmarks/results/recipe-cpu.json
    python benchmarks/recipe.py --only torch                                 # one contender alone
    python benchmarks/recipe.py --markdown benchmarks/results/recipe-cpu.json

Both sides do all of the work in every step, and neither refills its gradients. Ours leaves them as they are, so their
norm stays far above the threshold. PyTorch's `clip_grad_norm_` scales them in place, to the threshold in the first
step; after that its factor is 1, by which it multiplies all the same, as it has no branch.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from measure import CASES as COMMON
from measure import add_output_options, measure_and_tell
from step import compare, has_torch, random_arrays, set_our_threads, set_torch_threads, spread

import gpuadam
from gpuadam.figures import digits
from gpuadam.machine import count_cores, machine
from gpuadam.workloads import Shape

CASES = ("resnet50", "1000x1000")
LR, CLIP_NORM, EMA_DECAY = 1e-3, 1.0, 0.999
NAMES = {"gpuadam": "gpuadam", "torch": "PyTorch"}
# What must be read and written of an element, in passes: the norm of the gradients, their scaling in place, AdamW
# (reads parameter, gradient, two moments; writes parameter and moments), the average.
BYTES = {"gpuadam": 4 + 0 + 28 + 8, "torch": 4 + 8 + 28 + 12}


def make_ours(shapes: Sequence[Shape]) -> Callable[[], None]:
    optimizer = gpuadam.AdamW(random_arrays(shapes, 1), lr=LR, clip_norm=CLIP_NORM, ema_decay=EMA_DECAY)
    optimizer.bind(random_arrays(shapes, 2))
    return optimizer.step


def make_torch(shapes: Sequence[Shape]) -> Callable[[], None]:
    import torch

    params = [torch.from_numpy(array).requires_grad_() for array in random_arrays(shapes, 1)]
    for param, grad in zip(params, random_arrays(shapes, 2), strict=True):
        param.grad = torch.from_numpy(grad)
    averages = [param.detach().clone() for param in params]
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(params, CLIP_NORM)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, params, 1 - EMA_DECAY)

    return step


def measure_case(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    work = COMMON[name]
    contenders = {
        "gpuadam": (set_our_threads, make_ours, work.shapes),
        "torch": (set_torch_threads, make_torch, work.shapes),
    }
    taken = {name: contenders[name] for name in arguments.contenders}
    about = {"case": name, "tensors": len(work.shapes), "elements": work.elements}
    return {**about, **compare(taken, arguments)}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": "clip by the global norm, AdamW and an average of the weights, on the CPU",
        "machine": machine(),
        "method": {
            "dtype": "float32",
            "threads": arguments.threads,
            "contenders": {
                "gpuadam": f"AdamW(clip_norm={CLIP_NORM}, ema_decay={EMA_DECAY})",
                "torch": f"clip_grad_norm_({CLIP_NORM}), AdamW(fused=True), _foreach_lerp_ by 1 - {EMA_DECAY}",
            },
            "bytes_an_element": BYTES,
            "samples": "interleaved; each the mean of some steps, after one that is not counted; a process for each",
            "ratio": "quantiles of the ratios of paired samples, to the first of the case",
        },
        "cases": [measure_case(name, arguments) for name in arguments.cases],
    }


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    measured = list(result["cases"][0]["seconds"])
    both = len(measured) == len(NAMES)
    rows = []
    for case in result["cases"]:
        row = [COMMON[case["case"]].title, *(spread(case["seconds"][name]) for name in measured)]
        rows.append([*row, *([f"{digits(case['ratio']['torch']['median'])} x"] if both else [])])
    return [
        "case",
        *(f"{NAMES[name]}: median (middle half)" for name in measured),
        *(["speed-up"] if both else []),
    ], rows


def describe(result: dict[str, Any]) -> str:
    about, method = result["machine"], result["method"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    return (
        f"float32, threads: {method['threads']}; {about['processor']}, {about['cores']} cores, "
        f"load {about['load_average_before']:.1f}; Python {about['python']}, {packages}; {about['date']}. "
        f"Against: {method['contenders']['torch']}."
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--only", choices=NAMES, help="measure this contender alone")
    parser.add_argument("--repeats", type=int, default=101, help="samples of each, at most (default 101)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for a case (default 20)")
    parser.add_argument("--threads", type=int, default=count_cores(), help="of both (default all)")
    add_output_options(parser)
    arguments = parser.parse_args()
    arguments.contenders = [arguments.only] if arguments.only else ["gpuadam", *(["torch"] if has_torch() else [])]
    return arguments


def main() -> None:
    measure_and_tell(read_arguments(), measure, describe, table, "Time of a clipped and averaged step")


if __name__ == "__main__":
    main()

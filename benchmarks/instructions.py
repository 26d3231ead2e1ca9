"""Instructions an element in the main loop of every kernel, from its machine code: no GPU is needed.

    python benchmarks/instructions.py [--architectures 90,120] [--json FILE]
    python benchmarks/instructions.py --cpu [--json FILE]
    python benchmarks/instructions.py --markdown FILE

With --cpu of the loops that Numba makes for this processor; cpu_code.py says how.

Budget. A step is to be limited by memory alone, so an element may take no more instructions than can be issued while
its bytes move. An H200 (NVIDIA's data sheet: 4.8 TB/s, 67 TFLOPS in float32, which are 33.5e12 fused multiply-adds, one
for each lane that it issues to) issues 6.98 instructions a byte: 195 for an element of AdamW in float32, which moves 28
bytes, 112 for one with states of 8 bits, which moves 16. Other units are slower than the issue: an SM has fewer lanes
for special functions, 64-bit conversions, shared memory and so on ("Arithmetic Instructions" in the CUDA C++
Programming Guide, compute capability 9.0), and such an instruction counts as many slots as it keeps its unit busy. The
load is that of the busiest unit. LIMIT leaves a quarter to latency and to a clock below the highest.

Counted is the way through the loop that lanes take together where every number is an ordinary one. The slow paths of
divisions and square roots (zeros and numbers near the ends of the range) are calls out of it; they are listed apart.
Bank conflicts of shared memory are not in the counts.
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cpu_code
import sass

from gpuadam import (
    adam_rules,
    adam_variant_rules,
    adaptive_rules,
    l1_rules,
    layerwise_rules,
    momentum_rules,
    nvrtc,
    schedule_free_rules,
    sign_rules,
)
from gpuadam.figures import markdown_table, print_table
from gpuadam.formats import BLOCK8, COMPANION_STORAGE, FORMATS, Specialisation, is_8_bit
from gpuadam.machine import machine
from gpuadam.rules import Rule

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
BANDWIDTH = 4.8e12  # bytes a second of an H200
ISSUED = 67e12 / 2  # instructions a second, of all lanes
LIMIT = 0.75
# Slots of the issue that an instruction keeps a unit busy: 128 lanes a clock, over those of the unit in an SM of sm_90.
UNITS: dict[str, dict[str, int]] = {
    "issue": dict.fromkeys(sass.CLASSES, 1),
    "integers and comparisons": {"integer": 2, "float compare": 2},  # 64 lanes
    "special functions": {"special function": 8, "64-bit conversion": 8},  # 16 lanes
    "double": {"double": 2},  # 64 lanes
    "shared memory": {"shared memory": 4, "shuffle": 4},  # 32 lanes
}
MODULES = (
    *(adam_rules, momentum_rules, l1_rules, adam_variant_rules),
    *(adaptive_rules, sign_rules, layerwise_rules, schedule_free_rules),
)
RULES = {rule.name: rule for module in MODULES for rule in vars(module).values() if isinstance(rule, Rule)}
MOMENTS = ("float32", "float32", None)
CODES = ("int8", "uint8", None)


def adamw(param: str = "float32", states: tuple[str | None, ...] = MOMENTS, **modes: Any) -> Specialisation:
    return Specialisation(adam_rules.ADAM, param, param, states, **modes)


STEPS = {
    **{
        name: Specialisation(rule, "float32", "float32", ("float32",) * len(rule.states))
        for name, rule in RULES.items()
    },
    "adamw": adamw(),
    "adamw, ema_decay": adamw(ema=True),
    "adamw, zero_grads": adamw(zero_grads=True),
    "adamw, state_dtype='bfloat16'": adamw(states=("bfloat16", "bfloat16", None)),
    "adamw, state_dtype='int8'": adamw(states=CODES),
    "adamw, bfloat16": adamw("bfloat16"),
    "adamw, bfloat16, remainder": adamw("bfloat16", companion="remainder"),
    "adamw, bfloat16, master": adamw("bfloat16", companion="float32"),
    "adamw, bfloat16, stochastic": adamw("bfloat16", rounding="stochastic"),
    "adamw, float16": adamw("float16"),
    "adamw, float16, master": adamw("float16", companion="float32"),
    "adamw, float64": adamw("float64", ("float64", "float64", None)),
}
NORMS = {f"norms, {name}": form.storage.itemsize for name, form in FORMATS.items()}
OVER = {  # what needs more than the budget, and why
    "adamw, state_dtype='int8'": "each of two states is divided, drawn for, and looked up among lines and values",
    "norms, float16": "a float16 becomes a float32 by six operations, and a double after that",
}


def bytes_of(kind: Specialisation) -> float:
    """Bytes that an element reads and writes."""
    sizes = {name: form.storage.itemsize for name, form in FORMATS.items()}
    states = sum(1 + 4 / BLOCK8 if is_8_bit(form) else sizes[form] for form in kind.states if form)
    companion = COMPANION_STORAGE[kind.companion]
    kept = sizes[kind.param] + states + (companion.itemsize if companion else 0) + kind.ema * sizes[kind.compute]
    return 2 * kept + sizes[kind.grad] * (1 + kind.zero_grads)


def elements_of(kind: Specialisation) -> int:
    """Elements that a lane takes at once, which the bytes that a loop moves must confirm."""
    if any(map(is_8_bit, kind.states)):
        return 8
    forms = [kind.param, kind.grad, *filter(None, kind.states), *([kind.compute] if kind.ema else [])]
    widest = max(FORMATS[form].storage.itemsize for form in forms)
    return 16 // max(widest, 4 if kind.companion == "float32" else 0)


def record(name: str, architecture: int, loop: sass.Loop, elements: int, bytes_an_element: float) -> dict[str, Any]:
    """What is told of a loop."""
    counts = dict(sorted(loop.counts().items()))
    budget = bytes_an_element * ISSUED / BANDWIDTH
    loads = {unit: sum(slots.get(kind, 0) * counts[kind] for kind in counts) for unit, slots in UNITS.items()}
    busiest = max(loads, key=loads.__getitem__)
    return {
        "kernel": name,
        "architecture": architecture,
        "bytes": bytes_an_element,
        "elements": elements,
        "loaded": loop.bytes_of("global load"),
        "stored": loop.bytes_of("global store"),
        "nested": loop.nested,
        "slow_paths": loop.slow_paths,
        "instructions": counts,
        "per_element": round(sum(counts.values()) / elements, 2),
        "budget": round(budget, 1),
        "busiest": busiest,
        "load": round(loads[busiest] / elements / budget, 3),
    }


def count_step(name: str, architecture: int) -> list[dict[str, Any]]:
    """The main loop of a step."""
    kind = STEPS[name]
    cubin, _ = nvrtc.compile_kernel(nvrtc.step_kernel(kind), architecture)
    text = sass.disassemble(cubin)
    (loop,) = sass.loops_over_granules(text)
    whole = {"registers": sass.registers(text), "spills": sass.spills(text), "shared_bytes": sass.shared_bytes(cubin)}
    return [record(name, architecture, loop, elements_of(kind), bytes_of(kind)) | whole]


def count_norms(architecture: int) -> list[dict[str, Any]]:
    """The loops over gradients of each format, which one kernel has; their lengths tell which is which."""
    cubin, _ = nvrtc.compile_kernel(nvrtc.REDUCE, architecture)
    text = sass.disassemble(cubin)
    loops = sorted(sass.loops_over_granules(text), key=lambda loop: (-loop.bytes_of("global load"), len(loop.code)))
    names = ["norms, float64", "norms, float32", "norms, bfloat16", "norms, float16"]
    whole = {"registers": sass.registers(text), "spills": sass.spills(text), "shared_bytes": sass.shared_bytes(cubin)}
    return [
        record(name, architecture, loop, loop.bytes_of("global load") // NORMS[name], NORMS[name]) | whole
        for name, loop in zip(names, loops, strict=True)
    ]


def count(names: list[str], architectures: list[int]) -> Iterator[dict[str, Any]]:
    """All records: compiling holds no lock of the interpreter."""
    tasks = [(count_step, name, architecture) for architecture in architectures for name in names]
    tasks += [(count_norms, architecture) for architecture in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for records in pool.map(lambda task: task[0](*task[1:]), tasks):
            yield from records


def count_on_gpus(architectures: list[int]) -> dict[str, Any]:
    version = list(nvrtc.load_nvrtc().getVersion())
    records = list(count(list(STEPS), architectures))
    return {"machine": machine(), "nvrtc": version, "limit": LIMIT, "kernels": records}


def table(result: dict[str, Any], architecture: int = 90) -> tuple[list[str], list[list[str]]]:
    """The figures of the architecture that the budget is of."""
    rows = []
    for own in result["kernels"]:
        if own["architecture"] == architecture:
            figures = (f"{own['bytes']:g}", f"{own['per_element']:.1f}", f"{own['budget']:.0f}", f"{own['load']:.0%}")
            rows.append([own["kernel"], *figures, own["busiest"], str(own["registers"])])
    return ["loop", "bytes an element", "instructions an element", "budget", "load", "busiest unit", "registers"], rows


def count_on_the_cpu() -> dict[str, Any]:
    """The loops of the steps in the code for this processor."""
    loops = []
    for name, kind in STEPS.items():
        grad = FORMATS[kind.grad].storage.itemsize
        stored = (bytes_of(kind) - grad * (1 - kind.zero_grads)) / 2
        found = cpu_code.count_sweep(kind, int(stored))
        if found:
            loops.append({"kernel": name, "bytes": bytes_of(kind), **found})
    return {"machine": machine(), "executed": cpu_code.count_executed(), "loops": loops}


def cpu_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [[own["kernel"], f"{own['bytes']:g}", own["vector"], f"{own['per_element']:.1f}"] for own in result["loops"]]
    return ["loop", "bytes an element", "vectors", "instructions an element"], rows


def table_of(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    return table(result) if "kernels" in result else cpu_table(result)


def write(path: Path, result: dict[str, Any]) -> None:
    """A line a record, so that changes show line by line."""
    (name,) = result.keys() & {"kernels", "loops"}
    lines = ",\n".join(f"  {json.dumps(own)}" for own in result[name])
    head = json.dumps({**result, name: []}, indent=1).removesuffix("[]\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}[\n{lines}\n ]\n}}\n")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default=",".join(map(str, ARCHITECTURES)), help="90 is sm_90")
    parser.add_argument("--cpu", action="store_true", help="count the loops of this processor")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="count nothing; print the table of this file")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    if arguments.markdown:
        print(markdown_table(*table_of(json.loads(arguments.markdown.read_text()))))
        return
    architectures = [int(number) for number in arguments.architectures.split(",")]
    result = count_on_the_cpu() if arguments.cpu else count_on_gpus(architectures)
    if arguments.json:
        write(arguments.json, result)
    if arguments.cpu:
        print_table("CPU", *cpu_table(result))
        executed = result["executed"]
        print(f"executed by AdamW, as perf counts them: {executed or 'perf can count none here'}")
        return
    for architecture in architectures:
        print_table(f"sm_{architecture}", *table(result, architecture))


if __name__ == "__main__":
    main()

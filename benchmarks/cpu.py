"""gpuadam's step on the CPU beside its peers', on the same gradients, by turns, and beside what memory gives meanwhile.

    python benchmarks/cpu.py --json benchmarks/results/cpu.json                     # all, about ten minutes
    python benchmarks/cpu.py --cases targets --json benchmarks/results/cpu.json     # what is aimed at, three minutes
    python benchmarks/cpu.py --cases resnet50,10000x128 --contenders gpuadam,torch-fused --quick

What is found is written after each case. `python benchmarks/report.py` makes the tables and pictures of the pages.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cpu_cases import Case, make_sets
from cpu_contenders import Contender, is_missing
from cpu_measure import METHOD, Room, measure_cases
from cpu_memory import is_possible, measure_memory
from cpu_overhead import measure_overhead
from cpu_registry import CONTENDERS, OURS
from cpu_workers import ContenderError, in_new_process

from gpuadam.bench_host import last_level_cache
from gpuadam.cli_types import whole_number
from gpuadam.figures import duration
from gpuadam.first_use import measure_first_use
from gpuadam.machine import count_cores, machine
from gpuadam.samples import quantiles
from gpuadam.workloads import network

Kinds = Mapping[str, type[Contender]]


def overhead(kinds: Kinds, seconds: float) -> Any:
    return in_new_process(partial(measure_overhead, seconds / 5))


def memory(kinds: Kinds, seconds: float) -> Any:
    """Of GPT-2 small, alone and with the whole recipe; each in a process of its own."""
    found = []
    for case in (Case(network("gpt2")), Case(network("gpt2"), recipe="all")) if is_possible() else ():
        row: dict[str, Any] = {"case": case.name, "title": case.workload.title, "recipe": case.recipe, "left_out": {}}
        for name, kind in kinds.items():
            reason = kind.refuses(case) or Room().take(kind, case)
            try:
                row |= {} if reason else {name: in_new_process(partial(measure_memory, kind, case))}
            except ContenderError as error:
                reason = str(error)
            row["left_out"] |= {name: reason} if reason else {}
        found.append(row)
    return found


def first_use(kinds: Kinds, seconds: float) -> Any:
    found = measure_first_use(cold=3 if seconds > 1 else 1, warm=7 if seconds > 1 else 1)
    return {name: quantiles(times) for name, times in found.items()}


OTHERS: dict[str, Callable[[Kinds, float], Any]] = {"overhead": overhead, "memory": memory, "first-use": first_use}


def measure(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """All that was asked for: the name of what has been measured, and all that has been found so far."""
    end = time.perf_counter() + arguments.limit
    kinds = {name: CONTENDERS[name] for name in arguments.contenders if not is_missing(CONTENDERS[name].package)}
    result: dict[str, Any] = {
        "benchmark": "gpuadam and its peers on the CPU",
        "machine": {**machine(), "cache_bytes": last_level_cache()},
        "method": {**METHOD, "seconds_a_case": arguments.seconds},
        "contenders": {name: CONTENDERS[name].title for name in arguments.contenders},
        "missing": {name: is_missing(CONTENDERS[name].package) for name in arguments.contenders if name not in kinds},
        "sets": {name: [case.name for case in cases] for name, cases in arguments.sets.items()},
        "cases": [],
    }
    unfinished = [case.name for case in arguments.asked] + arguments.others
    for found in measure_cases(arguments.asked, kinds, arguments.seconds, end):
        result["cases"].append(found)
        unfinished.remove(found["case"])
        yield found["case"], {**result, "unfinished": unfinished}
    for name in arguments.others:
        if time.perf_counter() < end:
            result[name] = OTHERS[name](kinds, arguments.seconds)
            unfinished.remove(name)
            yield name, {**result, "unfinished": unfinished}


def rounded(found: Any) -> Any:
    """With five digits, which is more than there is to know."""
    if isinstance(found, Mapping):
        return {name: rounded(own) for name, own in found.items()}
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [rounded(own) for own in found]
    return float(f"{found:.5g}") if isinstance(found, float) else found


def summary(name: str, result: dict[str, Any]) -> str:
    """A line for the terminal."""
    case = result["cases"][-1] if result["cases"] and result["cases"][-1]["case"] == name else {}
    times = {own: duration(found["median"]) for own, found in case.get("seconds", {}).items()}
    return "  ".join([f"{name}:", *(f"{own} {time}" for own, time in times.items())])


def read_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    sets = make_sets(Room().left)
    cases = {case.name: case for members in sets.values() for case in members}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    allowed = [*sets, *OTHERS, *cases]
    add("--cases", default=",".join([*sets, *OTHERS]), metavar="NAME,...", help=f"some of {', '.join(allowed)}")
    add("--contenders", default=",".join(CONTENDERS), metavar="NAME,...", help=f"some of {', '.join(CONTENDERS)}")
    add("--seconds", type=float, help="for the samples of a case (default 5; 0.5 with --quick)")
    add("--quick", action="store_true", help="few samples: to see that it works")
    add("--limit", type=float, default=3600.0, help="seconds after which nothing more is begun")
    add(
        "--threads",
        type=whole_number(1, count_cores()),
        default=count_cores(),
        help="of all contenders: the first cores (default all)",
    )
    add("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args(argv)
    arguments.seconds = arguments.seconds or (0.5 if arguments.quick else 5.0)
    for option, known in (("cases", allowed), ("contenders", list(CONTENDERS))):
        given = getattr(arguments, option).split(",")
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"argument --{option}: there is no {unknown[0]!r}; there are {', '.join(known)}")
        setattr(arguments, option, given)
    if OURS not in arguments.contenders:
        parser.error(f"argument --contenders: {OURS} is what the others are compared with; name it, too")
    wanted = {case.name for name in arguments.cases for case in sets.get(name, [])} | set(arguments.cases)
    arguments.sets, arguments.asked = sets, [case for name, case in cases.items() if name in wanted]
    arguments.others = [name for name in OTHERS if name in wanted]
    return arguments


def main() -> None:
    arguments = read_arguments()
    if arguments.threads != count_cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])  # processes inherit it
    for name, result in measure(arguments):
        print(summary(name, result), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(rounded(result), indent=1) + "\n")


if __name__ == "__main__":
    main()

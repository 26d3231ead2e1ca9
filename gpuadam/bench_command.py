"""`python -m gpuadam bench`: how fast this machine can step, and what the limit is."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import bench, bench_picture, bench_report
from .bench_cases import QUICK, Case, default_workloads, given_workloads, make_cases
from .bench_host import Host, numba_threads
from .cuda import unavailable_reason
from .pictures import matplotlib

SECONDS, QUICK_SECONDS = 1.5, 0.25  # for the samples of a case


class BenchError(Exception):
    """There is nothing to measure so; the message is one line."""


@dataclass(frozen=True)
class Options:
    """What the command line sets: `python -m gpuadam bench --help` explains each."""

    backend: str = "auto"
    rule: str = "adamw"
    dtype: str = "float32"
    master: str | None = None
    recipe: tuple[str, ...] = ("plain",)
    tensors: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    quick: bool = False
    seconds: float | None = None
    threads: int | None = None
    json: Path | None = None
    csv: Path | None = None
    md: Path | None = None
    plot: Path | None = None


def run(options: Options) -> None:
    """Measure, print, and write what was asked for; figures that there are when it is interrupted are written, too.

    Raises:
        BenchError: The settings contradict each other, something that they need is missing, or nothing fits into
            memory.
    """
    device = device_named(options)
    cases = cases_of(options, device)
    if options.plot:
        require_matplotlib()
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    result: dict[str, Any] = {}
    try:
        with threads_of(options):
            names = bench.measure(cases, device, seconds, not options.quick, result)
            show_progress(names, len(cases) + (1 if options.quick else 2))
    finally:
        if result.get("cases"):
            bench_report.show(result)
            write(result, options)
    if not result["cases"]:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in result["left_out"].items())
        raise BenchError(f"no case fits into memory: {reasons}")


def device_named(options: Options) -> bench.Device:
    reason = "" if options.backend == "cpu" else unavailable_reason()
    if options.backend == "cuda" and reason:
        raise BenchError(f"argument --backend: 'cuda' is not available here, allowed are 'auto' and 'cpu': {reason}")
    if options.backend == "cpu" or reason:
        return Host()
    if options.threads:
        raise BenchError("argument --threads: a GPU has none to choose; allowed with --backend cpu")
    from .bench_cuda import GPU

    return GPU()


def cases_of(options: Options, device: bench.Device) -> list[Case]:
    given = given_workloads(options.tensors, options.sizes, options.models)
    workloads = given or (QUICK if options.quick else default_workloads(device.name))
    storage = {"master": options.master} if options.master else {}
    try:
        cases = make_cases(workloads, options.rule, options.dtype, options.recipe, storage)
    except (TypeError, ValueError, ImportError) as error:
        raise BenchError(error) from error
    if options.master and not cases[0].work.kind.companion:
        raise BenchError(
            f"argument --master: {options.master!r}, but weights of {options.dtype} leave nothing out; allowed is none"
        )
    return cases


def require_matplotlib() -> None:
    try:
        matplotlib("figure")
    except ImportError as error:
        raise BenchError(error) from error


def threads_of(options: Options) -> Any:
    return numba_threads(options.threads) if options.threads else nullcontext()


def show_progress(names: Iterator[str], total: int) -> None:
    """Measure under a progress bar, if there is a terminal to see it, and rich to draw it."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        list(names)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.completed}/{task.total}"), BarColumn(None), TextColumn("{task.description}")
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        for done, name in enumerate(names):
            bar.update(task, completed=done, description=name)


def write(result: dict[str, Any], options: Options) -> None:
    """The files that are wanted."""
    forms = (bench_report.as_json, bench_report.as_csv, bench_report.as_markdown)
    try:
        for path, form in zip((options.json, options.csv, options.md), forms, strict=True):
            if path:
                path.write_text(form(result))
        if options.plot:
            bench_picture.draw(result).savefig(options.plot, format="png", dpi=140)
    except OSError as error:
        raise BenchError(f"the figures cannot be written: {error}") from error

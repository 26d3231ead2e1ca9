"""What the benchmarks share: the tensors of each case, interleaved samples, the machine, and tables."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]
PACKAGES = ("numpy", "numba", "llvmlite", "torch", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cuda-nvrtc")


def resnet50() -> list[Shape]:
    """The 161 parameters of torchvision's ResNet-50, 25,557,032 elements, in its order."""
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            kernels = [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                kernels.append((4 * width, inputs, 1, 1))
            for kernel in kernels:
                shapes += [kernel, kernel[:1], kernel[:1]]
            inputs = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


SHAPES: dict[str, list[Shape]] = {
    "20M": [(20_000_000,)],
    "resnet50": resnet50(),
    "1000x1000": [(1000,)] * 1000,
    "10000x128": [(128,)] * 10_000,
    "1000": [(1000,)],
}
TITLES = {
    "20M": "one tensor of 20,000,000",
    "resnet50": "ResNet-50, 161 tensors",
    "1000x1000": "1,000 tensors of 1,000",
    "10000x128": "10,000 tensors of 128",
    "1000": "one tensor of 1,000",
}


def count_elements(shapes: Iterable[Shape]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)


def interleave(
    contenders: Mapping[str, Callable[[], Any]], repeats: int, may_go_on: Callable[[], bool] = lambda: True
) -> dict[str, list[Any]]:
    """Sample A B A B ..., at least three times each, so that whatever slows the machine down slows down both."""
    samples: dict[str, list[Any]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        if repeat >= 3 and not may_go_on():
            break
        for name, sample in contenders.items():
            samples[name].append(sample())
    return samples


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """How a set of samples is spread."""
    places = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "max": 1.0}
    found = {name: float(np.quantile(samples, place)) for name, place in places.items()}
    return {"count": len(samples), **found}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Quantiles of the ratios of samples taken one right after the other."""
    return quantiles([a / b for a, b in zip(above, below, strict=True)])


def processor() -> str:
    """The name of the CPU."""
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is measured, with a + if the tree has changed since; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def count_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    return {
        "processor": processor(),
        "cores": count_cores(),
        "load_average_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := version(name))},
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def duration(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{digits(seconds / size)} {unit}"
    raise AssertionError


def digits(value: float) -> str:
    """A number with three digits, or as many as it has before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal, by rich if it is there."""
    if importlib.util.find_spec("rich") is None:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)
        ]
        print(title, lines[0], "-" * len(lines[0]), *lines[1:], "", sep="\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 120).print(table)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for a page."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where the figures go."""
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="measure nothing; print the table of this file")


def measure_and_tell(
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    describe: Callable[[dict[str, Any]], str],
    table: Callable[[dict[str, Any]], tuple[list[str], list[list[str]]]],
    title: str,
) -> None:
    """Do what these options say."""
    if arguments.markdown:
        result = json.loads(arguments.markdown.read_text())
        print(describe(result), markdown_table(*table(result)), sep="\n\n")
        return
    result = measure(arguments)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(describe(result))
    print_table(title, *table(result))

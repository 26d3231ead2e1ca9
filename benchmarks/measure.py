"""What the benchmarks share: the tensors of each case, and where the figures go."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuadam.figures import markdown_table, print_table
from gpuadam.workloads import network, uniform

CASES = {
    "20M": uniform(1, 20_000_000),
    "resnet50": network("resnet50"),
    "1000x1000": uniform(1000, 1000),
    "10000x128": uniform(10_000, 128),
    "1000": uniform(1, 1000),
}


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

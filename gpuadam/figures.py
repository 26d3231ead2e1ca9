"""Figures for people: times and numbers with three digits, tables for the terminal and for pages."""

import importlib.util
from collections.abc import Sequence


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

    table = Table()
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 120).print(title, table, sep="\n", highlight=False)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for a page."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))

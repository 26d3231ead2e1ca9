"""docs/equivalents.md, made of the rows that the tests run: `python tests/equivalents_page.py` writes it."""

import importlib
import itertools
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import equivalent_optimizers
import equivalents

PAGE = Path(__file__).parents[1] / "docs" / "equivalents.md"
HEAD = """# What it is called elsewhere

Every row of these tables is a test: both sides are run, step by step in double, and compared. For schedules the
learning rate of the optimizer there is 0.1, and values agree to 1e-10 of the largest; for optimizers parameters agree
to 1e-12. What differs is said in the last column. A row marked * has no library that the tests could ask: it is held
against numbers worked out from the formula in its source, or recorded from it once (timm, ildoonet).

The page is made by `python tests/equivalents_page.py`; a test sees to it that it is up to date.
"""


def homes(package: ModuleType) -> list[Any]:
    """The modules of a package of rows, by the names of what they stand for."""
    found = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return sorted((home for home in found if hasattr(home, "ROWS")), key=lambda home: home.HOME.lower())


def line(row: Any) -> str:
    by_hand = bool(getattr(row, "numbers", None) or getattr(row, "reference", None))
    there = row.there if "`" in row.there else f"`{row.there}`"
    return f"| {there}{' *' if by_hand else ''} | `{row.here}` | {row.remark} |"


def tables(package: ModuleType) -> Iterator[str]:
    """A table for each home; several modules may share one."""
    for home, modules in itertools.groupby(homes(package), key=lambda module: module.HOME):
        lines = [line(row) for module in modules for row in module.ROWS]
        yield "\n".join([f"### {home}", "", "| there | here | remark |", "| --- | --- | --- |", *lines, ""])


def page() -> str:
    return "\n".join([HEAD, "## Schedules\n", *tables(equivalents), "## Optimizers\n", *tables(equivalent_optimizers)])


if __name__ == "__main__":
    PAGE.write_text(page())

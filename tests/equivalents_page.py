"""docs/equivalents.md, made of the rows that the tests run: `python tests/equivalents_page.py` writes it."""

import importlib
import pkgutil
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
against numbers worked out by hand from its source.

The page is made by `python tests/equivalents_page.py`; a test sees to it that it is up to date.
"""


def homes(package: ModuleType) -> list[Any]:
    """The modules of a package of rows, by the names of what they stand for."""
    found = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return sorted((home for home in found if hasattr(home, "ROWS")), key=lambda home: home.HOME.lower())


def table(home: Any) -> str:
    lines = [f"### {home.HOME}", "", "| there | here | remark |", "| --- | --- | --- |"]
    for row in home.ROWS:
        by_hand = bool(getattr(row, "numbers", None) or getattr(row, "reference", None))
        there = f"`{row.there}`{' *' if by_hand else ''}".replace("|", "\\|")
        lines.append(f"| {there} | `{row.here}` | {row.remark} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    parts = [HEAD, "## Schedules\n"]
    parts += [table(home) for home in homes(equivalents)]
    parts += ["## Optimizers\n"]
    parts += [table(home) for home in homes(equivalent_optimizers)]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())

"""The tables of the pages and their pictures, made from the figures in benchmarks/results.

    python benchmarks/report.py             # rewrites README.md, benchmarks/README.md and docs/images
    python benchmarks/report.py --check     # only tells whether the pages are what the figures say

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. What was never measured says so.
"""

import argparse
import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import report_tables
from report_pictures import PICTURES
from report_tables import NOT_MEASURED, as_markdown, describe

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
CAPTIONS = {
    "cpu_speed_up": "Time of a step of each contender over gpuadam's",
    "cpu_growth": "Time of a step over the number of elements, tensors and groups",
}

Found = dict[str, Any]


def set_text(name: str, kind: str, result: Found) -> str:
    return as_markdown(getattr(report_tables, f"{kind}_table")(result, name))


def if_there(key: str, result: Found) -> str:
    """One of the tables of `cpu.py` beside those of cases."""
    table = getattr(report_tables, f"{key.replace('-', '_')}_table")
    return as_markdown(table(result)) if key in result else NOT_MEASURED


def gpu_text(result: Found) -> str:
    import gpu_tables

    names = ("bandwidth", "device", "wall", "ratio", "memory", "target")
    tables = [getattr(gpu_tables, f"{name}_table")(result) for name in names]
    tables += [gpu_tables.growth_table(result, what) for what in gpu_tables.GROWTH]
    return "\n\n".join([gpu_tables.described(result), *map(as_markdown, tables), *gpu_tables.notes(result)])


def gpu_speed_text(result: Found) -> str:
    """What the README says of GPUs."""
    import gpu_tables

    return f"{gpu_tables.described(result)}\n\n{as_markdown(gpu_tables.bandwidth_table(result))}"


def instructions_text(result: Found) -> str:
    import instructions

    return as_markdown(instructions.table_of(result))


SETS = ("targets", "sizes", "networks", "groups", "formats", "recipes", "rules")
TABLES: dict[str, tuple[str, Callable[[Found], str]]] = {  # of each table: the file with its figures, and the text
    "cpu: machine": ("cpu.json", describe),
    "cpu: aims": ("cpu.json", lambda result: as_markdown(report_tables.target_table(result))),
    **{f"cpu: {name}": ("cpu.json", partial(set_text, name, "set")) for name in SETS},
    "cpu: speed": ("cpu.json", partial(set_text, "targets", "speed")),
    "cpu: bytes": ("cpu.json", partial(set_text, "targets", "bytes")),
    "cpu: growth in tensors": ("cpu.json", partial(set_text, "growth-in-tensors", "times")),
    "cpu: growth in groups": ("cpu.json", partial(set_text, "growth-in-groups", "times")),
    **{f"cpu: {key}": ("cpu.json", partial(if_there, key)) for key in ("overhead", "memory", "first-use")},
    "modes": ("modes-cpu.json", lambda result: as_markdown(report_tables.modes_table(result))),
    **{name: (f"{name}.json", instructions_text) for name in ("instructions", "instructions-cpu")},
    "gpu": ("gpu.json", gpu_text),
    "gpu: speed": ("gpu.json", gpu_speed_text),
}


def text_of(name: str, page: Path, results: Path) -> str:
    """What stands in the place of a table.

    Raises:
        KeyError: There is no such table.
    """
    if name.startswith("picture: "):
        stem = name.removeprefix("picture: ")
        link = os.path.relpath(IMAGES / f"{stem}.png", page.parent)
        return f"![{CAPTIONS[stem]}]({link})" if (results / "cpu.json").exists() else NOT_MEASURED
    file, make = TABLES[name]
    return make(json.loads((results / file).read_text())) if (results / file).exists() else NOT_MEASURED


def rewritten(text: str, page: Path, results: Path = RESULTS) -> str:
    """The text of a page with each of its tables as the figures make it."""
    return MARKED.sub(lambda found: f"{found[1]}{text_of(found[2], page, results)}\n{found[3]}", text)


def save_pictures() -> None:
    if (RESULTS / "cpu.json").exists():
        result = json.loads((RESULTS / "cpu.json").read_text())
        for name, draw in PICTURES.items():
            draw(result).savefig(IMAGES / f"{name}.png", dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not up to date")
    check = parser.parse_args().check
    stale = [page for page in PAGES if rewritten(page.read_text(), page) != page.read_text()]
    for page in stale:
        print(f"{page.relative_to(ROOT)} is not what the figures say" if check else f"{page.relative_to(ROOT)} written")
        if not check:
            page.write_text(rewritten(page.read_text(), page))
    if not check:
        save_pictures()
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())

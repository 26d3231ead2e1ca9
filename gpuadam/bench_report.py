"""What `bench` tells: a table for the terminal and for pages, a sheet of plain numbers, and one sentence."""

import csv
import io
import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from .figures import digits, duration, markdown_table, print_table
from .first_use import COLD, IMPORT, WARM

TARGETS = {IMPORT: 0.5, COLD: 10.0, WARM: 0.5}  # seconds
BUSY = 0.25  # load for each core above which a machine is not quiet
PLAIN = ("case", "recipe", "tensors", "elements", "bytes_moved", "bytes_held", "in_cache", "limit")
SPREAD = ("seconds", "host_seconds", "wall_seconds", "elements_per_second", "bytes_per_second", "part_of_limit")

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def spread(found: dict[str, float]) -> str:
    """The median, and between what the middle half lies."""
    return f"{duration(found['median'])} ({duration(found['p25'])} to {duration(found['p75'])})"


def percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def step_table(result: dict[str, Any]) -> Table:
    """Each case; with a GPU the time of the host beside that of the device."""
    on_host = ["of the host"] if result["backend"] == "cuda" else []
    rows = []
    for case in result["cases"]:
        host = [duration(case["host_seconds"]["median"])] if on_host else []
        rows.append(
            [
                case["title"],
                f"{case['elements']:,}",
                spread(case["seconds"]),
                *host,
                digits(case["bytes_per_second"]["median"] / 1e9),
                percent(case["part_of_limit"]["median"]) + (" *" if case["in_cache"] else ""),
                digits(case["elements_per_second"]["median"] / 1e9),
            ]
        )
    header = ["case", "elements", "step: median (middle half)", *on_host, "GB/s", "of the limit", "10^9 elements/s"]
    return header, rows


def other_table(result: dict[str, Any]) -> Table:
    """What memory gives, what a call costs, and how long the package takes to start."""
    rows = [[f"memory: {name}", f"{digits(rate / 1e9)} GB/s", ""] for name, rate in memory_rates(result).items()]
    rows += [
        [f"an element, {case['recipe']}", f"{moved:g} bytes moved, {kept:g} held", ""]
        for case, moved, kept in bytes_per_element(result)
    ]
    rows.append(["a call, whatever it steps", spread(result["call_seconds"]), ""])
    starts = result.get("first_use", {})
    rows += [[name, spread(starts[name]), f"< {duration(most)}"] for name, most in TARGETS.items() if name in starts]
    return ["what", "median (middle half)", "wanted"], rows


def bytes_per_element(result: dict[str, Any]) -> list[tuple[dict[str, Any], float, float]]:
    """The first case of each recipe, with what a step moves for each element, and what is held."""
    first = {case["recipe"]: case for case in reversed(result["cases"])}
    cases = [first[recipe] for recipe in result["method"]["recipes"] if recipe in first]
    return [(case, case["bytes_moved"] / case["elements"], case["bytes_held"] / case["elements"]) for case in cases]


def memory_rates(result: dict[str, Any]) -> dict[str, float]:
    """Bytes a second of each stream: the median over the cases, each of which has sampled it."""
    cases = [case["memory_bytes_per_second"] for case in result["cases"]]
    return {name: median(found[name]["median"] for found in cases) for name in cases[0]}


def headline(result: dict[str, Any]) -> str:
    """What was stepped, and where."""
    about, method = result["machine"], result["method"]
    master = f" with a master in {method['master']}" if method["master"] else ""
    where = about.get("device") or f"{about['processor']}, threads: {about['threads']} of {about['cores']} cores"
    load = "" if about["load_average_before"] is None else f", load {about['load_average_before']:.1f}"
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    return (
        f"{method['optimizer']}, {method['dtype']}{master}, gradients bound; {where}{load}; Python {about['python']}, "
        f"{packages}; {about['date']}"
    )


def notes(result: dict[str, Any]) -> list[str]:
    """What the figures mean, a line each; the last is the sentence to remember."""
    lines = [f"{title} was left out: {reason}" for title, reason in result["left_out"].items()]
    load = result["machine"]["load_average_before"]
    if result["backend"] == "cpu" and load and load > BUSY * result["machine"]["cores"]:
        lines.append(
            f"the load was {load:.1f} before: where others compute, too, steps and memory seem slower than they are"
        )
    if any(case["in_cache"] for case in result["cases"]):
        cache = digits(result["machine"]["cache_bytes"] / 2**20)
        lines.append(f"* lies in the cache of {cache} MiB, or half of it does: memory is not its limit")
    return [*lines, summary(result)]


def summary(result: dict[str, Any]) -> str:
    """The largest case that memory limits; or the largest of all, if a cache holds them."""
    cases = [case for case in result["cases"] if not case["in_cache"]] or result["cases"]
    case = max(cases, key=lambda one: one["elements"])
    rate, part = digits(case["bytes_per_second"]["median"] / 1e9), percent(case["part_of_limit"]["median"])
    found = f"{case['title']}: {rate} GB/s, {part} of what memory gives ({case['limit']})"
    call = f"a call costs {duration(result['call_seconds']['median'])}, whatever it steps"
    return f"{found}{', as it lies in the cache' if case['in_cache'] else ''}; {call}"


def show(result: dict[str, Any]) -> None:
    """Print it all."""
    print(headline(result))
    print_table("Time of a step", *step_table(result))
    print_table("Limits, calls and the first use", *other_table(result))
    print("\n".join(notes(result)))


def as_json(result: dict[str, Any]) -> str:
    return json.dumps(result, indent=1) + "\n"


def as_markdown(result: dict[str, Any]) -> str:
    tables = [markdown_table(*table(result)) for table in (step_table, other_table)]
    return "\n\n".join([headline(result), *tables, *(line.replace("*", "\\*") for line in notes(result))]) + "\n"


def as_csv(result: dict[str, Any]) -> str:
    """A row for each case, numbers as they were measured: seconds, bytes, and of spreads the quantiles."""
    rows = [{"backend": result["backend"], **result["method"], **case} for case in result["cases"]]
    text = io.StringIO()
    method = ("backend", "rule", "dtype", "master")
    spreads = [name for name in SPREAD if name in rows[0]]
    quantiles = [(name, place) for name in spreads for place in ("median", "p25", "p75")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*method, *PLAIN, *(f"{name}_{place}" for name, place in quantiles)])
    for row in rows:
        plain = [row[name] for name in (*method, *PLAIN)]
        writer.writerow([*plain, *(row[name][place] for name, place in quantiles)])
    return text.getvalue()

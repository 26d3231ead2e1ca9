"""The picture of `bench`: bytes a second and the time of a step, over the number of elements."""

from typing import Any

from .bench_report import memory_rates
from .figures import digits
from .pictures import BLUE, GREEN, GREY, INK, ORANGE, matplotlib

COLORS = (BLUE, ORANGE, GREEN, "#8b5cf6", "#c2410c")  # one for each recipe
LABEL = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.5}  # behind a name, so that no line goes through it
INSIDE = "white"  # of the marks of cases that a cache holds


def draw(result: dict[str, Any]) -> Any:
    """The figure: one panel above the other; single tensors joined by a line, other workloads as marks with names."""
    figure = matplotlib("figure").Figure(figsize=(9, 8.2), facecolor="white")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    figure.subplots_adjust(left=0.09, right=0.955, top=0.86, bottom=0.075, hspace=0.24)
    about, method = result["machine"], result["method"]
    figure.text(0.03, 0.955, f"A step of {method['optimizer']}, {method['dtype']}", size=18, weight="bold", color=INK)
    where = about.get("device") or f"{about['processor']}, {about['threads']} threads"
    figure.text(0.03, 0.922, f"{where}; open marks lie in a cache, or half of them does", size=11, color=GREY)
    given = memory_rates(result)
    told = ", ".join(f"{name} {digits(rate / 1e9)}" for name, rate in given.items())
    style(panels[0], f"GB/s moved; memory gives: {told} (the best is dashed)")
    style(panels[1], "Time of a step, in seconds")
    panels[0].axhline(max(given.values()) / 1e9, color=INK, lw=1, ls=(0, (4, 3)), zorder=2)
    for color, recipe in zip(COLORS, method["recipes"], strict=False):
        cases = [case for case in result["cases"] if case["recipe"] == recipe]
        plot_cases(panels[0], cases, "bytes_per_second", 1e-9, color, recipe)
        plot_cases(panels[1], cases, "seconds", 1.0, color, recipe)
    panels[0].set_ylim(bottom=0)
    panels[1].set_yscale("log")
    elements = [case["elements"] for case in result["cases"]]
    panels[1].set_xlim(min(elements) / 2, 6 * max(elements))  # with room for the names of the last marks
    panels[1].set_xlabel("elements", color=GREY, loc="right")
    if len(method["recipes"]) > 1:
        panels[0].legend(frameon=False, labelcolor=GREY)
    return figure


def style(panel: Any, title: str) -> None:
    panel.set_title(title, loc="left", size=11.5, color=INK, pad=9)
    panel.set_xscale("log")
    panel.grid(axis="y", color="#e6e8eb", lw=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#b8bec6")
    panel.tick_params(which="both", colors=GREY, length=0, labelsize=9.5)


def plot_cases(panel: Any, cases: list[dict[str, Any]], what: str, unit: float, color: str, label: str) -> None:
    single = [case for case in cases if case["tensors"] == 1]
    panel.plot(*places(single, what, unit), color=color, lw=2, zorder=3, label=label)
    for case in cases:
        (x,), (y,) = places([case], what, unit)
        face, mark = INSIDE if case["in_cache"] else color, "o" if case["tensors"] == 1 else "D"
        panel.plot(x, y, mark, ms=7, mfc=face, mec=color, mew=1.6, zorder=4)
        if case["tensors"] > 1:
            short = case["title"].split(", ")[0] if not case["title"][0].isdigit() else case["case"].replace("x", " x ")
            panel.annotate(short, (x, y), (7, -11), textcoords="offset points", size=8.5, color=GREY, bbox=LABEL)


def places(cases: list[dict[str, Any]], what: str, unit: float) -> tuple[list[int], list[float]]:
    return [case["elements"] for case in cases], [case[what]["median"] * unit for case in cases]

"""Pictures of what `cpu.py` has measured: how much faster a step is, and how its time grows."""

from collections.abc import Sequence
from typing import Any

from report_tables import FUSED, OURS, measured, title_of

from gpuadam.pictures import BLUE, GREEN, GREY, INK, ORANGE, matplotlib

COLORS = {
    OURS: BLUE, FUSED: ORANGE, "torch-foreach": "#f0b36b", "torch-loop": "#8f959e", "optax": GREEN,
    "thinc": "#8b5cf6", "bitsandbytes": "#c2410c", "deepspeed": "#0f766e",
}  # fmt: skip
GROWTH = {"sizes": ("elements", "elements of one tensor"), "growth-in-tensors": ("tensors", "tensors of 128")}
GROWTH |= {"growth-in-groups": ("groups", "groups of 465 tensors of 1,000")}

Found = dict[str, Any]


def new_figure(height: float, across: int, title: str, result: Found) -> tuple[Any, Sequence[Any]]:
    figure = matplotlib("figure").Figure(figsize=(10, height), facecolor="white", layout="constrained")
    about = result["machine"]
    figure.suptitle(f"{title}\n{about['processor']}, {about['cores']} cores", color=INK, ha="left", x=0.02, size=13)
    panels = figure.subplots(1, across, squeeze=False)[0]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(which="both", colors=GREY, length=0, labelsize=9)
        panel.grid(color="#e6e8eb", lw=0.8)
        panel.set_axisbelow(True)
    return figure, panels


def draw_speed_up(result: Found) -> Any:
    """A bar for each contender of each case of the set `targets`: its time over ours."""
    cases = [case for case in measured(result, "targets") if case["speed_up"]]
    names = [name for name in COLORS if any(name in case["speed_up"] for case in cases)]
    figure, (panel,) = new_figure(0.8 + 0.6 * len(cases), 1, "Time of a step over gpuadam's", result)
    height = 0.84 / max(1, len(names))
    for place, case in enumerate(cases):
        shown = [name for name in names if name in case["speed_up"]]
        for i, name in enumerate(shown):
            ratio, y = case["speed_up"][name]["median"], place + (i - (len(shown) - 1) / 2) * height
            panel.barh(y, ratio - 1, height, left=1, color=COLORS[name])
    for name in names:
        panel.barh([0], [0], color=COLORS[name], label=result["contenders"][name])
    panel.axvline(1, color=INK, lw=1)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    panel.set_yticks(range(len(cases)), [title_of(case) for case in cases])
    panel.invert_yaxis()
    panel.legend(frameon=False, labelcolor=GREY, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)
    return figure


def draw_growth(result: Found) -> Any:
    """Time of a step over the number of elements, tensors and groups."""
    figure, panels = new_figure(3.8, len(GROWTH), "Time of a step of AdamW, seconds", result)
    for panel, (name, (axis, title)) in zip(panels, GROWTH.items(), strict=True):
        cases = measured(result, name)
        for own, color in COLORS.items():
            points = [(case[axis], case["seconds"][own]["median"]) for case in cases if own in case["seconds"]]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", ms=4, color=color, label=result["contenders"][own])
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(title, loc="left", size=10, color=INK)
    for panel in [panel for panel in panels if panel.lines][:1]:
        panel.legend(frameon=False, labelcolor=GREY, fontsize=8)
    return figure


PICTURES = {"cpu_speed_up": draw_speed_up, "cpu_growth": draw_growth}

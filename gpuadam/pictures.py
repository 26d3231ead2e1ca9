"""Pictures by matplotlib, which is imported only when one is drawn: a schedule over its steps, many side by side."""

import importlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .expressions import Expr, as_number

INK, GREY, BLUE, GREEN, ORANGE = "#1f2933", "#6b7580", "#2563a8", "#1f8a5b", "#d97706"
MOST_POINTS = 10_000  # of a curve; more could not be told apart
MOST_STEPS = 2**53
PANEL, MOST_ACROSS = (3.3, 2.35), 5  # inches of a small picture, and how many stand side by side

Values = npt.NDArray[np.float64]


def matplotlib(module: str) -> Any:
    """A module of matplotlib.

    Raises:
        ImportError: It is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(f"a picture needs matplotlib ({error}): pip install 'gpuadam[plot]'") from error


def new_axes() -> Any:
    """Axes on a figure of their own, which a notebook shows by itself, and `matplotlib.pyplot.show()` elsewhere."""
    return matplotlib("pyplot").subplots(figsize=(7, 4), layout="constrained")[1]


@dataclass
class Curve:
    """A schedule, evaluated as the kernel would: what is drawn is what runs; `note` stands below the title."""

    title: str
    note: str
    steps: npt.NDArray[np.int64]
    values: Values


def trace(schedule: Expr, steps: Any, title: str = "", note: str = "") -> Curve:
    """The schedule at its first steps, or at MOST_POINTS of them if there are more.

    Raises:
        TypeError, ValueError: `steps` is no whole number, or out of range.
    """
    count = as_number(steps, "steps")
    if not 1 <= count <= MOST_STEPS or count % 1:
        raise ValueError(f"steps is {steps!r}; allowed are whole numbers from 1 to 2**53")
    places = np.unique(np.linspace(0, count - 1, min(int(count), MOST_POINTS)).round().astype(np.int64))
    return Curve(title, note, places, schedule(places))


def plot(schedule: Expr, steps: Any, ax: Any = None, **line: Any) -> Any:
    """Draw a schedule over its first steps (see `Expr.plot`)."""
    curve = trace(schedule, steps)
    axes = new_axes() if ax is None else ax
    axes.plot(curve.steps, curve.values, **{"lw": 2, **line})
    axes.set_xlabel("step")
    if "label" in line:
        axes.legend(frameon=False)
    return axes


def draw_panels(curves: Sequence[Curve]) -> Any:
    """Small pictures side by side, each with axes of its own. Returns the figure."""
    across = min(len(curves), 3 if len(curves) <= 9 else MOST_ACROSS)
    down = -(-len(curves) // across)
    figure = matplotlib("figure").Figure(
        figsize=(PANEL[0] * across, PANEL[1] * down), facecolor="white", layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        draw_panel(axes, curve)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    return figure


def draw_panel(axes: Any, curve: Curve) -> None:
    axes.fill_between(curve.steps, 0, curve.values, color=BLUE, alpha=0.1, lw=0)
    axes.plot(curve.steps, curve.values, color=BLUE, lw=1.8, solid_joinstyle="round")
    note = wrapped(curve.note, 56)
    axes.set_title("\n".join(wrapped(curve.title, 40)), loc="left", size=10, color=INK, pad=9 + 10 * len(note))
    axes.text(0, 1.03, "\n".join(note), transform=axes.transAxes, size=7, color=GREY, va="bottom")
    axes.grid(axis="y", color="#e6e8eb", lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8bec6")
    axes.tick_params(which="both", colors=GREY, length=0, labelsize=8)
    axes.locator_params(axis="both", nbins=4)
    axes.set_xlim(0, int(curve.steps[-1]) + 1)
    low, high = axes.dataLim.intervaly
    finite = curve.values[np.isfinite(curve.values)]
    if finite.size and 0 < 0.4 * finite.max() < finite.min() < finite.max():  # far from 0: the change is what matters
        low, high = finite.min(), finite.max()
        axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    else:
        axes.set_ylim(bottom=min(float(low), 0.0))


def wrapped(text: str, width: int) -> list[str]:
    """The text in two lines at most."""
    return textwrap.wrap(text, width, max_lines=2, placeholder=" …")

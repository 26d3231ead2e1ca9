"""The demo's picture: loss, accuracy and learning rate, one below the other over the same steps."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .expressions import Expr
from .pictures import BLUE, GREEN, GREY, INK, ORANGE

LINE = 0.09  # height of a written number, of that of a panel
FROM_BELOW = 5  # the panel of accuracies shows so many times what is missing at the end; the first epochs lie below it


@dataclass
class History:
    """What a run leaves to print and to draw: the losses by step, the rest by epoch.

    Attributes:
        schedule: Of the learning rate.
        losses: Of each batch.
        steps: How many there have been, those of an earlier run included.
        accuracies, averages: Held-out accuracy of the weights, and of their average.
        next_lrs: Learning rates of the steps that follow.
    """

    schedule: Expr
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    averages: list[float] = field(default_factory=list)
    next_lrs: list[float] = field(default_factory=list)


def draw(title: str, subtitle: str, history: History) -> Any:
    """The figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.8), facecolor="white")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    figure.subplots_adjust(left=0.075, right=0.885, top=0.845, bottom=0.075, hspace=0.34)
    figure.text(0.03, 0.95, title, size=18, weight="bold", color=INK)
    figure.text(0.03, 0.915, subtitle, size=11.5, color=GREY)

    last = history.steps[-1]
    steps = np.arange(last - len(history.losses), last)  # a resumed run has drawn only its own
    epoch = len(history.losses) // len(history.steps)
    rates = history.schedule(steps)  # by the program that the kernel runs
    panels[0].semilogy(steps, history.losses, color=BLUE, lw=0.7, alpha=0.35)
    panels[2].fill_between(steps, 0, rates, color=ORANGE, alpha=0.12, lw=0)
    means = np.reshape(history.losses, (-1, epoch)).mean(axis=1)
    plot_panel(panels[0], "Training loss: each batch, and the mean of each epoch")
    plot_curve(panels[0], np.array(history.steps) - epoch / 2, means, BLUE, ".3f")
    plot_panel(panels[1], "Held-out digits read right, in %: by the weights (green), by their average (dark)")
    plot_accuracies(panels[1], history)
    plot_panel(panels[2], "Learning rate")
    plot_curve(panels[2], steps, rates, ORANGE, ".2g")
    panels[2].set_ylim(bottom=0)
    panels[2].set_xlim(steps[0], last)
    panels[2].xaxis.get_major_locator().set_params(integer=True)
    panels[2].set_xlabel("step", color=GREY, loc="right")
    return figure


def plot_panel(panel: Any, title: str) -> None:
    panel.set_title(title, loc="left", size=11.5, color=INK, pad=9)
    panel.grid(axis="y", color="#e6e8eb", lw=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#b8bec6")
    panel.tick_params(which="both", colors=GREY, length=0, labelsize=9.5)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()


def plot_accuracies(panel: Any, history: History) -> None:
    """The weights as they are, and their average; their last values make room for each other."""
    last, last_average = history.accuracies[-1], history.averages[-1]
    bottom = 100 - FROM_BELOW * (100 - min(last, last_average, 99))
    panel.set_ylim(max(bottom, min(*history.accuracies, *history.averages, 99)), 100)
    gap = last_average - last
    apart = LINE * (100 - panel.get_ylim()[0])
    shift = max(0.0, apart - abs(gap)) / 2 * (1 if gap >= 0 else -1)
    plot_curve(panel, history.steps, history.accuracies, GREEN, ".2f", -shift)
    plot_curve(panel, history.steps, history.averages, INK, ".2f", shift)


def plot_curve(panel: Any, steps: Any, values: Any, color: str, form: str, shift: float = 0.0) -> None:
    """One curve, with its last value written beside its end, or that much above it."""
    panel.plot(steps, values, color=color, lw=2.2, solid_capstyle="round", zorder=4)
    panel.plot(steps[-1], values[-1], "o", ms=7, color=color, mec="white", mew=1.2, clip_on=False, zorder=5)
    panel.annotate(
        format(values[-1], form), (1, values[-1] + shift), (12, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", size=11, weight="bold", color=color, annotation_clip=False,
    )  # fmt: skip

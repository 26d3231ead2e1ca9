"""`python -m gpuadam plot`: schedules as curves, in the terminal or as a picture."""

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .expressions import Expr
from .gallery import EXAMPLES, STEPS
from .pictures import MOST_STEPS, Curve, draw_panels, trace
from .schedule_text import read_schedule
from .terminal_picture import arrange, writable

LEAST_STEPS = 100


class PlotError(Exception):
    """The picture cannot be drawn; the message is one line."""


class Given(NamedTuple):
    """A schedule, and the text that describes it."""

    text: str
    schedule: Expr


@dataclass(frozen=True)
class Options:
    """What the command line sets."""

    schedules: Sequence[Given] = ()
    gallery: bool = False
    steps: int | None = None
    out: Path | None = None


def run(options: Options) -> None:
    """Draw.

    Raises:
        PlotError: There is nothing to draw, or the picture cannot be drawn or written.
    """
    if bool(options.schedules) == options.gallery:
        raise PlotError("give one schedule or more, such as 'cosine_decay(0.1, 900)', or --gallery")
    curves = gallery_curves() if options.gallery else given_curves(options)
    if options.out is None:
        panels = [(curve.title + curve.note, int(curve.steps[-1]), curve.values) for curve in curves]
        print(writable(arrange(panels, shutil.get_terminal_size().columns), sys.stdout.encoding))
        return
    try:
        draw_panels(curves).savefig(options.out, format="png", dpi=110)
    except (ImportError, OSError) as error:
        raise PlotError(f"the picture {str(options.out)!r} cannot be made: {error}") from error
    print(f"picture              {options.out}")


def gallery_curves() -> list[Curve]:
    """Each schedule that there is."""
    return [trace(read_schedule(text), STEPS, name, text.removeprefix(name)) for name, text in EXAMPLES.items()]


def given_curves(options: Options) -> list[Curve]:
    """Those of the command line."""
    pairs = [(given, options.steps or default_steps(given.text)) for given in options.schedules]
    return [trace(given.schedule, steps, " ".join(given.text.split())) for given, steps in pairs]


def default_steps(text: str) -> int:
    """A tenth more than the largest whole number of the text, which mostly is where the schedule ends."""
    found = [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", text)]
    return min(max(LEAST_STEPS, *(number + number // 10 for number in found)), MOST_STEPS) if found else STEPS

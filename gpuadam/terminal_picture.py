"""Curves as text: panels of braille characters, each of which holds two by four dots, side by side in a terminal."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

EMPTY = 0x2800  # the braille character without dots
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # those of rows and columns
HEIGHT, LABEL, NARROWEST, GAP = 8, 9, 36, 3  # characters: of a panel, of its numbers, of all of it, and between two
NEAR_ZERO = 0.4  # where the least value is below this part of the largest, the axis begins at 0

Values = npt.NDArray[np.float64]


def panel(title: str, last: int, values: Values, width: int) -> list[str]:
    """The lines of a panel, all of the same width.

    Args:
        title: What stands above it, shortened to its width.
        last: The step of the last value; the first is that of step 0.
        values: Evenly spaced.
        width: In characters.
    """
    low, high = limits(values)
    curve = braille(values, low, high, width - LABEL - 1)
    numbers = [f"{high:.3g}", *[""] * (HEIGHT - 2), f"{low:.3g}"]
    title = title if len(title) <= width else title[: width - 1] + "…"
    lines = [f"{number:>{LABEL}} {line}" for number, line in zip(numbers, curve, strict=True)]
    return [line.ljust(width) for line in (title, *lines, " " * LABEL + f" 0{last:>{width - LABEL - 2},}")]


def limits(values: Values) -> tuple[float, float]:
    """What the axis goes from and to; never the same."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if 0 <= low < NEAR_ZERO * high or low == high:
        low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def braille(values: Values, low: float, high: float, width: int) -> list[str]:
    """The curve in HEIGHT lines; in each column of dots all that it passes there is filled, from the one before on."""
    dots = np.zeros((4 * HEIGHT, 2 * width), bool)
    ends = np.linspace(0, len(values), 2 * width + 1)
    before = values[0]
    for column, (begin, end) in enumerate(itertools.pairwise(ends)):
        passed = values[int(begin) : max(int(np.ceil(end)), int(begin) + 1)]
        passed = np.append(passed[np.isfinite(passed)], before if np.isfinite(before) else [])
        if passed.size:
            rows = np.rint((passed - low) / (high - low) * (4 * HEIGHT - 1)).astype(int)
            bottom, top = int(rows.min()), int(rows.max())
            dots[4 * HEIGHT - 1 - top : 4 * HEIGHT - bottom, column] = True
        before = values[min(int(np.ceil(end)), len(values)) - 1]
    cells = dots.reshape(HEIGHT, 4, width, 2).transpose(0, 2, 1, 3)
    return ["".join(chr(EMPTY + code) for code in line) for line in (cells * DOTS).sum((2, 3))]


def arrange(panels: Sequence[tuple[str, int, Values]], width: int) -> str:
    """Panels side by side, as many as fit into the width, and below each other."""
    across = max(1, min(len(panels), (width + GAP) // (NARROWEST + GAP)))
    own = (width + GAP) // across - GAP
    blocks = [panel(*given, own) for given in panels]
    rows = [zip(*blocks[i : i + across], strict=True) for i in range(0, len(blocks), across)]
    return "\n\n".join("\n".join((" " * GAP).join(line).rstrip() for line in row) for row in rows)


def writable(text: str, encoding: Any) -> str:
    """The text with a * for each braille character where the terminal has no such letters."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        marks = dict.fromkeys(range(EMPTY + 1, EMPTY + 256), "*") | {EMPTY: " ", ord("…"): "~"}
        return text.translate(marks).encode(encoding or "ascii", "replace").decode(encoding or "ascii")
    return text

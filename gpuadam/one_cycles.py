"""One cycle: up, down and far down, with the momentum that moves against it: Smith's, PyTorch's and optax'."""

import itertools
from collections.abc import Sequence

from .expressions import Expr, Number, Scalar, minimum, step, where
from .schedule_arguments import interpolate, read_flag, read_number, read_value, require, require_choice

__all__ = [
    "cosine_onecycle", "linear_onecycle", "one_cycle", "one_cycle_momentum", "smith_one_cycle",
    "smith_one_cycle_momentum",
]  # fmt: skip


def phases(levels: Sequence[Expr], places: Sequence[float], anneal: str = "linear") -> Expr:
    """`levels[i]` at step `places[i]`, the first before, the last after, and between them the way that `anneal` says.

    A place itself belongs to the phase that it ends. A first phase without length leaves its end at once.
    """
    require_choice(anneal, "anneal", ("cosine", "linear"))
    position, value = minimum(step, places[-1]), levels[0]
    for i, (begin, end) in enumerate(itertools.pairwise(places)):
        flat = levels[i] is levels[i + 1]
        way = levels[i] if flat else interpolate(levels[i], levels[i + 1], begin, end, anneal)
        value = where(position > begin, way, value) if i > 0 else way
    return value


def against(high: Expr, low: Expr, places: Sequence[float], anneal: str = "linear") -> Expr:
    """A momentum: down, up, and up it stays."""
    return phases([high, low, *[high] * (len(places) - 2)], places, anneal)


def _smith_places(total_steps: Number, cycle_steps: Number, up_steps: Number | None) -> list[float]:
    total, cycle = read_number(total_steps, "total_steps"), read_number(cycle_steps, "cycle_steps")
    up = cycle / 2 if up_steps is None else read_number(up_steps, "up_steps")
    require(cycle <= total, "cycle_steps", f"<= {total_steps=}", cycle_steps)
    require(up <= cycle, "up_steps", f"<= {cycle_steps=}", up_steps)
    return [0, up, cycle, total]


def smith_one_cycle(max_lr: Scalar, total_steps: Number, cycle_steps: Number, *, up_steps: Number | None = None,
                    div_factor: Number = 10.0, final_div_factor: Number = 100.0,
                    anneal: str = "linear") -> Expr:  # fmt: skip
    """Up to `max_lr`, down to where it began, and then far down (Smith, arXiv 1803.09820; Smith & Topin, 1708.07120).

    Every place and every level is yours; the papers give no more than ranges.

    Args:
        total_steps: Steps to the last value, which then stays.
        cycle_steps: Steps up and down, <= `total_steps`; the others go far down.
        up_steps: Steps up, half of `cycle_steps` if not given.
        div_factor: `max_lr` over the first value; 3 to 10 in the papers.
        final_div_factor: First value over the last; "several orders of magnitude".
        anneal: Shape of the phases, "linear" or "cosine".

    >>> smith_one_cycle(1.0, 100, 90)([0, 45, 90, 100, 1000])
    array([0.1  , 1.   , 0.1  , 0.001, 0.001])
    """
    peak = read_value(max_lr, "max_lr")
    low = peak / read_number(div_factor, "div_factor")
    last = low / read_number(final_div_factor, "final_div_factor")
    return phases([low, peak, low, last], _smith_places(total_steps, cycle_steps, up_steps), anneal)


def smith_one_cycle_momentum(total_steps: Number, cycle_steps: Number, *, up_steps: Number | None = None,
                             base_momentum: Scalar = 0.85, max_momentum: Scalar = 0.95,
                             anneal: str = "linear") -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, that moves against `smith_one_cycle`, and stays up while that goes far down.

    >>> smith_one_cycle_momentum(100, 90)([0, 45, 90, 100])
    array([0.95, 0.85, 0.95, 0.95])
    """
    high, low = read_momenta(max_momentum, base_momentum)
    return against(high, low, _smith_places(total_steps, cycle_steps, up_steps), anneal)


def read_momenta(high: Scalar, low: Scalar, names: Sequence[str] = ("max_momentum", "base_momentum")) -> list[Expr]:
    return [read_value(value, name, "in [0, 1]") for value, name in zip((high, low), names, strict=True)]


def _torch_places(total_steps: Number, pct_start: Number, three_phase: bool) -> list[float]:
    total = read_number(total_steps, "total_steps", ">= 1")
    start = read_number(pct_start, "pct_start", "in [0, 0.5]" if read_flag(three_phase, "three_phase") else "in [0, 1]")
    return [0, start * total - 1, *([2 * start * total - 2] if three_phase else []), total - 1]


def one_cycle(max_lr: Scalar, total_steps: Number, *, pct_start: Number = 0.3, div_factor: Number = 25.0,
              final_div_factor: Number = 1e4, anneal: str = "cosine", three_phase: bool = False) -> Expr:  # fmt: skip
    """Up to `max_lr`, then far down (Smith & Topin, arXiv 1708.07120), at the places of PyTorch's OneCycleLR.

    Args:
        total_steps: Steps in all; the last one's value stays, where OneCycleLR overshoots.
        pct_start: Part of the steps that goes up: `max_lr` is reached at `pct_start * total_steps - 1`.
        div_factor: `max_lr` over the first value.
        final_div_factor: First value over the last.
        anneal: Shape of the phases, "cosine" or "linear".
        three_phase: Come down to the first value as fast as it went up, only then to the last.

    >>> one_cycle(1.0, 100, anneal="linear")([0, 29, 99, 1000])
    array([4.e-02, 1.e+00, 4.e-06, 4.e-06])
    """
    places, peak = _torch_places(total_steps, pct_start, three_phase), read_value(max_lr, "max_lr")
    low = peak / read_number(div_factor, "div_factor")
    last = low / read_number(final_div_factor, "final_div_factor")
    levels = [low, peak, low, last] if three_phase else [low, peak, last]
    return phases(levels, places, anneal)


def one_cycle_momentum(total_steps: Number, *, base_momentum: Scalar = 0.85, max_momentum: Scalar = 0.95,
                       pct_start: Number = 0.3, anneal: str = "cosine", three_phase: bool = False) -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, that moves against `one_cycle`: down to `base_momentum` and back up.

    >>> one_cycle_momentum(100)([0, 29, 99])
    array([0.95, 0.85, 0.95])
    """
    high, low = read_momenta(max_momentum, base_momentum)
    return against(high, low, _torch_places(total_steps, pct_start, three_phase), anneal)


def linear_onecycle(transition_steps: Number, peak_value: Scalar, pct_start: Number = 0.3, pct_final: Number = 0.85,
                    div_factor: Number = 25.0, final_div_factor: Number = 1e4) -> Expr:  # fmt: skip
    """Three lines, up, down and far down (`optax.linear_onecycle_schedule`).

    Args:
        transition_steps: Steps to the last value, which then stays.
        pct_start: Part of the steps that goes up; a broken step is left out.
        pct_final: Part of the steps that goes up and down, > `pct_start`.
        div_factor: `peak_value` over the first value.
        final_div_factor: First value over the last.

    >>> linear_onecycle(100, 1.0)([0, 30, 85, 100])
    array([4.e-02, 1.e+00, 4.e-02, 4.e-06])
    """
    total, peak = read_number(transition_steps, "transition_steps"), read_value(peak_value, "peak_value")
    parts = [read_number(pct_start, "pct_start", "in [0, 1]"), read_number(pct_final, "pct_final", "in [0, 1]")]
    require(parts[0] < parts[1], "pct_final", f"> {pct_start=}", pct_final)
    low = peak / read_number(div_factor, "div_factor")
    last = low / read_number(final_div_factor, "final_div_factor")
    return phases([low, peak, low, last], [0, *(int(part * total) for part in parts), total])


def cosine_onecycle(transition_steps: Number, peak_value: Scalar, pct_start: Number = 0.3, div_factor: Number = 25.0,
                    final_div_factor: Number = 1e4) -> Expr:  # fmt: skip
    """Up and far down along cosines (`optax.cosine_onecycle_schedule`). Its arguments are those of `linear_onecycle`.

    >>> cosine_onecycle(100, 1.0)([0, 15, 30, 100])
    array([4.0e-02, 5.2e-01, 1.0e+00, 4.0e-06])
    """
    total, peak = read_number(transition_steps, "transition_steps"), read_value(peak_value, "peak_value")
    top = int(read_number(pct_start, "pct_start", "in [0, 1]") * total)
    low = peak / read_number(div_factor, "div_factor")
    last = low / read_number(final_div_factor, "final_div_factor")
    return phases([low, peak, last], [0, top, total], "cosine")

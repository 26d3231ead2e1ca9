"""One cycle: up, down and far down, with the momentum that moves against it."""

from .expressions import Expr, Number, Scalar, minimum, step, where
from .schedule_arguments import interpolate, read_number, read_value, require

__all__ = ["one_cycle", "one_cycle_momentum"]


def _phases(levels: list[Expr], total_steps: Number, pct_start: Number, anneal: str, three_phase: bool) -> Expr:
    """Through the levels first, peak, (three phases only:) middle and last, where PyTorch's OneCycleLR has them."""
    require(anneal in ("cosine", "linear"), "anneal", "'cosine' or 'linear'", anneal)
    first, peak, middle, last = levels
    total = read_number(total_steps, "total_steps")
    start = read_number(pct_start, "pct_start", "in [0, 0.5]" if three_phase else "in [0, 1]")
    top, bottom, end = start * total - 1, 2 * start * total - 2, total - 1
    position = minimum(step, end)
    fall = interpolate(peak, last, top, end, anneal)
    if three_phase:
        fall = interpolate(peak, middle, top, bottom, anneal)
        fall = where(position > bottom, interpolate(middle, last, bottom, end, anneal), fall)
    return where(position > top, fall, interpolate(first, peak, 0, top, anneal))


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
    peak = read_value(max_lr, "max_lr")
    low = peak / read_number(div_factor, "div_factor")
    last = low / read_number(final_div_factor, "final_div_factor")
    return _phases([low, peak, low, last], total_steps, pct_start, anneal, three_phase)


def one_cycle_momentum(total_steps: Number, *, base_momentum: Scalar = 0.85, max_momentum: Scalar = 0.95,
                       pct_start: Number = 0.3, anneal: str = "cosine", three_phase: bool = False) -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, that moves against `one_cycle`: down to `base_momentum` and back up.

    >>> one_cycle_momentum(100)([0, 29, 99])
    array([0.95, 0.85, 0.95])
    """
    high = read_value(max_momentum, "max_momentum", "in [0, 1]")
    low = read_value(base_momentum, "base_momentum", "in [0, 1]")
    return _phases([high, low, high, high], total_steps, pct_start, anneal, three_phase)

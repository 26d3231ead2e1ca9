"""One cycle as others wrote it; each name says whose places and levels they are."""

from .expressions import Expr, Number, Scalar
from .one_cycles import against, phases, read_momenta
from .schedule_arguments import read_flag, read_list, read_number, read_value, require

__all__ = [
    "fastai07_one_cycle", "fastai07_one_cycle_momentum", "fastai_one_cycle", "fastai_one_cycle_momentum", "flat_cos",
    "nachiket273_one_cycle", "nachiket273_one_cycle_momentum", "titu1994_one_cycle", "titu1994_one_cycle_momentum",
]  # fmt: skip


def fastai_one_cycle(lr_max: Scalar, total_steps: Number, *, div: Number = 25.0, div_final: Number = 1e5,
                     pct_start: Number = 0.25) -> Expr:  # fmt: skip
    """Cosine up from `lr_max / div`, cosine down to `lr_max / div_final` (fastai 2, `Learner.fit_one_cycle`).

    Args:
        total_steps: Epochs times batches. The end lies one step after the last of them, so none of them quite has it.
        pct_start: Part of the steps that goes up.

    >>> fastai_one_cycle(1.0, 100)([0, 25, 100])
    array([4.e-02, 1.e+00, 1.e-05])
    """
    peak, total = read_value(lr_max, "lr_max"), read_number(total_steps, "total_steps")
    top = read_number(pct_start, "pct_start", "in [0, 1]") * total
    levels = [peak / read_number(div, "div"), peak, peak / read_number(div_final, "div_final")]
    return phases(levels, [0, top, total], "cosine")


def fastai_one_cycle_momentum(total_steps: Number, *, moms: tuple[Scalar, Scalar, Scalar] = (0.95, 0.85, 0.95),
                              pct_start: Number = 0.25) -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, of `fastai_one_cycle`: through the three of `moms`.

    >>> fastai_one_cycle_momentum(100)([0, 25, 100])
    array([0.95, 0.85, 0.95])
    """
    total = read_number(total_steps, "total_steps")
    momenta = read_list(moms, "moms")
    require(len(momenta) == 3, "moms", "three momenta", moms)
    levels = [read_value(momentum, f"momentum {i} of moms", "in [0, 1]") for i, momentum in enumerate(momenta)]
    return phases(levels, [0, read_number(pct_start, "pct_start", "in [0, 1]") * total, total], "cosine")


def flat_cos(lr: Scalar, total_steps: Number, *, div_final: Number = 1e5, pct_start: Number = 0.75) -> Expr:
    """Constant, then cosine down to `lr / div_final` (fastai 2, `Learner.fit_flat_cos`).

    Args:
        total_steps: Epochs times batches.
        pct_start: Part of the steps that is constant.

    >>> flat_cos(1.0, 100, div_final=100)([0, 75, 100])
    array([1.  , 1.  , 0.01])
    """
    high, total = read_value(lr, "lr"), read_number(total_steps, "total_steps")
    begin = read_number(pct_start, "pct_start", "in [0, 1]") * total
    return phases([high, high, high / read_number(div_final, "div_final")], [0, begin, total], "cosine")


def _read_percentage(value: Number, name: str) -> float:
    percentage = read_number(value, name, ">= 0")
    require(percentage <= 100, name, "a percentage from 0 to 100", value)
    return percentage / 100


def _half(total_steps: Number, share: float) -> int:
    """Steps up, and as many down, if a share of all of them is left for the tail."""
    half = int(read_number(total_steps, "total_steps") * (1 - share) / 2)
    require(half > 0, "total_steps", f"enough for a step up beside a tail of {share:.0%}", total_steps)
    return half


def fastai07_one_cycle(lr: Scalar, total_steps: Number, *, div: Number = 10, pct: Number = 10) -> Expr:
    """Up from `lr / div`, down to it, and in the tail to a hundredth of it (fastai 0.7's `use_clr_beta`).

    Args:
        lr: Highest value.
        total_steps: Steps of a cycle.
        pct: Percentage of them that is the tail.

    >>> fastai07_one_cycle(1.0, 100)([0, 45, 90, 100])
    array([0.1  , 1.   , 0.1  , 0.001])
    """
    half = _half(total_steps, _read_percentage(pct, "pct"))
    low = read_value(lr, "lr") / read_number(div, "div")
    return phases([low, read_value(lr, "lr"), low, low / 100], [0, half, 2 * half, total_steps])


def fastai07_one_cycle_momentum(
    total_steps: Number, *, pct: Number = 10, mom_max: Scalar = 0.95, mom_min: Scalar = 0.85
) -> Expr:
    """The momentum of `fastai07_one_cycle`, `use_clr_beta=(..., mom_max, mom_min)`: a step ahead of it, as there.

    >>> fastai07_one_cycle_momentum(100)([0, 44, 89, 99]).round(6)
    array([0.947778, 0.85    , 0.95    , 0.95    ])
    """
    half = _half(total_steps, _read_percentage(pct, "pct"))
    high, low = read_momenta(mom_max, mom_min, ("mom_max", "mom_min"))
    return against(high, low, [-1, half - 1, 2 * half - 1])


def titu1994_one_cycle(max_lr: Scalar, total_steps: Number, *, end_percentage: Number = 0.1,
                       scale_percentage: Number | None = None) -> Expr:  # fmt: skip
    """That of titu1994/keras-one-cycle, whose highest value is `max_lr` only where the scale is 0.1.

    From `max_lr * scale` up to `100 * max_lr * scale ** 2`, down, and in the tail to a hundredth of where it began.

    Args:
        total_steps: Steps in all.
        end_percentage: Part of them, in [0, 1), that is the tail.
        scale_percentage: The scale; if not given `end_percentage`, so that a tail of 0.2 has a peak of 4 `max_lr`.

    >>> titu1994_one_cycle(1.0, 100, end_percentage=0.2)([0, 40, 80, 100])
    array([2.e-01, 4.e+00, 2.e-01, 2.e-03])
    """
    half = _half(total_steps, read_number(end_percentage, "end_percentage", "in [0, 1]"))
    chosen = end_percentage if scale_percentage is None else scale_percentage
    scale = read_number(chosen, "scale_percentage", "in [0, 1]")
    low = read_value(max_lr, "max_lr") * scale
    return phases([low, low * (scale * 100), low, low / 100], [0, half, 2 * half, total_steps])


def titu1994_one_cycle_momentum(total_steps: Number, *, end_percentage: Number = 0.1,
                                maximum_momentum: Scalar = 0.95, minimum_momentum: Scalar = 0.85) -> Expr:  # fmt: skip
    """The momentum of `titu1994_one_cycle`, which stays up in the tail.

    >>> titu1994_one_cycle_momentum(100)([0, 45, 90, 100])
    array([0.95, 0.85, 0.95, 0.95])
    """
    half = _half(total_steps, read_number(end_percentage, "end_percentage", "in [0, 1]"))
    high, low = read_momenta(maximum_momentum, minimum_momentum, ("maximum_momentum", "minimum_momentum"))
    return against(high, low, [0, half, 2 * half])


def _nachiket273_places(total_steps: Number, prcnt: Number, use_cosine: bool) -> list[float]:
    half = _half(total_steps, 0.5 if read_flag(use_cosine, "use_cosine") else _read_percentage(prcnt, "prcnt"))
    return [0, half, total_steps] if use_cosine else [0, half, 2 * half, total_steps]


def nachiket273_one_cycle(
    max_lr: Scalar, total_steps: Number, *, prcnt: Number = 10, div: Number = 10, use_cosine: bool = False
) -> Expr:
    """That of nachiket273/One_Cycle_Policy: its tail goes down by `div` once more, not by a hundred.

    Args:
        total_steps: Steps in all.
        prcnt: Percentage of them that is the tail.
        div: `max_lr` over the first value, and that over the last.
        use_cosine: Up within a quarter of the steps and down to the first value within the others, without a tail.

    >>> nachiket273_one_cycle(1.0, 100)([0, 45, 90, 100])
    array([0.1 , 1.  , 0.1 , 0.01])
    """
    places = _nachiket273_places(total_steps, prcnt, use_cosine)
    high, ratio = read_value(max_lr, "max_lr"), read_number(div, "div")
    low = high / ratio
    levels = [low, high, low] if use_cosine else [low, high, low, low / ratio]
    return phases(levels, places, "cosine" if use_cosine else "linear")


def nachiket273_one_cycle_momentum(
    total_steps: Number,
    *,
    momentum_vals: tuple[Scalar, Scalar] = (0.95, 0.85),
    prcnt: Number = 10,
    use_cosine: bool = False,
) -> Expr:
    """The momentum of `nachiket273_one_cycle`, from the first of `momentum_vals` to the second and back.

    >>> nachiket273_one_cycle_momentum(100)([0, 45, 90, 100])
    array([0.95, 0.85, 0.95, 0.95])
    """
    momenta = read_list(momentum_vals, "momentum_vals")
    require(len(momenta) == 2, "momentum_vals", "two momenta, the higher one first", momentum_vals)
    high, low = read_momenta(momenta[0], momenta[1], ("momentum_vals[0]", "momentum_vals[1]"))
    return against(high, low, _nachiket273_places(total_steps, prcnt, use_cosine), "cosine" if use_cosine else "linear")

"""Shapes of the way between a low value and a high one: straight, cosine, `1 - sqrt`, exponential, power."""

from .expressions import Expr, Number, Scalar, expm1, log1p, maximum, minimum, sinpi, sqrt, step, where

SHAPES = ("linear", "cosine", "1-sqrt", "exponential")


def parts(begin: Scalar, finish: Scalar) -> tuple[Expr, Expr]:
    """Of the way from step `begin` to step `finish`, what is done and what is left, each exact where it is small."""
    done, left = (minimum(maximum(steps, 0) / (finish - begin), 1) for steps in (step - begin, finish - step))
    return done, left


def level(low: Expr, high: Expr, up: Expr, down: Expr, shape: str) -> Expr:
    """The value `up` of the way above `low` and `down` of it below `high`; exactly one of the two at either end.

    The slope of "1-sqrt" is infinite at the high end, that of "cosine" 0 at both; "exponential" has a constant ratio.
    """
    if shape == "exponential":
        return where(up > 0, high * (low / high) ** down, low)
    if shape == "cosine":
        return low * sinpi(down / 2) ** 2 + high * sinpi(up / 2) ** 2
    if shape == "1-sqrt":  # 1 - sqrt(down), without the cancellation
        return low * sqrt(down) + high * (up / (1 + sqrt(down)))
    return low * down + high * up


def power_part(done: Expr, left: Expr, power: Number) -> Expr:
    """`1 - done ** power`, exact near the end too, where `left` is small."""
    return where(left < 0.5, -expm1(power * log1p(-minimum(left, 0.5))), 1 - done**power)

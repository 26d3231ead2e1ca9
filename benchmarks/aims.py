"""What figures are to come to, and whether they do."""

from collections.abc import Callable, Sequence

from gpuadam.figures import digits

HEADER = ["target", "bound", "found", "met"]


def times(ratio: float) -> str:
    return f"{digits(ratio)} x"


def verdict(
    title: str, bound: float, values: Sequence[float], show: Callable[[float], str] = times, is_most: bool = False
) -> list[str]:
    """A row of a table: the worst of the figures against the least that they may be; the most, with `is_most`."""
    wanted = f"{'<=' if is_most else '>='} {show(bound)}"
    if not values:
        return [title, wanted, "not measured", ""]
    worst = max(values) if is_most else min(values)
    met = worst <= bound if is_most else worst >= bound
    return [title, wanted, show(worst), "yes" if met else "no"]

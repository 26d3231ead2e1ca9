"""What somebody hands over in the place of a schedule or an optimizer, and what to write instead."""

from typing import Any

CONVERTED = ("torch", "keras", "thinc")  # whose schedules `as_schedule` makes ours


def refuse_stranger(value: Any, name: str) -> None:
    """Raise a TypeError that says how to make a schedule of this, if it is one of another library or a function."""
    kind = type(value)
    home = kind.__module__.partition(".")[0]
    if home in CONVERTED and not hasattr(value, "__array__"):
        raise TypeError(f"{name} is a {kind.__name__} of {home}: gpuadam.{home}.as_schedule makes a schedule of it")
    own = getattr(value, "__name__", "")
    if callable(value) and str(getattr(value, "__module__", "")).startswith("gpuadam."):
        raise TypeError(f"{name} is {own}, a schedule without its arguments: write {own}(...)")
    if callable(value):
        raise TypeError(
            f"{name} is a plain callable, {value!r}: the kernel cannot call Python. Write it as arithmetic on "
            "schedules.step, or sample it with schedules.sampled(callable, steps)"
        )


def refuse_frontend(optimizer: Any, instead: str) -> None:
    """Raise a TypeError for an optimizer of ours that works inside another library, and say what to do there."""
    kind = type(optimizer)
    if kind.__module__.startswith("gpuadam."):
        raise TypeError(f"optimizer is a {kind.__module__}.{kind.__qualname__}; {instead}")

"""The types of the command line's options: each tells what is wrong with a value in one line, and what is allowed."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from .gpus import GPU, GPUS
from .plot_command import Given
from .schedule_text import ScheduleTextError, read_schedule

T = TypeVar("T")
REFUSED = 2
MOST_PARAMETERS = 10**15
LONGEST_SHOWN = 60  # characters of a text in an error


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: error: {one_line(message)}\n")


def one_line(message: object) -> str:
    return " ".join(str(message).split())


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from low to high."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed are whole numbers from {low} to {high}")
        return number

    return read


def count_to(high: int = MOST_PARAMETERS) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from 1, which may be written as 1e6."""

    def read(text: str) -> int:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 1 <= number <= high or number != int(number):
            raise argparse.ArgumentTypeError(f"{text!r}; allowed are whole numbers from 1 to {high:g}, such as 1e6")
        return int(number)

    return read


def several(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """The type of an option that takes some values of a type, with commas between them; twice the same is once."""
    return lambda text: tuple(dict.fromkeys(map(read, text.split(","))))


def positive(text: str) -> float:
    """A size or a rate."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are numbers > 0")
    return number


def gpu_named(text: str) -> GPU:
    """A GPU of the table, in large or small letters."""
    found = {gpu.name.lower(): gpu for gpu in GPUS}.get(text.lower())
    if found is None:
        names = ", ".join(gpu.name for gpu in GPUS)
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are {names}; or give --memory and --bandwidth")
    return found


def learning_rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are numbers > 0 and <= 1")
    return number


def threshold(text: str) -> float | None:
    """A norm; None is "off"."""
    try:
        number = 0.0 if text == "none" else float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are numbers > 0, and 0 or none for no clipping")
    return number or None


def one_of(*names: str) -> Callable[[str], str | None]:
    """The type of an option that takes one of some names; "none" is None."""

    def read(text: str) -> str | None:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed are {', '.join(names)}")
        return None if text == "none" else text

    return read


def file_named(suffix: str) -> Callable[[str], Path]:
    """The type of an option that takes a file to be written, which is tried without touching it."""

    def read(text: str) -> Path:
        path = Path(text)
        try:
            if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
                raise PermissionError("a folder, or a file that may not be written")
            with tempfile.TemporaryFile(dir=path.parent):
                allowed = path.suffix.lower() == suffix
            if not allowed:
                raise ValueError("another ending")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise argparse.ArgumentTypeError(
                f"{text!r} ({reason}); allowed are names that end in {suffix}, in a folder that exists and can be "
                "written to"
            ) from error
        return path

    return read


def schedule(text: str) -> Given:
    """A formula over `step`."""
    try:
        return Given(text, read_schedule(text))
    except ScheduleTextError as error:
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
        raise argparse.ArgumentTypeError(f"{shown!r}: {one_line(error)}") from error


def join_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """`--lr -1e-3` as `--lr=-1e-3`: argparse would take such a number for an option, and not tell that it is bad."""
    joined: list[str] = []
    for argument in arguments:
        is_value = argument.startswith("-") and joined and joined[-1].startswith("--") and "=" not in joined[-1]
        try:
            float(argument)
        except ValueError:
            is_value = False
        if is_value:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined

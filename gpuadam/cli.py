"""The command line: `python -m gpuadam` is the doctor, `python -m gpuadam demo` the demo.

Whatever is wrong with the arguments is told in one line on stderr, with exit status 2, before anything runs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import CheckpointError, __version__, demo, doctor
from .demo_network import TRAINING
from .nvrtc import KernelCompileError

REFUSED, INTERRUPTED = 2, 130


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


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="gpuadam",
        allow_abbrev=False,
        description="Adam, AdamW, NAdam, RMSprop and SGD for GPU arrays. Without a command: the doctor.",
    )
    parser.add_argument("--version", action="version", version=f"gpuadam {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="doctor | demo")
    commands.add_parser("doctor", help="what is installed, which backend there is, and whether it computes rightly")
    help_text = "train a small network on handwritten digits (needs gpuadam[demo])"
    add_demo_options(commands.add_parser("demo", help=help_text, description=help_text, allow_abbrev=False))
    return parser


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    default = demo.Options()

    def add(name: str, text: str, **settings: Any) -> None:
        value = getattr(default, name.replace("-", "_"))
        value = str(value) if isinstance(value, Path) else value  # text, which argparse checks as if it were given
        parser.add_argument(f"--{name}", help=text, default=value, **settings)

    def add_mode(name: str, text: str, *names: str) -> None:
        add(name, f"{text} (default: {names[0]})", type=one_of(*names), metavar="|".join(names))

    add("backend", "auto: cuda if there is a GPU (default), else cpu", choices=("auto", "cpu", "cuda"))
    add("optimizer", "default: %(default)s", choices=tuple(demo.OPTIMIZERS))
    add("schedule", "of the learning rate (default: %(default)s)", choices=tuple(demo.SCHEDULES))
    add("epochs", "passes over the digits (default: %(default)s)", type=whole_number(1, 1000), metavar="N")
    batch_size = whole_number(1, TRAINING)
    add("batch-size", "digits of a step (default: %(default)s)", type=batch_size, metavar="N")
    add("lr", "peak of the learning rate (default: %(default)s)", type=learning_rate, metavar="X")
    add("clip-norm", "largest norm of the gradients (default: %(default)s)", type=threshold, metavar="X|none")
    add_mode("dtype", "of the weights", "float32", "bfloat16", "float16")
    add_mode("master", "what 16-bit weights leave out", "none", "float32", "remainder")
    add_mode("rounding", "of 16-bit weights", "nearest", "stochastic")
    add_mode("state-dtype", "of the optimizer's states", "float32", "bfloat16", "int8")
    add("seed", "of the weights and batches (default: %(default)s)", type=whole_number(0, 2**32 - 1), metavar="N")
    add("save", "where the run is kept after each epoch", type=file_named(".safetensors"), metavar="FILE.safetensors")
    add("resume", "a run that was kept, to go on with", type=Path, metavar="FILE.safetensors")
    picture = file_named(".png")
    add("out", "the picture (default: %(default)s); replaces a file of that name", type=picture, metavar="FILE.png")


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status."""
    parser = make_parser()
    try:
        settings = vars(parser.parse_args(join_negative_numbers(sys.argv[1:] if argv is None else argv)))
        if settings.pop("command") != "demo":
            return doctor.run()
        demo.run(demo.Options(**settings))
    except (demo.DemoError, CheckpointError, KernelCompileError) as error:
        print(f"gpuadam demo: error: {one_line(error)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except SystemExit as end:  # how argparse ends
        return int(end.code or 0)
    return 0

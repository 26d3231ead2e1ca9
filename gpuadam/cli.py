"""The command line: `python -m gpuadam` is the doctor; `demo` trains a network, `plot` draws schedules,
`plan` tells what a training asks of each GPU, `bench` measures how fast this machine can step.

Whatever is wrong with the arguments is told in one line on stderr, with exit status 2, before anything runs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import CheckpointError, __version__, bench_command, demo, demo_lr, doctor, plan_command, plot_command
from .bench_cases import ALL, RECIPES
from .bench_host import most_threads
from .cli_types import (
    REFUSED,
    OneLineParser,
    count_to,
    file_named,
    gpu_named,
    join_negative_numbers,
    learning_rate,
    one_line,
    one_of,
    positive,
    schedule,
    several,
    threshold,
    whole_number,
)
from .demo_network import TRAINING
from .nvrtc import KernelCompileError
from .planning import OPTIMIZERS, SHARDED
from .workloads import NETWORKS

INTERRUPTED = 130
MOST_STEPS = 10_000_000
MOST_GPUS = 1_000_000
MOST_TENSORS = 1_000_000


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="gpuadam",
        allow_abbrev=False,
        description="AdamW, Lion, LAMB and other optimizers for GPU arrays. Without a command: the doctor.",
    )
    parser.add_argument("--version", action="version", version=f"gpuadam {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="doctor | demo | plot | plan | bench")
    commands.add_parser("doctor", help="what is installed, which backend there is, and whether it computes rightly")
    help_text = "train a small network on handwritten digits (needs gpuadam[demo])"
    add_demo_options(commands.add_parser("demo", help=help_text, description=help_text, allow_abbrev=False))
    help_text = "draw schedules in the terminal, or as a picture (which needs matplotlib)"
    add_plot_options(commands.add_parser("plot", help=help_text, description=help_text, allow_abbrev=False))
    help_text = "memory, bytes moved and the shortest step on each GPU, before one is rented"
    add_plan_options(commands.add_parser("plan", help=help_text, description=help_text, allow_abbrev=False))
    help_text = "how fast this machine can step, and what the limit is"
    add_bench_options(commands.add_parser("bench", help=help_text, description=help_text, allow_abbrev=False))
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
    text = "find the peak of the learning rate by a range test first, with a picture beside the other"
    parser.add_argument("--find-lr", help=text, action="store_true")


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("schedules", nargs="*", type=schedule, metavar="SCHEDULE", help="a formula: 'cosine_decay(0.1, 900)'")
    add("--gallery", action="store_true", help="one example of each schedule that there is")
    steps = whole_number(1, MOST_STEPS)
    add("--steps", type=steps, metavar="N", help="how many (default: a tenth more than the largest whole number given)")
    picture = file_named(".png")
    add("-o", "--out", type=picture, metavar="FILE.png", help="a picture in place of text; replaces that file")


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    formats = ("float32", "bfloat16", "float16", "float64")
    add("--params", type=count_to(), required=True, metavar="N", help="how many parameters the model has, such as 7e9")
    add("--dtype", choices=formats, default="float32", help="of the weights (default: %(default)s)")
    add("--grad-dtype", choices=formats, help="of the gradients (default: as the weights)")
    add("--rule", choices=tuple(OPTIMIZERS), default="adamw", help="the optimizer (default: %(default)s)")
    masters, states = ("none", "float32", "remainder"), ("float32", "bfloat16", "int8")
    add("--master", type=one_of(*masters), metavar="|".join(masters), help="what 16-bit weights leave out")
    add("--state-dtype", choices=states, default="float32", help="of the states (default: %(default)s)")
    for name, text in {
        "amsgrad": "with the largest second moment so far, of adam and adamw",
        "centered": "with the mean of the gradients, of rmsprop",
        "momentum": "with a momentum, of sgd, sgdw and rmsprop, which have none otherwise",
        "ema": "an average of the weights",
        "clip-norm": "gradients clipped by their norm, or looked through for what is not finite",
        "zero-grads": "gradients left zero by the step",
    }.items():
        add(f"--{name}", action="store_true", help=text)
    add("--gpus", type=whole_number(1, MOST_GPUS), default=1, metavar="N", help="over which the batch is spread")
    text = "what these share out: none (DDP), states (ZeRO-1), gradients (ZeRO-2) or all (ZeRO-3, FSDP) (default: none)"
    add("--shard", choices=tuple(SHARDED), default="none", help=text)
    add("--gpu", type=gpu_named, metavar="NAME", help="one of the table (default: all of them), such as H200")
    add("--memory", type=positive, metavar="GB", help="of a GPU, in place of the table's")
    add("--bandwidth", type=positive, metavar="GB/S", help="of its memory, measured or from its data sheet")
    add("--json", action="store_true", help="bytes and seconds, as JSON")


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backend", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda if there is a GPU (default)")
    add("--rule", choices=tuple(OPTIMIZERS), default="adamw", help="the optimizer (default: %(default)s)")
    formats, masters = ("float32", "float64", "bfloat16", "float16"), ("none", "float32", "remainder")
    add("--dtype", choices=formats, default="float32", help="of weights and gradients (default: %(default)s)")
    add("--master", type=one_of(*masters), metavar="|".join(masters), help="what 16-bit weights leave out")
    recipes = several(one_of(*RECIPES, ALL))
    add("--recipe", type=recipes, default=("plain",), metavar="NAME,...", help=f"of {', '.join(RECIPES)}, {ALL}")
    numbers, counts, names = several(count_to(MOST_TENSORS)), several(count_to()), several(one_of(*NETWORKS))
    add("--tensors", type=numbers, default=(), metavar="N,...", help="how many, each with each of the sizes")
    add("--sizes", type=counts, default=(), metavar="N,...", help="elements of a tensor, such as 1000,1e6")
    add("--models", type=names, default=(), metavar="NAME,...", help=f"the tensors of {', '.join(NETWORKS)}")
    add("--quick", action="store_true", help="a few seconds in all: fewer cases and samples, and no first use")
    add("--seconds", type=positive, metavar="X", help="for the samples of a case (default: 1.5)")
    add("--threads", type=whole_number(1, most_threads()), metavar="N", help="of the CPU (default: all)")
    for name, text in {"json": "all figures", "csv": "a row for each case", "md": "tables for a page"}.items():
        add(f"--{name}", type=file_named(f".{name}"), metavar=f"FILE.{name}", help=text)
    add("--plot", type=file_named(".png"), metavar="FILE.png", help="a picture, which needs matplotlib")


def run_command(settings: dict[str, Any]) -> int:
    command = settings.pop("command")
    if command == "plot":
        plot_command.run(plot_command.Options(**settings))
    elif command == "plan":
        plan_command.run(plan_command.Options(**settings))
    elif command == "bench":
        bench_command.run(bench_command.Options(**settings))
    elif command == "demo":
        runs = demo_lr if settings.pop("find_lr") else demo
        runs.run(demo.Options(**settings))
    else:
        return doctor.run()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status."""
    parser, command = make_parser(), ""
    try:
        settings = vars(parser.parse_args(join_negative_numbers(sys.argv[1:] if argv is None else argv)))
        command = settings["command"]
        return run_command(settings)
    except (
        bench_command.BenchError,
        demo.DemoError,
        plan_command.PlanError,
        plot_command.PlotError,
        CheckpointError,
        KernelCompileError,
    ) as error:
        print(f"gpuadam {command}: error: {one_line(error)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except SystemExit as end:  # how argparse ends
        return int(end.code or 0)

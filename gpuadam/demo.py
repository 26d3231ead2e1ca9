"""The demo: a small network learns to read handwritten digits, with the whole recipe of a training.

Read `train`: the gradients are bound once and written in place, and `step()` does the rest, from clipping to the
average of the weights, the learning rate of the step included. The network itself is in `demo_network`.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop, __version__, ema_warmup, schedules
from .cuda import unavailable_reason
from .demo_network import HELD_OUT, TRAINING, accuracy, batches, load_data, loss_and_gradients, new_grads, new_params
from .demo_picture import History, draw
from .expressions import Expr

ROWS = 8  # lines of the printed table, at most
EMA_DECAY = 0.99
PACKAGES = {  # under what name each is imported, and installed
    "matplotlib": "matplotlib",
    "ml_dtypes": "ml_dtypes",
    "rich": "rich",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
}

OPTIMIZERS: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "nadam": NAdam, "rmsprop": RMSprop, "sgd": SGD}
SETTINGS: dict[str, Any] = {"sgd": {"momentum": 0.98, "nesterov": True}}  # beside the learning rate
SCHEDULES: dict[str, Callable[[float, int], Expr]] = {  # peak, steps -> the learning rate over `step`
    "constant": lambda peak, steps: schedules.constant(peak),
    "warmup-cosine": lambda peak, steps: schedules.warmup_cosine_decay(0.0, peak, steps // 10, steps),
    "one-cycle": schedules.one_cycle,
    "exponential": lambda peak, steps: schedules.exponential_decay(peak, steps, 0.01),
    "polynomial": lambda peak, steps: schedules.polynomial_decay(peak, steps, 0.0, power=2),
    "piecewise": lambda peak, steps: peak * schedules.piecewise_constant([steps / 2, steps * 3 / 4], [1, 0.1, 0.01]),
    "cyclic": lambda peak, steps: schedules.cyclic(peak / 10, peak, steps / 8, mode="triangular2"),
    "cosine-restarts": lambda peak, steps: schedules.cosine_decay_restarts(peak, steps / 7, t_mul=2.0),
}


class DemoError(Exception):
    """The demo cannot run; the message is one line."""


@dataclass(frozen=True)
class Options:
    """What the command line sets; `lr` is the peak of the learning rate."""

    backend: str = "auto"
    optimizer: str = "adamw"
    schedule: str = "warmup-cosine"
    epochs: int = 40
    batch_size: int = 64
    lr: float = 1e-2
    clip_norm: float | None = 1.0
    dtype: str = "float32"
    master: Any = None
    rounding: Any = "nearest"
    state_dtype: Any = "float32"
    seed: int = 0
    save: Path | None = None
    resume: Path | None = None
    out: Path = Path("demo.png")

    @property
    def title(self) -> str:
        name = OPTIMIZERS[self.optimizer].__name__
        return f"{name}, schedule {self.schedule}, peak {self.lr:g}, batches of {self.batch_size}, seed {self.seed}"

    @property
    def recipe(self) -> str:
        """What is around the update, in words."""
        clip = f"gradients clipped to a norm of {self.clip_norm:g}" if self.clip_norm else "gradients as they are"
        master = f" with a master in {self.master}" if self.master else ""
        rounding = ", rounded at random" if self.rounding == "stochastic" else ""
        return f"{clip}; weights in {self.dtype}{master}{rounding}, states in {self.state_dtype}"

    @property
    def steps_per_epoch(self) -> int:
        return TRAINING // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass
class Run:
    """A training that can begin, or go on where another has stopped.

    Attributes:
        xp: numpy or cupy.
        first_epoch: How many epochs there have been before.
        differences: In what an earlier run was another one, a sentence each.
    """

    xp: ModuleType
    options: Options
    params: dict[str, Any]
    optimizer: Optimizer
    history: History
    first_epoch: int
    differences: list[str]


# ---- the training


def begin(xp: ModuleType, options: Options) -> Run:
    """Make weights and optimizer, and take up the run that `options.resume` holds, if any.

    Raises:
        DemoError: Modes that contradict each other, or a file that holds no whole epochs, or all that are asked for.
        CheckpointError: The file does not fit.
    """
    params = new_params(xp, options.seed, dtype_named(options.dtype))
    history = History(SCHEDULES[options.schedule](options.lr, options.steps))
    optimizer = new_optimizer(options, params, history.schedule)
    differences = optimizer.load(options.resume) if options.resume else []
    return Run(xp, options, params, optimizer, history, epochs_done(optimizer, options), differences)


def train(run: Run) -> Iterator[float]:
    """Train the network. Yields the held-out accuracy of the averaged weights after each epoch."""
    xp, options, params, optimizer, history = run.xp, run.options, run.params, run.optimizer, run.history
    images, digits, held_out_images, held_out_digits = load_data()
    held_out = xp.asarray(held_out_images), xp.asarray(held_out_digits)
    grads = new_grads(xp, params)
    optimizer.bind(grads)

    for epoch in range(run.first_epoch, options.epochs):
        losses = []
        for batch_images, batch_targets in batches(xp, images, digits, options.batch_size, options.seed, epoch):
            losses.append(loss_and_gradients(xp, params, grads, batch_images, batch_targets))
            optimizer.step()
        history.losses += xp.stack(losses).tolist()  # only here the host waits for the device
        history.steps.append((epoch + 1) * options.steps_per_epoch)
        history.accuracies.append(accuracy(xp, params, *held_out))
        with optimizer.ema():
            history.averages.append(accuracy(xp, params, *held_out))
        history.next_lrs.append(optimizer.hyperparameters()[0]["lr"])
        if options.save:
            optimizer.save(options.save)
        yield history.averages[-1]


def new_optimizer(options: Options, params: dict[str, Any], lr: Expr) -> Optimizer:
    """The optimizer with its whole recipe.

    Raises:
        DemoError: Modes that contradict each other.
    """
    if options.dtype == "float32" and (options.master or options.rounding == "stochastic"):
        raise DemoError(
            "--master and --rounding are for weights of 16 bits; allowed with --dtype float32 are --master none and "
            "--rounding nearest"
        )
    settings = SETTINGS.get(options.optimizer, {})
    try:
        made: Optimizer = OPTIMIZERS[options.optimizer](
            params,
            lr=lr,
            **settings,
            clip_norm=options.clip_norm or None,
            ema_decay=ema_warmup(EMA_DECAY),
            master=options.master,
            rounding=options.rounding,
            state_dtype=options.state_dtype,
            seed=options.seed,
        )
    except ValueError as error:
        raise DemoError(error) from error
    return made


def epochs_done(optimizer: Optimizer, options: Options) -> int:
    """How many epochs there have been: the optimizer has counted the steps."""
    done = int(optimizer.state_dict()["groups"][0]["step"])
    epochs, rest = divmod(done, options.steps_per_epoch)
    holds = f"argument --resume: {str(options.resume)!r} holds"
    if rest:
        raise DemoError(
            f"{holds} {done:,} steps, which are no whole epochs of {options.steps_per_epoch}; allowed is the "
            "--batch-size of the run that wrote it"
        )
    if epochs >= options.epochs:
        raise DemoError(f"{holds} {epochs:,} epochs already; allowed are --epochs above that")
    return epochs


def dtype_named(name: str) -> Any:
    """NumPy has no bfloat16 of its own."""
    return importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)


# ---- what the user sees


def run(options: Options) -> None:
    """Train, print and draw.

    Raises:
        DemoError: Something that it needs is missing, or the picture cannot be written.
        CheckpointError: A file that is to be resumed does not fit, or one cannot be written.
    """
    require_packages()
    run = begin(array_module(options.backend), options)
    print(headline(run), flush=True)
    with one_blas_thread():
        show_progress(train(run), run.first_epoch, options.epochs)
    print_results(options, run.history)
    title = f"Handwritten digits, learned in {options.steps:,} steps"
    try:
        draw(title, options.title, run.history).savefig(options.out, format="png", dpi=160)
    except OSError as error:
        raise DemoError(f"the picture {str(options.out)!r} cannot be written: {error}") from error
    print(f"picture              {options.out}")


def require_packages() -> None:
    missing = []
    for name, package in PACKAGES.items():
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(package)
    if missing:
        raise DemoError(f"the demo needs {', '.join(missing)}: pip install 'gpuadam[demo]'")


def array_module(backend: str) -> ModuleType:
    """numpy or cupy, as the backend wants its arrays."""
    reason = None if backend == "cpu" else unavailable_reason()
    if backend == "cuda" and reason:
        raise DemoError(f"argument --backend: 'cuda' is not available here, allowed are 'auto' and 'cpu': {reason}")
    return np if backend == "cpu" or reason else importlib.import_module("cupy")


def one_blas_thread() -> Any:
    """Matrices as small as these gain nothing from a second thread, and on a busy machine wait long for it."""
    return importlib.import_module("threadpoolctl").threadpool_limits(1, "blas")  # scikit-learn brings it


def headline(run: Run) -> str:
    options, device = run.options, "CPU" if run.xp is np else "GPU"
    lines = [
        f"gpuadam {__version__} on the {device}, with {run.xp.__name__} arrays: {options.title}",
        options.recipe,
        f"{TRAINING:,} digits to learn from, {HELD_OUT} held out; {options.epochs:,} epochs, {options.steps:,} steps",
    ]
    if options.resume:
        lines.append(f"goes on after epoch {run.first_epoch:,} of {options.resume}")
    return "\n".join([*lines, *(f"other than then: {difference}" for difference in run.differences)])


def show_progress(accuracies: Iterator[float], first: int, epochs: int) -> None:
    """Run the training under a progress bar, which a terminal alone gets to see."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("epoch {task.completed}/{task.total}"), BarColumn(None), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task("compiling", total=epochs, completed=first)
        for value in accuracies:
            bar.update(task, advance=1, description=f"held out {value:5.2f} %")


def print_results(options: Options, history: History) -> None:
    print("\n  epoch    step       loss   held out    average   learning rate of the next step")
    every = -(-len(history.steps) // ROWS)
    for i in range(len(history.steps) - 1, -1, -every)[::-1]:
        epoch, step = history.steps[i] // options.steps_per_epoch, history.steps[i]
        loss = history.losses[(i + 1) * options.steps_per_epoch - 1]
        accuracies = f"{history.accuracies[i]:6.2f} %   {history.averages[i]:6.2f} %"
        print(f"  {epoch:5}  {step:6,}   {loss:8.4f}   {accuracies}   {history.next_lrs[i]:.6g}")
    print()
    for label, value in (("held-out accuracy", history.accuracies[-1]), ("of the average", history.averages[-1])):
        print(f"{label:<20} {value:.2f} % ({round(value * HELD_OUT / 100)} of {HELD_OUT} digits)")
    loss = history.losses[-1]
    print(f"last loss            {loss:.6f}, exactly {loss.hex()}: run again, and it is the same")
    if options.save:
        print(f"run                  {options.save}")

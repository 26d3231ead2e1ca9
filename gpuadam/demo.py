"""The demo: a small network learns to read handwritten digits, written in array code that NumPy and CuPy both run.

Read `loss_and_gradients`, then `train`: the gradients are bound once and written in place, and `step()` does the rest,
the learning rate of the step included.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import Adam, AdamW, Optimizer, RMSprop, __version__, schedules
from .cuda import unavailable_reason
from .expressions import Expr

TRAINING, HELD_OUT = 1_437, 360  # of scikit-learn's 1,797 digits; the split is the same for every seed
HIDDEN = 256
NOISE = 0.15  # on the training pixels, which lie in [0, 1]
ROWS = 8  # lines of the printed table, at most
INK, GREY, BLUE, GREEN, ORANGE = "#1f2933", "#6b7580", "#2563a8", "#1f8a5b", "#d97706"

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
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
    seed: int = 0
    out: Path = Path("demo.png")

    @property
    def title(self) -> str:
        name = OPTIMIZERS[self.optimizer].__name__
        return f"{name}, schedule {self.schedule}, peak {self.lr:g}, batches of {self.batch_size}, seed {self.seed}"

    @property
    def steps_per_epoch(self) -> int:
        return TRAINING // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass
class History:
    """What a run leaves to print and to plot: the losses by step, the rest by epoch."""

    schedule: Expr
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    next_lrs: list[float] = field(default_factory=list)


# ---- the network: 64 pixels -> 256 hidden units -> 10 digits; `xp` is numpy or cupy


def new_params(xp: ModuleType, rng: np.random.Generator) -> dict[str, Any]:
    """Weights that keep the variance (He et al., arXiv 1502.01852), made on the host: the same on every device."""
    hidden = rng.standard_normal((64, HIDDEN)) * np.sqrt(2 / 64)
    output = rng.standard_normal((HIDDEN, 10)) * np.sqrt(2 / HIDDEN)
    return {
        "hidden.weight": xp.asarray(hidden.astype(np.float32)),
        "hidden.bias": xp.zeros(HIDDEN, np.float32),
        "output.weight": xp.asarray(output.astype(np.float32)),
        "output.bias": xp.zeros(10, np.float32),
    }


def forward(xp: ModuleType, params: dict[str, Any], images: Any) -> tuple[Any, Any]:
    """The hidden units, and a score for each digit."""
    hidden = xp.maximum(images @ params["hidden.weight"] + params["hidden.bias"], 0)
    return hidden, hidden @ params["output.weight"] + params["output.bias"]


def loss_and_gradients(xp: ModuleType, params: dict[str, Any], grads: dict[str, Any], images: Any, targets: Any) -> Any:
    """The mean cross-entropy of a batch; its gradients are written into `grads`, backwards through the network."""
    hidden, scores = forward(xp, params, images)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = scores - xp.log(xp.exp(scores).sum(axis=1, keepdims=True))

    d_scores = (xp.exp(log_probabilities) - targets) / len(images)
    xp.matmul(hidden.T, d_scores, out=grads["output.weight"])
    xp.sum(d_scores, axis=0, out=grads["output.bias"])

    d_hidden = (d_scores @ params["output.weight"].T) * (hidden > 0)
    xp.matmul(images.T, d_hidden, out=grads["hidden.weight"])
    xp.sum(d_hidden, axis=0, out=grads["hidden.bias"])
    return -(targets * log_probabilities).sum() / len(images)


def accuracy(xp: ModuleType, params: dict[str, Any], images: Any, digits: Any) -> float:
    """Per cent of the images whose digit has the highest score."""
    _, scores = forward(xp, params, images)
    return 100 * float((scores.argmax(axis=1) == digits).mean())


# ---- the training


def train(xp: ModuleType, options: Options, history: History) -> Iterator[float]:
    """Train the network. Yields the held-out accuracy after each epoch."""
    rng = np.random.default_rng(options.seed)
    images, digits, held_out_images, held_out_digits = load_data()
    held_out = xp.asarray(held_out_images), xp.asarray(held_out_digits)

    params = new_params(xp, rng)
    grads = {name: xp.empty_like(param) for name, param in params.items()}
    optimizer = OPTIMIZERS[options.optimizer](params, lr=history.schedule)
    optimizer.bind(grads)

    for _ in range(options.epochs):
        losses = []
        for batch_images, batch_targets in batches(xp, images, digits, options, rng):
            losses.append(loss_and_gradients(xp, params, grads, batch_images, batch_targets))
            optimizer.step()
        history.losses += xp.stack(losses).tolist()  # only here the host waits for the device
        history.steps.append(len(history.losses))
        history.accuracies.append(accuracy(xp, params, *held_out))
        history.next_lrs.append(optimizer.hyperparameters()[0]["lr"])
        yield history.accuracies[-1]


def batches(xp: ModuleType, images: Any, digits: Any, options: Options, rng: np.random.Generator) -> Iterator[Any]:
    """One epoch: the digits in a new order and under new noise, in batches of one size (what is left over rests)."""
    order = rng.permutation(TRAINING)
    noise = NOISE * rng.standard_normal(images.shape, np.float32)
    noisy = xp.asarray(images[order] + noise)
    targets = xp.asarray(np.eye(10, dtype=np.float32)[digits[order]])
    for begin in range(0, options.steps_per_epoch * options.batch_size, options.batch_size):
        batch = slice(begin, begin + options.batch_size)
        yield noisy[batch], targets[batch]


def load_data() -> Any:
    """Pixels in [0, 1] and digits: to learn from, and held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, digits, test_size=HELD_OUT, random_state=0, stratify=digits)
    images, held_out_images, digits, held_out_digits = parts
    return images.astype(np.float32), digits, held_out_images.astype(np.float32), held_out_digits


# ---- what the user sees


def run(options: Options) -> None:
    """Train, print and draw.

    Raises:
        DemoError: Something that it needs is missing, or the picture cannot be written.
    """
    require_packages()
    xp = array_module(options.backend)
    history = History(SCHEDULES[options.schedule](options.lr, options.steps))
    print(headline(xp, options), flush=True)
    with one_blas_thread():
        show_progress(train(xp, options, history), options.epochs)
    print_results(options, history)
    try:
        draw(options, history).savefig(options.out, format="png", dpi=160)
    except OSError as error:
        raise DemoError(f"the picture {str(options.out)!r} cannot be written: {error}") from error
    print(f"picture              {options.out}")


def require_packages() -> None:
    missing = []
    for name, package in {"matplotlib": "matplotlib", "rich": "rich", "sklearn": "scikit-learn"}.items():
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


def headline(xp: ModuleType, options: Options) -> str:
    device = "CPU" if xp is np else "GPU"
    return (
        f"gpuadam {__version__} on the {device}, with {xp.__name__} arrays: {options.title}\n"
        f"{TRAINING:,} digits to learn from, {HELD_OUT} held out; {options.epochs:,} epochs, {options.steps:,} steps"
    )


def show_progress(accuracies: Iterator[float], epochs: int) -> None:
    """Run the training under a progress bar, which a terminal alone gets to see."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("epoch {task.completed}/{task.total}"), BarColumn(None), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task("compiling", total=epochs)
        for value in accuracies:
            bar.update(task, advance=1, description=f"held out {value:5.2f} %")


def print_results(options: Options, history: History) -> None:
    print("\n  epoch    step       loss   held out   learning rate of the next step")
    every = -(-options.epochs // ROWS)
    for epoch in range(options.epochs, 0, -every)[::-1]:
        end, value, lr = history.steps[epoch - 1], history.accuracies[epoch - 1], history.next_lrs[epoch - 1]
        print(f"  {epoch:5}  {end:6,}   {history.losses[end - 1]:8.4f}   {value:6.2f} %   {lr:.6g}")
    right = round(history.accuracies[-1] * HELD_OUT / 100)
    print(f"\nheld-out accuracy    {history.accuracies[-1]:.2f} % ({right} of {HELD_OUT} digits)")
    loss = history.losses[-1]
    print(f"last loss            {loss:.6f}, exactly {loss.hex()}: run again, and it is the same")


def draw(options: Options, history: History) -> Any:
    """The figure: loss, accuracy and learning rate, one below the other over the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.8), facecolor="white")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    figure.subplots_adjust(left=0.075, right=0.885, top=0.845, bottom=0.075, hspace=0.34)
    title = f"Handwritten digits, learned in {options.steps:,} steps"
    figure.text(0.03, 0.95, title, size=18, weight="bold", color=INK)
    figure.text(0.03, 0.915, options.title, size=11.5, color=GREY)

    steps = np.arange(options.steps)
    middles = np.array(history.steps) - options.steps_per_epoch / 2
    means = np.reshape(history.losses, (options.epochs, -1)).mean(axis=1)
    rates = history.schedule(steps)  # by the program that the kernel runs
    panels[0].semilogy(steps, history.losses, color=BLUE, lw=0.7, alpha=0.35)
    panels[2].fill_between(steps, 0, rates, color=ORANGE, alpha=0.12, lw=0)
    plot_panel(panels[0], "Training loss: each batch, and the mean of each epoch", middles, means, BLUE, ".3f")
    plot_panel(panels[1], "Held-out digits read right, in %", history.steps, history.accuracies, GREEN, ".2f")
    plot_panel(panels[2], "Learning rate", steps, rates, ORANGE, ".2g")
    panels[1].set_ylim(top=100)
    panels[2].set_ylim(bottom=0)
    panels[2].set_xlim(0, options.steps)
    panels[2].xaxis.get_major_locator().set_params(integer=True)
    panels[2].set_xlabel("step", color=GREY, loc="right")
    return figure


def plot_panel(panel: Any, title: str, steps: Any, values: Any, color: str, form: str) -> None:
    """One curve, with its last value written beside its end."""
    panel.plot(steps, values, color=color, lw=2.2, solid_capstyle="round", zorder=4)
    panel.plot(steps[-1], values[-1], "o", ms=7, color=color, mec="white", mew=1.2, clip_on=False, zorder=5)
    panel.annotate(
        format(values[-1], form), (1, values[-1]), (12, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", size=11, weight="bold", color=color, annotation_clip=False,
    )  # fmt: skip
    panel.set_title(title, loc="left", size=11.5, color=INK, pad=9)
    panel.grid(axis="y", color="#e6e8eb", lw=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#b8bec6")
    panel.tick_params(which="both", colors=GREY, length=0, labelsize=9.5)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()

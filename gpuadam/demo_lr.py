"""The demo with a learning rate that it finds by itself: a range test, its picture, and then the training."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from . import demo
from .demo import DemoError, Options
from .demo_network import batches, load_data, loss_and_gradients, new_grads
from .lr_finder import LRFinder
from .lr_suggestions import METHODS
from .pictures import INK, matplotlib

METHOD = "slide"  # the suggestion that the demo trains with
LARGEST = 1.0  # that `--lr` takes


def run(options: Options) -> None:
    """Find, print, draw, and train.

    Raises:
        DemoError: As the demo; a run that is resumed has its rate already.
    """
    demo.require_packages()
    if options.lr != type(options).lr:
        raise DemoError("argument --find-lr: it finds the rate that --lr gives; allowed is one of the two")
    if options.resume:
        raise DemoError("argument --find-lr: a run that is resumed keeps its schedule; allowed is one of the two")
    finder = find(demo.array_module(options.backend), options)
    found = {method: finder.suggestion(method) for method in METHODS}
    print(f"range test, {len(finder.history['lr'])} steps, after which everything is as it was:")
    for method, value in found.items():
        print(f"  {method:<10} {value:.2e}" + (", which is taken" if method == METHOD else ""))
    path = options.out.with_stem(options.out.stem + "_lr")
    try:
        draw(finder, found[METHOD], path)
    except OSError as error:
        raise DemoError(f"the picture {str(path)!r} cannot be written: {error}") from error
    print(f"picture              {path}\n")
    demo.run(replace(options, lr=min(found[METHOD], LARGEST)))


def find(xp: ModuleType, options: Options) -> LRFinder:
    """The range test of the very optimizer, network and batches that the demo trains with."""
    begun = demo.begin(xp, options)
    grads = new_grads(xp, begun.params)
    begun.optimizer.bind(grads)
    taken = endless_batches(xp, options)

    def train_step() -> Any:
        loss = loss_and_gradients(xp, begun.params, grads, *next(taken))
        begun.optimizer.step()
        return loss

    finder = LRFinder(begun.optimizer)
    with demo.one_blas_thread():
        finder.range_test(train_step, start_lr=1e-6, num_iter=150)
    return finder


def endless_batches(xp: ModuleType, options: Options) -> Iterator[Any]:
    """The batches of one epoch after the other."""
    images, digits, *_ = load_data()
    for epoch in itertools.count():
        yield from batches(xp, images, digits, options.batch_size, options.seed, epoch)


def draw(finder: LRFinder, taken: float, path: Path) -> None:
    figure = matplotlib("figure").Figure(figsize=(7, 4), facecolor="white", layout="constrained")
    axes = finder.plot(ax=figure.subplots(), show_lr=taken)
    axes.set_title(f"Range test: the line is the rate that is taken, {taken:.2g} ({METHOD})", loc="left", color=INK)
    figure.savefig(path, format="png", dpi=130)

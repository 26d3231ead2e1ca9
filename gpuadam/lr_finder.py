"""The learning rate range test (Smith, arXiv 1506.01186, section 3.3): raise the rate step by step, watch the loss.

The ramp is a schedule like any other, evaluated inside the launch of each step; here the losses are read, the end is
called, and everything is brought back as it was.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .expressions import Expr, as_number, maximum, minimum, step
from .lr_suggestions import METHODS, Curve, suggest
from .optimizer import Optimizer
from .pictures import BLUE, GREY, ORANGE, new_axes
from .snapshot import Snapshot, count_steps
from .strangers import refuse_frontend

MODES = "exp", "linear"
LARGEST = float(np.finfo(np.float32).max)


class LRFinder:
    """Finds a learning rate for any training function; the arguments are torch-lr-finder's.

    Args:
        optimizer: Any of gpuadam's.
        buffers: Arrays beside the parameters that the training function writes, such as the running statistics of a
            normalisation; they are brought back too.

    Attributes:
        history: `lr`, as the kernel has used it, and the smoothed `loss`, of each step of the last test.

    >>> import numpy as np
    >>> from gpuadam import SGD
    >>> weight = np.array([1.0])
    >>> optimizer = SGD([weight], lr=0.5)
    >>> def train_step():
    ...     loss = float(weight[0] ** 2)
    ...     optimizer.step([2 * weight])
    ...     return loss
    >>> finder = LRFinder(optimizer)
    >>> finder.range_test(train_step, start_lr=0.001, end_lr=10.0, smooth_f=0)
    >>> round(finder.suggestion("steepest", skip_start=0), 3)
    0.024
    >>> weight, optimizer.hyperparameters()[0]["lr"]
    (array([1.]), 0.5)
    """

    def __init__(self, optimizer: Optimizer, buffers: Sequence[Any] = ()) -> None:
        if not isinstance(optimizer, Optimizer):
            refuse_frontend(optimizer, "allowed is gpuadam's own class of that name, over the same tensors")
            raise TypeError(f"optimizer is a {type(optimizer).__name__}; allowed are the optimizers of gpuadam")
        self._optimizer = optimizer
        self._buffers = list(buffers)
        self._snapshot: Snapshot | None = None
        self.history: dict[str, list[float]] = {"lr": [], "loss": []}

    def range_test(
        self,
        train_step: Callable[[], Any],
        start_lr: float | None = 1e-7,
        end_lr: float = 10.0,
        num_iter: int = 100,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
    ) -> None:
        """Train under a rising learning rate until the loss diverges, and bring everything back.

        That is parameters, masters, states, averages, counters, accumulators, hyperparameters, schedules, and bound
        gradients: to the bit, also when `train_step` raises or is interrupted. What the optimizer does not know of is
        not: batches that were taken, random generators, and arrays that are not among `buffers`. A step that is skipped
        (`found_inf`, `nonfinite`) leaves the ramp where it is, and no point. A FloatingPointError ends the test as
        divergence does.

        Args:
            train_step: Computes gradients, calls the optimizer's `step` once, and returns the loss from before it: a
                number, or an array of one.
            start_lr, end_lr: Ends of the ramp, which all groups share; factors between tensors are `lr_scale`, which
                stays in force. None: what the first group's next step would use.
            num_iter: Steps, at least 2; the last has `end_lr`.
            step_mode: "exp": lr = start_lr * (end_lr / start_lr) ** (i / (num_iter - 1)); "linear": a straight line.
            smooth_f: The loss is smooth_f * loss + (1 - smooth_f) * the smoothed one before; 0: as it is.
            diverge_th: The test ends where the smoothed loss is above so many times the best one (for a best loss
                below 0: above it by as much), or is not finite.

        Raises:
            TypeError, ValueError: An argument out of range, or a loss that is no number.
            RuntimeError: `train_step` called `step` not once, or no loss was finite.
        """
        smooth_f, diverge_th = _checked("smooth_f", smooth_f), _checked("diverge_th", diverge_th)
        start = self._optimizer.hyperparameters()[0].get("lr") if start_lr is None else start_lr
        ramp = _read_ramp(start, end_lr, num_iter, step_mode)
        self._snapshot = Snapshot(self._optimizer, self._buffers)
        self.history = {"lr": [], "loss": []}
        try:
            for group, begin in enumerate(self._snapshot.begins()):
                self._optimizer.set_hyperparameters(group, lr=ramp(begin))
            self._run(train_step, num_iter, smooth_f, diverge_th)
        finally:
            self.reset()

    def _run(self, train_step: Callable[[], Any], num_iter: int, smooth_f: float, diverge_th: float) -> None:
        lrs, losses = self.history["lr"], self.history["loss"]
        loss = math.nan
        with _progress(num_iter) as advance:
            for _ in range(num_iter):
                lr = self._optimizer.hyperparameters()[0]["lr"]
                try:
                    loss, is_skipped = self._train(train_step)
                except FloatingPointError:
                    if not losses:
                        raise
                    break
                if not math.isfinite(loss):
                    break
                if not is_skipped:
                    smoothed = smooth_f * loss + (1 - smooth_f) * losses[-1] if losses and smooth_f else loss
                    lrs.append(lr)
                    losses.append(smoothed)
                    best = min(losses)
                    if smoothed > best + (diverge_th - 1) * abs(best):
                        break
                advance()
        if not losses:
            raise RuntimeError(f"no step of the range test has given a finite loss, the last one is {loss!r}")

    def _train(self, train_step: Callable[[], Any]) -> tuple[float, bool]:
        """The loss of one step, and whether the step was skipped."""
        engine = self._optimizer._engine
        before, skipped_before = count_steps(engine)
        loss = _read_loss(train_step())
        if self._optimizer._engine is not engine:
            raise RuntimeError("train_step has called add_group; allowed is that before the range test")
        after, skipped = count_steps(engine)
        skipped -= skipped_before
        count = int(np.max(after - before)) + skipped
        if count != 1:
            raise RuntimeError(f"train_step has called the optimizer's step {count} times; allowed is once")
        return loss, skipped == 1

    def reset(self) -> None:
        """Bring everything back where an interrupt has kept `range_test` from it; else there is nothing to do."""
        if self._snapshot:
            self._snapshot.restore()
            self._snapshot = None

    def suggestion(self, method: str = "steepest", skip_start: int = 10, skip_end: int = 5) -> float:
        """A learning rate to train with, read from the last test.

        Args:
            method: "steepest": where the smoothed loss falls fastest (torch-lr-finder). "valley": the middle of the
                longest fall, "slide": the left end of the last interval with equal slopes at its ends, "minimum": a
                tenth of the rate with the lowest loss (fastai).
            skip_start, skip_end: Points to leave out at either end, where the curve is noise, or divergence.

        Raises:
            ValueError: There is no such method, or there are too few points.
        """
        return suggest(method, *self._curve(skip_start, skip_end))

    def _curve(self, skip_start: int, skip_end: int) -> tuple[Curve, Curve]:
        count = len(self.history["lr"])
        for name, value in (("skip_start", skip_start), ("skip_end", skip_end)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is {value!r}; allowed are whole numbers from 0")
        if count <= skip_start + skip_end:
            raise ValueError(
                f"there are {count} points, of which skip_start={skip_start} and skip_end={skip_end} leave none: call "
                "range_test with more num_iter, or skip fewer"
            )
        kept = slice(skip_start, count - skip_end)
        return np.array(self.history["lr"][kept]), np.array(self.history["loss"][kept])

    def plot(
        self,
        skip_start: int = 10,
        skip_end: int = 5,
        log_lr: bool = True,
        show_lr: float | None = None,
        ax: Any = None,
        suggest_lr: bool = True,
    ) -> Any:
        """Draw the losses over the learning rates; needs gpuadam[plot].

        Args:
            skip_start, skip_end: Points to leave out at either end.
            log_lr: Whether the axis of the rates is logarithmic.
            show_lr: A rate to be marked by a line.
            ax: Axes of matplotlib to draw on; None: new ones.
            suggest_lr: Whether to mark where the loss falls fastest.

        Returns:
            The axes.
        """
        lrs, losses = self._curve(skip_start, skip_end)
        axes = new_axes() if ax is None else ax
        axes.plot(lrs, losses, color=BLUE, lw=2)
        axes.set_xscale("log" if log_lr else "linear")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("smoothed loss")
        if suggest_lr and len(lrs) > 1:
            place, _ = METHODS["steepest"](lrs, losses)
            label = f"steepest: {lrs[place]:.3g}"
            axes.plot(lrs[place], losses[place], "o", ms=9, color=ORANGE, mec="white", zorder=3, label=label)
            axes.legend(frameon=False)
        if show_lr is not None:
            axes.axvline(show_lr, color=GREY, ls="--", lw=1)
        return axes


def _checked(name: str, value: float) -> float:
    number = as_number(value, name)
    is_good, allowed = {
        "smooth_f": (0 <= number < 1, "numbers >= 0 and < 1"),
        "diverge_th": (number > 1, "numbers > 1"),
    }[name]
    if not is_good:
        raise ValueError(f"{name} is {value!r}; allowed are {allowed}")
    return number


def _read_ramp(start_lr: Any, end_lr: Any, num_iter: Any, step_mode: Any) -> Callable[[int], Expr]:
    """From the step at which a group stands to the formula of its rate; exact at either end, which hold beyond it."""
    start, end = (as_number(value, name) for name, value in (("start_lr", start_lr), ("end_lr", end_lr)))
    if not 0 < start < end <= LARGEST:
        raise ValueError(f"start_lr is {start!r} and end_lr {end!r}; allowed are 0 < start_lr < end_lr <= 3.4e38")
    if isinstance(num_iter, bool) or not isinstance(num_iter, int | np.integer) or num_iter < 2:
        raise ValueError(f"num_iter is {num_iter!r}; allowed are whole numbers from 2")
    if step_mode not in MODES:
        raise ValueError(f"step_mode is {step_mode!r}; allowed are 'exp' and 'linear'")

    def ramp(begin: int) -> Expr:
        done = minimum(maximum(step - begin, 0) / (int(num_iter) - 1), 1)
        if step_mode == "linear":
            return start * (1 - done) + end * done
        return start ** (1 - done) * end**done

    return ramp


def _read_loss(value: Any) -> float:
    """The loss on the host; of an array on a device this waits for it."""
    try:
        number = value.item() if hasattr(value, "item") else value
        return as_number(number, "loss")
    except (TypeError, ValueError, RuntimeError) as error:
        text = f"{type(value).__name__} of shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
        raise TypeError(f"train_step has returned {text}; allowed is the loss: a number, or an array of one") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], Any]]:
    """A progress bar, where there are a terminal and rich; else nothing."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("range test", total=total)
        yield lambda: bar.advance(task)

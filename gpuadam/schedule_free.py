"""The public schedule-free classes: names, arguments, order and defaults of the package `schedulefree`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from .expressions import Expr
from .optimizer import Optimizer
from .recipe import Recipe
from .schedule_free_rules import ADAMW_SCHEDULE_FREE, SGD_SCHEDULE_FREE, ScheduleFreeOptions

Hyperparameter = float | Expr


class ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: parameters that hold y in training and x in evaluation.

    x = y + (1 - 1 / beta) (z - y) and y = x + (1 - beta) (z - x), in place, in one launch, in double and rounded once.
    From y to x and back is not always to the bit. Of float32 weights, 1 to 7 % (measured after 200 steps) come back
    another: those whose x has a larger exponent than y, by at most half a last bit of x; every further time they come
    back the same. Of float64 weights it is 3 to 11 %, by a few last bits of the largest of x, y and z. Weights of 16
    bits without a master cannot hold x: they show it, rounded, and take back the very y, of which a copy is kept.
    """

    def eval(self) -> None:
        """Let the parameters hold x, the average; until `train` there is no step. Nothing happens if they do already.

        Raises:
            RuntimeError: Something was interrupted and must be repeated.
        """
        self._show(True)

    def train(self) -> None:
        """Let the parameters hold y, as they do at first; nothing happens if they do already.

        Raises:
            RuntimeError: Something was interrupted and must be repeated.
        """
        self._show(False)

    def _show(self, evaluates: bool) -> None:
        with self._lock:
            if self._engine.is_swapped == evaluates:
                self._engine.check_ended()
            else:
                self._engine.swap()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The parameters hold x within the block, and afterwards what they held before.

        >>> import numpy as np
        >>> weight = np.array([1.0], np.float32)
        >>> optimizer = SGDScheduleFree([weight], lr=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.step([np.array([1.0], np.float32)])
        >>> weight  # y, between z = 0 and x
        array([0.125], dtype=float32)
        >>> with optimizer.averaged():
        ...     print(weight)  # the mean of z = 0.5 and z = 0
        [0.25]
        """
        was_evaluating = self._engine.is_swapped
        self.eval()
        try:
            yield
        finally:
            if not was_evaluating:
                self.train()


class AdamWScheduleFree(ScheduleFree):
    """Schedule-free AdamW (Defazio et al. 2024, Algorithm 1): instead of a schedule, an average of the weights.

    lr_k = lr min(1, k / warmup_steps);  w = k**r max(lr_1 ... lr_k)**weight_lr_power;  c = w / (sum of all w so far);
    v = beta2 v + (1 - beta2) g**2;  u = g / (sqrt(v / (1 - beta2**k)) + eps) + weight_decay y;
    z = z - lr_k u;  x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x, k counting the updates of the tensor.

    The gradient is to be that at y, which the parameters hold in training. Call `eval` before an evaluation, or before
    the weights are taken out of the training, and `train` after it; or use `with optimizer.averaged():`. x is not
    kept: there are two states, as in Adam. z is a weight and never less than a float32.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule, but for beta1.
        betas: beta1, a number in (0, 1), mixes y; beta2, in [0, 1), is the decay rate of v.
        eps: Added to the denominator, >= 0.
        weight_decay: Factor of the decay, >= 0, which is taken at y.
        warmup_steps: Updates over which the rate rises; 0: none.
        r: Power of k in the weights of the average, >= 0.
        weight_lr_power: Power of the largest rate so far in the weights of the average, >= 0.
        maximize: Ascend.
        recipe: As for `Adam`; `ema_decay` is refused, as there is an average already.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = AdamWScheduleFree([weight], lr=0.1)
    >>> optimizer.step([np.array([0.5, -0.5], np.float32)])
    >>> weight  # the first z, x and y are one
    array([ 0.9, -1.9], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 0.0025,
        betas: tuple[float, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0.0,
        warmup_steps: int = 0,
        r: Hyperparameter = 0.0,
        weight_lr_power: Hyperparameter = 2.0,
        *,
        maximize: bool = False,
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        settings |= {"r": r, "weight_lr_power": weight_lr_power}
        super().__init__(params, ADAMW_SCHEDULE_FREE, settings, ScheduleFreeOptions(warmup_steps, maximize), recipe)


class SGDScheduleFree(ScheduleFree):
    """Schedule-free SGD (Defazio et al. 2024, equations 3 to 5).

    As `AdamWScheduleFree` with u = g + weight_decay y, and momentum in the place of beta1. The best rates are 10 to 50
    times those of SGD with momentum.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule, but for momentum.
        momentum: A number in (0, 1), which mixes y.
        weight_decay: Factor of the decay, >= 0, which is taken at y.
        warmup_steps, r, weight_lr_power, maximize, recipe: As for `AdamWScheduleFree`.

    >>> import numpy as np
    >>> weight = np.array([1.0], np.float32)
    >>> optimizer = SGDScheduleFree([weight], lr=0.25, warmup_steps=2)
    >>> optimizer.step([np.array([1.0], np.float32)])
    >>> weight
    array([0.875], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1.0,
        momentum: float = 0.9,
        weight_decay: Hyperparameter = 0.0,
        warmup_steps: int = 0,
        r: Hyperparameter = 0.0,
        weight_lr_power: Hyperparameter = 2.0,
        *,
        maximize: bool = False,
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        settings |= {"r": r, "weight_lr_power": weight_lr_power}
        super().__init__(params, SGD_SCHEDULE_FREE, settings, ScheduleFreeOptions(warmup_steps, maximize), recipe)

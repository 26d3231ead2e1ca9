"""The public classes Adamax, Adagrad, Adadelta, Lion: arguments, order and defaults of PyTorch or their authors."""

from typing import Any, Unpack

from .adaptive_rules import (
    ADADELTA,
    ADAGRAD,
    ADAMAX,
    AdadeltaOptions,
    AdagradOptions,
    AdamaxOptions,
    Placement,
)
from .expressions import Expr
from .optimizer import Optimizer
from .recipe import Recipe
from .rules import Decay
from .sign_rules import LION, LionOptions

Hyperparameter = float | Expr


class Adamax(Optimizer):
    """Adam in the infinity norm: over the largest gradient, which fades (Kingma & Ba 2015, Algorithm 2).

    m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g| + eps);  p = p - lr * m / ((1 - beta1**k) u).

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        betas: Decay rates of m and u, each in [0, 1).
        eps: Keeps the denominator from 0, >= 0.
        weight_decay: Factor of the decay, >= 0.
        maximize: Ascend.
        eps_placement: "inside" the maximum (PyTorch, optax), or "outside" (Keras): m / (max(beta2 u, |g|) + eps).
        decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = Adamax([weight], lr=0.1)
    >>> optimizer.step([np.array([0.5, -0.5], np.float32)])
    >>> weight
    array([ 0.9, -1.9], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 2e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0.0,
        *,
        maximize: bool = False,
        eps_placement: Placement = "inside",
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, ADAMAX, settings, AdamaxOptions(maximize, eps_placement, decay), recipe)


class Adagrad(Optimizer):
    """The gradient over the root of the sum of its squares (Duchi et al. 2011), with PyTorch's defaults.

    s = s + g**2;  p = p - lr / (1 + (k - 1) lr_decay) * g / (sqrt(s) + eps), k counting the updates of the tensor.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every hyperparameter below may be a schedule.
        lr_decay: How fast lr falls, >= 0.
        weight_decay: Factor of the decay, >= 0.
        initial_accumulator_value: What s starts with, >= 0.
        eps: Added to the denominator, >= 0.
        maximize: Ascend.
        eps_placement: "outside" the root (PyTorch) or "inside" (Keras, optax).
        decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0], np.float32)
    >>> optimizer = Adagrad([weight], lr=0.625)
    >>> for grad in (3.0, 4.0):
    ...     optimizer.step([np.array([grad], np.float32)])
    >>> weight  # 1 - 0.625 * 3 / 3 - 0.625 * 4 / 5
    array([-0.125], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-2,
        lr_decay: Hyperparameter = 0.0,
        weight_decay: Hyperparameter = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Hyperparameter = 1e-10,
        *,
        maximize: bool = False,
        eps_placement: Placement = "outside",
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        options = AdagradOptions(initial_accumulator_value, maximize, eps_placement, decay)
        super().__init__(params, ADAGRAD, settings, options, recipe)

    @classmethod
    def keras(
        cls,
        params: Any,
        learning_rate: Hyperparameter = 1e-3,
        initial_accumulator_value: float = 0.1,
        epsilon: Hyperparameter = 1e-7,
        weight_decay: Hyperparameter = 0.0,
        **keywords: Any,
    ) -> "Adagrad":
        """`keras.optimizers.Adagrad` (Keras 3), `optax.adagrad`: sum from 0.1, epsilon inside, decoupled decay."""
        form = {"eps_placement": "inside", "decay": "decoupled", **keywords}
        return cls(params, learning_rate, 0.0, weight_decay, initial_accumulator_value, epsilon, **form)


class Adadelta(Optimizer):
    """Steps in the units of the parameter: the gradient times the root mean square of the steps over its own.

    v = rho v + (1 - rho) g**2;  d = sqrt(u + eps) / sqrt(v + eps) * g;  u = rho u + (1 - rho) d**2;  p = p - lr * d
    (Zeiler 2012, Algorithm 1, which has no lr). Keras has other defaults: lr=1e-3, rho=0.95, eps=1e-7.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        rho: Decay rate of both averages, in [0, 1).
        eps: Added inside both roots, >= 0; at 0 nothing ever moves.
        weight_decay: Factor of the decay, >= 0.
        maximize: Ascend.
        decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0], np.float32)
    >>> optimizer = Adadelta([weight], lr=0.5, rho=0.0, eps=1.0)
    >>> optimizer.step([np.array([np.sqrt(3)], np.float32)])
    >>> weight  # 1 - 0.5 * 1 / 2 * sqrt(3)
    array([0.5669873], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1.0,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-6,
        weight_decay: Hyperparameter = 0.0,
        *,
        maximize: bool = False,
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, ADADELTA, settings, AdadeltaOptions(maximize, decay), recipe)


class Lion(Optimizer):
    """The sign of a momentum that looks ahead (Chen et al. 2023, Algorithm 2), with its authors' defaults.

    p = p - lr * weight_decay * p - lr * sign(beta1 m + (1 - beta1) g);  m = beta2 m + (1 - beta2) g;  sign(0) = 0,
    and a NaN stays one.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        betas: Share of the momentum in the update, and its decay rate, each in [0, 1).
        weight_decay: Factor of the decay, >= 0.
        maximize: Ascend.
        decay: As for `Adam`; "decoupled" here.
        recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0, 3.0], np.float32)
    >>> optimizer = Lion([weight], lr=0.25)
    >>> optimizer.step([np.array([0.5, -100.0, 0.0], np.float32)])
    >>> weight
    array([ 0.75, -1.75,  3.  ], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-4,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.99),
        weight_decay: Hyperparameter = 0.0,
        *,
        maximize: bool = False,
        decay: Decay = "decoupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, LION, settings, LionOptions(maximize, decay), recipe)

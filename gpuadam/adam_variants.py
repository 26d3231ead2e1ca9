"""The public classes that weigh Adam's moments otherwise: names, arguments, order and defaults of their homes."""

from typing import Any, Unpack

from .adam_variant_rules import QHADAM, RADAM, QHAdamOptions, RAdamOptions
from .expressions import Expr
from .optimizer import Optimizer
from .recipe import Recipe
from .rules import Decay, EpsPlacement

Hyperparameter = float | Expr


class RAdam(Optimizer):
    """Rectified Adam: a warm-up that follows from beta2 (Liu et al. 2020, Algorithm 2, as PyTorch has it).

    rho = 2 / (1 - beta2) - 1;  rho_k = rho - 2 k beta2**k / (1 - beta2**k);  m and v as in `Adam`;
    while rho_k <= threshold p = p - lr * m / (1 - beta1**k), after that
    p = p - lr * r_k * m / (1 - beta1**k) * sqrt(1 - beta2**k) / (sqrt(v) + eps) with
    r_k**2 = (rho_k - 4) (rho_k - 2) rho / ((rho - 4) (rho - 2) rho_k).

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every hyperparameter below may be a schedule.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Factor of the decay, >= 0.
        decoupled_weight_decay: PyTorch's name for `decay="decoupled"`.
        maximize: Ascend.
        eps_placement: "hat" (PyTorch), "outside" (optax's eps) or "inside" the root (optax's eps_root).
        threshold: The rho_k above which v is used, >= 4 (optax's name).
        decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = RAdam([weight], lr=0.125)
    >>> optimizer.step([np.array([0.5, -2.0], np.float32)])
    >>> weight
    array([ 0.9375, -1.75  ], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        eps_placement: EpsPlacement = "hat",
        threshold: float = 5.0,
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        options = RAdamOptions(decoupled_weight_decay, maximize, eps_placement, threshold, decay)
        super().__init__(params, RADAM, settings, options, recipe)


class QHAdam(Optimizer):
    """Quasi-hyperbolic Adam: each moment averaged with what joined it last (Ma & Yarats 2019, Algorithm 2).

    m and v as in `Adam`; p = p - lr * ((1 - nu1) g + nu1 m / (1 - beta1**k)) /
    (sqrt((1 - nu2) g**2 + nu2 v / (1 - beta2**k)) + eps).

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        betas: Decay rates of the two moments, each in [0, 1).
        nus: What part of each moment is its average, from 0 to 1; (1, 1) is `Adam`.
        weight_decay: Factor of the decay, >= 0.
        decouple_weight_decay: Its authors' name for `decay="decoupled"`.
        eps: Added to the denominator, >= 0.
        maximize: Ascend.
        decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = QHAdam([weight], lr=0.1, nus=(0.7, 1.0))
    >>> optimizer.step([np.array([0.5, -0.5], np.float32)])
    >>> weight
    array([ 0.9, -1.9], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        nus: tuple[Hyperparameter, Hyperparameter] = (1.0, 1.0),
        weight_decay: Hyperparameter = 0.0,
        decouple_weight_decay: bool = False,
        eps: Hyperparameter = 1e-8,
        *,
        maximize: bool = False,
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "nus": nus, "eps": eps, "weight_decay": weight_decay}
        options = QHAdamOptions(decouple_weight_decay, maximize, decay)
        super().__init__(params, QHADAM, settings, options, recipe)

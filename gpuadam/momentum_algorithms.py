"""The public classes with a momentum buffer: PyTorch's names, arguments, order and defaults; ours is keyword-only."""

from typing import Any, Literal, Unpack

from . import momentum_rules
from .expressions import Expr
from .l1_rules import SGD_L1, choose, normalised, product_of
from .momentum_rules import LrPlacement, RMSpropOptions, SGDOptions
from .optimizer import Optimizer
from .recipe import Recipe
from .rules import Decay

Hyperparameter = float | Expr


class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013, in PyTorch's form).

    b = momentum b + (1 - dampening) g, at the first update b = g;  p = p - lr * b, or with nesterov
    p = p - lr * (g + momentum b); without momentum p = p - lr * g.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        momentum: Factor of the momentum buffer, >= 0; there is a buffer unless this is the number 0.
        dampening: Part of the gradient that is kept from the buffer, from 0 to 1; not at a tensor's first update.
        weight_decay: Factor of the decay, >= 0.
        nesterov: Look ahead by the momentum; wants a momentum > 0 and no dampening.
        maximize: Ascend.
        lr_placement: "outside" the momentum buffer (PyTorch, optax) or "inside" (the paper, TensorFlow, Keras:
            b = momentum b + lr g, p = p - b). They differ as soon as lr changes.
        decay, l1_decay, recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0], np.float32)
    >>> optimizer = SGD([weight], lr=0.25, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.step([np.array([1.0], np.float32)])
    >>> weight  # 1 - 0.25 * 1 - 0.25 * (0.5 * 1 + 1)
    array([0.375], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        momentum: Hyperparameter = 0.0,
        dampening: Hyperparameter = 0.0,
        weight_decay: Hyperparameter = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        lr_placement: LrPlacement = "outside",
        decay: Decay = "coupled",
        l1_decay: Hyperparameter | None = None,
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        options = SGDOptions(nesterov, maximize, lr_placement, decay)
        super().__init__(params, *choose(momentum_rules.SGD, SGD_L1, settings, l1_decay), options, recipe)


class SGDW(SGD):
    """SGD with decoupled weight decay: p = p - lr * weight_decay * p first (Loshchilov & Hutter 2019, Algorithm 1).

    Args, Raises: As `SGD`, with `decay="decoupled"`; the paper's own decay, without lr, is `decay="scheduled"`.

    >>> import numpy as np
    >>> weight = np.ones(1)
    >>> SGDW([weight], lr=0.5, weight_decay=0.5).step([np.zeros(1)])
    >>> weight
    array([0.75])
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        momentum: Hyperparameter = 0.0,
        dampening: Hyperparameter = 0.0,
        weight_decay: Hyperparameter = 0.0,
        nesterov: bool = False,
        *,
        decay: Decay = "decoupled",
        **keywords: Any,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, decay=decay, **keywords)

    @classmethod
    def keras_adamw(
        cls,
        params: Any,
        learning_rate: Hyperparameter = 1e-2,
        momentum: Hyperparameter = 0.0,
        nesterov: bool = False,
        *,
        total_iterations: int,
        eta: Hyperparameter = 1.0,
        l1: Hyperparameter | None = None,
        l2: Hyperparameter = 0.0,
        **keywords: Any,
    ) -> "SGDW":
        """`keras_adamw.SGDW`: the decay of `AdamW.keras_adamw`, lr inside the momentum buffer."""
        form = {"lr_placement": "inside", **normalised(eta, total_iterations, l1, l2), **keywords}
        lr = product_of(learning_rate=learning_rate, eta=eta)
        return cls(params, lr, momentum, nesterov=nesterov, **form)


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of its mean square (Tieleman & Hinton 2012, lecture 6.5).

    v = alpha v + (1 - alpha) g**2;  p = p - lr * g / (sqrt(v) + eps), with PyTorch's defaults; the forms of
    TensorFlow 1 and Keras are `RMSprop.tensorflow` and `RMSprop.keras`.

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        alpha: Decay rate of the mean square, in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Factor of the decay, >= 0.
        momentum: Factor of the momentum buffer, >= 0; there is a buffer unless this is the number 0.
        centered: Subtract the squared mean from the mean square (Graves 2013, equation 38), clamped at 0.
        maximize: Ascend.
        eps_placement: "outside" (PyTorch) or "inside" the root (TensorFlow, Keras).
        lr_placement: "outside" the momentum buffer (PyTorch: buffer = momentum * buffer + u, p -= lr * buffer) or
            "inside" (TensorFlow, Keras: buffer = momentum * buffer + lr * u). They differ as soon as lr changes.
        initial_square_avg: What v starts with: 0, or TensorFlow 1's 1.
        bias_correction: Divide the averages by 1 - alpha**k, as Adam does.
        decay: As for `Adam`.
        recipe: As for `Adam`.

    >>> import numpy as np
    >>> weight = np.array([1.0], np.float32)
    >>> optimizer = RMSprop([weight], lr=0.1, alpha=0.75)
    >>> optimizer.step([np.array([4.0], np.float32)])
    >>> weight
    array([0.8], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-2,
        alpha: Hyperparameter = 0.99,
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0.0,
        momentum: Hyperparameter = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        eps_placement: Literal["outside", "inside"] = "outside",
        lr_placement: LrPlacement = "outside",
        initial_square_avg: float = 0.0,
        bias_correction: bool = False,
        decay: Decay = "coupled",
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        options = RMSpropOptions(
            centered, maximize, eps_placement, lr_placement, initial_square_avg, bias_correction, decay
        )
        super().__init__(params, momentum_rules.RMSPROP, settings, options, recipe)

    @classmethod
    def tensorflow(
        cls,
        params: Any,
        learning_rate: Hyperparameter,
        decay: Hyperparameter = 0.9,
        momentum: Hyperparameter = 0.0,
        epsilon: Hyperparameter = 1e-10,
        centered: bool = False,
        **keywords: Any,
    ) -> "RMSprop":
        """`tf.train.RMSPropOptimizer`: mean square from 1, epsilon inside the root, lr inside the momentum buffer."""
        form = {"eps_placement": "inside", "lr_placement": "inside", "initial_square_avg": 1.0, **keywords}
        return cls(params, learning_rate, decay, epsilon, 0.0, momentum, centered, **form)

    @classmethod
    def keras(
        cls,
        params: Any,
        learning_rate: Hyperparameter = 1e-3,
        rho: Hyperparameter = 0.9,
        momentum: Hyperparameter = 0.0,
        epsilon: Hyperparameter = 1e-7,
        centered: bool = False,
        weight_decay: Hyperparameter = 0.0,
        **keywords: Any,
    ) -> "RMSprop":
        """`keras.optimizers.RMSprop` (Keras 3): epsilon inside the root, lr inside the buffer, decoupled decay."""
        form = {"eps_placement": "inside", "lr_placement": "inside", "decay": "decoupled", **keywords}
        return cls(params, learning_rate, rho, epsilon, weight_decay, momentum, centered, **form)

"""The public classes: PyTorch's names, arguments, order and defaults; what we add is keyword-only."""

from typing import Any, Literal

from .expressions import Expr
from .optimizer import Optimizer
from .rules import ADAM, RMSPROP, AdamOptions, Decay, EpsPlacement, RMSpropOptions

Hyperparameter = float | Expr
AMSGrad = Literal[False, True, "raw", "corrected"]


class Adam(Optimizer):
    """Adam: moments of the gradient, corrected for their start at zero (Kingma & Ba 2015, Algorithm 1).

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g**2;
    p = p - lr * (m / (1 - beta1**k)) / (sqrt(v / (1 - beta2**k)) + eps), k counting the updates of the tensor.

    Args:
        params: List or dict of float32 or float64 arrays, or a list of groups: dicts with `params` and settings of
            their own. They are updated in place.
        lr: Learning rate, >= 0. Every number here may be a schedule (`gpuadam.schedules`), evaluated inside the step.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the denominator, >= 0; at 0 a gradient that is 0 from the start gives 0/0 = NaN.
        weight_decay: Factor of the decay, >= 0.
        amsgrad: Divide by the largest v so far (Reddi et al. 2018): True or "raw" keeps the maximum of v (PyTorch,
            Keras), "corrected" that of v / (1 - beta2**k) (optax).
        maximize: Ascend.
        eps_placement: "outside" the root (PyTorch), "hat" (outside, before the correction: Kingma's epsilon-hat,
            TensorFlow, thinc), "inside" the root (optax's eps_root).
        decay: "coupled": weight_decay * p joins the gradient (L2). "decoupled": p shrinks by lr * weight_decay.
            "scheduled": p shrinks by weight_decay, a schedule of its own.
        backend: "auto" (where the parameters lie), "cpu" or "cuda".
        allow_flush: Go on although this thread flushes subnormal numbers to zero.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = Adam([weight], lr=0.1)
    >>> optimizer.step([np.array([0.5, -0.5], np.float32)])
    >>> weight
    array([ 0.9, -1.9], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0.0,
        amsgrad: AMSGrad = False,
        *,
        maximize: bool = False,
        eps_placement: EpsPlacement = "outside",
        decay: Decay = "coupled",
        backend: str = "auto",
        allow_flush: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        options = AdamOptions(amsgrad, maximize, eps_placement, decay)
        super().__init__(
            params, rule=ADAM, settings=settings, options=options, backend=backend, allow_flush=allow_flush
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p = p - lr * weight_decay * p first (Loshchilov & Hutter 2019, Algorithm 2).

    Args, Raises: As `Adam`, with PyTorch's default of 0.01 for `weight_decay`, and `decay="decoupled"`.

    >>> import numpy as np
    >>> from gpuadam import schedules
    >>> weight = np.ones(3, np.float32)
    >>> lr = schedules.warmup_cosine_decay(0.0, 0.1, warmup_steps=2, decay_steps=10)
    >>> optimizer = AdamW({"weight": weight}, lr=lr)
    >>> for _ in range(10):
    ...     optimizer.step({"weight": 2 * weight})
    >>> optimizer.hyperparameters()[0]["lr"]
    0.0
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 1e-2,
        amsgrad: AMSGrad = False,
        *,
        maximize: bool = False,
        eps_placement: EpsPlacement = "outside",
        decay: Decay = "decoupled",
        backend: str = "auto",
        allow_flush: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            eps_placement=eps_placement,
            decay=decay,
            backend=backend,
            allow_flush=allow_flush,
        )


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
        backend, allow_flush: As for `Adam`.

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
        lr_placement: Literal["outside", "inside"] = "outside",
        initial_square_avg: float = 0.0,
        bias_correction: bool = False,
        decay: Decay = "coupled",
        backend: str = "auto",
        allow_flush: bool = False,
    ) -> None:
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        options = RMSpropOptions(
            centered, maximize, eps_placement, lr_placement, initial_square_avg, bias_correction, decay
        )
        super().__init__(
            params, rule=RMSPROP, settings=settings, options=options, backend=backend, allow_flush=allow_flush
        )

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

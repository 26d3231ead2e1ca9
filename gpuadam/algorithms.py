"""The public classes of the Adam family: PyTorch's names, arguments, order and defaults; ours is keyword-only."""

from typing import Any, Literal, Unpack

from .adam_rules import ADAM, NADAM, AdamOptions, MomentumSchedule, NAdamOptions
from .expressions import Expr
from .l1_rules import ADAM_L1, NADAM_L1, choose, normalised, product_of
from .optimizer import Optimizer
from .recipe import Recipe
from .rules import Decay, EpsPlacement

Hyperparameter = float | Expr
AMSGrad = Literal[False, True, "raw", "corrected"]


class Adam(Optimizer):
    """Adam: moments of the gradient, corrected for their start at zero (Kingma & Ba 2015, Algorithm 1).

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g**2;
    p = p - lr * (m / (1 - beta1**k)) / (sqrt(v / (1 - beta2**k)) + eps), k counting the updates of the tensor.

    Args:
        params: List or dict of floating-point arrays, or a list of groups: dicts with `params` and settings of
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
        l1_decay: The same with sign(p) in place of p (L1), >= 0, where sign(0) is 0; None leaves that out, for all
            groups.
        recipe: What every optimizer takes: clipping, averages, formats, backend (`gpuadam.Recipe`).

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
        l1_decay: Hyperparameter | None = None,
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        options = AdamOptions(amsgrad, maximize, eps_placement, decay)
        super().__init__(params, *choose(ADAM, ADAM_L1, settings, l1_decay), options, recipe)


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
        l1_decay: Hyperparameter | None = None,
        **recipe: Unpack[Recipe],
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
            l1_decay=l1_decay,
            **recipe,
        )

    @classmethod
    def keras_adamw(
        cls,
        params: Any,
        learning_rate: Hyperparameter = 1e-3,
        beta_1: Hyperparameter = 0.9,
        beta_2: Hyperparameter = 0.999,
        epsilon: Hyperparameter = 1e-7,
        amsgrad: AMSGrad = False,
        *,
        total_iterations: int,
        eta: Hyperparameter = 1.0,
        l1: Hyperparameter | None = None,
        l2: Hyperparameter = 0.0,
        **keywords: Any,
    ) -> "AdamW":
        """`keras_adamw.AdamW`: p = p - eta * (step + sqrt(1 / total_iterations) * (l1 sign(p) + l2 p)), epsilon-hat.

        Args:
            total_iterations: Updates of the whole run, or of one restart, >= 2.
            eta: What multiplies both lr and the decay: their eta_t, a schedule.
            l1, l2: Decay as of a run of one update, and of all layers, of which they have a pair each.

        >>> import numpy as np
        >>> weight = np.array([1.0, -2.0, 0.0])
        >>> optimizer = AdamW.keras_adamw([weight], total_iterations=4, l1=0.25, l2=0.5)
        >>> optimizer.step([np.zeros(3)])
        >>> weight
        array([ 0.625, -1.375,  0.   ])
        """
        form = {"eps_placement": "hat", **normalised(eta, total_iterations, l1, l2), **keywords}
        lr = product_of(learning_rate=learning_rate, eta=eta)
        return cls(params, lr, (beta_1, beta_2), epsilon, amsgrad=amsgrad, **form)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016, Algorithm 2), whose momentum mu_k grows from beta1 / 2 to beta1.

    mu_k = beta1 (1 - 0.96**(k momentum_decay) / 2), P_k = mu_1 mu_2 ... mu_k; m and v as in `Adam`;
    p = p - lr * ((1 - mu_k) g / (1 - P_k) + mu_(k+1) m / (1 - P_(k+1))) / (sqrt(v / (1 - beta2**k)) + eps).

    Args:
        params: As for `Adam`.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Factor of the decay, >= 0.
        momentum_decay: How fast mu grows, >= 0 (Keras: 1). P is the accumulator "mu_product" of each tensor.
        decoupled_weight_decay: PyTorch's name for `decay="decoupled"`.
        maximize: Ascend.
        momentum_schedule: "dozat", "constant" (optax: mu is beta1, and momentum_decay is not read), or "keras-adamw"
            (mu_k in place of mu_(k+1), but for P).
        eps_placement, decay, l1_decay: As for `Adam`.
        recipe: As for `Adam`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([1.0, -2.0], np.float32)
    >>> optimizer = NAdam([weight], lr=0.1, betas=(0.0, 0.999))
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
        momentum_decay: Hyperparameter = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        eps_placement: EpsPlacement = "outside",
        momentum_schedule: MomentumSchedule = "dozat",
        decay: Decay = "coupled",
        l1_decay: Hyperparameter | None = None,
        **recipe: Unpack[Recipe],
    ) -> None:
        settings = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
        }
        options = NAdamOptions(decoupled_weight_decay, maximize, eps_placement, momentum_schedule, decay)
        super().__init__(params, *choose(NADAM, NADAM_L1, settings, l1_decay), options, recipe)


class NadamW(NAdam):
    """NAdam with decoupled weight decay.

    Args, Raises: As `NAdam`, with a default of 0.01 for `weight_decay`, and `decay="decoupled"`.

    >>> import numpy as np
    >>> weight = np.ones(1)
    >>> NadamW([weight], lr=0.5, weight_decay=0.5).step([np.zeros(1)])
    >>> weight
    array([0.75])
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 2e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 1e-2,
        momentum_decay: Hyperparameter = 4e-3,
        *,
        decay: Decay = "decoupled",
        **keywords: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, momentum_decay, decay=decay, **keywords)

    @classmethod
    def keras_adamw(
        cls,
        params: Any,
        learning_rate: Hyperparameter = 1e-3,
        beta_1: Hyperparameter = 0.9,
        beta_2: Hyperparameter = 0.999,
        epsilon: Hyperparameter = 1e-7,
        *,
        total_iterations: int,
        eta: Hyperparameter = 1.0,
        l1: Hyperparameter | None = None,
        l2: Hyperparameter = 0.0,
        **keywords: Any,
    ) -> "NadamW":
        """`keras_adamw.NadamW`: the decay of `AdamW.keras_adamw`, epsilon inside the root, mu_k for mu_(k+1)."""
        own = {"eps_placement": "inside", "momentum_schedule": "keras-adamw"}
        form = {**own, **normalised(eta, total_iterations, l1, l2), **keywords}
        lr = product_of(learning_rate=learning_rate, eta=eta)
        return cls(params, lr, (beta_1, beta_2), epsilon, **form)

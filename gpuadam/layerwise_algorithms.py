"""The public classes whose steps depend on norms of whole tensors."""

import math
from typing import Any, Unpack

from .expressions import Expr
from .layerwise_rules import LAMB as RULE
from .layerwise_rules import LAMBOptions
from .optimizer import Optimizer
from .recipe import Recipe

Hyperparameter = float | Expr


class LAMB(Optimizer):
    """LAMB: Adam whose step in each tensor is as long as its weights are large (You et al. 2020, Algorithm 2).

    m and v as in `Adam`; u = m / (1 - beta1**k) / (sqrt(v / (1 - beta2**k)) + eps) + weight_decay p;
    p = p - lr * (|p| / |u|) u, the ratio of the norms over the tensor, or 1 where one of them is 0.

    Args:
        params: As for `Adam`. Each array has a ratio of its own.
        lr: Learning rate, >= 0; this and every number below may be a schedule.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Factor of the weights in the update, >= 0.
        bias_correction: False: m and v as they are (version 1 of the paper).
        trust_clip: Largest ratio, > 0; None: none, in a group or later `math.inf` (fastai has 10, timm's
            `trust_clip=True` is 1).
        always_adapt: False: the ratio is 1 as long as weight_decay is 0 (timm; apex unless `use_nvlamb`).
        maximize: Ascend.
        recipe: As for `Adam`. apex and timm clip by default: `clip_norm=1.0`.

    Raises:
        TypeError, ValueError: An argument or array is not allowed; the message names it.

    >>> import numpy as np
    >>> weight = np.array([3.0, -4.0], np.float32)
    >>> optimizer = LAMB([weight], lr=0.1, weight_decay=0.0, eps=0.0)
    >>> optimizer.step([np.array([0.5, -0.5], np.float32)])
    >>> weight  # the update is (1, -1), the ratio 5 / sqrt(2)
    array([ 2.6464467, -3.6464467], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-6,
        weight_decay: Hyperparameter = 1e-2,
        *,
        bias_correction: bool = True,
        trust_clip: Hyperparameter | None = None,
        always_adapt: bool = True,
        maximize: bool = False,
        **recipe: Unpack[Recipe],
    ) -> None:
        largest = math.inf if trust_clip is None else trust_clip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "trust_clip": largest}
        super().__init__(params, RULE, settings, LAMBOptions(bias_correction, always_adapt, maximize), recipe)

"""For those who come from thinc or spaCy; nothing else of the package imports it.

`Adam` and the others make optimizers for thinc, which a config names `gpuadam.Adam.v1`: with them a sweep over the
parameters of a model is one launch. `as_schedule` makes a schedule of ours of one of thinc's.
"""

import inspect
from collections.abc import Callable
from typing import Any

from . import adam_variants, adaptive_algorithms, algorithms, layerwise_algorithms, momentum_algorithms
from .extras import needed
from .optimizer import Optimizer as Core
from .thinc_forms import defaults_of

with needed("thinc"):
    from .thinc_optimizer import Optimizer
    from .thinc_schedules import FORMULAS, as_schedule

__all__ = [
    "FORMULAS", "LAMB", "SGD", "SGDW", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam", "NadamW",
    "Optimizer", "QHAdam", "RAdam", "RMSprop", "as_schedule",
]  # fmt: skip


def maker(algorithm: type[Core]) -> Callable[..., Optimizer]:
    """A function that makes an optimizer for thinc of one of our classes.

    Its arguments are those of the class, under the names of thinc (`learn_rate`, `beta1`, `beta2`, `eps`, `L2`), those
    that optimizers of thinc have (`L2_is_weight_decay`, `grad_clip`, `use_averages`), and some of the recipe. What is a
    number may be a schedule, ours or one of thinc, a list or a generator.
    """
    arguments = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD if name == "learn_rate" else inspect.Parameter.KEYWORD_ONLY,
            default=default,
        )
        for name, default in defaults_of(algorithm).items()
    ]
    signature = inspect.Signature(arguments)

    def make(*given: Any, **keywords: Any) -> Optimizer:
        bound = signature.bind(*given, **keywords)
        bound.apply_defaults()
        return Optimizer(algorithm, bound.arguments)

    make.__signature__ = signature  # type: ignore[attr-defined]
    make.__name__ = make.__qualname__ = algorithm.__name__
    make.__doc__ = f"`gpuadam.{algorithm.__name__}` as an optimizer of thinc."
    return make


Adam = maker(algorithms.Adam)
AdamW = maker(algorithms.AdamW)
NAdam = maker(algorithms.NAdam)
NadamW = maker(algorithms.NadamW)
RAdam = maker(adam_variants.RAdam)
QHAdam = maker(adam_variants.QHAdam)
Adamax = maker(adaptive_algorithms.Adamax)
Adagrad = maker(adaptive_algorithms.Adagrad)
Adadelta = maker(adaptive_algorithms.Adadelta)
Lion = maker(adaptive_algorithms.Lion)
RMSprop = maker(momentum_algorithms.RMSprop)
SGD = maker(momentum_algorithms.SGD)
SGDW = maker(momentum_algorithms.SGDW)
LAMB = maker(layerwise_algorithms.LAMB)

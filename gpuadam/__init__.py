"""The optimizer step of GPU arrays as one kernel launch, schedules included; the same bits on the CPU.

The optimizers, `Adam` to `SGD`, update arrays in place; `schedules` has what their hyperparameters may be, and `Recipe`
what happens around the update: clipping, averages, mixed precision.
"""

import importlib
from typing import Any

from . import schedules
from .adam_variants import QHAdam, RAdam
from .adaptive_algorithms import Adadelta, Adagrad, Adamax, Lion
from .algorithms import Adam, AdamW, NAdam, NadamW
from .checkpoint import CheckpointError
from .cuda import unavailable_reason as cuda_unavailable_reason
from .faults import ScheduleError
from .grouping import group_by_name
from .layerwise_algorithms import LAMB
from .lr_finder import LRFinder
from .momentum_algorithms import SGD, SGDW, RMSprop
from .optimizer import Optimizer
from .packing import pack
from .plateau import ReduceLROnPlateau
from .recipe import Recipe, ema_warmup
from .schedule_free import AdamWScheduleFree, SGDScheduleFree

__version__ = "0.1.0"
__all__ = [
    "LAMB",
    "SGD",
    "SGDW",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdamWScheduleFree",
    "Adamax",
    "CheckpointError",
    "LRFinder",
    "Lion",
    "NAdam",
    "NadamW",
    "Optimizer",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "Recipe",
    "ReduceLROnPlateau",
    "SGDScheduleFree",
    "ScheduleError",
    "cuda_unavailable_reason",
    "ema_warmup",
    "group_by_name",
    "pack",
    "schedules",
]


def __getattr__(name: str) -> Any:
    """The modules of other frameworks, which nothing else imports, when they are asked for."""
    if name not in ("jax", "keras", "thinc", "torch"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")

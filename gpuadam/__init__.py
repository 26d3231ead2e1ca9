"""The optimizer step of GPU arrays as one kernel launch, schedules included; the same bits on the CPU.

`Adam`, `AdamW`, `NAdam`, `RMSprop`, `SGD` update arrays in place; `schedules` has what their hyperparameters may be,
and `Recipe` what happens around the update: clipping, averages, mixed precision.
"""

from . import schedules
from .algorithms import Adam, AdamW, NAdam
from .checkpoint import CheckpointError
from .cuda import unavailable_reason as cuda_unavailable_reason
from .faults import ScheduleError
from .grouping import group_by_name
from .lr_finder import LRFinder
from .momentum_algorithms import SGD, RMSprop
from .optimizer import Optimizer
from .packing import pack
from .recipe import Recipe, ema_warmup

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CheckpointError",
    "LRFinder",
    "NAdam",
    "Optimizer",
    "RMSprop",
    "Recipe",
    "ScheduleError",
    "cuda_unavailable_reason",
    "ema_warmup",
    "group_by_name",
    "pack",
    "schedules",
]

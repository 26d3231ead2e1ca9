"""The optimizer step of GPU arrays as one kernel launch, schedules included; the same bits on the CPU.

`Adam`, `AdamW`, `RMSprop` update arrays in place; `schedules` has what their hyperparameters may be.
"""

from . import schedules
from .algorithms import Adam, AdamW, RMSprop
from .cuda import unavailable_reason as cuda_unavailable_reason
from .optimizer import Optimizer, ScheduleError

__version__ = "0.1.0"
__all__ = ["Adam", "AdamW", "Optimizer", "RMSprop", "ScheduleError", "cuda_unavailable_reason", "schedules"]

"""For those who come from PyTorch; nothing else of the package imports it.

`as_schedule` makes a schedule of a scheduler.
"""

from .torch_schedules import as_schedule

__all__ = ["as_schedule"]

"""The schedules of optax that begin with a warm-up, computed in double."""

from . import Row
from .optax import HOME, values

__all__ = ["HOME", "ROWS", "values"]
ROWS = [
    Row(
        "warmup_constant_schedule(0.01, 0.1, 10)",
        "warmup_constant(0.01, 0.1, 10)",
        remark="with `warmup_steps=0` optax stays at `init_value`, we begin at the peak",
    ),
    Row("warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)", "warmup_cosine_decay(0.0, 0.1, 10, 100)"),
    Row("warmup_cosine_decay_schedule(0.0, 0.1, 0, 100)", "warmup_cosine_decay(0.0, 0.1, 0, 100)"),
    Row(
        "warmup_cosine_decay_schedule(0.02, 0.1, 10, 100, end_value=0.01)",
        "warmup_cosine_decay(0.02, 0.1, 10, 100, end_value=0.01)",
    ),
    Row(
        "warmup_cosine_decay_schedule(0.0, 0.1, 10, 100, end_value=0.01, exponent=1.5)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, end_value=0.01, exponent=1.5)",
    ),
    Row(
        "warmup_exponential_decay_schedule(0.0, 0.1, 10, 20, 0.5)",
        "warmup_exponential_decay(0.0, 0.1, 10, 20, 0.5)",
    ),
    Row(
        "warmup_exponential_decay_schedule(0.0, 0.1, 0, 20, 0.5)",
        "warmup_exponential_decay(0.0, 0.1, 0, 20, 0.5)",
    ),
    Row(
        "warmup_exponential_decay_schedule(0.01, 0.1, 10, 20, 0.5, transition_begin=15, staircase=True, "
        "end_value=0.02)",
        "warmup_exponential_decay(0.01, 0.1, 10, 20, 0.5, transition_begin=15, staircase=True, end_value=0.02)",
    ),
    Row(
        "warmup_exponential_decay_schedule(0.0, 0.1, 10, 20, 1.5, end_value=0.4)",
        "warmup_exponential_decay(0.0, 0.1, 10, 20, 1.5, end_value=0.4)",
        remark="with a rate above 1 the end is an upper bound",
    ),
]

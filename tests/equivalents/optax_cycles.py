"""Schedules of optax that cycle, computed in double."""

from . import Row
from .optax import HOME, values

__all__ = ["HOME", "ROWS", "values"]
CYCLES = (
    "[{'init_value': 0.0, 'peak_value': 0.1, 'warmup_steps': 5, 'decay_steps': 30}, "
    "{'init_value': 0.02, 'peak_value': 0.05, 'warmup_steps': 0, 'decay_steps': 45, 'end_value': 0.01}, "
    "{'init_value': 0.01, 'peak_value': 0.03, 'warmup_steps': 10, 'decay_steps': 20}]"
)
ROWS = [
    Row("linear_onecycle_schedule(100, 0.1)", "linear_onecycle(100, 0.1)"),
    Row("linear_onecycle_schedule(97, 0.1, pct_start=0.25, pct_final=0.7, div_factor=5.0, final_div_factor=50.0)",
        "linear_onecycle(97, 0.1, pct_start=0.25, pct_final=0.7, div_factor=5.0, final_div_factor=50.0)"),
    Row("linear_onecycle_schedule(100, 0.1, pct_start=0.0)", "linear_onecycle(100, 0.1, pct_start=0.0)"),
    Row("cosine_onecycle_schedule(100, 0.1)", "cosine_onecycle(100, 0.1)"),
    Row("cosine_onecycle_schedule(97, 0.1, pct_start=0.25, div_factor=5.0, final_div_factor=50.0)",
        "cosine_onecycle(97, 0.1, pct_start=0.25, div_factor=5.0, final_div_factor=50.0)"),
    Row(f"sgdr_schedule({CYCLES})", f"sgdr_schedule({CYCLES})", range(120), "the last end is held: 0.0 from step 95"),
]  # fmt: skip

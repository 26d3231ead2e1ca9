"""The callback OneCycleLR of titu1994/keras-one-cycle: numbers from the formulas in its clr.py."""

from . import Row

HOME = "titu1994/keras-one-cycle"
WRAPS = "of a longer run the callback begins another cycle; ours holds the end"


def compute_lr(steps: int, end: float, scale: float, max_lr: float = 0.1) -> dict[int, float]:
    """From max_lr scale, `(1 + part (100 scale - 1))` times that, in the tail `(1 - 0.99 part)` times it."""
    middle, found = int(steps * (1 - end) / 2), {}
    for t in range(steps + 1):
        if t > 2 * middle:
            part = (t - 2 * middle) / (steps - 2 * middle)
            found[t] = max_lr * (1 + part * (1 - 100) / 100) * scale
        else:
            part = 1 - (t - middle) / middle if t > middle else t / middle
            found[t] = max_lr * (1 + part * (scale * 100 - 1)) * scale
    return found


def compute_momentum(steps: int, end: float, high: float, low: float) -> dict[int, float]:
    middle, found = int(steps * (1 - end) / 2), {}
    for t in range(steps + 1):
        part = 1 - (t - middle) / middle if t > middle else t / middle
        found[t] = high if t > 2 * middle else high - part * (high - low)
    return found


ROWS = [
    Row("OneCycleLR(0.1) for 100 batches", "titu1994_one_cycle(0.1, 100)", remark=WRAPS,
        numbers=compute_lr(100, 0.1, 0.1)),
    Row("OneCycleLR(0.1, end_percentage=0.2) for 100 batches", "titu1994_one_cycle(0.1, 100, end_percentage=0.2)",
        remark="the scale is end_percentage: the peak is 0.4", numbers=compute_lr(100, 0.2, 0.2)),
    Row("OneCycleLR(0.1, end_percentage=0.25, scale_percentage=0.05) for 101 batches",
        "titu1994_one_cycle(0.1, 101, end_percentage=0.25, scale_percentage=0.05)", remark="the peak is 0.025",
        numbers=compute_lr(101, 0.25, 0.05)),
    Row("OneCycleLR(0.1) for 100 batches: momentum", "titu1994_one_cycle_momentum(100)",
        numbers=compute_momentum(100, 0.1, 0.95, 0.85)),
    Row("OneCycleLR(0.1, 0.2, maximum_momentum=0.9, minimum_momentum=0.6) for 99 batches: momentum",
        "titu1994_one_cycle_momentum(99, end_percentage=0.2, maximum_momentum=0.9, minimum_momentum=0.6)",
        numbers=compute_momentum(99, 0.2, 0.9, 0.6)),
]  # fmt: skip

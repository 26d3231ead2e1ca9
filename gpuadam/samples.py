"""Measuring by turns: samples of several contenders, one after the other, and how they are spread."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "max": 1.0}
SAMPLE = 0.02  # seconds that a sample takes at least


def sampler(step: Callable[[], Any], seconds: float = SAMPLE) -> Callable[[], float]:
    """A function that takes one sample: the mean of as many steps as take some time, after one that is not counted."""
    for _ in range(3):
        step()
    begin = time.perf_counter()
    step()
    steps = max(1, round(seconds / max(time.perf_counter() - begin, 1e-6)))

    def sample() -> float:
        step()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - begin) / steps

    return sample


def interleave(
    contenders: Mapping[str, Callable[[], Any]], repeats: int, may_go_on: Callable[[], bool] = lambda: True
) -> dict[str, list[Any]]:
    """Sample A B A B ..., at least three times each, so that whatever slows the machine down slows down both."""
    samples: dict[str, list[Any]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        if repeat >= 3 and not may_go_on():
            break
        for name, sample in contenders.items():
            samples[name].append(sample())
    return samples


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """How a set of samples is spread."""
    return {"count": len(samples), **{name: float(np.quantile(samples, place)) for name, place in QUANTILES.items()}}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Quantiles of the ratios of samples taken one right after the other."""
    return quantiles([a / b for a, b in zip(above, below, strict=True)])

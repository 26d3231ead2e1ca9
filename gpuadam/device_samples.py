"""Timing a step on a GPU by events: what the device took, apart from what the host did.

Each sample takes some steps twice. First with the L2 cache emptied before each, outside the pair of events around it:
the time between these is the device's, and it includes any wait for a host that is slow to launch. Then one right
after the other, for the time in which a caller is done with all of it.
"""

import time
from collections.abc import Callable
from typing import Any

BATCH = 4e-3  # seconds that a sample's steps are to take
MOST_STEPS = 30  # of a sample: the queue of launches must not fill, or the host would wait for the device


def device_sampler(
    step: Callable[[], Any], flush: Callable[[], Any] | None = None, batch: float = BATCH
) -> Callable[[], dict[str, float]]:
    """A function that takes one sample, after steps that are not counted.

    Args:
        step: Enqueues work on the current stream of CuPy.
        flush: Enqueues what is to be done before each step and not to be counted (`device_bandwidth.flusher`).
        batch: Seconds that the steps of a sample are to take.

    Returns:
        Gives `seconds`: of the device for a step; `host_seconds`: until the host may go on; `wall_seconds`: those of a
        step in an unbroken row, until all is done.
    """
    for _ in range(3):
        run_in_row(step, 2)
    steps = int(min(MOST_STEPS, max(2, batch / max(run_in_row(step, 3), 1e-7))))

    def sample() -> dict[str, float]:
        return {**run_apart(step, flush, steps), "wall_seconds": run_in_row(step, steps)}

    return sample


def run_in_row(step: Callable[[], Any], steps: int) -> float:
    """Seconds of a step until so many are done."""
    import cupy

    device = cupy.cuda.Device()
    step()
    device.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    device.synchronize()
    return (time.perf_counter() - begin) / steps


def run_apart(step: Callable[[], Any], flush: Callable[[], Any] | None, steps: int) -> dict[str, float]:
    """Mean seconds of single steps, to the device and to the host."""
    import cupy

    pairs = [(cupy.cuda.Event(), cupy.cuda.Event()) for _ in range(steps)]
    stream, host = cupy.cuda.get_current_stream(), 0.0
    for begin, end in pairs:
        if flush is not None:
            flush()
        begin.record(stream)
        start = time.perf_counter()
        step()
        host += time.perf_counter() - start
        end.record(stream)
    cupy.cuda.Device().synchronize()
    device = sum(cupy.cuda.get_elapsed_time(*pair) for pair in pairs) / 1e3
    return {"seconds": device / steps, "host_seconds": host / steps}

"""What benchmarks ask of CuPy beside the stand-in: memory and pools, and times that a test decides."""

import time
from types import SimpleNamespace
from typing import Any

import fake_cupy
import pytest
from fake_device import machine

FREE_BYTES = 1 << 34


class Clock:
    """A host and a device, each of which takes the time that it is told."""

    def __init__(self) -> None:
        self.host = self.device = 0.0

    def enqueue(self, host: float, device: float) -> None:
        """Something that the device begins when the host has given it, and all that was before is done."""
        self.host += host
        self.device = max(self.device, self.host) + device

    def synchronize(self) -> None:
        self.host = self.device = max(self.host, self.device)


class TimedEvent:
    """An event of a `Clock`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        self.time = max(self._clock.device, self._clock.host)


@pytest.fixture
def clock(monkeypatch, stand_in):
    """Time is what `Clock.enqueue` says, for the stand-in and for `time.perf_counter`."""
    clock = Clock()
    monkeypatch.setattr(fake_cupy.cuda, "Event", lambda: TimedEvent(clock))
    monkeypatch.setattr(fake_cupy.cuda.Device, "synchronize", lambda self: clock.synchronize())
    monkeypatch.setattr(fake_cupy.cuda, "get_elapsed_time", lambda a, b: 1e3 * (b.time - a.time))
    monkeypatch.setattr(time, "perf_counter", lambda: clock.host)
    return clock


def used_bytes() -> int:
    kept = [block for block in machine.blocks if block.device is not None and block.freed_at == float("inf")]
    return sum(block.size for block in kept)


@pytest.fixture
def measuring(monkeypatch, stand_in):
    """A device with room for what is measured, and a pool that tells what is allocated."""
    pool = SimpleNamespace(used_bytes=used_bytes, total_bytes=used_bytes, free_all_blocks=lambda: None)
    monkeypatch.setattr(fake_cupy.cuda.runtime, "memGetInfo", lambda: (FREE_BYTES, FREE_BYTES))
    monkeypatch.setattr(fake_cupy, "get_default_memory_pool", lambda: pool)

"""What measurements ask of CuPy, added to the stand-in: sizes, pools, and times that a test decides."""

import time
from types import SimpleNamespace

import fake_cupy
import pytest
from fake_device import machine

L2_BYTES = 1 << 16
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

    def record(self, stream=None) -> None:
        self.time = max(self._clock.device, self._clock.host)


@pytest.fixture
def clock(monkeypatch, stand_in):
    """Time is what `Clock.enqueue` says, for the stand-in and for `time.perf_counter`."""
    clock = Clock()
    monkeypatch.setattr(fake_cupy.cuda, "Event", lambda: TimedEvent(clock))
    monkeypatch.setattr(fake_cupy.cuda.Device, "synchronize", lambda self: clock.synchronize())
    monkeypatch.setattr(fake_cupy.cuda, "get_elapsed_time", lambda a, b: 1e3 * (b.time - a.time), raising=False)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.host)
    return clock


class Pool:
    """CuPy's pool, which keeps what was given back; here nothing is."""

    def used_bytes(self) -> int:
        kept = [block for block in machine.blocks if block.device is not None and block.freed_at == float("inf")]
        return sum(block.size for block in kept)

    total_bytes = used_bytes

    def free_all_blocks(self) -> None: ...


@pytest.fixture
def measuring(monkeypatch, stand_in):
    """The stand-in with what measurements need beside the product: sizes, memory, and the time between events."""
    real = fake_cupy.cuda.Event

    class Event(real):
        def record(self, stream=None) -> None:
            super().record(stream)
            self.time = time.perf_counter()

    attributes = {"MultiProcessorCount": machine.processors, "L2CacheSize": L2_BYTES}
    properties = {"name": b"stand-in", "totalGlobalMem": FREE_BYTES, "multiProcessorCount": machine.processors}
    runtime = {
        "memGetInfo": lambda: (FREE_BYTES, FREE_BYTES),
        "getDeviceProperties": lambda device: properties,
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13000,
    }
    monkeypatch.setattr(fake_cupy.cuda, "Event", Event)
    monkeypatch.setattr(fake_cupy.cuda.Device, "attributes", attributes)
    monkeypatch.setattr(
        fake_cupy.cuda, "get_elapsed_time", lambda a, b: 1e3 * max(b.time - a.time, 1e-7), raising=False
    )
    for name, value in runtime.items():
        monkeypatch.setattr(fake_cupy.cuda.runtime, name, value, raising=False)
    monkeypatch.setattr(fake_cupy, "get_default_memory_pool", Pool, raising=False)
    return SimpleNamespace(machine=machine)

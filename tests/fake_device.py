"""The device behind `fake_cupy`: memory, and queues of work that stays undone until somebody waits for it.

So a missing wait, a buffer that is used again too early or a wrong order shows. What CUDA forbids during a capture
raises. Memory that was given back is not given out again: whoever still uses it is found out.
"""

import bisect
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ALIGNMENT = 512
NAMES = {
    100: "NoDevice",
    101: "InvalidDevice",
    400: "InvalidResourceHandle",
    600: "NotReady",
    900: "StreamCaptureUnsupported",
    905: "StreamCaptureIsolation",
    906: "StreamCaptureImplicit",
}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{NAMES[status]}")
        self.status = status


@dataclass(eq=False)
class Block:
    """An allocation. Its bytes outlive it, so that whoever still uses it is found out and does no harm."""

    raw: np.ndarray
    address: int
    size: int
    device: int | None  # None: pinned host memory
    freed_at: float = np.inf

    def view(self) -> np.ndarray:
        start = self.address - self.raw.ctypes.data
        return self.raw[start : start + self.size]


@dataclass(eq=False)
class Work:
    """Something that a queue was given to do, and what must be done before."""

    queue: "Queue"
    time: int
    action: Callable[["Work"], None]
    before: list["Work"]
    is_done: bool = False
    asked: int = 0

    def finish(self) -> None:
        while not self.is_done:
            self.queue.do_next()

    def do(self) -> None:
        try:
            for other in self.before:
                other.finish()
            self.action(self)
        finally:
            self.is_done, self.before = True, []


class Queue:
    """What a stream has to do."""

    def __init__(self, device: int, ptr: int, is_blocking: bool) -> None:
        self.device, self.ptr, self.is_blocking = device, ptr, is_blocking
        self.pending: deque[Work] = deque()
        self.last: list[Work] = []
        self.waits: list[Work] = []
        self.captured: list[Callable[[Work], None]] | None = None
        self.mode = 0

    def put(self, action: Callable[[Work], None], is_launch: bool = False) -> Work:
        """Queue some work; in a capture note it, if it is a launch: gpuadam puts nothing else into a graph."""
        if self.captured is not None:
            if not is_launch:
                raise CUDARuntimeError(900)
            self.captured.append(action)
        machine.time += 1
        before = self.waits + (machine.implied(self) if self.captured is None else [])
        work = Work(self, machine.time, action, before)
        if self.captured is None:
            self.pending.append(work)
            self.last, self.waits = [work], []
        return work

    def do_next(self) -> None:
        self.pending.popleft().do()

    def mark(self) -> Work:
        return self.put(lambda work: None)


@dataclass
class Launch:
    """A launch as the driver got it."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    argument: bytes
    is_captured: bool


@dataclass
class Machine:
    """The devices, their memory and streams, and a record of what they were given."""

    device_count: int = 2
    processors: int = 2
    time: int = 0
    blocks: list[Block] = field(default_factory=list)
    queues: dict[tuple[int, int], Queue] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)  # kind, bytes
    synchronisations: int = 0  # how often the host has waited
    local: threading.local = field(default_factory=threading.local)
    null: Any = None  # the legacy stream, as CuPy has it
    pointers: Any = field(default_factory=lambda: itertools.count(4096, 16))

    @property
    def device(self) -> int:
        return getattr(self.local, "device", 0)

    def queue(self, ptr: int) -> Queue:
        """The queue of a stream on the current device; 0 is the legacy stream."""
        if ptr == 0:
            return self.queues.setdefault((self.device, 0), Queue(self.device, 0, True))
        if (self.device, ptr) not in self.queues:
            raise CUDARuntimeError(400)
        return self.queues[self.device, ptr]

    def current_queue(self) -> Queue:
        """That of the stream which is current on this thread and device."""
        return self.queue(self.streams()[-1].ptr)

    def streams(self) -> list[Any]:
        """The current device's stack of streams of this thread."""
        stacks = self.local.__dict__.setdefault("stacks", {})
        return stacks.setdefault(self.device, [self.null])

    def implied(self, queue: Queue) -> list[Work]:
        """What the legacy stream and the blocking ones must await of each other."""
        if not queue.is_blocking:
            return []
        others = [q for q in self.queues.values() if q.device == queue.device and q.is_blocking and q is not queue]
        if queue.ptr == 0 and any(q.captured is not None for q in others):
            raise CUDARuntimeError(906)
        return [work for q in others if 0 in (q.ptr, queue.ptr) for work in q.last]

    def refuse_in_capture(self) -> None:
        """What is not safe while some stream is captured in the global mode, PyTorch's."""
        if any(queue.captured is not None and queue.mode == 0 for queue in self.queues.values()):
            raise CUDARuntimeError(900)

    def allocate(self, size: int, device: int | None) -> Block:
        self.refuse_in_capture()
        raw = np.full(size + 2 * ALIGNMENT, 0xA5, np.uint8)
        block = Block(raw, -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT, size, device)
        bisect.insort(self.blocks, block, key=lambda b: b.address)
        return block

    def require(self, address: int, size: int, device: int | None, time: float = np.inf) -> None:
        """Memory must have been there when the work that uses it was queued."""
        place = bisect.bisect_right(self.blocks, address, key=lambda b: b.address) - 1
        block = self.blocks[place] if place >= 0 else None
        assert block is not None, f"{address:#x} is no memory"
        assert address + size <= block.address + block.size, f"{address:#x} is no memory for {size} bytes"
        assert block.device == device, f"{address:#x} lies on device {block.device}, not on {device}"
        assert block.freed_at >= min(time, self.time + 0.5), f"{address:#x} was freed before"

    def free(self, block: Block) -> None:
        block.freed_at = self.time
        if block.device is None:
            block.view()[:] = 0xEE  # CuPy's pool of pinned memory gives it to the next one at once


machine = Machine()


def reset() -> None:
    """Forget everything."""
    machine.__init__(null=machine.null)  # type: ignore[misc]

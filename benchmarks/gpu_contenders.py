"""What `gpu.py` measures: the cases, and the contenders of each: functions that enqueue one step on the null stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np
from measure import CASES as COMMON

import gpuadam
from gpuadam import schedules
from gpuadam.workloads import Shape, count_elements

PIECE = 2**30  # bytes of the buffers of the copy
SPARE = 3 * 2**30  # bytes of device memory to leave alone
LR = schedules.warmup_cosine_decay(0.0, 1e-3, 100, 100_000)
RULES = {"adamw": (gpuadam.AdamW, 2), "amsgrad": (gpuadam.AdamW, 3), "rmsprop": (gpuadam.RMSprop, 1)}  # and its states


@dataclass
class Case:
    """Tensors and a rule."""

    name: str
    shapes: Sequence[Shape]
    rule: str = "adamw"
    dtype: Any = np.float32
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        return count_elements(self.shapes)

    @property
    def moved(self) -> int:
        """Bytes that a step must move."""
        return self.elements * np.dtype(self.dtype).itemsize * (3 + 2 * RULES[self.rule][1])

    @property
    def held(self) -> int:
        """Bytes of the arrays of one optimizer."""
        return self.elements * np.dtype(self.dtype).itemsize * (2 + RULES[self.rule][1])

    @property
    def sets(self) -> int:
        """Optimizers to be stepped in turn, so that a single tensor's arrays are four times the L2 cache."""
        return 1 if len(self.shapes) > 1 else max(1, -(-4 * l2_bytes() // self.held))

    @property
    def needed(self) -> int:
        """Device memory that all contenders take at most."""
        states = self.held - 2 * self.elements * np.dtype(self.dtype).itemsize
        return self.sets * (self.held + states) + (4 * states if self.is_small else states) + 2 * PIECE + SPARE

    @property
    def is_small(self) -> bool:
        """Whether the host, not the device, may be what a trainer waits for."""
        return len(self.shapes) > 100 and self.elements < 30_000_000


CASES = [
    *(Case(f"1 x 10^{power}", [(10**power,)]) for power in (6, 7, 8, 9)),
    Case("ResNet-50, 161 tensors", COMMON["resnet50"].shapes),
    Case("1000 x 1000", COMMON["1000x1000"].shapes),
    Case("10000 x 128", COMMON["10000x128"].shapes),
    Case("300 x 2.3 M", [(2_300_000,)] * 300),
    Case("float64, 1 x 10^8", [(10**8,)], dtype=np.float64),
    Case("AMSGrad, 1 x 10^8", [(10**8,)], "amsgrad", settings={"amsgrad": True}),
    Case("RMSprop, 1 x 10^8", [(10**8,)], "rmsprop"),
]


def l2_bytes() -> int:
    """Size of the device's L2 cache."""
    return int(cupy.cuda.Device().attributes["L2CacheSize"])


def random_arrays(case: Case, seed: int) -> list[Any]:
    """Device arrays, each an allocation of its own, of numbers from a block that is repeated."""
    block = cupy.asarray(np.random.default_rng(seed).standard_normal(1_000_003).astype(case.dtype))
    arrays = []
    for shape in case.shapes:
        flat = cupy.empty(int(np.prod(shape)), case.dtype)
        for begin in range(0, flat.size, block.size):
            piece = flat[begin : begin + block.size]
            piece[...] = block[: piece.size]
        arrays.append(flat.reshape(shape))
    return arrays


def make_ours(case: Case, params: list[Any], grads: list[Any]) -> Any:
    optimizer = RULES[case.rule][0](params, lr=LR, **case.settings)
    optimizer.bind(grads)
    return optimizer


def make_torch(case: Case, params: list[Any], grads: list[Any], **options: Any) -> Any:
    """PyTorch's optimizer over the very same parameters and gradients; it has no fused RMSprop."""
    import torch

    mirrors = [as_torch(param) for param in params]
    for mirror, grad in zip(mirrors, grads, strict=True):
        mirror.grad = as_torch(grad)
    if case.rule == "rmsprop":
        return torch.optim.RMSprop(mirrors, lr=1e-4, foreach=True)
    return torch.optim.AdamW(mirrors, lr=1e-4, fused=True, **case.settings, **options)


def as_torch(array: Any) -> Any:
    import torch

    tensor = torch.as_tensor(array, device="cuda")
    if tensor.data_ptr() != array.data.ptr:
        raise RuntimeError("PyTorch has copied an array that it was to share")
    return tensor


def torch_reason() -> str | None:
    """Why there is no PyTorch to compare with."""
    try:
        import torch
    except ImportError as error:
        return f"PyTorch cannot be imported: {error}"
    return None if torch.cuda.is_available() else "PyTorch was built without CUDA, or sees no device"


def capture_ours(optimizer: Any) -> Callable[[], None]:
    """A graph of one step, and what replays it on the null stream."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        optimizer.step()
        stream.synchronize()
        stream.begin_capture()
        try:
            optimizer.step()
        finally:
            graph = stream.end_capture()
    return lambda: graph.launch(cupy.cuda.Stream.null)


def capture_torch(case: Case, params: list[Any], grads: list[Any]) -> Callable[[], None]:
    import torch

    optimizer = make_torch(case, params, grads, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return lambda kept=optimizer: graph.replay()  # type: ignore[misc]


def in_turn(steps: list[Callable[[], Any]]) -> Callable[[], None]:
    """One step of the next optimizer at every call."""
    if len(steps) == 1:
        return steps[0]
    state = {"next": 0}

    def step() -> None:
        steps[state["next"]]()
        state["next"] = (state["next"] + 1) % len(steps)

    return step


def make_copy(moved: int) -> Callable[[], None]:
    """A copy that moves so many bytes, half read and half written, at another place of its buffers every time."""
    source = random_arrays(Case("copy", [(PIECE // 4,)]), 3)[0]
    target = cupy.empty_like(source)
    copy, kind = cupy.cuda.runtime.memcpyAsync, cupy.cuda.runtime.memcpyDeviceToDevice
    state = {"place": 0}

    def step() -> None:
        left = moved // 2
        while left:
            place = state["place"]
            piece = min(left, PIECE - place)
            copy(target.data.ptr + place, source.data.ptr + place, piece, kind, 0)
            state["place"] = (place + piece) % PIECE
            left -= piece

    return step


def makers_of(case: Case) -> dict[str, Callable[[], Callable[[], Any]]]:
    """By name, what makes each contender; all of them share parameters and gradients, none its states."""
    sets = [(random_arrays(case, 1), random_arrays(case, 2)) for _ in range(case.sets)]

    def ours() -> Callable[[], Any]:
        return in_turn([make_ours(case, *arrays).step for arrays in sets])

    def ours_of_torch_tensors() -> Callable[[], Any]:
        return make_ours(case, *([as_torch(array) for array in arrays] for arrays in sets[0])).step

    makers = {"copy": lambda: make_copy(case.moved), "gpuadam": ours}
    if case.sets == 1:
        makers["gpuadam, graph"] = lambda: capture_ours(make_ours(case, *sets[0]))
    if torch_reason() is None:
        makers["torch"] = lambda: in_turn([make_torch(case, *arrays).step for arrays in sets])
        if case.is_small:
            makers["gpuadam, torch tensors"] = ours_of_torch_tensors
            makers["torch, graph"] = lambda: capture_torch(case, *sets[0])
    return makers

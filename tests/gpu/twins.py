"""The same run on the CPU and on the device, and the question whether both hold the same bits."""

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import assert_same_bits

from gpuadam import cuda

try:
    import cupy
except ImportError:
    cupy = None

REASON = cuda.unavailable_reason()
MARKS = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0]


def awkward(shape: Any, dtype: Any, seed: int) -> np.ndarray:
    """Numbers of every size: tame ones, those whose squares are subnormal, arbitrary bits, infinities and NaN."""
    numel = int(np.prod(shape))
    generator = np.random.default_rng([seed, numel])
    word = np.dtype(f"u{np.dtype(dtype).itemsize}")
    limits = ml_dtypes.finfo(dtype)
    smallest = np.log10(float(limits.smallest_subnormal))
    scale = 10.0 ** generator.uniform(smallest / 2 - 2, 2, numel)
    values = (scale * generator.standard_normal(numel)).astype(dtype)
    arbitrary = generator.integers(0, np.iinfo(word).max, numel, word, endpoint=True).view(dtype)
    kind = generator.uniform(size=numel)
    values[kind < 0.2] = arbitrary[kind < 0.2]
    edges = np.array([*SPECIAL, limits.max, limits.tiny, limits.smallest_subnormal, -limits.smallest_subnormal], dtype)
    places = generator.integers(0, max(numel, 1), min(numel // 20, 2 * len(edges)))
    values[places] = generator.permutation(np.resize(edges, 2 * len(edges)))[: len(places)]
    return values.reshape(shape)


def arrays(dtype: Any, seed: int) -> list[np.ndarray]:
    """Every shape that may matter: empty, 0-d, around the edges of chunks, permuted, off a 16-byte boundary."""
    shapes = [(0,), (), (1,), (3,), (127,), (1023,), (1024,), (1025,), (3001,), (2, 0, 3), (33, 77)]
    found = [awkward(shape, dtype, seed + i) for i, shape in enumerate(shapes)]
    raw = awkward(1002, dtype, seed + 20)
    return [*found, np.asfortranarray(awkward((20, 21), dtype, seed + 21)), raw[1:1001], raw[1001:]]


def to_device(array: np.ndarray) -> Any:
    """A copy on the device, as far from a 16-byte boundary and in the same order of elements."""
    start = array.ctypes.data % 16 // array.itemsize
    flat = cupy.empty(start + array.size, array.dtype)[start:]
    words = f"u{array.itemsize}"  # copied as they are, whatever CuPy knows of bfloat16
    flat.view(words)[...] = cupy.asarray(array.ravel(order="K").view(words))
    return flat.reshape(array.T.shape).T if array.flags.fnc else flat.reshape(array.shape)


def to_host(array: Any) -> np.ndarray:
    """A copy as a NumPy array."""
    words = f"u{array.dtype.itemsize}"
    found: np.ndarray = cupy.asnumpy(array.view(words)).view(array.dtype)
    return found


class Twins:
    """One optimizer on the CPU, and one like it on the device."""

    def __init__(
        self,
        make: Callable[..., Any],
        params: Sequence[np.ndarray],
        layout: Callable[[Any], Any] = list,
        **settings: Any,
    ) -> None:
        """Args: make, settings: the optimizer; params: its arrays; layout: puts the arrays into groups."""
        self.params = list(params)
        self.mirrors = [to_device(array) for array in self.params]
        self.host = make(layout(self.params), **settings)
        self.device = make(layout(self.mirrors), **settings)

    def step(self, grads: Sequence[np.ndarray | None], **scalars: Any) -> list[Any]:
        """One step on both; the gradients on the device are returned. Arrays among the scalars go there too."""
        mirrors = [None if grad is None else to_device(grad) for grad in grads]
        theirs = {name: to_device(value) if np.ndim(value) else value for name, value in scalars.items()}
        self.host.step(grads, **scalars)
        self.device.step(mirrors, **theirs)
        return mirrors

    def both(self, method: str, *arguments: Any, **settings: Any) -> None:
        """The same call of both."""
        for optimizer in (self.host, self.device):
            getattr(optimizer, method)(*arguments, **settings)

    def check_params(self) -> None:
        """Parameters have the same bits."""
        for i, (param, mirror) in enumerate(zip(self.params, self.mirrors, strict=True)):
            assert_same_bits(param, to_host(mirror), f"parameter {i}")

    def check(self) -> None:
        """Parameters, states, counters and the coefficients of the next step have the same bits."""
        self.check_params()
        self.check_rows()
        assert_same_state(self.host.state_dict(), self.device.state_dict())

    def check_rows(self) -> None:
        """Clocks and coefficients have the same bits."""
        count = len(self.host._engine.cohorts)
        for name in ("rows", "clocks"):
            ours, theirs = (optimizer._engine.tables.download(name)[:count] for optimizer in (self.host, self.device))
            assert_same_bits(np.array(ours).view(np.float64), np.array(theirs).view(np.float64), name)


def assert_same_state(ours: Any, theirs: Any) -> None:
    """Two state_dicts are the same, arrays to the last bit."""
    assert ours["groups"] == theirs["groups"]
    assert ours["parameters"] == theirs["parameters"]
    assert ours["skipped_steps"] == theirs["skipped_steps"]
    assert list(ours["state"]) == list(theirs["state"])
    for name, own in ours["state"].items():
        for key, value in own.items():
            if isinstance(value, np.ndarray):
                assert_same_bits(value, theirs["state"][name][key], f"{key} of {name}")
            else:
                assert value == theirs["state"][name][key], f"{key} of {name}"

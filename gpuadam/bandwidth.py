"""How fast memory is: simple loops over arrays that no cache holds.

`copy` and `triad` are those of STREAM (J. D. McCalpin, 1995): a = b and a = b + s * c. They count the bytes that a
program asks for, 16 and 24 an element; a CPU also reads the lines of `a` before it writes them, which is not counted. A
step of an optimizer writes only what it has read, as `scale` does: a = s * a, 16 bytes, all of them counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from .jit import compiled


@dataclass(frozen=True)
class Stream:
    """Something to be timed: a function that moves so many bytes."""

    run: Callable[[], Any]
    moved: int


@compiled(parallel=True)
def copy(target: Any, source: Any) -> None:
    for i in numba.prange(len(target)):
        target[i] = source[i]


@compiled(parallel=True)
def triad(target: Any, left: Any, right: Any, factor: float) -> None:
    for i in numba.prange(len(target)):
        target[i] = left[i] + factor * right[i]


@compiled(parallel=True)
def scale(target: Any, factor: float) -> None:
    for i in numba.prange(len(target)):
        target[i] *= factor


def host_streams(size: int) -> dict[str, Stream]:
    """The loops over the host's memory, shared among Numba's threads.

    Args:
        size: Bytes of each of the three arrays; several times the caches.
    """
    first, second, third = (np.full(size // 8, value, np.float64) for value in (1.0, 2.0, 3.0))
    return {
        "copy": Stream(lambda: copy(first, second), 2 * first.nbytes),
        "triad": Stream(lambda: triad(first, second, third, 0.5), 3 * first.nbytes),
        "scale": Stream(lambda: scale(first, 1.0), 2 * first.nbytes),
    }

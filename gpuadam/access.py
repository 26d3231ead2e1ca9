"""Memory at the addresses of the tables, as compiled code reads and writes it (twin of scalars.cuh)."""

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import overload

from .jit import inlined, pointer
from .tables import NO_SCOPE, SCALARS

UNKNOWN = 1 << 40  # length of a table whose length the walk need not know


def array_at(address: Any, first: Any, count: Any, dtype: Any) -> Any:
    """Elements [first, first + count) of the array at an address; None where the specialisation has none."""


@overload(array_at, inline="always")
def _array_at(address, first, count, dtype):  # type: ignore[no-untyped-def]
    if isinstance(dtype, types.NoneType):
        return lambda address, first, count, dtype: None
    size = dtype.dtype.bitwidth // 8
    return lambda address, first, count, dtype: carray(pointer(address + first * size, dtype), count)


def load(array: Any, index: int) -> Any:
    """An element, or None of no array."""


@overload(load, inline="always")
def _load(array, index):  # type: ignore[no-untyped-def]
    if isinstance(array, types.NoneType):
        return lambda array, index: None
    return lambda array, index: array[index]


def store(array: Any, index: int, value: Any) -> None:
    """Write an element; nothing where there is no array."""


@overload(store, inline="always")
def _store(array, index, value):  # type: ignore[no-untyped-def]
    if isinstance(array, types.NoneType):
        return lambda array, index, value: None

    def write(array, index, value):  # type: ignore[no-untyped-def]
        array[index] = value

    return write


@inlined
def table_at(address: Any, count: int, dtype: Any) -> Any:
    return carray(pointer(np.int64(address), dtype), count)


@inlined
def read_scalar(address: Any, is_double: Any, own: Any) -> float:
    """A number of mixed-precision training: at an address, or, where that is 0, the record's own."""
    if address == 0:
        return own  # type: ignore[no-any-return]
    if is_double:
        return table_at(address, 1, np.float64)[0]  # type: ignore[no-any-return]
    return float(table_at(address, 1, np.float32)[0])


@inlined
def inverse_scale(launch: Any) -> float:
    """What takes gradients back from the scale that the loss was multiplied by."""
    scalars = table_at(launch.scalars, 1, SCALARS)[0]
    return 1.0 / read_scalar(scalars.grad_scale_at, scalars.grad_scale_is_double, scalars.grad_scale)


@inlined
def gradient_factor(launch: Any, tensor: Any, clip_norm: float) -> float:
    """The one factor for unscaling and clipping; where the norm is NaN it is NaN too."""
    factor = inverse_scale(launch)
    if tensor.scope == NO_SCOPE:
        return factor
    norm = table_at(launch.norms, UNKNOWN, np.float64)[tensor.scope]
    return factor if norm <= clip_norm else factor * (clip_norm / norm)

"""Memory of the CPU backend: arrays of our own and of others."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array

CACHE_LINE = 64  # bytes


def empty_bytes(size: int, device: int) -> npt.NDArray[Any]:
    """New memory from the start of a cache line."""
    raw = np.empty(size + CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % CACHE_LINE
    return raw[first : first + size]


def fill(array: npt.NDArray[Any], value: Any) -> None:
    """Give every element the same value."""
    array.fill(value)


def view_of(array: Array) -> npt.NDArray[Any]:
    """A borrowed array as one of NumPy's, in the same memory."""
    raw = (ctypes.c_byte * array.nbytes).from_address(array.address)
    raw.owner = array.owner  # type: ignore[attr-defined]
    return np.ndarray(array.shape, array.dtype, raw, strides=array.strides)


def copy_values(target: npt.NDArray[Any], source: Array) -> None:
    """The numbers of a borrowed array into one of our own of its shape."""
    target[...] = view_of(source).astype(target.dtype)


def copy_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy beside it."""
    return array.copy()


def to_host(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy as a NumPy array."""
    return array.copy()


def overwrite(array: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Put other values into an array."""
    array[...] = values


def table_of(address: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One row at an address, as a copy."""
    raw = (ctypes.c_byte * dtype.itemsize).from_address(address)
    return np.frombuffer(raw, dtype.base, dtype.itemsize // dtype.base.itemsize).copy()

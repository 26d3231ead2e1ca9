"""Buffers that JAX hands to a callback: where they lie; and the arithmetic of the thread in which it does so."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .arrays import CPU, Device

KINDS = {1: "cpu", 2: "cuda"}  # of DLPack
ENVIRONMENT = 256  # bytes: more than any fenv_t
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def device_of(buffer: Any) -> Device:
    """Where a buffer lies."""
    kind, number = buffer.__dlpack_device__()
    if kind not in KINDS:
        raise RuntimeError(f"a buffer lies on a device of DLPack's kind {kind}; allowed are CPUs and CUDA devices")
    return CPU if KINDS[kind] == "cpu" else ("cuda", number)


def address_of(buffer: Any) -> int:
    """Its first byte: the first field of DLPack's tensor, which is there for every dtype and device.

    JAX's `__cuda_array_interface__` refuses bfloat16, and NumPy takes twice as long; a step asks a few hundred times.
    """
    tensor = _pointer_in(buffer.__dlpack__(), b"dltensor")
    return ctypes.c_void_p.from_address(tensor).value or 0  # of an empty array it may be none


def _floating_point_library() -> Any:
    """The C library, if it can set the arithmetic of a thread."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fesetenv") else None


def _default_environment() -> ctypes.c_void_p:
    """C's FE_DFL_ENV: a variable on Apple's systems, and elsewhere a pointer that points nowhere."""
    if sys.platform == "darwin":
        return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(_library, "_FE_DFL_ENV")))
    return ctypes.c_void_p(-1)


_library = _floating_point_library()


@contextmanager
def ieee_arithmetic() -> Iterator[None]:
    """Within the block this thread keeps subnormal numbers: XLA lets its own flush them to zero."""
    if _library is None:
        yield
        return
    before = ctypes.create_string_buffer(ENVIRONMENT)
    _library.fegetenv(before)
    _library.fesetenv(_default_environment())
    try:
        yield
    finally:
        _library.fesetenv(before)

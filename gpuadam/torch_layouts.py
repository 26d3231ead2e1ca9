"""Where PyTorch's tensors lie and how, asked of all of them at once.

Through the C functions of DLPack, which PyTorch offers beside `__dlpack__`: a call takes some nanoseconds, and Numba
makes it. From Python, address, shape, strides and dtype of a tensor would take a hundred times as long.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kept, pointer

DLPACK_MAJOR = 1
DESCRIBE = 5  # place of `dltensor_from_py_object_no_sync` among the words of DLPackExchangeAPI
HEADER = 3  # words before the shape: address; device; dtype and number of axes
AXES = 0xFFFFFFFF  # this number in its word
UNKNOWN = -1  # no word is that
SAME, MOVED, CHANGED = 0, 1, 2


@intrinsic  # type: ignore[untyped-decorator]
def describe(typing_context: Any, function: Any, tensor: Any, found: Any) -> Any:
    """Let PyTorch write a DLTensor for a Python object; 0 if it could."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int64)
        kind = cgutils.ir.FunctionType(context.get_value_type(types.int32), [integer] * 2)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int32(*[types.int64] * 3), generate


@intrinsic  # type: ignore[untyped-decorator]
def forget_error(typing_context: Any, function: Any) -> Any:
    """Clear the exception that a refusal has left behind."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# It calls into Python, so unlike all other compiled code it keeps the interpreter's lock.
@functools.partial(kept, functools.partial(numba.njit, error_model="numpy"))
def look(functions: Any, tensors: int, nothing: int, firsts: Any, known: Any, found: Any) -> int:
    """Describe tensors, and compare that with what is known of them.

    Args:
        functions: Addresses of `describe`, and of what forgets an error.
        tensors: Address of pointers to Python objects.
        nothing: None among them, and what PyTorch cannot describe: all its words are 0.
        firsts: Where the words of each tensor begin, and end, among
        known, found: address, device, dtype, shapes and strides.

    Returns:
        SAME; MOVED, where addresses alone are others; or CHANGED.
    """
    objects = numba.carray(pointer(tensors, np.int64), len(firsts) - 1)
    words = np.zeros(6, np.int64)
    verdict = SAME
    for i in range(len(objects)):
        first, end = firsts[i], firsts[i + 1]
        axes = (end - first - HEADER) // 2
        found[first:end] = 0
        if objects[i] != nothing:
            if describe(functions[0], objects[i], words.ctypes.data) != 0:
                forget_error(functions[1])
                return CHANGED
            if words[2] & AXES != axes:
                return CHANGED
            found[first : first + HEADER] = words[:HEADER]
            found[first + HEADER : end - axes] = numba.carray(pointer(words[3], np.int64), axes)
            found[end - axes : end] = numba.carray(pointer(words[4], np.int64), axes)
        if known[first] != found[first]:
            verdict = max(verdict, MOVED)
        for k in range(first + 1, end):
            if known[k] != found[k]:
                verdict = CHANGED
    return verdict


@functools.cache
def functions_of_torch() -> npt.NDArray[np.int64]:
    """What `look` calls."""
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        raise ImportError(f"PyTorch {torch.__version__} lacks DLPack's C functions; gpuadam.torch is made for 2.13")
    address = read(torch.Tensor.__dlpack_c_exchange_api__, b"dlpack_exchange_api")
    words = (ctypes.c_uint64 * (DESCRIBE + 1)).from_address(address)
    major, describes = words[0] & 0xFFFFFFFF, words[DESCRIBE]
    if major != DLPACK_MAJOR or not describes:
        raise ImportError(f"PyTorch {torch.__version__} speaks DLPack {major}; gpuadam.torch needs {DLPACK_MAJOR}")
    forget = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value
    return np.array([describes, forget], np.uint64).view(np.int64)


class Layouts:
    """How some tensors lay when it was accepted, and how they lie now.

    Args:
        axes: How many axes each has.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        self._functions = functions_of_torch()
        self._firsts = np.cumsum([0, *(HEADER + 2 * count for count in axes)])
        self._known, self._found = np.full((2, self._firsts[-1]), UNKNOWN)

    def look(self, tensors: npt.NDArray[np.object_]) -> int:
        """Compare tensors, None where there is none, with what was accepted: they are the SAME, MOVED or CHANGED."""
        pointers = tensors.ctypes.data
        return look(self._functions, pointers, id(None), self._firsts, self._known, self._found)  # type: ignore[no-any-return]

    def addresses(self) -> npt.NDArray[np.int64]:
        """First byte of each tensor, as found; 0 where there is none."""
        addresses: npt.NDArray[np.int64] = self._found[self._firsts[:-1]]
        return addresses

    def are_readable(self) -> bool:
        """Whether tensors that have moved have memory wherever they had some, aligned to their elements."""
        was, is_now = (words[self._firsts[:-1]] for words in (self._known, self._found))
        bits = self._found[self._firsts[:-1] + 2] >> 40 & 0xFF
        return bool(np.all((was == 0) == (is_now == 0)) and not np.any(8 * is_now % np.maximum(bits, 1)))

    def accept(self) -> None:
        """What was found is in force."""
        self._known, self._found = self._found, self._known

    def forget(self) -> None:
        """Nothing is in force: whatever is found is CHANGED."""
        self._known[:] = UNKNOWN

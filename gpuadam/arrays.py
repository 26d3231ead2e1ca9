"""Borrowed arrays: whose memory it is, where it lies, and whether a kernel may write it as a plain run of elements.

Everything is checked here, before anything is written: type, device, strides, writability and overlap. Nothing is ever
copied in silence.
"""

import functools
import math
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CPU = ("cpu", 0)
Device = tuple[str, int]


@dataclass(eq=False)
class Array:
    """An array of somebody else, kept alive.

    Attributes:
        owner: The object that was given; holding it keeps the memory alive.
        address: First byte.
        shape, strides: Elements, and bytes between them along each axis.
        dtype: NumPy dtype.
        numel, nbytes: Elements, and bytes of all of them.
        device: ("cpu", 0) or ("cuda", number).
        layout: What `layout_of` the owner was; None for an owner that leaves its elements where they are.
    """

    owner: Any
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: Device
    is_writable: bool
    memory: Any = field(default=None, repr=False)  # the view through which the owner was read
    layout: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        self.numel = math.prod(self.shape)
        self.nbytes = self.numel * self.dtype.itemsize

    @property
    def steps(self) -> tuple[int, ...]:
        """Elements between them along each axis."""
        return tuple(stride // self.dtype.itemsize for stride in self.strides)

    @property
    def is_movable(self) -> bool:
        """Whether the owner may put its elements elsewhere: a PyTorch tensor may; NumPy's are pinned by `borrow`."""
        return self.layout is not None

    @property
    def has_moved(self) -> bool:
        """Whether the owner's elements lie elsewhere than when it was read, or in another shape, order or dtype."""
        return self.layout is not None and layout_of(self.owner) != self.layout


def layout_of(tensor: Any) -> tuple[Any, ...]:
    """Where a PyTorch tensor has its elements, and how; after `p.data = ...` it is still the same object."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def borrow(value: Any, name: str) -> Array:
    """Look at an array without copying it.

    Args:
        value: NumPy or CuPy array, or anything with `__cuda_array_interface__` or `__dlpack__` (a PyTorch tensor).
        name: What an error calls it.

    Raises:
        TypeError: It is no such array, an immutable one (JAX), or one with a mask.
        ValueError: Its elements are not one dense run of aligned memory.
    """
    array = look_at(value, name)
    check_dense(array, name)
    _check_memory(array, name)
    if hasattr(value, "data_ptr"):
        array.layout = layout_of(value)
    return array


def look_at(value: Any, name: str) -> Array:
    """As `borrow`, but in any order of elements, with holes and repetitions too."""
    module = type(value).__module__.partition(".")[0]
    if module in ("jax", "jaxlib"):
        raise TypeError(
            f"{name} is a JAX array, which is immutable: an optimizer that writes in place would corrupt it"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a MaskedArray, whose mask would be ignored; allowed is its array without one")
    if hasattr(value, "untyped_storage"):
        return _from_torch(value, name)
    source = value.detach() if hasattr(value, "detach") else value
    if module == "cupy" or (getattr(source, "is_cuda", True) and hasattr(type(source), "__cuda_array_interface__")):
        return _from_cuda(value, source)
    if isinstance(source, np.ndarray):
        return _from_numpy(value, source)
    if hasattr(source, "__dlpack__"):
        return _from_numpy(value, _from_dlpack(source, name))
    raise TypeError(
        f"{name} is a {type(value).__name__}; allowed are NumPy arrays, CuPy arrays, and arrays with "
        "__cuda_array_interface__ or __dlpack__"
    )


def _from_torch(tensor: Any, name: str) -> Array:
    """By its own attributes: through DLPack it takes five times as long, of which a step has a few thousand."""
    if tensor.is_neg():
        raise TypeError(f"{name} has PyTorch's negative bit: its memory holds other values; call resolve_neg() first")
    kind = tensor.device.type
    if kind not in ("cpu", "cuda") or str(tensor.layout) != "torch.strided":
        raise TypeError(
            f"{name} is a {type(tensor).__name__} of layout {tensor.layout} on {tensor.device}; allowed are "
            "torch.strided ones on cpu or cuda"
        )
    size = tensor.element_size()
    strides = tuple([size * stride for stride in tensor.stride()])
    device = (kind, tensor.device.index or 0)
    dtype, memory = _dtype_of_torch(tensor.dtype), tensor.detach()
    if dtype is None:
        raise TypeError(f"{name} has dtype {tensor.dtype}; allowed are float16, bfloat16, float32 and float64")
    if dtype.name == "bfloat16":  # as numbers that CuPy knows
        memory = memory.view(sys.modules["torch"].int16)
    return Array(tensor, tensor.data_ptr(), tuple(tensor.shape), strides, dtype, device, True, memory)


@functools.cache
def _dtype_of_torch(dtype: Any) -> np.dtype[Any] | None:
    name = str(dtype).removeprefix("torch.")
    if name == "bfloat16":
        return bfloat16()
    return np.dtype(name) if hasattr(np, name) else None


def _from_numpy(owner: Any, array: Any) -> Array:
    address = array.__array_interface__["data"][0]
    # NumPy refuses to resize an array that is weakly referenced, even with refcheck=False: so it stays where it is.
    memory = (array, weakref.ref(array))
    return Array(owner, address, array.shape, array.strides, array.dtype, CPU, array.flags.writeable, memory)


def _from_cuda(owner: Any, source: Any) -> Array:
    interface = source.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    if dtype.kind == "V":  # bfloat16, for which the interface has no letter
        dtype = bfloat16()
    shape = tuple(interface["shape"])
    strides = interface.get("strides") or compact_strides(shape, dtype.itemsize)
    address, is_read_only = interface["data"]
    device = getattr(source, "device", 0)
    number = getattr(device, "id", getattr(device, "index", device))
    return Array(
        owner, int(address or 0), shape, tuple(strides), dtype, ("cuda", int(number or 0)), not is_read_only, source
    )


def bfloat16() -> np.dtype[Any]:
    """NumPy's name for bfloat16."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 in NumPy needs ml_dtypes: pip install 'gpuadam[bfloat16]'") from error
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _from_dlpack(source: Any, name: str) -> Any:
    if any(stride < 0 for stride in getattr(source, "strides", None) or ()):
        raise ValueError(f"{name} has negative strides; allowed is one dense run of elements")
    try:
        kind, _ = source.__dlpack_device__()
        if int(kind) != 1:
            raise TypeError(f"it lies on DLPack device type {int(kind)} and has no __cuda_array_interface__")
        return np.from_dlpack(source)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}, a {type(source).__name__}, cannot be read through DLPack: {error}") from error


def compact_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Bytes between elements along each axis, where the last axis runs fastest."""
    strides = []
    size = itemsize
    for length in reversed(shape):
        strides.append(size)
        size *= length
    return tuple(reversed(strides))


def check_dense(array: Array, name: str) -> None:
    """Elements must fill one run of memory."""
    if not is_dense(array):
        raise ValueError(
            f"{name} of shape {array.shape} has strides {array.strides} bytes, so its elements are not one dense "
            "run of memory; allowed are contiguous arrays (C, Fortran or permuted order)"
        )


def is_dense(array: Array) -> bool:
    """Whether the elements fill one run of memory without holes or repetition, in any order (C, Fortran, permuted)."""
    if array.numel <= 1:
        return True
    expected = array.dtype.itemsize
    for stride, length in sorted(zip(array.strides, array.shape, strict=True)):
        if length == 1:
            continue
        if stride != expected:
            return False
        expected *= length
    return True


def _check_memory(array: Array, name: str) -> None:
    """Its memory must be there, which a torch storage resized to 0 has freed, and fit for a GPU to read."""
    if not array.numel:
        return
    pointer = getattr(array.owner, "data_ptr", lambda: array.address)()
    if not array.address or pointer != array.address:
        raise ValueError(f"{name} has no memory (address {pointer}) for its {array.numel} elements: was it freed?")
    if hasattr(array.owner, "untyped_storage"):
        storage = array.owner.untyped_storage()
        if storage.data_ptr() + storage.nbytes() < array.address + array.nbytes:
            raise ValueError(
                f"{name} needs {array.nbytes} bytes, but its storage of {storage.nbytes()} ends before: was it resized?"
            )
    if array.address % array.dtype.itemsize:
        raise ValueError(
            f"{name} begins at address {array.address}; allowed is a multiple of its {array.dtype.itemsize} bytes an "
            "element, as a GPU reads no others"
        )


def shaped_like(flat: Any, array: Array) -> Any:
    """A flat array as a view of the shape of `array`, its elements in the same order in memory."""
    order = sorted(range(len(array.shape)), key=lambda axis: (-array.strides[axis], axis))
    return flat.reshape([array.shape[axis] for axis in order]).transpose(
        [order.index(axis) for axis in range(len(order))]
    )


def check_overlap(begins: Any, sizes: Any, name: Callable[[int], str]) -> None:
    """No two arrays may share a byte: kernels read and write them in no particular order.

    Args:
        begins, sizes: First address and bytes of each array.
        name: How an error calls array i.
    """
    begins, sizes = np.asarray(begins, np.int64), np.asarray(sizes, np.int64)
    order = np.argsort(begins, kind="stable")
    order = order[sizes[order] > 0]
    reach = np.maximum.accumulate(begins[order] + sizes[order])
    clashes = np.flatnonzero(begins[order][1:] < reach[:-1])
    if len(clashes):
        later = order[clashes[0] + 1]
        earlier = next(i for i in order if begins[i] + sizes[i] > begins[later])
        raise ValueError(
            f"{name(later)} shares memory with {name(earlier)}; each array must have memory of its own "
            "(give a tied weight, which is one array, once)"
        )


def flushes_subnormals() -> bool:
    """Whether this thread's processor flushes subnormal numbers to zero, as torch.set_flush_denormal(True) asks."""
    return bool((np.array([1e-310]) * np.array([1.0]))[0] == 0.0)

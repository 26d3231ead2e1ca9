"""Many arrays in one: a flat buffer, and a view of it in the place of each array."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .arrays import CPU, Array, check_overlap, is_dense, look_at, shaped_like
from .backends import choose_backend
from .groups import name_tensor

ALIGNMENT = 64  # bytes: a cache line, and a multiple of all that a GPU reads at once
DTYPES = ("float16", "bfloat16", "float32", "float64")


def pack(arrays: Any) -> tuple[Any, Any]:
    """Copy arrays into one flat buffer, and give views of it in their shapes.

    An optimizer over `[flat]` is one over all of them, and has one tensor to look after. Let the model use the views:
    they change with `flat`. Gradients of the same shapes and orders are packed alike, element for element; the surest
    way is `flat_grads, grads = pack([numpy.zeros_like(view) for view in views])`, and to write into `grads`.

    Each view begins at a multiple of 64 bytes. What lies between them is zero, and stays zero: its gradient is zero,
    and so are update and decay. (Only where the denominator is zero too, as at `eps=0`, 0/0 makes it NaN, which no view
    shows.)

    Args:
        arrays: List or dict of NumPy or CuPy arrays, or others with `__array_interface__` or
            `__cuda_array_interface__`; float16, bfloat16, float32 or float64, all of one dtype and on one device.

    Returns:
        The buffer, and a list or dict of views as `arrays` is one. A view has the order of elements of its array (C,
        Fortran, permuted); C order where that has holes or repetitions.

    Raises:
        TypeError: Something that is no such array.
        ValueError: An array that differs from the others in dtype or device, or shares memory with one.

    >>> import numpy as np
    >>> from gpuadam import AdamW
    >>> params = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
    >>> flat, views = pack(params)
    >>> flat_grads, grads = pack({"weight": np.full((2, 3), 0.5, np.float32), "bias": np.ones(3, np.float32)})
    >>> AdamW([flat], lr=0.1, weight_decay=0.0).step([flat_grads])
    >>> views["weight"]
    array([[0.9, 0.9, 0.9],
           [0.9, 0.9, 0.9]], dtype=float32)
    """
    if not isinstance(arrays, Mapping | list | tuple):
        raise TypeError(f"arrays must be a list or dict of arrays, got {type(arrays).__name__}")
    members = dict(arrays) if isinstance(arrays, Mapping) else dict(enumerate(arrays))
    titles = [name_tensor("array", name) for name in members]
    sources = [_read(value, title) for value, title in zip(members.values(), titles, strict=True)]
    _check_alike(sources, titles)
    flat, views = _copy(sources)
    return flat, dict(zip(members, views, strict=True)) if isinstance(arrays, Mapping) else views


def _read(value: Any, title: str) -> Array:
    if hasattr(value, "detach"):
        raise TypeError(
            f"{title} is a PyTorch tensor: pack numpy.from_dlpack(tensor.detach()), on a GPU "
            "cupy.from_dlpack(tensor.detach()), and set tensor.data = torch.from_dlpack(view)"
        )
    if not hasattr(value, "__array_interface__") and not hasattr(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{title} is a {type(value).__name__}; allowed are NumPy arrays, CuPy arrays, and arrays with "
            "__array_interface__ or __cuda_array_interface__"
        )
    if hasattr(value, "__array_interface__") and not isinstance(value, np.ndarray):
        value = np.asarray(value)
    array = look_at(value, title)
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        raise TypeError(
            f"{title} has dtype {array.dtype}; allowed are {', '.join(DTYPES)}, in the byte order of this machine"
        )
    return array


def _check_alike(sources: Sequence[Array], titles: Sequence[str]) -> None:
    """One dtype and device for all; and what is one array, a tied weight, must not become two."""
    kinds = [f"{source.dtype} on {source.device}" for source in sources]
    counts = Counter(kinds)
    usual = max(counts, key=counts.__getitem__, default="")
    for kind, title in zip(kinds, titles, strict=True):
        if kind != usual:
            other = titles[kinds.index(usual)]
            raise ValueError(f"{title} is {kind}, {other} is {usual}; allowed is one dtype and one device for all")
    sizes = [source.nbytes if is_dense(source) else 0 for source in sources]
    check_overlap([source.address for source in sources], sizes, titles.__getitem__)


def _copy(sources: list[Array]) -> tuple[Any, list[Any]]:
    backend = choose_backend("auto", sources)
    dtype, device = (sources[0].dtype, sources[0].device) if sources else (np.dtype(np.float32), CPU)
    line = ALIGNMENT // dtype.itemsize
    ends = [0, *accumulate(-(-source.numel // line) * line for source in sources)]
    raw = backend.empty_bytes(ends[-1] * dtype.itemsize, device[1])
    backend.fill(raw, 0)
    flat = raw.view(dtype)
    views = []
    for source, start in zip(sources, ends, strict=False):
        run = flat[start : start + source.numel]
        view = shaped_like(run, source) if is_dense(source) else run.reshape(source.shape)
        backend.overwrite(view, source.owner)
        views.append(view)
    return flat, views

"""Arrays on a GPU, as all contenders of `gpu.py` share them."""

import math
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from gpuadam.arrays import bfloat16
from gpuadam.workloads import Shape

BLOCK = 1_000_003  # random numbers, which are repeated in larger tensors


def random_arrays(shapes: Sequence[Shape], dtype: str, seed: int) -> list[Any]:
    """Device arrays, each an allocation of its own."""
    kind = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    words = f"u{kind.itemsize}"  # copied as they are, whatever CuPy knows of bfloat16
    most = min(BLOCK, max(map(math.prod, shapes)))
    block = cupy.asarray(np.random.default_rng(seed).standard_normal(most).astype(kind).view(words))
    arrays = []
    for shape in shapes:
        flat = cupy.empty(math.prod(shape), kind)
        for begin in range(0, flat.size, most):
            piece = flat.view(words)[begin : begin + most]
            piece[...] = block[: piece.size]
        arrays.append(flat.reshape(shape))
    return arrays


def as_torch(array: Any) -> Any:
    """The same memory as a tensor of PyTorch."""
    import torch

    is_bfloat16 = array.dtype.name == "bfloat16"
    tensor = torch.as_tensor(array.view(np.int16) if is_bfloat16 else array, device="cuda")
    if tensor.data_ptr() != array.data.ptr:
        raise RuntimeError("PyTorch has copied an array that it was to share")
    return tensor.view(torch.bfloat16) if is_bfloat16 else tensor

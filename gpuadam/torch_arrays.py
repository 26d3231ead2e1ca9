"""Tensors of PyTorch: the shards of them that are here, our own arrays as tensors, and the stream of both."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from .arrays import Device
from .cuda_memory import stream_at


def local(tensor: Any) -> Any:
    """The shard of a DTensor that lies in this process; any other tensor is its own."""
    shard = getattr(tensor, "_local_tensor", None)
    if shard is None:
        return tensor
    return shard.wait() if hasattr(shard, "wait") else shard  # a collective may still be under way


def as_tensor(array: Any, dtype: np.dtype[Any], param: Any) -> Any:
    """One of our own arrays as a tensor in the same memory, sharded as its parameter is.

    Args:
        array: NumPy or CuPy array.
        dtype: What its elements are; bfloat16 is kept as 16-bit numbers.
        param: The parameter beside which it lies.
    """
    if dtype.name == "bfloat16":
        tensor = torch.as_tensor(array.view(np.int16), device=local(param).device).view(torch.bfloat16)
    else:
        tensor = torch.as_tensor(array, device=local(param).device)
    if tensor.shape != local(param).shape or not hasattr(param, "device_mesh"):
        return tensor
    kind = type(param.data)
    shape = {"shape": param.shape, "stride": param.stride()}
    return kind.from_local(tensor, param.device_mesh, param.placements, run_check=False, **shape)


def current_stream(device: Device) -> AbstractContextManager[Any]:
    """CuPy works on PyTorch's current stream within the block."""
    kind, number = device
    if kind == "cpu":
        return nullcontext()
    return stream_at(torch.cuda.current_stream(number).cuda_stream, number)


def refuse_in_capture(device: Device, reason: str) -> None:
    """Raise where the current stream is captured, but something must be done that no graph can repeat."""
    if device[0] == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"the stream is being captured, but {reason}")


def check_given(params: Any) -> None:
    """Refuse what is no collection of parameters: most often the model itself."""
    try:
        iter(params)
    except TypeError:
        raise TypeError(
            f"params is a {type(params).__name__}; allowed is an iterable of tensors or groups, as model.parameters()"
        ) from None


def check_closure(closure: Any) -> None:
    """Refuse gradients, which the step of arrays takes there."""
    if not callable(closure):
        raise TypeError(
            f"closure is a {type(closure).__name__}; allowed are None and a callable: gradients are read from .grad"
        )

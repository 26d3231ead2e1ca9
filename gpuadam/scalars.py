"""What mixed-precision training says of the gradients: the scale of the loss, and whether an overflow was found."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, Device, borrow
from .expressions import as_number
from .recipe import Policy
from .tables import SCALARS

Record = npt.NDArray[Any]
Arrays = dict[str, Array]


def new_scalars(policy: Policy) -> Record:
    """Gradients as they are, and nothing found."""
    record = np.zeros(1, SCALARS)
    record["grad_scale"] = 1.0
    record["skips_nonfinite"] = policy.nonfinite != "propagate"
    record["seed"] = policy.seed
    return record


def read_scalars(policy: Policy, grad_scale: Any, found_inf: Any, device: Device) -> tuple[Record, Arrays]:
    """The record for the scalars of a step, in which numbers stand, and the arrays whose addresses stand in it."""
    record, arrays = new_scalars(policy), Arrays()
    if grad_scale is not None:
        read_scalar(record, arrays, "grad_scale", grad_scale, device)
        number = float(record["grad_scale"][0])
        if not (number > 0 and math.isfinite(1.0 / number) and math.isfinite(number)):
            raise ValueError(f"grad_scale is {number!r}; allowed is a finite number > 0 whose inverse is finite")
    if found_inf is not None:
        read_scalar(record, arrays, "found_inf", found_inf, device)
    return record, arrays


def read_scalar(record: Record, arrays: Arrays, name: str, value: Any, device: Device) -> None:
    if isinstance(value, bool | np.bool_):
        value = int(value)
    if isinstance(value, int | float | np.generic):
        record[name] = as_number(value, name)
        return
    array = borrow(value, name)
    if array.numel != 1 or array.dtype.name not in ("float32", "float64") or not array.dtype.isnative:
        raise TypeError(
            f"{name} is an array of {array.dtype} and shape {array.shape}; allowed are a number, or an array of one "
            "float32 or float64, in the byte order of this machine"
        )
    if array.device != device:
        raise ValueError(f"{name} lies on {array.device}, the parameters on {device}; nothing is copied in silence")
    record[f"{name}_at"] = array.address
    record[f"{name}_is_double"] = array.dtype.name == "float64"
    arrays[name] = array

"""What the tests of the recipe share: the same case for the optimizer and for the oracle, and their comparison."""

import math

import numpy as np
import oracle_recipe
from bfloat16 import ml_dtypes
from cases import gradients, parameters

import gpuadam

F32, F64, F16, BF16 = np.float32, np.float64, np.float16, np.dtype(ml_dtypes.bfloat16)
SIZES = (5, 1, 700, 33)  # less than a vector, one, more than two blocks of 256, odd
# float32 computes with a relative error of 6e-8 an operation: some ten operations a step, some ten steps; states and
# weights near 0 come of cancellation, hence relative to |value| + mean |value|. float64 likewise, at 1.1e-16.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
LAST_BIT = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def deviation(ours, theirs):
    """The largest error relative to |value| + mean |value|; where one side alone is NaN, infinite."""
    a, b = np.asarray(ours, F64), np.asarray(theirs, F64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    scale = np.abs(b) + np.mean(np.abs(b)) if b.size else np.ones(0)
    return float(np.max(np.abs(a - b) / np.where(scale > 0, scale, 1.0), initial=0.0))


def last_bits(ours, theirs):
    """The largest distance of two arrays of a 16-bit format, in codes."""
    codes = [np.asarray(x).view(np.uint16).astype(np.int64) for x in (ours, theirs)]
    ranks = [np.where(code >= 0x8000, 0x8000 - code, code) for code in codes]
    return int(np.max(np.abs(ranks[0] - ranks[1]), initial=0))


def errors(optimizer, params, expected):
    """By how many times its tolerance each kind of number is off."""
    found = {"weights": 0.0, "states": 0.0, "averages": 0.0, "counts": 0.0}
    kept = optimizer.state_dict()["state"].values()
    for own, param, tensor in zip(kept, params, expected.tensors, strict=True):
        tolerance = TOLERANCE["float64" if param.dtype == F64 else "float32"]
        is_half = param.dtype.name in oracle_recipe.HALVES
        wrong = last_bits(param, tensor.stored) if is_half else deviation(param, tensor.weight) / tolerance
        found["weights"] = max(found["weights"], wrong)
        if "master" in own:
            found["weights"] = max(found["weights"], deviation(own["master"], tensor.weight) / tolerance)
        # where a weight may be off by its last bit, so may its average
        slack = LAST_BIT[param.dtype.name] if is_half and not {"master", "remainder"} & set(own) else tolerance
        if "ema" in own:
            found["averages"] = max(found["averages"], deviation(own["ema"], tensor.average) / slack)
        for state, values in tensor.states.items():
            found["states"] = max(found["states"], deviation(own[state], values) / tolerance)
        if (own["step"], own["updates"]) != (tensor.t, tensor.k):
            found["counts"] = math.inf
    if optimizer.skipped_steps != expected.skipped_steps:
        found["counts"] = math.inf
    return found


def assert_agree(optimizer, params, expected):
    found = errors(optimizer, params, expected)
    assert max(found.values()) <= 1.0, found


def tensors(dtype=F32, sizes=SIZES):
    return [parameters(size, F64, size).astype(dtype) for size in sizes]


def gradient_steps(steps, dtype=F32, sizes=SIZES):
    """Gradients for every step, a list for each."""
    own = [gradients(steps, size, F64, size + 1) for size in sizes]
    return [[series[k].astype(dtype) for series in own] for k in range(steps)]


def run(optimizer, params, expected, grads, **scalars):
    """The same steps for both; each step's gradients as they are given."""
    for now in grads:
        expected.step(now, **scalars)
        optimizer.step(now, **scalars)
    return errors(optimizer, params, expected)


def adamw(params, **settings):
    return gpuadam.AdamW(params, **{"lr": 0.01, "weight_decay": 0.1, **settings})


def adamw_settings(**settings):
    """The oracle's settings for `adamw`."""
    return {"lr": 0.01, "weight_decay": 0.1, "decay": "decoupled", **settings}


def memory(optimizer, params):
    """Everything that a step may write, as bytes: parameters, states, clocks, accumulators."""
    own = optimizer.state_dict()
    state = {
        name: {key: value.tobytes() if isinstance(value, np.ndarray) else value for key, value in kept.items()}
        for name, kept in own["state"].items()
    }
    return [param.tobytes() for param in params], state, own["groups"], own["parameters"]

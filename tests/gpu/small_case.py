"""A few small steps for compute-sanitizer: `compute-sanitizer --tool memcheck python tests/gpu/small_case.py`.

Every array and every state is an allocation of its own, with nothing behind it, so an access beyond its end is seen.
"""

import sys

import cupy
import ml_dtypes
import numpy as np

import gpuadam
from gpuadam import schedules, slots

SIZES = [0, 1, 3, 127, 1023, 1024, 1025, 2051, 9000]
LR = schedules.warmup_cosine_decay(0.0, 0.05, 2, 9)


def filled(count, dtype, seed, start=0):
    """Numbers of both signs that end with their allocation, `start` elements behind its begin."""
    values = np.random.default_rng(seed).standard_normal(start + count).astype(dtype)
    return cupy.asarray(values)[start:]


def matrices(dtype, seed):
    """Enough elements for 8-bit states, whole blocks and not."""
    return [filled(rows * 64, dtype, seed + rows).reshape(rows, 64) for rows in (64, 65)]


def make_tensors(dtype, seed):
    aligned = [filled(count, dtype, seed + count) for count in SIZES]
    shifted = [filled(count, dtype, seed, 1) for count in SIZES[4:8]]
    return [*aligned, filled(1, dtype, seed).reshape(()), *shifted, *matrices(dtype, seed)]


def run(make, dtype, **settings):
    """Steps with all gradients, with some, after a change of a number, and two replays of a graph."""
    params = make_tensors(dtype, 0)
    third = len(params) // 3
    optimizer = make([{"params": params[:third]}, {"params": params[third:], "lr": LR}], **settings)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        optimizer.step(make_tensors(dtype, 50))
        optimizer.step([None if i % 3 == 0 else grad for i, grad in enumerate(make_tensors(dtype, 90))])
        optimizer.set_hyperparameters(group=0, lr=0.02)
        optimizer.step()
        stream.begin_capture()
        optimizer.step()
        graph = stream.end_capture()
        graph.launch()
        graph.launch()
    stream.synchronize()
    found = optimizer.state_dict()["groups"]
    if [group["step"] for group in found] != [5, 5]:
        raise SystemExit(f"the clocks are wrong after five steps: {found}")
    if "ema_decay" in settings:
        optimizer.swap_ema()
        optimizer.swap_ema()
    if not all(np.isfinite(cupy.asnumpy(param)).all() for param in params):
        raise SystemExit("a parameter is not finite")


def run_recipes():
    """Every format and mode of the training recipe, with norms, averages and gradients that are left zero."""
    norms = {"clip_norm": 1.0, "nonfinite": "skip", "clip_scope": "tensor"}
    for dtype, settings in (
        (np.float32, {**norms, "ema_decay": 0.9, "zero_grads": True}),
        (np.float16, {**norms, "master": "float32", "ema_decay": 0.9}),
        (ml_dtypes.bfloat16, {**norms, "master": "remainder", "ema_decay": 0.9, "state_dtype": "int8"}),
        (ml_dtypes.bfloat16, {"rounding": "stochastic", "state_dtype": "bfloat16", "zero_grads": True}),
        (ml_dtypes.bfloat16, {"ema_decay": 0.9, "clip_value": 0.1}),
    ):
        run(gpuadam.AdamW, dtype, **settings)


def main():
    cupy.cuda.set_allocator(None)
    slots.POOLED_ELEMENTS = 0  # states share no allocation,
    slots.ALIGNMENT = 1  # and none is rounded up
    for dtype in (np.float32, np.float64):
        run(gpuadam.AdamW, dtype)
        run(gpuadam.Adam, dtype, amsgrad=True)
        run(gpuadam.NAdam, dtype)
        run(gpuadam.SGD, dtype)
        run(gpuadam.SGD, dtype, momentum=0.9, nesterov=True)
        run(gpuadam.RMSprop, dtype)
        run(gpuadam.RMSprop, dtype, momentum=0.9, centered=True, eps=1e-3)
    run_recipes()
    cupy.cuda.Device().synchronize()
    print("small case: done")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The contenders of a case by name: each enqueues one step on the null stream, over arrays that all of them share."""

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import cupy
import numpy as np
from gpu_cases import WEIGHT_DECAY, Case, rate_of

import gpuadam
from gpuadam.bench_cases import dtype_named, random_arrays

Step = Callable[[], Any]
Sampler = Callable[[], dict[str, float]]
MODULES = {"torch": "torch", "bitsandbytes": "bitsandbytes", "optax": "optax"}  # first word of a name: what it needs


@cache
def absence(name: str) -> str | None:
    """Why a contender is not there; None if it is."""
    family = name.split()[0]
    if family not in MODULES:
        return None
    if importlib.util.find_spec(MODULES[family]) is None:
        return f"{MODULES[family]} is not installed"
    try:
        return {"torch": torch_reason, "bitsandbytes": torch_reason, "optax": optax_reason}[family]()
    except Exception as error:  # an import that fails, for instance by a library of CUDA that is missing
        return f"{type(error).__name__}: {error}"


def torch_reason() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "PyTorch was built without CUDA, or sees no device"


def optax_reason() -> str | None:
    import gpu_optax

    return gpu_optax.optax_reason()


def makers_of(case: Case, sampled: Callable[[Step], Sampler]) -> dict[str, Callable[[], Sampler]]:
    """What makes the sampler of each contender that is there.

    Args:
        case: What is stepped. Its arrays are made here; states are each contender's own.
        sampled: Makes a sampler of a step.
    """
    params, grads = (random_arrays(cupy, case.workload.shapes, dtype_named(case.dtype), seed) for seed in (1, 2))
    given = [name for name in case.contenders if absence(name) is None]
    return {name: maker(name, case, params, grads, sampled) for name in given}


def maker(
    name: str, case: Case, params: list[Any], grads: list[Any], sampled: Callable[[Step], Sampler]
) -> Callable[[], Sampler]:
    if name == "optax":
        return lambda: make_optax(case)
    return lambda: sampled(STEPS[name](case, params, grads))


def make_optax(case: Case) -> Sampler:
    import gpu_optax

    return gpu_optax.make_optax(case)


def make_ours(case: Case, params: list[Any], grads: list[Any]) -> Any:
    """Our optimizer, with the gradients bound; a loss scale of 1 on the device, where the recipe unscales."""
    settings = case.settings
    rate = settings.pop("lr")
    parts = enumerate(case.spread(params))
    groups = [{"params": part, "lr": rate * rate_of(k)} for k, part in parts]
    optimizer = gpuadam.AdamW(groups, weight_decay=WEIGHT_DECAY, **settings)
    scale = {"grad_scale": cupy.asarray(np.ones(1, np.float32))} if case.recipe == "all" else {}
    optimizer.bind(grads, **scale)
    return optimizer


def our_step(case: Case, params: list[Any], grads: list[Any]) -> Step:
    return make_ours(case, params, grads).step  # type: ignore[no-any-return]


def our_graph(case: Case, params: list[Any], grads: list[Any]) -> Step:
    """A graph of one step, and what replays it."""
    optimizer, stream = make_ours(case, params, grads), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        optimizer.step()
        stream.synchronize()
        stream.begin_capture()
        try:
            optimizer.step()
        finally:
            graph = stream.end_capture()
    return lambda kept=optimizer: graph.launch(cupy.cuda.Stream.null)  # type: ignore[misc]


def as_torch(array: Any) -> Any:
    """The same memory as a tensor of PyTorch."""
    import torch

    is_bfloat16 = array.dtype.name == "bfloat16"
    tensor = torch.as_tensor(array.view(np.int16) if is_bfloat16 else array, device="cuda")
    if tensor.data_ptr() != array.data.ptr:
        raise RuntimeError("PyTorch has copied an array that it was to share")
    return tensor.view(torch.bfloat16) if is_bfloat16 else tensor


def torch_step(form: str) -> Callable[[Case, list[Any], list[Any]], Step]:
    def make(case: Case, params: list[Any], grads: list[Any]) -> Step:
        import gpu_torch

        mirrors = [as_torch(array) for array in params], [as_torch(array) for array in grads]
        if form == "bitsandbytes":
            return gpu_torch.make_bitsandbytes(case, *mirrors)
        step = gpu_torch.make_torch(case, *mirrors, form)
        return gpu_torch.capture_torch(step) if form.endswith("graph") else step

    return make


def kernel_step(case: Case, params: list[Any], grads: list[Any]) -> Step:
    import gpu_cupy

    return gpu_cupy.make_kernels(case, params, grads)


STEPS: Mapping[str, Callable[[Case, list[Any], list[Any]], Step]] = {
    "gpuadam": our_step,
    "gpuadam, graph": our_graph,
    **{name: torch_step(name) for name in ("torch fused", "torch foreach", "torch capturable, graph", "bitsandbytes")},
    "CuPy kernel": kernel_step,
}

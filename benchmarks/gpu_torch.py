"""What PyTorch's users write: AdamW in its forms, and around it unscaling, clipping, a schedule and an average.

Nothing here is bound to a device: it is that of the parameters.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_cases import CLIP_NORM, EMA_DECAY, LENGTH, LR, WARMUP, WEIGHT_DECAY, Case, rate_of

Act = Callable[[], Any]
FORMS: Mapping[str, Mapping[str, Any]] = {
    "torch fused": {"fused": True},
    "torch foreach": {"foreach": True},
    "torch capturable, graph": {"fused": True, "capturable": True},
}


def make_torch(case: Case, params: list[Any], grads: list[Any], form: str) -> Act:
    """A step of one of FORMS, over gradients that stay where they are."""
    return in_order(*step_acts(case, params, grads, lambda groups: torch.optim.AdamW(groups, **FORMS[form])))


def make_bitsandbytes(case: Case, params: list[Any], grads: list[Any]) -> Act:
    """Its AdamW with states of 32 bits, as those of all others."""
    import bitsandbytes

    return in_order(*step_acts(case, params, grads, lambda groups: bitsandbytes.optim.AdamW(groups, optim_bits=32)))


def in_order(*acts: Act) -> Act:
    """All of them, one after the other."""
    if len(acts) == 1:
        return acts[0]

    def step() -> None:
        for act in acts:
            act()

    return step


def step_acts(case: Case, params: list[Any], grads: list[Any], make: Callable[[list[Any]], Any]) -> list[Act]:
    """What is done in a step; PyTorch keeps no master of bfloat16, so that the trainer does."""
    if case.dtype != "bfloat16":
        return update_acts(case, params, grads, make)
    masters = [param.float() for param in params]
    wide = [torch.empty_like(master) for master in masters]
    return [
        lambda: torch._foreach_copy_(wide, grads),
        *update_acts(case, masters, wide, make),
        lambda: torch._foreach_copy_(params, masters),
    ]


def update_acts(case: Case, params: list[Any], grads: list[Any], make: Callable[[list[Any]], Any]) -> list[Act]:
    """The step of the optimizer, and the recipe around it."""
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer = make(groups_of(case, params))
    takes = case.recipe if case.recipe != "all" else "schedule clip ema"
    # Made first, as it wraps the step of the optimizer.
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine) if "schedule" in takes else None
    acts = [optimizer.step]
    if case.recipe == "all":
        scaler = make_scaler(params[0].device)
        acts = [lambda: scaler.step(optimizer), scaler.update]
    if "clip" in takes:
        acts.insert(0, lambda: torch.nn.utils.clip_grad_norm_(params, CLIP_NORM, foreach=True))
    if case.recipe == "all":
        acts.insert(0, lambda: scaler.unscale_(optimizer))
    if scheduler:
        acts.append(scheduler.step)
    if "ema" in takes:
        averages = [param.detach().clone() for param in params]
        acts.append(lambda: torch._foreach_lerp_(averages, params, 1 - EMA_DECAY))
    return acts


def groups_of(case: Case, params: list[Any]) -> list[dict[str, Any]]:
    """Groups with rates of their own."""
    parts = enumerate(case.spread(params))
    return [{"params": part, "lr": rate_of(k) * LR, "weight_decay": WEIGHT_DECAY} for k, part in parts]


def make_scaler(device: Any) -> Any:
    """A scaler whose scale is 1 and stays so: the gradients, which are not made anew, keep their size."""
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**30)
    scaler.scale(torch.zeros((), device=device))  # which makes its tensors
    return scaler


def warmup_cosine(step: int) -> float:
    """The factor of the rate, as transformers' schedule has it."""
    if step < WARMUP:
        return step / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (LENGTH - WARMUP)))


def capture_torch(step: Act) -> Act:
    """A CUDA graph of one step, and what replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda kept=step: graph.replay()  # type: ignore[misc]

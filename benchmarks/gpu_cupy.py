"""AdamW as those write it who train with CuPy: an elementwise kernel, launched for each tensor."""

from collections.abc import Callable
from functools import cache
from typing import Any

import cupy
from gpu_cases import LR, WEIGHT_DECAY, Case

INPUTS = "T grad, T rate, T correction, T eps, T decay, T rest1, T rest2"
OUTPUTS = "T param, T m, T v"
BODY = """
m += rest1 * (grad - m);
v += rest2 * (grad * grad - v);
param -= rate * m / (sqrt(v) * correction + eps) + decay * param;
"""
BETAS, EPS = (0.9, 0.999), 1e-8


@cache
def adamw_kernel() -> Any:
    return cupy.ElementwiseKernel(INPUTS, OUTPUTS, BODY, "adamw")


def scalars(step: int) -> tuple[float, ...]:
    """What the host computes once a step, in the order of the inputs."""
    corrections = [1 - beta**step for beta in BETAS]
    return (LR / corrections[0], corrections[1] ** -0.5, EPS, LR * WEIGHT_DECAY, *(1 - beta for beta in BETAS))


def make_kernels(case: Case, params: list[Any], grads: list[Any]) -> Callable[[], None]:
    """A step: one launch for each tensor."""
    kernel, state = adamw_kernel(), {"step": 0}
    moments = [[cupy.zeros(param.shape, param.dtype) for param in params] for _ in range(2)]
    rows = list(zip(grads, params, *moments, strict=True))

    def step() -> None:
        state["step"] += 1
        given = scalars(state["step"])
        for grad, param, m, v in rows:
            kernel(grad, *given, param, m, v)

    return step

"""The kernel's evaluator on a device: program.cuh under the options of the product, for many clocks at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuadam import nvrtc
from gpuadam.compiler import CLOCK, Output, Program
from gpuadam.expressions import Expr

SOURCE = """
#include "program.cuh"

extern "C" __global__ void KERNEL(const Instruction* program, int begin, int end, const double* values,
                                  const Clock* clocks, int count, double* outputs) {
    __shared__ double stack[STACK_SIZE * EVALUATORS];
    if (threadIdx.x >= EVALUATORS) return;
    for (int i = blockIdx.x * EVALUATORS + threadIdx.x; i < count; i += gridDim.x * EVALUATORS)
        evaluate(program, begin, end, values, clocks[i], Stack{stack + threadIdx.x}, outputs + i);
}
"""
KERNEL = nvrtc.Kernel("evaluate_clocks", "evaluate.cu", (("KERNEL", "evaluate_clocks"),))


def compile_evaluator(monkeypatch: pytest.MonkeyPatch, architecture: int) -> bytes:
    texts = {**nvrtc.sources(), "evaluate.cu": SOURCE}
    monkeypatch.setattr(nvrtc, "sources", lambda: texts)
    return nvrtc.compile_kernel(KERNEL, architecture)[0]


def load_evaluator(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    import cupy

    path = folder / "evaluate.cubin"
    path.write_bytes(compile_evaluator(monkeypatch, int(cupy.cuda.Device().compute_capability)))
    return cupy.RawModule(path=str(path)).get_function(KERNEL.name)


def sample(kernel: Any, expression: Expr, steps: np.ndarray) -> np.ndarray:
    """What the device makes of an expression without accumulators in each of some steps."""
    import cupy

    program = Program()
    section = program.add([Output("sample", expression)])
    clocks = np.zeros(len(steps), CLOCK)
    clocks["step"] = clocks["updates"] = steps
    clocks["lr_scale"] = 1.0
    code, values, own = (
        cupy.asarray(np.frombuffer(table.tobytes(), np.uint8))
        for table in (program.instructions(), program.values(), clocks)
    )
    found = cupy.empty(len(steps))
    begin, end, count = (np.int32(number) for number in (section.begin, section.end, len(steps)))
    kernel((64,), (nvrtc.BLOCK,), (code, begin, end, values, own, count, found))
    return cupy.asnumpy(found)

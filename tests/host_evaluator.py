"""The kernel's evaluator on the host: program.cuh compiled by g++."""

import ctypes
import functools
from typing import Any

import host_kernels
import numpy as np

from gpuadam.compiler import CLOCK, Output, Program
from gpuadam.expressions import Expr


@functools.cache
def library(patch: host_kernels.Patch | None = None) -> Any:
    # g++ 12 crashes in its pass "cp" over this text at -O2
    options = (*host_kernels.LIBRARY, f"-DBLOCK={host_kernels.THREADS}", "-O2", "-fno-ipa-cp")
    loaded = ctypes.CDLL(str(host_kernels.compile_text("evaluate.cpp", "evaluate.so", options, patch)))
    array, whole = ctypes.c_void_p, ctypes.c_int
    loaded.evaluate_clocks.argtypes = [array, whole, whole, array, array, ctypes.c_longlong, array]
    loaded.evaluate_clocks.restype = None
    return loaded


def sample(expression: Expr, steps: np.ndarray, patch: host_kernels.Patch | None = None) -> np.ndarray:
    """What the kernel would make of an expression without accumulators in each of some steps."""
    program = Program()
    section = program.add([Output("sample", expression)])
    code, values = program.instructions(), program.values()
    clocks = np.zeros(len(steps), CLOCK)
    clocks["step"] = clocks["updates"] = steps
    clocks["lr_scale"] = 1.0
    found = np.empty(len(steps))
    pointers = [array.ctypes.data for array in (code, values, clocks, found)]
    library(patch).evaluate_clocks(
        pointers[0], section.begin, section.end, pointers[1], pointers[2], len(steps), pointers[3]
    )
    return found

"""What contenders take of a GPU's memory, by the statistics of the pools of CuPy and PyTorch."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import cupy


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    cupy.cuda.Device().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    if uses_torch():
        sys.modules["torch"].cuda.empty_cache()


def uses_torch() -> bool:
    return "torch" in sys.modules and bool(sys.modules["torch"].cuda.is_available())


def held_bytes() -> int:
    """What is allocated now."""
    own = int(cupy.get_default_memory_pool().used_bytes())
    return own + (int(sys.modules["torch"].cuda.memory_allocated()) if uses_torch() else 0)


def most_bytes() -> int:
    """What was allocated at most since `free_memory` and `forget_most`; CuPy's pool keeps what was given back."""
    own = int(cupy.get_default_memory_pool().total_bytes())
    return own + (int(sys.modules["torch"].cuda.max_memory_allocated()) if uses_torch() else 0)


def forget_most() -> None:
    if uses_torch():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def watched(make: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    """What is made, and bytes that it holds from then on (`state`), and needed beside that for a while.

    Args:
        make: Makes a contender and takes some steps with it.
    """
    free_memory()
    forget_most()
    before, reserved = held_bytes(), most_bytes()
    made = make()
    cupy.cuda.Device().synchronize()
    state = held_bytes() - before
    return made, {"state": state, "temporaries": max(0, most_bytes() - reserved - state)}

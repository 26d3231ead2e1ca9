"""What contenders need beside time: what memory gives meanwhile, what they hold of it, and their processes' peak.

Memory is that of the whole process, as Linux counts it: it is read before a contender is made, after some steps, and
its peak during these steps, from which the peak of before was taken away. What the allocator keeps is given back first.
"""

import ctypes
import gc
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cpu_cases import Case
from cpu_contenders import Contender
from cpu_workers import Step

from gpuadam.bandwidth import Stream
from gpuadam.bench_host import Host
from gpuadam.workloads import uniform

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
SMALL = uniform(2, 1000)


@cache
def streams() -> Mapping[str, Stream]:
    """The loops of this process, over the same arrays."""
    return Host().streams()


def make_loop(name: str) -> Step:
    """A loop over memory, to be sampled."""
    return Step(streams()[name].run)


def stream_sizes() -> dict[str, int]:
    """Bytes that each loop moves."""
    return {name: stream.moved for name, stream in streams().items()}


def bytes_of_process(field: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def settled() -> int:
    """Bytes of this process when all is given back that can be."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return bytes_of_process("VmRSS:")


def measure_memory(kind: type[Contender], case: Case) -> dict[str, float]:
    """Bytes an element: held between steps, and more than that at the worst moment of a step.

    Call it in a new process: there is no other way to know whose the memory is.
    """
    warm = kind(Case(SMALL, case.rule, case.dtype, case.master, case.recipe))
    warm.step()
    before = settled()
    contender = kind(case)
    CLEAR.write_text(FORGET_PEAK)
    for _ in range(3):
        contender.step()
    peak, held = bytes_of_process("VmHWM:"), settled()
    return {"held": (held - before) / case.workload.elements, "beyond": (peak - held) / case.workload.elements}


def is_possible() -> bool:
    return CLEAR.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")

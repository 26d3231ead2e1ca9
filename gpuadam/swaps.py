"""Weights show what is evaluated, and take their own values back (twin of swap.cu).

They exchange places with their averages, or, where a 16-bit weight cannot hold its average, show it; or they are mixed
with a state of the rule.
"""

import functools
from typing import Any

import numba
import numpy as np

from .access import UNKNOWN, array_at, load, store, table_at
from .compiler import CLOCK
from .formats import COMPANION_STORAGE, FORMATS, Specialisation
from .jit import inlined, kept
from .sweeps import make_weight, sweep_type
from .tables import CHUNK, CHUNK_ROW, COHORT, LAUNCH, TENSOR


def make_exchange(exchanges: bool) -> tuple[Any, ...]:
    """Weights and averages exchange places: what stands beside a weight, what this shows, what becomes of that."""

    @inlined
    def beside(launch: Any, tensor: Any) -> Any:
        return tensor.ema, 0.0

    @inlined
    def shown(weight: Any, ema: Any, share: Any) -> Any:
        return ema

    if exchanges:
        return beside, shown, inlined(lambda emas, i, weight: store(emas, i, weight))
    return beside, shown, inlined(lambda emas, i, weight: None)


def make_mix(compute: Any) -> tuple[Any, ...]:
    """A weight is (1 - beta) z + beta x, or x: each follows from the other and from z, in double, rounded once."""

    @inlined
    def beside(launch: Any, tensor: Any) -> Any:
        """The address of z; 0 before a tensor's first update, when all three are one."""
        cohort = table_at(launch.cohorts, UNKNOWN, COHORT)[tensor.cohort]
        beta = table_at(launch.values, UNKNOWN, np.float64)[cohort.mixing]
        updates = table_at(launch.clocks, UNKNOWN, CLOCK)[tensor.cohort].updates
        address = tensor.states[0] if updates > 0 else np.uint64(0)
        return address, (beta - 1.0) / beta if launch.evaluates else 1.0 - beta

    @inlined
    def shown(weight: Any, z: Any, share: Any) -> Any:
        double = np.float64(weight)
        return compute(double + share * (np.float64(z) - double))

    return beside, shown, inlined(lambda besides, i, weight: None)


@functools.cache
def make_swap(kind: Specialisation) -> Any:
    """Compile the exchange, or the mixing, for rows [begin, end) of the chunk table."""
    read, write = make_weight(kind.swapped())
    compute = FORMATS[kind.compute].storage
    beside, shown, leave = make_mix(compute.type) if kind.rule.mixing else make_exchange(kind.exchanges)
    param_dtype, companion_dtype = FORMATS[kind.param].storage, COMPANION_STORAGE[kind.companion]

    def swap(launch_address: int, begin: int, end: int) -> None:
        launch = table_at(launch_address, 1, LAUNCH)[0]
        chunks = table_at(launch.chunks, end, CHUNK_ROW)
        tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
        for row in range(begin, end):
            tensor, first = tensors[chunks[row].tensor], np.int64(chunks[row].index) * CHUNK
            count = min(first + CHUNK, tensor.numel) - first
            address, share = beside(launch, tensor)
            params = array_at(np.int64(tensor.param), first, count, param_dtype)
            companions = array_at(np.int64(tensor.companion), first, count, companion_dtype)
            besides = array_at(np.int64(address), first, count, compute)
            for i in range(count if address != 0 else 0):
                weight = read(params[i], load(companions, i))
                param, companion = write(shown(weight, besides[i], share), np.uint32(0))
                params[i] = param
                store(companions, i, companion)
                leave(besides, i, weight)

    return kept(functools.partial(numba.cfunc, sweep_type, error_model="numpy"), swap)

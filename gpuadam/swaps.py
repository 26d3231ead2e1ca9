"""Weights and their averages exchange places, or, where a 16-bit weight cannot hold its average, show it (twin of
swap.cu).
"""

import functools
from typing import Any

import numba
import numpy as np

from .access import UNKNOWN, array_at, load, store, table_at
from .formats import COMPANION_STORAGE, FORMATS, Specialisation
from .jit import inlined, kept
from .sweeps import make_weight, sweep_type
from .tables import CHUNK, CHUNK_ROW, LAUNCH, TENSOR


def make_exchange(exchanges: bool) -> Any:
    """What the average becomes."""
    if exchanges:
        return inlined(lambda emas, i, weight: store(emas, i, weight))
    return inlined(lambda emas, i, weight: None)


@functools.cache
def make_swap(kind: Specialisation) -> Any:
    """Compile the exchange for rows [begin, end) of the chunk table."""
    read, write = make_weight(kind.swapped())
    exchange = make_exchange(kind.exchanges)
    param_dtype, ema_dtype = FORMATS[kind.param].storage, FORMATS[kind.compute].storage
    companion_dtype = COMPANION_STORAGE[kind.companion]

    def swap(launch_address: int, begin: int, end: int) -> None:
        launch = table_at(launch_address, 1, LAUNCH)[0]
        chunks = table_at(launch.chunks, end, CHUNK_ROW)
        tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
        for row in range(begin, end):
            tensor, first = tensors[chunks[row].tensor], np.int64(chunks[row].index) * CHUNK
            count = min(first + CHUNK, tensor.numel) - first
            params = array_at(np.int64(tensor.param), first, count, param_dtype)
            companions = array_at(np.int64(tensor.companion), first, count, companion_dtype)
            emas = array_at(np.int64(tensor.ema), first, count, ema_dtype)
            for i in range(count):
                weight = read(params[i], load(companions, i))
                param, companion = write(emas[i], np.uint32(0))
                params[i] = param
                store(companions, i, companion)
                exchange(emas, i, weight)

    return kept(functools.partial(numba.cfunc, sweep_type, error_model="numpy"), swap)

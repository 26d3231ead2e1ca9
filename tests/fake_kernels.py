"""The kernels behind `fake_cupy`: a real cubin says which, and g++ has made the same source for the host."""

import ctypes
import functools
import itertools
from pathlib import Path
from typing import Any

import host_kernels
import numpy as np
from fake_device import Launch, Work, machine

from gpuadam.rules import RULES
from gpuadam.tables import CHUNK_ROW, DTYPES, LAUNCH, TABLES, TENSOR, Specialisation


@functools.cache
def specialisation(name: str) -> Specialisation:
    """The specialisation of a kernel's name."""
    for rule, form in itertools.product(RULES.values(), DTYPES):
        for present in itertools.product((True, False), repeat=len(rule.states)):
            found = Specialisation(rule, form, form, tuple(form if there else None for there in present))
            if found.name == name:
                return found
    raise ValueError(f"no kernel is called {name}")


class RawModule:
    def __init__(self, *, path: str) -> None:
        self.content = Path(path).read_bytes()
        assert self.content.startswith(b"\x7fELF"), f"{path} is no cubin"

    def get_function(self, name: str) -> "RawKernel":
        assert f".text.{name}\0".encode() in self.content, f"no kernel {name} in it"
        return RawKernel(name)


class RawKernel:
    """Runs the kernel that g++ made of the same source; its blocks have fewer threads."""

    def __init__(self, name: str) -> None:
        self.name, self.device = name, machine.device
        self.form = DTYPES[specialisation(name).param]
        self.library = host_kernels.build(specialisation(name).macros())

    def __call__(self, grid: tuple[int], block: tuple[int], args: tuple[Any]) -> None:
        assert machine.device == self.device
        (argument,) = args
        assert (type(argument), argument.size, argument.dtype) == (np.ndarray, 1, LAUNCH)
        assert block == (256,)
        assert [type(n) for n in grid] == [int]
        record = argument.copy()
        for name in TABLES:
            machine.require(int(record[name][0]), 0, self.device)
        queue = machine.current_queue()
        machine.launches.append(Launch(self.name, grid, block, record.tobytes(), queue.captured is not None))
        queue.put(lambda work: self.run(grid[0], record, work), is_launch=True)

    def run(self, grid: int, record: np.ndarray, work: Work) -> None:
        chunks = self.table(record, "chunks", CHUNK_ROW, int(record["chunk_count"][0]), work.time)
        rows = np.unique(chunks["tensor"])
        assert rows.min(initial=0) >= 0
        tensors = self.table(record, "tensors", TENSOR, int(rows.max(initial=-1)) + 1, work.time)
        for tensor in tensors[rows]:
            if tensor["grad"]:
                size = int(tensor["numel"]) * self.form.itemsize
                present = [a for a in specialisation(self.name).states if a]
                for address in [tensor["param"], tensor["grad"], *tensor["states"][: len(present)]]:
                    if address:
                        machine.require(int(address), size, self.device, work.time)
        host_kernels.run(self.library, record, grid)

    def table(self, record: np.ndarray, name: str, dtype: np.dtype, count: int, time: float) -> np.ndarray:
        address, size = int(record[name][0]), count * dtype.itemsize
        machine.require(address, size, self.device, time)
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)

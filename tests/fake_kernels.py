"""The kernels behind `fake_cupy`: a real cubin says which, and g++ has made the same source for the host."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import host_kernels
import numpy as np
from fake_device import Launch, Work, machine

from gpuadam import nvrtc
from gpuadam.tables import CHUNK_ROW, LAUNCH, SCALARS, TABLES, TENSOR

known: dict[str, nvrtc.Kernel] = {}  # all that the product has asked for, by name
SIZES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2, "Remainder": 2, "Signed8": 1, "Unsigned8": 1}
GRAD_SIZES = (4, 8, 2, 2)  # in the order of GradFormat in tables.cuh


def cubin_path(kernel: nvrtc.Kernel, architecture: int) -> Path:
    """The product's own; and from here on the kernel is known. No two have one name."""
    assert known.setdefault(kernel.name, kernel) == kernel, f"another kernel is called {kernel.name}"
    return nvrtc.cubin_path(kernel, architecture)


def nbytes(kind: str, numel: int) -> int:
    """Bytes of an array of a storage type; the scales of 8-bit codes follow on the next cache line."""
    if kind.endswith("8"):
        return -(-numel // 64) * 64 + -(-numel // 256) * 4
    return numel * SIZES[kind]


class RawModule:
    def __init__(self, *, path: str) -> None:
        self.content = Path(path).read_bytes()
        assert self.content.startswith(b"\x7fELF"), f"{path} is no cubin"

    def get_function(self, name: str) -> "RawKernel | StreamKernel":
        assert f".text.{name}\0".encode() in self.content, f"no kernel {name} in it"
        return StreamKernel(name) if known[name].source == "streams.cu" else RawKernel(known[name])


class RawKernel:
    """Runs the kernel that g++ made of the same source; its blocks have fewer threads."""

    def __init__(self, kernel: nvrtc.Kernel) -> None:
        self.name, self.device = kernel.name, machine.device
        self.source, self.types = kernel.source, dict(kernel.macros)
        self.library = host_kernels.build_kernel(kernel)

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
            for address, size in self.arrays(tensor):
                machine.require(address, size, self.device, work.time)
        if self.source != "swap.cu":
            self.require_scalars(record, work.time)
        host_kernels.run(self.library, record, grid)

    def arrays(self, tensor: np.void) -> Iterator[tuple[int, int]]:
        """Address and bytes of every array of a tensor that the kernel may touch."""
        numel, types = int(tensor["numel"]), self.types
        if self.source == "reduce.cu":
            used = [(tensor["grad"], numel * GRAD_SIZES[tensor["grad_format"]])] if tensor["grad"] else []
        elif self.source == "swap.cu":
            average = "double" if types["PARAM"] == "double" else "float"
            places = {"PARAM": "param", "COMPANION": "companion"}
            used = [(tensor[place], nbytes(types[key], numel)) for key, place in places.items() if present(types[key])]
            beside = tensor["ema"] if types["ELEMENT"] == "Exchange" else tensor["states"][0]
            used = [*used, (beside, nbytes(average, numel))] if beside else []
        else:
            places = {"PARAM": "param", "GRAD": "grad", "COMPANION": "companion", "EMA": "ema"}
            fields = {key: tensor[place] for key, place in places.items()}
            fields |= {f"STATE{i}": address for i, address in enumerate(tensor["states"])}
            used = [(at, nbytes(types[key], numel)) for key, at in fields.items() if present(types[key])]
            used = used if tensor["grad"] else []
        yield from ((int(address), size) for address, size in used)

    def require_scalars(self, record: np.ndarray, time: float) -> None:
        scalars = self.table(record, "scalars", SCALARS, 1, time)[0]
        for name in ("grad_scale", "found_inf"):
            if scalars[f"{name}_at"]:
                size = 8 if scalars[f"{name}_is_double"] else 4
                machine.require(int(scalars[f"{name}_at"]), size, self.device, time)

    def table(self, record: np.ndarray, name: str, dtype: np.dtype, count: int, time: float) -> np.ndarray:
        address, size = int(record[name][0]), count * dtype.itemsize
        machine.require(address, size, self.device, time)
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)


class StreamKernel:
    """The loops of streams.cu by NumPy; tests/test_device_bandwidth.py has the real ones do the same."""

    LOOPS: ClassVar[
        dict[str, tuple[Callable[..., Any], int]]
    ] = {  # what is done to arrays and numbers; how many arrays
        "stream_copy": (lambda a, b: np.copyto(a, b), 2),
        "stream_triad": (lambda a, b, c, factor: np.copyto(a, b + factor * c), 3),
        "stream_scale": (lambda a, factor: np.copyto(a, factor * a), 1),
        "stream_read": (lambda a, b, never: None, 2),
    }

    def __init__(self, name: str) -> None:
        self.name, self.device = name, machine.device
        self.loop, self.arrays = self.LOOPS[name]

    def __call__(self, grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
        assert machine.device == self.device
        *given, count = args
        assert [type(n) for n in grid] == [int]
        assert grid[0] > 0
        assert block == (256,)
        assert type(count) is np.int64
        assert {type(number) for number in given[self.arrays :]} <= {np.float64}
        assert count % (4 * block[0]) == 0, "the last tile would go beyond the arrays"
        given[: self.arrays] = [array.memory for array in given[: self.arrays]]
        read = given[1 if self.name == "stream_read" else 0 : self.arrays]
        assert {array.nbytes for array in read} == {16 * count}
        queue = machine.current_queue()
        machine.launches.append(Launch(self.name, grid, block, b"", queue.captured is not None))
        queue.put(lambda work: self.loop(*given), is_launch=True)


def present(kind: str) -> bool:
    """Whether a kernel has an array at all."""
    return kind != "Absent"

"""What NVRTC makes of the kernels, without a device, through the very function that the product compiles with."""

import functools
import itertools
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from cases import CASES
from optional import missing

from gpuadam import nvrtc
from gpuadam.rules import RULES
from gpuadam.tables import Specialisation

pytest.importorskip("cupy", reason="CuPy, which has the binding of NVRTC, is not installed")
ARCHITECTURES = (75, 80, 90, 100, 120)


class Compiled(NamedTuple):
    """What became of one kernel for one architecture."""

    cubin: bytes
    ptx: str
    code: str  # disassembled


def specialisations() -> Iterator[Specialisation]:
    """Every kernel that there is: rules, formats, and the states that options leave out."""
    absent = {"adam": [(), (2,)], "rmsprop": [(), (1,), (2,), (1, 2)]}
    for name, form in itertools.product(RULES, ("float32", "float64")):
        for left_out in absent[name]:
            states = tuple(None if i in left_out else form for i in range(3))
            yield Specialisation(RULES[name], form, form, states)


KERNELS = {specialisation.name: specialisation for specialisation in specialisations()}
ADAMW = KERNELS["adam_float32_exp_avg_exp_avg_sq"]


@functools.cache
def find_nvdisasm() -> Path | None:
    """The disassembler that NVIDIA's package puts somewhere below site-packages."""
    found = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin/nvdisasm*"))
    return found[0] if found else None


def compile_and_disassemble(name: str, architecture: int, folder: Path) -> Compiled:
    cubin, ptx = nvrtc.compile_kernel(KERNELS[name], architecture)
    path = folder / f"{name}-{architecture}.cubin"
    path.write_bytes(cubin)
    done = subprocess.run([str(find_nvdisasm()), "-c", path], capture_output=True, text=True, check=True)
    return Compiled(cubin, ptx, done.stdout)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Compiled]:
    """Every kernel for every architecture, once. Neither NVRTC nor nvdisasm holds the interpreter's lock."""
    if find_nvdisasm() is None:
        missing("nvdisasm is not below site-packages: pip install nvidia-cuda-nvdisasm")
    keys = [*itertools.product(KERNELS, ARCHITECTURES)]
    folder = tmp_path_factory.mktemp("cubins")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(keys, pool.map(lambda key: compile_and_disassemble(*key, folder), keys), strict=True))


def test_the_list_of_kernels_is_whole():
    """No option of any rule leads to a kernel that is not listed, and each listed one is what some options lead to."""
    used = {
        specialisation.name
        for case, dtype in itertools.product(CASES, (np.float32, np.float64))
        for specialisation in case.optimizer([np.ones(1, dtype)])._tensors.specialisations
    }
    assert used == set(KERNELS)


def test_every_kernel_compiles_for_every_architecture(compiled):
    assert len(compiled) == len(KERNELS) * len(ARCHITECTURES) == 60
    assert all(kernel.cubin.startswith(b"\x7fELF") for kernel in compiled.values())
    for (name, architecture), kernel in compiled.items():
        assert f"sm_{architecture}" in kernel.ptx, name
        assert f".entry {name}(" in kernel.ptx


def test_no_contraction_and_no_flush_to_zero(compiled):
    for key, (_, ptx, _) in compiled.items():
        assert not re.search(r"\bfma\.", ptx), key
        assert ".ftz" not in ptx, key
        assert not re.search(r"\.approx|\bex2\b|\brsqrt\b", ptx), key


def test_that_contraction_would_be_seen(monkeypatch):
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--std=c++17", "-default-device", "-ftz=true"))
    _, ptx = nvrtc.compile_kernel(ADAMW, 90)
    assert re.search(r"\bfma\.", ptx)
    assert ".ftz" in ptx


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_machine_code_of_adamw(architecture, compiled):
    """No spills, at most 64 registers, and 128-bit global accesses: four loads and three stores in the main loop."""
    code = compiled[ADAMW.name, architecture].code
    assert not re.findall(r"\b(?:STL|LDL)\b", code)
    assert 1 + max(int(register) for register in re.findall(r"\bR(\d+)\b", code)) <= 64
    assert len(re.findall(r"\bLDG\.E\.128\b", code)) >= 4
    assert len(re.findall(r"\bSTG\.E\.128\b", code)) >= 3
    assert not re.findall(r"\b(?:LD|ST)\.E\.128\b", code)


def test_no_kernel_spills(compiled):
    for key, kernel in compiled.items():
        assert not re.findall(r"\b(?:STL|LDL)\b", kernel.code), key
        assert "LDG.E.128" in kernel.code, key


@pytest.mark.usefixtures("compiled")
def test_that_spills_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(nvrtc, "resident_blocks", lambda specialisation: 8)
    code = compile_and_disassemble(ADAMW.name, 90, tmp_path).code
    assert re.findall(r"\b(?:STL|LDL)\b", code)


def test_a_compile_error_names_options_and_log(monkeypatch):
    broken = {**nvrtc.sources(), "step.cu": '#include "program.cuh"\nthis is no C++'}
    monkeypatch.setattr(nvrtc, "sources", lambda: broken)
    with pytest.raises(nvrtc.KernelCompileError, match=r"(?s)step\.cu with -arch=sm_90 .*-fmad=false.*error"):
        nvrtc.compile_kernel(ADAMW, 90)


def test_the_cache_holds_one_file_a_kernel_and_replaces_it_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path))
    path = nvrtc.cubin_path(ADAMW, 90)
    content = path.read_bytes()
    assert content.startswith(b"\x7fELF")
    monkeypatch.setattr(nvrtc, "compile_kernel", None)  # a second look must not compile
    assert nvrtc.cubin_path(ADAMW, 90) == path
    assert os.listdir(tmp_path) == [path.name]


def test_the_cache_is_keyed_by_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path))
    path = nvrtc.cubin_path(ADAMW, 90)
    changed = {**nvrtc.sources(), "rules.cuh": nvrtc.sources()["rules.cuh"] + "// another text\n"}
    monkeypatch.setattr(nvrtc, "sources", lambda: changed)
    assert nvrtc.cubin_path(ADAMW, 90) != path

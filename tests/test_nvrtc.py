"""What NVRTC makes of the kernels, without a device, through the very function that the product compiles with."""

import itertools
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from gpuadam import nvrtc
from gpuadam.rules import RULES
from gpuadam.tables import Specialisation

ARCHITECTURES = (75, 80, 90, 100, 120)


def specialisations():
    """Every kernel that there is: rules, formats, and the states that options leave out."""
    absent = {"adam": [(), (2,)], "rmsprop": [(), (1,), (2,), (1, 2)]}
    for name, form in itertools.product(RULES, ("float32", "float64")):
        for left_out in absent[name]:
            states = tuple(None if i in left_out else form for i in range(3))
            yield Specialisation(RULES[name], form, form, states)


KERNELS = {specialisation.name: specialisation for specialisation in specialisations()}
ADAMW = KERNELS["adam_float32_exp_avg_exp_avg_sq"]


def find_nvdisasm() -> Path:
    """The disassembler that NVIDIA's package puts somewhere below site-packages."""
    packages = Path(sysconfig.get_path("purelib"))
    found = sorted(packages.glob("nvidia/**/bin/nvdisasm*"))
    assert found, f"nvdisasm is not below {packages}: pip install nvidia-cuda-nvdisasm"
    return found[0]


def disassemble(cubin: bytes, folder: Path) -> str:
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    return subprocess.run([find_nvdisasm(), "-c", path], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def compiled():
    return {
        (name, architecture): nvrtc.compile_kernel(specialisation, architecture)
        for name, specialisation in KERNELS.items()
        for architecture in (ARCHITECTURES if specialisation is ADAMW else (75, 90, 120))
    }


def test_every_kernel_compiles_for_every_architecture(compiled):
    assert len(compiled) >= len(KERNELS) * 3
    assert all(cubin.startswith(b"\x7fELF") for cubin, _ in compiled.values())


def test_no_contraction_and_no_flush_to_zero(compiled):
    for key, (_, ptx) in compiled.items():
        assert ".entry" in ptx
        assert not re.search(r"\bfma\.", ptx), key
        assert ".ftz" not in ptx, key
        assert not re.search(r"\.approx|\bex2\b|\brsqrt\b", ptx), key


def test_that_contraction_would_be_seen(monkeypatch):
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--std=c++17", "-default-device", "-ftz=true"))
    _, ptx = nvrtc.compile_kernel(ADAMW, 90)
    assert re.search(r"\bfma\.", ptx)
    assert ".ftz" in ptx


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_machine_code_of_adamw(architecture, compiled, tmp_path):
    """No spills, at most 64 registers, and 128-bit global accesses: four loads and three stores in the main loop."""
    code = disassemble(compiled[ADAMW.name, architecture][0], tmp_path)
    assert not re.findall(r"\b(?:STL|LDL)\b", code)
    assert 1 + max(int(register) for register in re.findall(r"\bR(\d+)\b", code)) <= 64
    assert len(re.findall(r"\bLDG\.E\.128\b", code)) >= 4
    assert len(re.findall(r"\bSTG\.E\.128\b", code)) >= 3
    assert not re.findall(r"\b(?:LD|ST)\.E\.128\b", code)


def test_no_kernel_spills(compiled, tmp_path):
    for (name, architecture), (cubin, _) in compiled.items():
        code = disassemble(cubin, tmp_path)
        assert not re.findall(r"\b(?:STL|LDL)\b", code), (name, architecture)
        assert "LDG.E.128" in code, (name, architecture)


def test_that_spills_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(nvrtc, "resident_blocks", lambda specialisation: 8)
    code = disassemble(nvrtc.compile_kernel(ADAMW, 90)[0], tmp_path)
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

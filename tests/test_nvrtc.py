"""What NVRTC makes of the kernels, without a device, through the very function that the product compiles with."""

import contextlib
import functools
import itertools
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
from cases import CASES, RULES
from optional import missing

import gpuadam
from gpuadam import nvrtc
from gpuadam.adam_rules import ADAM
from gpuadam.engine import Engine
from gpuadam.formats import COMPANION_TYPES, FORMATS, IS_16_BIT, Specialisation, computes_in
from gpuadam.layerwise_rules import LAMB
from gpuadam.recipe import Master, Rounding, StateDtype
from gpuadam.rules import Rule
from gpuadam.slots import bfloat16

pytest.importorskip("cupy", reason="CuPy, which has the binding of NVRTC, is not installed")
ARCHITECTURES = (75, 80, 90, 100, 120)


class Compiled(NamedTuple):
    """What became of one kernel for one architecture."""

    cubin: bytes
    ptx: str
    code: str  # disassembled


def plain_kinds() -> Iterator[Specialisation]:
    """Every kernel without recipe: rules, formats, and the states that options leave out."""
    absent = {"adam": [(), (2,)], "rmsprop": [(), (1,), (2,), (1, 2)], "sgd": [(), (0,)], "radam": [(2,)]}
    absent |= {"adam_l1": absent["adam"], "sgd_l1": absent["sgd"]}
    for name, form in itertools.product(RULES, ("float32", "float64")):
        for left_out in absent.get(name, [()]):
            states = tuple(None if i in left_out else form for i in range(len(RULES[name].states)))
            yield Specialisation(RULES[name], form, form, states)


def recipe_kinds() -> Iterator[Specialisation]:
    """Every kernel of AdamW whose gradient is stored as its parameter: all that `formats` lists, combined."""
    codes = ("int8", "uint8", None)
    for param, companion, rounding in itertools.product(FORMATS, COMPANION_TYPES, ("nearest", "stochastic")):
        is_remainder_of_another = companion == "remainder" and param != "bfloat16"
        if ((companion or rounding == "stochastic") and not IS_16_BIT[param]) or is_remainder_of_another:
            continue
        if companion and rounding == "stochastic":
            continue  # refused: a companion leaves nothing to be rounded
        own = [(form, form, None) for form in ("float32", "bfloat16")] + [codes]
        states = [("float64", "float64", None)] if computes_in(param) == "float64" else own
        for formats, ema, zero_grads in itertools.product(states, (False, True), (False, True)):
            yield Specialisation(ADAM, param, param, formats, companion, rounding, ema, zero_grads)


def measured_kinds() -> set[Specialisation]:
    """Every kernel that measures, its gradients stored as its parameters."""
    return {replace(kind, rule=LAMB, states=kind.states[:2]).measured() for kind in recipe_kinds()}


def averaging_kinds() -> Iterator[Specialisation]:
    """Every way to keep a weight that is mixed from z and x, and z beside another state, of 8 bits too."""
    sgd, adamw = RULES["sgd_schedule_free"], RULES["adamw_schedule_free"]
    for param in FORMATS:
        for companion in (None, "float32", "remainder") if IS_16_BIT[param] else (None,):
            if (param, companion) != ("float16", "remainder"):
                yield Specialisation(sgd, param, param, (computes_in(param),), companion)
    yield Specialisation(adamw, "float16", "float16", ("float32", "float32"), "float32")
    yield Specialisation(adamw, "bfloat16", "bfloat16", ("float32", "float32"), "remainder")
    yield Specialisation(adamw, "bfloat16", "bfloat16", ("float32", "uint8"), "remainder")


def full_states(rule: Rule, narrow: bool) -> tuple[str, ...]:
    codes = {name: "uint8" if name in rule.nonnegative else "int8" for name in rule.states}
    return tuple("float32" if name in rule.weight_states or not narrow else codes[name] for name in rule.states)


def fullest_kinds() -> Iterator[Specialisation]:
    """Of every rule, with all its states, the modes in which a thread holds most for its number of blocks."""
    modes = [
        ("float32", "float32", False, None, "nearest"),
        ("bfloat16", "bfloat16", False, None, "stochastic"),
        ("bfloat16", "float32", False, "remainder", "nearest"),
        ("float16", "float16", True, "float32", "nearest"),
    ]
    for rule, (param, grad, narrow, companion, rounding) in itertools.product(RULES.values(), modes):
        states, ema = full_states(rule, narrow), rule.mixing is None
        yield Specialisation(rule, param, grad, states, companion, rounding, ema, zero_grads=True)


PLAIN = {kind.name: nvrtc.step_kernel(kind) for kind in plain_kinds()}
MODES = {kind.name: kind for kind in recipe_kinds()}
AVERAGED = [kind for kind in MODES.values() if kind.ema]
SHARED = {kernel.name: kernel for kernel in [nvrtc.REDUCE, *map(nvrtc.swap_kernel, AVERAGED)]}
AVERAGING = {kind.name: kind for kind in averaging_kinds()}
SHARED |= {kernel.name: kernel for kernel in map(nvrtc.swap_kernel, AVERAGING.values())}
MIXED = {  # gradients of another format than their parameter, as autocast and master weights leave them
    kind.name: kind
    for param, grad in [
        ("bfloat16", "float32"),
        ("float16", "float32"),
        ("float32", "bfloat16"),
        ("float64", "float16"),
    ]
    for kind in [Specialisation(ADAM, param, grad, (computes_in(param),) * 2 + (None,))]
}
FULLEST = {kind.name: kind for kind in fullest_kinds()}
MEASURED = {kernel.name: kernel for kernel in sorted(map(nvrtc.measure_kernel, measured_kinds()), key=str)}
KERNELS = (
    PLAIN
    | SHARED
    | MEASURED
    | {name: nvrtc.step_kernel(kind) for name, kind in (MODES | MIXED | AVERAGING | FULLEST).items()}
)
ADAMW = KERNELS["adam_float32_exp_avg_exp_avg_sq"]
# The whole recipe for the architecture that matters most, its extremes for the oldest one.
OLDEST = [name for name, kind in MODES.items() if kind.ema and not kind.zero_grads and kind.param == "bfloat16"]
COMPILED = [
    *itertools.product([*PLAIN, *SHARED], ARCHITECTURES),
    *itertools.product(sorted({*MODES, *MIXED, *AVERAGING, *FULLEST} - {*PLAIN}), [90]),
    *itertools.product(OLDEST, [75]),
    *itertools.product(MEASURED, [75, 90]),
]


@functools.cache
def find_nvdisasm() -> Path | None:
    """The disassembler that NVIDIA's package puts somewhere below site-packages."""
    found = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin/nvdisasm*"))
    return found[0] if found else None


def compile_and_disassemble(name: str, architecture: int, folder: Path) -> Compiled:
    cubin, ptx = nvrtc.compile_kernel(KERNELS[name], architecture)
    path = folder / f"{name}-{architecture}.cubin"
    path.write_bytes(cubin)
    # without its analysis of the flow of data, which names the targets of branches and takes a fifth of its time
    done = subprocess.run([str(find_nvdisasm()), "-c", "-ndf", path], capture_output=True, text=True, check=True)
    return Compiled(cubin, ptx, done.stdout)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Compiled]:
    """Every kernel for every architecture, once. Neither NVRTC nor nvdisasm holds the interpreter's lock."""
    if find_nvdisasm() is None:
        missing("nvdisasm is not below site-packages: pip install nvidia-cuda-nvdisasm")
    folder = tmp_path_factory.mktemp("cubins")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(COMPILED, pool.map(lambda key: compile_and_disassemble(*key, folder), COMPILED), strict=True))


@pytest.fixture
def _without_tables(monkeypatch):
    """Optimizers know which kernels they need, and compile none of them."""
    monkeypatch.setattr(Engine, "_make_tables", lambda *_: None)


def kinds_of(optimizer: gpuadam.Optimizer) -> set[str]:
    return {kind.name for kind in optimizer._engine.kinds}


@pytest.mark.usefixtures("_without_tables")
def test_the_list_of_kernels_is_whole():
    """No option of any rule leads to a kernel that is not listed, and each listed one is what some options lead to."""
    pairs = itertools.product(CASES, (np.float32, np.float64))
    used = [kinds_of(case.optimizer([np.ones(1, dtype)])) for case, dtype in pairs]
    assert set.union(*used) == set(PLAIN)


@pytest.mark.usefixtures("_without_tables")
def test_the_list_of_modes_is_whole():
    """The same of the recipe, for AdamW; combinations that are refused are not listed."""
    found = set()
    dtypes = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), bfloat16()]
    choices = itertools.product(
        *(get_args(kind) for kind in (Master, Rounding, StateDtype)), (None, 0.9), (False, True)
    )
    for dtype, (master, rounding, state_dtype, ema_decay, zero_grads) in itertools.product(dtypes, list(choices)):
        settings = {"master": master, "rounding": rounding, "state_dtype": state_dtype, "zero_grads": zero_grads}
        with contextlib.suppress(ValueError):
            found |= kinds_of(gpuadam.AdamW([np.ones((64, 64), dtype)], ema_decay=ema_decay, **settings))
    assert found == set(MODES)


def test_every_kernel_compiles_for_every_architecture(compiled):
    assert len(compiled) == len(COMPILED)
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


def registers(code: str) -> int:
    return 1 + max(int(register) for register in re.findall(r"\bR(\d+)\b", code))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "name", [ADAMW.name, "nadam_float32_exp_avg_exp_avg_sq", "sgd_float32_momentum_buffer", "lion_float32_exp_avg"]
)
def test_the_machine_code_of_the_common_kernels(name, architecture, compiled):
    """At most 64 registers, and each array in 128-bit global accesses in the main loop."""
    code, states = compiled[name, architecture].code, dict(KERNELS[name].macros)
    states = [states[f"STATE{i}"] for i in range(3)].count("float")
    assert registers(code) <= 64
    assert len(re.findall(r"\bLDG\.E\.128\b", code)) >= 2 + states
    assert len(re.findall(r"\bSTG\.E\.128\b", code)) >= 1 + states
    assert not re.findall(r"\b(?:LD|ST)\.E\.128\b", code)


def test_no_kernel_spills(compiled):
    for key, kernel in compiled.items():
        assert not re.findall(r"\b(?:STL|LDL)\b", kernel.code), key


def writes_16_bytes(name: str) -> bool:
    """Sums write no array, and where weights of 16 bits show something, these alone may be written."""
    given = dict(KERNELS[name].macros)
    if "ELEMENT" not in given:
        return not name.startswith(("reduce", "measure"))
    exchanges = given["ELEMENT"] == "Exchange" and given["COMPANION"] != "Absent"
    return exchanges or not {"float", "double"}.isdisjoint((given["PARAM"], given["COMPANION"]))


def test_the_widest_arrays_are_read_and_written_in_16_bytes(compiled):
    """Those of 4-byte elements, but beside 8-bit states, of which a warp takes a block."""
    for key, kernel in compiled.items():
        assert "LDG.E.128" in kernel.code, key
        assert ("STG.E.128" in kernel.code) == writes_16_bytes(key[0]), key


def test_the_registers_are_those_for_which_blocks_were_counted(compiled):
    """An SM has 65,536: as many blocks as `resident_blocks` says find room."""
    for (name, architecture), kernel in compiled.items():
        resident = int(dict(KERNELS[name].macros).get("RESIDENT", 4))
        assert -(-registers(kernel.code) // 8) * 8 * nvrtc.BLOCK * resident <= 65_536, (name, architecture)


@pytest.mark.usefixtures("compiled")
def test_that_spills_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(KERNELS, ADAMW.name, replace(ADAMW, macros=(*ADAMW.macros, ("RESIDENT", "8"))))
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

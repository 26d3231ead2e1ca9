"""Instructions an element in the main loops: what is recorded, what the compiler makes today, and how a fault shows."""

import importlib
import itertools
import json
import platform
import sys
from pathlib import Path

import pytest
from cases import RULES
from optional import missing

from gpuadam import nvrtc

ROOT = Path(__file__).parents[1]
RECORDED = json.loads((ROOT / "benchmarks" / "results" / "instructions.json").read_text())
RECORDS = {(own["kernel"], own["architecture"]): own for own in RECORDED["kernels"]}
BYTES = {  # what an element reads and writes
    "adam": 4 * (5 + 4),
    "adamw": 4 * (4 + 3),
    "adamw, ema_decay": 4 * (5 + 4),
    "adamw, zero_grads": 4 * (4 + 4),
    "adamw, state_dtype='bfloat16'": 4 * 3 + 2 * 4,
    "adamw, state_dtype='int8'": 4 * 3 + 1 * 4 + 4 * 4 / 256,
    "adamw, bfloat16": 2 * 3 + 4 * 4,
    "adamw, bfloat16, remainder": 2 * 5 + 4 * 4,
    "adamw, bfloat16, master": 2 * 3 + 4 * 6,
    "adamw, bfloat16, stochastic": 2 * 3 + 4 * 4,
    "adamw, float16": 2 * 3 + 4 * 4,
    "adamw, float16, master": 2 * 3 + 4 * 6,
    "adamw, float64": 8 * (4 + 3),
    "sgd": 4 * (3 + 2),
    "lion": 4 * (3 + 2),
    "rmsprop": 4 * (5 + 4),
    "norms, float64": 8,
    "norms, float32": 4,
    "norms, bfloat16": 2,
    "norms, float16": 2,
}


@pytest.fixture(scope="module")
def instructions():
    """benchmarks/instructions.py as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("instructions")
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in ("instructions", "cpu_code", "sass", "measure"):
        sys.modules.pop(name, None)


@pytest.fixture
def compiling(instructions):
    """The same, where it can compile and disassemble."""
    pytest.importorskip("cupy", reason="CuPy, which has the binding of NVRTC, is not installed")
    try:
        nvrtc.load_nvrtc()
    except nvrtc.KernelCompileError:
        missing("NVRTC is not installed")
    if instructions.sass.find_nvdisasm() is None:
        missing("nvdisasm, which nvidia-cuda-nvdisasm has, is not installed")
    return instructions


def complaints(own, over=()):
    """What is wrong with a loop; `over`: the loops that are known to need more than the budget."""
    counts = own["instructions"]
    in_double = own["kernel"] == "adamw, float64" or own["kernel"].startswith("norms")
    scales = 2 * 2 * 4 if "int8" in own["kernel"] else 0  # a lane reads that of its block in both states, and writes it
    moved = own["elements"] * BYTES.get(own["kernel"], own["bytes"]) // 1 + scales
    found = {
        "over the budget": own["load"] > 0.75 and own["kernel"] not in over,
        "generic memory": "generic memory" in counts,
        "spills": own["spills"] > 0 or "spill" in counts,
        "double": not in_double and not {"double", "64-bit conversion"}.isdisjoint(counts),
        "a loop inside": own["nested"] > 0,
        "bytes moved": own["loaded"] + own["stored"] != moved,
    }
    return {name for name, is_wrong in found.items() if is_wrong}


def test_every_rule_and_mode_is_recorded_for_every_architecture(instructions):
    names = {*RULES, *instructions.STEPS, *instructions.NORMS}
    assert set(instructions.RULES) == set(RULES)
    assert set(RECORDS) == set(itertools.product(names, (75, 80, 86, 89, 90, 100, 120)))
    assert len(RECORDED["kernels"]) == len(RECORDS)


@pytest.mark.parametrize("key", RECORDS, ids=str)
def test_what_is_recorded_stays_in_the_budget(key, instructions):
    own = RECORDS[key]
    assert complaints(own, instructions.OVER) == set()
    assert own["bytes"] == BYTES.get(own["kernel"], own["bytes"])
    assert own["per_element"] == pytest.approx(sum(own["instructions"].values()) / own["elements"], abs=0.0051)
    # an H200 issues 132 * 4 * 32 instructions a clock of 1.98 GHz, and moves 4.8e12 bytes a second
    assert own["budget"] == pytest.approx(132 * 128 * 1.98e9 / 4.8e12 * own["bytes"], rel=0.01)


def test_what_is_said_to_be_over_the_budget_is(instructions):
    assert all(RECORDS[name, 90]["load"] > 0.75 for name in instructions.OVER)


@pytest.mark.parametrize(
    ("name", "architecture"), [("adamw", 90), ("adamw", 75), ("lion", 120), ("adamw, bfloat16, remainder", 100)]
)
def test_the_compiler_still_makes_what_is_recorded(name, architecture, compiling):
    (own,) = compiling.count_step(name, architecture)
    assert complaints(own) == set()
    if tuple(RECORDED["nvrtc"]) == compiling.nvrtc.load_nvrtc().getVersion():
        assert own == RECORDS[name, architecture]


def test_the_compiler_still_makes_the_recorded_loops_of_the_norms(compiling):
    for own in compiling.count_norms(90):
        assert complaints(own, compiling.OVER) == set()
        if tuple(RECORDED["nvrtc"]) == compiling.nvrtc.load_nvrtc().getVersion():
            assert own == RECORDS[own["kernel"], 90]


FAULTS = {
    "double": ("rules.cuh", "grad = grad + l2 * param;", "grad = grad + l2 * param * 1.000000001;"),
    "generic memory": ("granules.cuh", "__builtin_assume(__isGlobal(pointer));", ""),
    "a loop inside": (
        *("step.cu", "#pragma unroll\n    for (int j = 0; j < SIZE; ++j) {\n        const Compute grad"),
        "#pragma unroll 1\n    for (int j = 0; j < SIZE; ++j) {\n        const Compute grad",
    ),
    "bytes moved": ("step.cu", "store(arrays.param, place, param);", ""),
    "over the budget": (
        "step.cu",
        "c.rule.update(weight, grad, state0.value[j]",
        "for (int k = 0; k < SIZE; ++k) c.rule.update(weight, grad, state0.value[j]",
    ),
}


@pytest.mark.parametrize("complaint", FAULTS)
def test_a_fault_in_the_kernel_is_seen(complaint, compiling, monkeypatch):
    file, old, new = FAULTS[complaint]
    texts = dict(nvrtc.sources())
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new)
    monkeypatch.setattr(nvrtc, "sources", lambda: texts)
    (own,) = compiling.count_step("adamw", 90)
    assert complaint in complaints(own)


def test_registers_for_which_there_is_no_room_are_seen(compiling, monkeypatch):
    monkeypatch.setattr(nvrtc, "resident_blocks", lambda kind: 8)
    (own,) = compiling.count_step("adamw", 90)
    assert "spills" in complaints(own)


TEXT = """
kernel:
        /*0000*/                   MOV R0, RZ ;
.L_outer:
        /*0010*/                   LDG.E R1, desc[UR4][R2.64] ;
.L_inner:
        /*0020*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0030*/               @P0 BRA P1, `(.L_fast) ;
        /*0040*/                   CALL.REL.NOINC `(slow) ;
        /*0050*/                   FADD R4, R4, R4 ;
.L_fast:
        /*0060*/                   BRA.DIV UR4, `(.L_apart) ;
        /*0070*/                   FMUL R4, R4, R5 ;
.L_joined:
        /*0080*/              @!P2 LDG.E R6, desc[UR4][R2.64+0x4] ;
        /*0090*/              @!P3 CALL.REL.NOINC `(.L_over) ;
        /*0098*/                   BRA `(.L_inner) ;
.L_over:
        /*00a0*/               @P0 BRA `(.L_outer) ;
        /*00b0*/                   EXIT ;
.L_apart:
        /*00c0*/                   SHFL.BFLY PT, R4, R4, R5, R6 ;
        /*00d0*/                   BRA `(.L_joined) ;
slow:
        /*00e0*/                   DADD R4, R4, R4 ;
        /*00f0*/                   RET.REL.NODEC R2 `(kernel) ;
"""


def test_the_usual_way_through_the_innermost_loop(instructions):
    """Without the call, and without what lanes do that have gone apart."""
    text = TEXT.replace("@!P2 LDG", "LDG")
    (loop,) = instructions.sass.loops_over_granules(text)
    names = [instruction.name for instruction in loop.code]
    assert names == ["LDG.E.128", "BRA", "BRA.DIV", "FMUL", "LDG.E", "CALL.REL.NOINC", "BRA"]
    assert (loop.slow_paths, loop.nested, loop.bytes_of("global load")) == (1, 0, 20)
    assert loop.counts() == {"global load": 2, "control": 4, "float": 1}


def test_an_instruction_of_no_class_is_told(instructions):
    (loop,) = instructions.sass.loops_over_granules(TEXT.replace("FMUL", "XYZZY"))
    with pytest.raises(ValueError, match="XYZZY is an instruction of no class"):
        loop.counts()


ASSEMBLY = """
f:
.LBB0_1:
	vmovups	(%rax,%r11,4), %ymm1
	vaddps	%ymm1, %ymm1, %ymm1
	vmovups	%ymm1, (%rax,%r11,4)
	vpmovdw	%ymm1, (%rcx,%r11,2)
	addq	$8, %r11
	jne	.LBB0_1
	incq	%r12
.LBB0_2:
	vmovss	%xmm1, (%rax,%r11,4)
	vpextrw	$0, %xmm1, (%rcx,%r11,2)
	jne	.LBB0_2
	jmp	.LBB0_1
"""


def test_the_widest_loop_of_a_cpu(instructions):
    found = instructions.cpu_code.widest_loop(ASSEMBLY, 4 + 2)
    assert found == {"elements": 8, "vector": "256 bits", "instructions": 6, "per_element": 0.75}
    alone = instructions.cpu_code.widest_loop(ASSEMBLY.replace("ymm", "xmm").replace("vpmovdw", "vpmovdb"), 4 + 2)
    assert alone == {"elements": 1, "vector": "none", "instructions": 3, "per_element": 3.0}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86 alone")
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_loop_of_the_cpu_takes_vectors(name, instructions):
    kind = instructions.STEPS[name]
    arrays = 1 + sum(form is not None for form in kind.states)
    found = instructions.cpu_code.count_sweep(kind, 4 * arrays)
    assert found["elements"] >= 4
    assert found["per_element"] < 10


@pytest.mark.parametrize("name", ["instructions", "instructions-cpu"])
def test_the_tables_of_the_page_are_those_of_the_records(name, instructions):
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    table = instructions.markdown_table(*instructions.table_of(result))
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert f"<!-- table: {name} -->\n{table}\n<!-- end of table -->" in page


def test_what_is_written_is_read_again(instructions, tmp_path):
    path = tmp_path / "folder" / "a.json"
    instructions.write(path, RECORDED)
    assert json.loads(path.read_text()) == RECORDED
    assert len(path.read_text().splitlines()) < len(RECORDS) + 40

"""The house: imports go down the floors, both texts know the same names, and every rule has all that it needs."""

import ast
import ctypes
import inspect
import re
import subprocess
import sys
from pathlib import Path

import cases
import host_kernels
import numpy as np
import pytest

import gpuadam
from gpuadam import codes, formats, jit, nvrtc, program, recipe, reduction, rules, slots, states, tables
from gpuadam.program import Op

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpuadam"
FLOORS = [
    {
        *("jit", "checkpoint", "strangers", "extras", "figures", "first_use", "gpus", "machine"),
        *("samples", "device_samples", "workloads"),
    },
    {"exact_math", "rounding", "codes", "bandwidth"},
    {"program"},
    {"expressions", "arrays"},
    {"compiler", "shapes"},
    {"schedule_arguments"},
    {"retiming"},
    {"composition", "cycles", "decays", "one_cycles"},
    {"decay_cycles", "one_cycle_presets", "warmups"},
    {"inverse_roots", "stable_phases", "warmup_decays"},
    {"restarts"},
    {"schedules", "schedule_data", "rules", "pictures", "terminal_picture", "lr_suggestions", "gallery"},
    {"schedule_text"},
    {"transformers_schedules"},
    {"adam_rules", "momentum_rules", "adaptive_rules", "sign_rules", "layerwise_rules"},
    {"schedule_free_rules", "recipe"},
    {"adam_variant_rules", "l1_rules", "formats", "hyperparameters"},
    {"slots", "groups"},
    {"coefficients", "tables", "traffic"},
    {"cohorts", "scalars", "nvrtc", "access"},
    {"clocks", "tensors", "reduction", "states", "steps"},
    {"sweeps"},
    {"swaps", "measures"},
    {"cpu_memory", "cuda_memory"},
    {"cpu", "cuda"},
    {"backends", "faults", "device_bandwidth"},
    {"engine"},
    {"changes"},
    {"state"},
    {"resume"},
    {"optimizer"},
    {
        "algorithms",
        "adam_variants",
        "adaptive_algorithms",
        "layerwise_algorithms",
        "momentum_algorithms",
        "schedule_free",
    },
    {"packing", "grouping", "plateau", "snapshot"},
    {"lr_finder"},
    {"__init__"},
    {"jax_buffers"},
    {"jax_numbers", "jax_plan"},
    {"jax_state"},
    {"jax_optimizer"},
    {"jax"},
    {"keras", "thinc_schedules", "thinc_forms", "thinc_states", "torch_formulas"},
    {"thinc_config", "thinc_values", "torch_schedules", "torch_arrays", "torch_layouts"},
    {"thinc_sweeps", "torch_buffers", "torch_groups", "torch_sharding"},
    {"thinc_optimizer", "torch_controls", "torch_gradients", "torch_state"},
    {"thinc", "torch_optimizer"},
    {"torch"},
    {"demo_network", "demo_picture", "planning"},
    {"demo", "doctor", "plan_command", "plot_command", "bench_cases", "bench_host", "bench_cuda"},
    {"demo_lr", "cli_types", "bench"},
    {"bench_report"},
    {"bench_picture"},
    {"bench_command"},
    {"cli"},
    {"__main__"},
]
# Upward imports that stand inside a function, or serve type checkers alone; each with its reason.
ALLOWED = {
    ("torch_state", "torch_optimizer"): "the type of its argument",
    ("expressions", "compiler"): "calling an Expr evaluates its program",
    ("expressions", "pictures"): "Expr.plot draws it",
    ("clocks", "engine"): "the type of its argument",
    ("faults", "engine"): "the type of its argument",
    ("resume", "optimizer"): "the type of its argument",
}


def imports(path: Path) -> set[str]:
    """Names of the package's modules that a module imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("gpuadam")):
            module = (node.module or "").removeprefix("gpuadam").lstrip(".")
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gpuadam.")}
    return {name.split(".")[0] for name in found if (PACKAGE / f"{name.split('.')[0]}.py").exists()}


def test_every_module_has_its_floor():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set().union(*FLOORS)


def test_imports_go_down_the_floors():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.glob("*.py"):
        for name in imports(path):
            if (path.stem, name) not in ALLOWED:
                assert floor[name] < floor[path.stem], f"{path.stem} imports {name}"


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("cupy", {"cuda_memory", "cuda", "doctor", "demo", "bench_cuda", "device_bandwidth", "device_samples"}),
        (
            "numba",
            {
                "jit",
                "bandwidth",
                "bench_host",
                "access",
                "states",
                "reduction",
                "sweeps",
                "swaps",
                "measures",
                "cpu",
                "doctor",
                "torch_layouts",
            },
        ),
        ("safetensors", {"checkpoint"}),
        ("ml_dtypes", {"checkpoint", "arrays"}),
        ("torch", {path.stem for path in PACKAGE.glob("torch*.py")}),
        ("keras", {"keras"}),
        ("thinc", {"thinc_schedules", "thinc_optimizer"}),
        ("transformers", set()),
        ("jax", {"jax_numbers", "jax_optimizer", "jax_state"}),
    ],
)
def test_who_imports_what(package, modules):
    pattern = re.compile(rf"^\s*(?:import|from) {package}\b", re.MULTILINE)
    assert {path.stem for path in PACKAGE.glob("*.py") if pattern.search(path.read_text())} <= modules


def test_importing_the_package_needs_nothing_optional():
    code = (
        "import sys, gpuadam; "
        "optional = ('cupy', 'torch', 'jax', 'keras', 'thinc', 'transformers', 'ml_dtypes', 'safetensors', 'rich', "
        "'matplotlib', 'sklearn'); "
        "print([name for name in optional if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_exported_names_are_there():
    assert len(set(gpuadam.__all__)) == len(gpuadam.__all__)
    assert all(hasattr(gpuadam, name) for name in gpuadam.__all__)
    assert all(inspect.getdoc(getattr(gpuadam, name)) for name in gpuadam.__all__)


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node, node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text().splitlines()) <= 300
    long = [f"{node.name}: {length}" for node, length in functions(path) if length > 40]
    assert not long


def test_kernel_files_stay_short():
    assert all(len(text.splitlines()) <= 300 for text in nvrtc.sources().values())


# ---- the two texts


def test_opcodes_are_the_same():
    listed = re.search(r"enum Op : int \{(.*?)\}", nvrtc.sources()["program.cuh"], re.DOTALL)
    assert [name.strip() for name in listed[1].split(",") if name.strip()] == [op.name for op in Op]
    assert [op.value for op in Op] == list(range(len(Op)))


def constants(name: str) -> dict[str, float]:
    number = r"-?(?:0x[0-9A-F]+|\d[\d.]*(?:e[-+]?\d+)?)"
    found = re.findall(rf"^constexpr \w+ (\w+) = ({number})f?;", nvrtc.sources()[name], re.MULTILINE)
    return {name: float.fromhex(value) if "0x" in value else float(value) for name, value in found}


def test_constants_are_the_same():
    """Those of exact_math and rounding stand in text that is compared line for line."""
    assert constants("tables.cuh") == {
        "WARP": reduction.LANES,
        "CHUNK": tables.CHUNK,
        "SPAN": tables.SPAN,
        "RULE_STATES": rules.RULE_STATES,
        "MAX_ACCUMULATORS": tables.CLOCK["accumulators"].shape[0],
        "ROW": tables.ROW,
        "STACK_SIZE": program.STACK_SIZE,
        "NO_SCOPE": tables.NO_SCOPE,
        "STEP_SIZE": tables.STEP_SIZE,
        "TRUST_LIMIT": tables.TRUST_LIMIT,
    }
    named = ("VALID", "MAXIMUM_CYCLES", "TWO_TO_MINUS_53")
    assert constants("program.cuh") == {name: getattr(program, name) for name in named}
    assert constants("granules.cuh") == {
        "BLOCK8": formats.BLOCK8,
        "SCALE_ALIGNMENT": slots.SCALE_ALIGNMENT,
        "CODES": len(codes.SIGNED_CODES),
        "NAN_BITS": states.NAN.view(np.uint32),
    }
    assert constants("sums.cuh") == {"ACCUMULATORS": reduction.ACCUMULATORS}
    assert constants("reduce.cu") == {"LARGEST_NORM": reduction.LARGEST}


def test_formats_have_the_same_numbers():
    listed = re.search(r"enum GradFormat : int \{(.*?)\}", nvrtc.sources()["tables.cuh"], re.DOTALL)
    assert [name.strip().lower() for name in listed[1].split(",")] == formats.GRAD_FORMATS


def test_the_coefficients_of_the_recipe_follow_those_of_the_rule():
    """The threshold of the norm is the one that stays in double."""
    body = re.search(r"struct Coefficients \{(.*?)\}", nvrtc.sources()["walk.cuh"], re.DOTALL)[1]
    fields = re.findall(r"(\w+);", body)
    assert fields == ["rule", *recipe.RecipeCoefficients._fields[:-1]]
    assert recipe.RecipeCoefficients._fields[-1] == "clip_norm"


def coefficients_of(struct: str) -> list[str]:
    """The fields of a struct in rules.cuh, those of the one that it extends first."""
    found = re.search(rf"struct {struct}(?: : (\w+)<T>)? \{{\s*T (.*?);", nvrtc.sources()["rules.cuh"], re.DOTALL)
    return (coefficients_of(found[1]) if found[1] else []) + [name.strip() for name in found[2].split(",")]


@pytest.mark.parametrize("rule", cases.RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_has_all_that_it_needs(rule):
    text = nvrtc.sources()["rules.cuh"]
    body = re.search(rf"struct {rule.element.__name__}(?: : \w+<T>)? \{{(.*?)\n\}};", text, re.DOTALL)[1]
    fields = coefficients_of(rule.element.__name__)
    assert fields == list(rule.row._fields), "rules.cuh lists the coefficients in another order"
    parameters = re.search(r"void update\((.*?)\) const", body, re.DOTALL)[1]
    names = [part.split()[-1].lstrip("&") for part in parameters.split(",") if part.strip() != "Absent"]
    assert names == [*inspect.signature(rule.element).parameters][:-1]
    coefficients = rule.row._fields + recipe.RecipeCoefficients._fields
    assert len(coefficients) + len(rule.hyperparameters) + len(recipe.HYPERPARAMETERS) <= tables.ROW
    assert len(rule.states) <= rules.RULE_STATES
    assert rule.nonnegative <= set(rule.states)
    assert any(case.name.startswith(rule.name) for case in cases.CASES), "tests/cases.py has no case of it"
    assert f"`{rule.name}`" in (ROOT / "docs" / "rules.md").read_text(), "docs/rules.md has no row of it"


@pytest.mark.parametrize("rule", cases.RULES.values(), ids=lambda rule: rule.name)
def test_rules_that_are_measured_say_so_in_both_texts(rule):
    is_measured = f"constexpr bool is_measured<{rule.name}> = true;" in nvrtc.sources()["rules.cuh"]
    assert is_measured == (rule.measure is not None)
    fields = rule.row._fields
    assert (fields[tables.STEP_SIZE], fields[tables.TRUST_LIMIT]) == ("step_size", "trust_limit") or not is_measured


def test_element_functions_hold_no_literal():
    elements = [rule.element for rule in cases.RULES.values()]
    for element in [*elements, *(rule.measure for rule in cases.RULES.values() if rule.measure)]:
        tree = ast.parse(inspect.getsource(element))
        literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is not None]
        assert not literals
    numbers = re.sub(r"//.*", "", nvrtc.sources()["rules.cuh"])
    assert not re.findall(r"(?<![\w])\d+(?:\.\d*)?f?(?![\w])", numbers)


@pytest.mark.parametrize(("name", "uses"), [("step.cu", 1), ("sums.cuh", 2)])
def test_a_block_fences_what_it_did_from_what_the_last_one_does(name, uses):
    """Around the ticket stands a fence on either side. That one is missing cannot be shown on the host."""
    text = re.sub(r"//.*", "", nvrtc.sources()[name])
    statements = [" ".join(part.split()) for part in re.split(r"[;{}]", text) if part.strip()]
    tickets = [i for i, statement in enumerate(statements) if re.search(r"\batomic\w+\([^)]*\bticket\b", statement)]
    assert len(tickets) == uses
    assert tickets[-1] - tickets[0] == uses - 1
    assert statements[tickets[0] - 1] == statements[tickets[-1] + 1] == "__threadfence()"


@pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to print offsetof")
def test_struct_layouts_are_the_same(tmp_path):
    structs = {
        "Tensor": tables.TENSOR,
        "Chunk": tables.CHUNK_ROW,
        "Span": tables.SPAN_ROW,
        "Scope": tables.SCOPE,
        "Cohort": tables.COHORT,
        "Clock": tables.CLOCK,
        "Instruction": program.INSTRUCTION,
        "Revision": tables.REVISION,
        "Scalars": tables.SCALARS,
        "Progress": tables.PROGRESS,
        "Launch": tables.LAUNCH,
    }
    lines = [f'    print("{name}", "", sizeof({name}));' for name in structs]
    for name, dtype in structs.items():
        lines += [f'    print("{name}", "{field}", offsetof({name}, {field}));' for field in dtype.names]
    source = tmp_path / "layout.cpp"
    printing = 'void print(const char* s, const char* f, unsigned long n) { printf("%s.%s=%lu\\n", s, f, n); }'
    source.write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "tables.cuh"\n{printing}\nint main() {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )
    binary = tmp_path / "layout"
    subprocess.run(["g++", "-std=c++20", "-DBLOCK=256", f"-I{ROOT / 'kernels'}", source, "-o", binary], check=True)
    printed = subprocess.run([binary], capture_output=True, text=True, check=True).stdout
    expected = {f"{name}.": dtype.itemsize for name, dtype in structs.items()}
    for name, dtype in structs.items():
        expected |= {f"{name}.{field}": dtype.fields[field][1] for field in dtype.names}
    assert dict(line.split("=") for line in printed.split()) == {key: str(value) for key, value in expected.items()}
    assert ctypes.sizeof(ctypes.c_void_p) == 8


def test_the_chunk_table_of_tensors_beyond_2_to_the_31():
    """64-bit offsets; no memory is needed to show it."""
    numels = np.array([2**31, 0, 2**33 + 5, 7], np.int64)
    rows = tables.chunk_rows(np.arange(4), numels)
    ends = (rows["index"].astype(np.int64) + 1) * tables.CHUNK
    covered = np.minimum(ends, numels[rows["tensor"]]) - rows["index"].astype(np.int64) * tables.CHUNK
    assert np.array_equal(np.bincount(rows["tensor"], covered, 4).astype(np.int64), numels)
    assert covered.min() > 0


def test_every_module_with_compiled_text_is_in_the_key_of_the_cache():
    marked = re.compile(r"^\s*@(?:inlined|compiled|intrinsic|overload)|keyed\(", re.MULTILINE)
    found = {path.stem for path in PACKAGE.glob("*.py") if marked.search(path.read_text())}
    assert found <= set(jit.COMPILED)

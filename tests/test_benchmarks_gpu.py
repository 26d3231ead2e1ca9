"""The benchmark of a GPU without one: contenders do the same work, a run on a stand-in ends with tables."""

import argparse
import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_measuring import measuring  # noqa: F401 (a fixture)
from fake_twins import NEEDS_COMPILER, stand_in  # noqa: F401 (fixtures)

from gpuadam import device_samples
from gpuadam.bandwidth import Stream
from gpuadam.workloads import NETWORKS, Workload, uniform

ROOT = Path(__file__).parents[1]
MODULES = ("cases", "tables", "torch", "cupy", "contenders", "arrays", "memory", "optax")
SHAPES = ((40, 30), (7,), (), (300,), (2, 3))
SCALES = (1.0, 20.0, 0.1, 3.0, 0.5)  # of the gradients in each step: clipped ones do not show them


@pytest.fixture
def gpu(monkeypatch):
    """The modules of the benchmark by the ends of their names, imported anew."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    forget()

    class Modules:
        def __getattr__(self, name):
            return importlib.import_module(f"gpu_{name}" if name != "main" else "gpu")

    yield Modules()
    forget()


def forget():
    for name in [name for name in sys.modules if name == "gpu" or name.startswith("gpu_")]:
        if name != "gpu_check":
            del sys.modules[name]


def arrays(seed, dtype=np.float32):
    random = np.random.default_rng(seed)
    return [np.asarray(random.standard_normal(shape), dtype) for shape in SHAPES]


def flat(found):
    return np.concatenate([np.ravel(np.asarray(array, np.float64)) for array in found])


def take_steps(step, grads, inputs):
    """A step for each of SCALES; gradients are made anew, as some contenders clip them in place."""
    for scale in SCALES:
        for grad, values in zip(grads, arrays(2), strict=True):
            grad[...] = inputs(np.asarray(scale * values, np.float32))
        step()


def warm(step):
    """The factor of the rate in the first hundred steps of a hundred thousand."""
    return step / 100 if step < 100 else 0.5 + 0.5 * math.cos(math.pi * (step - 100) / 99_900)


def expected(recipe, groups=1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """Parameters after some steps and their average, in float64."""
    params, grads = ([np.float64(array).ravel() for array in arrays(seed)] for seed in (1, 2))
    average = np.concatenate(params)
    grads, clips = np.concatenate(grads), recipe in ("clip", "all")
    rates = np.repeat(
        [1e-3 * (1 - (k * groups // len(SHAPES)) / 1000) for k in range(len(SHAPES))], [p.size for p in params]
    )
    p = average.copy()
    m = v = np.zeros_like(p)
    for k, scale in enumerate(SCALES, 1):
        g = scale * grads
        g = g * min(1.0, 1.0 / np.linalg.norm(g)) if clips else g
        rate = rates * (warm(k - 1) if recipe in ("schedule", "all") else 1.0)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        p = p - rate * weight_decay * p
        p = p - rate * (m / (1 - betas[0] ** k)) / (np.sqrt(v / (1 - betas[1] ** k)) + eps)
        average = 0.999 * average + 0.001 * p
    return p, average


def case_of(gpu, recipe="plain", dtype="float32", groups=1, contenders=("gpuadam",)):
    return gpu.cases.Case(Workload("few", "few tensors", SHAPES, groups), dtype, recipe, contenders)


# ---- all contenders do the same work


RECIPES = ["plain", "schedule", "clip", "ema", "all"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("form", ["torch fused", "torch foreach"])
@pytest.mark.parametrize("groups", [1, 5])
def test_torch_does_the_recipe(gpu, form, recipe, groups):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, grads = ([torch.from_numpy(array) for array in arrays(seed)] for seed in (1, 2))
    before = flat(arrays(1))
    take_steps(gpu.torch.make_torch(case_of(gpu, recipe, groups=groups), params, grads, form), grads, torch.from_numpy)
    wanted, _ = expected(recipe, groups)
    np.testing.assert_allclose(flat(params) - before, wanted - before, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("recipe", ["ema", "all"])
def test_torch_averages_the_weights(gpu, recipe):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, grads = ([torch.from_numpy(array) for array in arrays(seed)] for seed in (1, 2))
    acts = gpu.torch.step_acts(case_of(gpu, recipe), params, grads, torch.optim.AdamW)
    take_steps(gpu.torch.in_order(*acts), grads, torch.from_numpy)
    averages = dict(zip(acts[-1].__code__.co_freevars, acts[-1].__closure__, strict=True))["averages"].cell_contents
    np.testing.assert_allclose(flat(averages), expected(recipe)[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("groups", [1, 5])
def test_ours_does_the_recipe(gpu, recipe, groups, monkeypatch):
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setattr(gpu.contenders, "cupy", np)
    (params, grads), before = (arrays(1), arrays(2)), flat(arrays(1))
    optimizer = gpu.contenders.make_ours(case_of(gpu, recipe, groups=groups), params, grads)
    take_steps(optimizer.step, grads, np.asarray)
    wanted, average = expected(recipe, groups)
    np.testing.assert_allclose(flat(params) - before, wanted - before, rtol=2e-3, atol=1e-6)
    if recipe in ("ema", "all"):
        optimizer.swap_ema()
        np.testing.assert_allclose(flat(params), average, rtol=1e-6, atol=1e-7)


def test_torch_keeps_a_master_of_bfloat16(gpu):
    """Steps too small for bfloat16 add up."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params = [torch.ones(64, dtype=torch.bfloat16)]
    grads = [torch.ones(64, dtype=torch.bfloat16)]
    case = gpu.cases.Case(uniform(1, 64), "bfloat16")
    step = gpu.torch.make_torch(case, params, grads, "torch fused")
    step()
    assert torch.all(params[0] == 1)
    for _ in range(9):
        step()
    wanted = 1.0
    for _ in range(10):
        wanted -= 1e-3 * 0.01 * wanted + 1e-3
    assert torch.all(params[0] == torch.tensor(wanted).bfloat16())
    assert params[0][0] < 1


def test_the_kernel_for_cupy_is_adamw(gpu):
    """The text of the kernel, run by NumPy."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    names = [word.split()[1] for word in f"{gpu.cupy.INPUTS}, {gpu.cupy.OUTPUTS}".split(", ")]
    params, grads = flat(arrays(1)), flat(arrays(2))
    m, v = np.zeros_like(params), np.zeros_like(params)
    for k, scale in enumerate(SCALES, 1):
        given = dict(zip(names, (scale * grads, *gpu.cupy.scalars(k), params, m, v), strict=True))
        exec(gpu.cupy.BODY, {"sqrt": np.sqrt}, given)
    np.testing.assert_allclose(params, expected("plain")[0], rtol=1e-9)


def test_the_kernel_for_cupy_is_launched_for_each_tensor(gpu, monkeypatch):
    pytest.importorskip("cupy", reason="CuPy is not installed")
    launches = []
    monkeypatch.setattr(gpu.cupy, "adamw_kernel", lambda: lambda *given: launches.append(given))
    monkeypatch.setattr(gpu.cupy, "cupy", np)
    params, grads = arrays(1), arrays(2)
    step = gpu.cupy.make_kernels(case_of(gpu), params, grads)
    step()
    step()
    inputs, outputs = len(gpu.cupy.INPUTS.split(",")), len(gpu.cupy.OUTPUTS.split(","))
    assert {len(given) for given in launches} == {inputs + outputs}
    assert len(launches) == 10
    assert all(
        given[0] is grad and given[inputs] is param
        for given, grad, param in zip(launches[5:], grads, params, strict=True)
    )
    assert launches[5][1:inputs] == gpu.cupy.scalars(2)


def test_optax_steps(gpu):
    pytest.importorskip("optax", reason="optax is not installed")
    assert "cpu" in gpu.optax.optax_reason()
    sample = gpu.optax.make_optax(case_of(gpu))()
    assert list(sample) == ["wall_seconds"]
    assert sample["wall_seconds"] > 0


# ---- cases


def test_the_cases_are_those_that_were_asked_for(gpu):
    cases = gpu.cases.CASES
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    wanted = [f"1x{10**power}" for power in range(3, 10)]
    wanted += ["1000x1000", "10000x128", "465x60000", "465x60000, 10 groups", "465x60000, 465 groups", *NETWORKS]
    wanted += [f"1x{10**8}, {recipe}" for recipe in RECIPES[1:]]
    wanted += ["resnet50, bfloat16 with a float32 master", "resnet50, float16"]
    assert set(wanted) <= set(names)
    assert {name for case in cases for name in case.contenders} == {*gpu.cases.USUAL, "optax"}
    assert {name for case in cases for name in case.contenders if "torch" in name} == {*gpu.cases.USUAL} & {
        *("torch fused", "torch foreach", "torch capturable, graph")
    }
    assert all(case.needed < 130e9 for case in cases if case.workload.name != gpu.cases.SCALED)


@pytest.mark.parametrize(
    ("recipe", "dtype", "each"),
    [
        ("plain", "float32", 28),
        ("schedule", "float32", 28),
        ("clip", "float32", 32),
        ("ema", "float32", 36),
        ("all", "float32", 40),
        ("plain", "bfloat16", 30),
        ("plain", "float16", 22),
    ],
)
def test_the_bytes_of_a_case(gpu, recipe, dtype, each):
    case = case_of(gpu, recipe, dtype)
    assert case.moved == each * case.workload.elements


def test_a_network_is_cut_to_what_there_is_room_for(gpu):
    (llama,) = [case for case in gpu.cases.CASES if case.workload.name == gpu.cases.SCALED]
    cut = llama.within(120 * 10**9)
    assert cut.name.startswith("llama-")
    assert 100e9 < cut.needed < 120e9
    assert llama.within(10**13) == llama
    large = gpu.cases.CASES[0]
    assert large.within(10) == large


def test_every_tensor_is_in_one_group(gpu):
    for groups in (1, 10, 465):
        parts = gpu.cases.Case(uniform(465, 60_000, groups)).spread(range(465))
        assert len(parts) == groups
        assert [tensor for part in parts for tensor in part] == list(range(465))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---- figures and tables


def samples(**seconds):
    """Three samples of each contender: of the device as told, of the wall twice that, of the host a tenth."""
    names = {name.replace("_", " ").replace("  ", ", "): value for name, value in seconds.items()}
    each = {name: {"seconds": s, "host_seconds": s / 10, "wall_seconds": 2 * s} for name, s in names.items()}
    return {name: [own] * 3 for name, own in each.items()}


def found(gpu, case, memory=(8, 0), **seconds):
    """A case as it stands in a result. The driver's copy moves 1000 bytes a second, the kernel's 500."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    streams = {"copy": Stream(lambda: None, 2000), "copy kernel": Stream(lambda: None, 1000)}
    taken = {**samples(**seconds), **samples(copy=2.0, copy_kernel=2.0)}
    own = dict(zip(("state", "temporaries"), (part * case.workload.elements for part in memory), strict=True))
    figures = gpu.main.figures(case, taken, streams)
    return {**gpu.main.about(case), **figures, "memory": {"gpuadam": own}, "failures": {}}


def result_of(*cases):
    about = {"device": "stand-in", "packages": {"numpy": "2"}, "date": "today"}
    streams = {"copy": {"median": 1e12}}
    return {"machine": about, "memory": streams, "cases": list(cases), "left_out": {}, "broken": {}, "absent": {}}


def test_figures_of_a_case(gpu):
    case = gpu.cases.Case(uniform(1, 1000))
    own = found(gpu, case, gpuadam=70.0, gpuadam__graph=56.0, torch_fused=140.0)
    assert own["bytes_moved"] == 28_000
    assert own["bytes_per_second"]["gpuadam"]["median"] == pytest.approx(400)
    assert own["limit"] == "copy"
    assert own["part_of_limit"]["gpuadam"]["median"] == pytest.approx(0.4)
    assert own["part_of_limit"]["gpuadam, graph"]["median"] == pytest.approx(0.5)
    assert own["ratio"]["torch fused"]["median"] == own["wall_ratio"]["torch fused"]["median"] == pytest.approx(2)
    assert own["host_seconds"]["gpuadam"]["median"] == pytest.approx(7)
    assert set(own["wall_seconds"]) == {"gpuadam", "gpuadam, graph", "torch fused"}
    assert json.loads(json.dumps(own)) == own


def test_a_contender_that_has_only_the_wall(gpu):
    pytest.importorskip("cupy", reason="CuPy is not installed")
    taken = {**samples(gpuadam=1.0, copy=2.0, copy_kernel=2.0), "optax": [{"wall_seconds": 6.0}] * 3}
    streams = dict.fromkeys(("copy", "copy kernel"), Stream(lambda: None, 1000))
    own = gpu.main.figures(case_of(gpu), taken, streams)
    assert own["wall_ratio"]["optax"]["median"] == pytest.approx(3)
    assert "optax" not in own["seconds"]


def test_targets_are_met_or_not(gpu):
    """At 28 bytes an element, one of 10^9 that takes 30e6 s has 0.933 of 1000 bytes a second."""
    cases = {case.name: case for case in gpu.cases.CASES}
    rows = {}
    for part, ratio in ((1.0, 1.06), (1.02, 1.04)):
        billion = found(gpu, cases["1x1000000000"], gpuadam=30e6 * part, torch_fused=30e6 * part * ratio)
        many = found(gpu, cases["1000x1000"], gpuadam=19e-5 * part**6, torch_fused=19e-5 * ratio * 5)
        rows[part] = {row[0]: row[1:] for row in gpu.tables.target_table(result_of(billion, many))[1]}
    copy, fused, small = (gpu.tables.TARGETS[i].title for i in (0, 2, 4))
    assert rows[1.0][copy] == [">= 93.0 %", "93.3 %", "yes"]
    assert rows[1.02][copy] == [">= 93.0 %", "91.5 %", "no"]
    assert rows[1.0][fused] == [">= 1.05 x", "1.06 x", "yes"]
    assert rows[1.02][fused] == [">= 1.05 x", "1.04 x", "no"]
    assert rows[1.0][small] == [">= 5.00 x", "5.30 x", "yes"]
    assert rows[1.02][small] == [">= 5.00 x", "4.62 x", "no"]
    assert rows[1.0][gpu.tables.TARGETS[1].title] == [">= 93.0 %", "not measured", ""]


def test_the_slowest_host_decides(gpu):
    cases = [found(gpu, gpu.cases.Case(uniform(1, size)), gpuadam=s) for size, s in ((1000, 150e-6), (10, 250e-6))]
    host = gpu.tables.TARGETS[-1]
    assert host.row(result_of(cases[0]))[1:] == ["<= 20.0 us", "15.0 us", "yes"]
    assert host.row(result_of(*cases))[1:] == ["<= 20.0 us", "25.0 us", "no"]


def test_every_target_is_of_a_case_and_of_a_contender(gpu):
    (llama,) = [case for case in gpu.cases.CASES if case.workload.name == gpu.cases.SCALED]
    cases = [*gpu.cases.CASES, llama.within(10**11)]
    for target in gpu.tables.TARGETS:
        chosen = [case for case in cases if gpu.tables.matches(case.name, target.case)]
        assert chosen, target
        assert all(target.figure[1] in case.contenders for case in chosen), target


def test_growth_is_told_in_order(gpu):
    works = [uniform(1, 1000), uniform(1, 10**5), uniform(100, 1000), uniform(10, 1000)]
    works += [uniform(465, 60_000, groups) for groups in (465, 1)]
    cases = [found(gpu, gpu.cases.Case(work), gpuadam=float(i + 1)) for i, work in enumerate(works)]
    cases.append(found(gpu, gpu.cases.Case(uniform(1, 10**4), recipe="ema"), gpuadam=1.0))
    tables = {what: gpu.tables.growth_table(result_of(*cases), what)[1] for what in gpu.tables.GROWTH}
    assert [row[0] for row in tables["elements of one tensor"]] == ["1,000", "100,000"]
    assert tables["tensors of 1,000"] == [["1", "2.00 s"], ["10", "8.00 s"], ["100", "6.00 s"]]
    assert tables["groups of 465 tensors"] == [["1", "12.0 s"], ["465", "10.0 s"]]


def test_memory_is_told_for_each_parameter(gpu):
    own = found(gpu, gpu.cases.Case(uniform(1, 1000)), memory=(8, 4), gpuadam=1.0)
    assert gpu.tables.memory_table(result_of(own))[1] == [["one tensor of 1,000", "8.00 + 4.00"]]


# ---- a run, on the stand-in


@pytest.fixture
def with_torch():
    """PyTorch, all of it imported before the stand-in is there: its imports look into all modules, CuPy's too."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    param = torch.ones(1)
    param.grad = torch.ones(1)
    torch.optim.AdamW([param]).step()  # whose first step imports more
    return torch


@pytest.fixture
def dry(with_torch, measuring, monkeypatch, gpu):  # noqa: F811
    """The benchmark on the stand-in: PyTorch steps tensors of the host, kernels for CuPy do nothing."""
    monkeypatch.setattr(gpu.contenders, "torch_reason", lambda: None)
    monkeypatch.setattr(gpu.contenders, "as_torch", lambda array: with_torch.from_numpy(array.memory))
    monkeypatch.setattr(gpu.cupy, "adamw_kernel", lambda: lambda *given: None)
    monkeypatch.setattr(gpu.main, "ARRAY", 1 << 16)
    monkeypatch.setattr(device_samples, "MOST_STEPS", 2)
    return gpu


def run(dry, path, cases, limit=1e9):
    arguments = argparse.Namespace(seconds=0.0, limit=limit, json=path)
    return dry.main.measure(cases, arguments)


@NEEDS_COMPILER
def test_a_run_on_the_stand_in(dry, tmp_path, capsys):
    contenders = [name for name in dry.cases.USUAL if name != "bitsandbytes"]
    work = Workload("few", "few tensors", SHAPES)
    cases = [dry.cases.Case(work, contenders=[*contenders, "optax"]), dry.cases.Case(uniform(5, 30, 5), recipe="all")]
    path = tmp_path / "folder" / "gpu.json"
    result = run(dry, path, cases)
    assert json.loads(path.read_text()) == result
    assert not result["broken"]
    assert not result["left_out"]
    assert "optax" in result["absent"]
    first, second = result["cases"]
    assert set(first["failures"]) == set(second["failures"]) == {"torch capturable, graph"}
    assert set(first["seconds"]) == {*contenders} - {"torch capturable, graph"}
    assert set(first["part_of_limit"]) == {"gpuadam", "gpuadam, graph"}
    assert second["case"] == "5x30, 5 groups, all"
    assert second["bytes_moved"] == 40 * 150
    states = {name: own["state"] for name, own in first["memory"].items()}
    assert states["CuPy kernel"] == 8 * first["elements"]
    tables = states["gpuadam"] - 8 * first["elements"]
    assert 0 < tables < 100_000  # most of it room for programs
    dry.tables.print_result(result)
    printed = capsys.readouterr().out
    assert "few tensors" in printed
    assert "optax is not compared" in printed
    assert "not measured" in printed
    page = importlib.import_module("report").TABLES["gpu"][1](result)
    assert page.count("| few tensors |") == 5  # in the tables of bandwidth, of three times, and of memory
    assert "optax is not compared" in page


def test_what_is_too_large_or_too_late_is_left_out(dry, tmp_path):
    large = dry.cases.Case(uniform(1, 10**12))
    result = run(dry, tmp_path / "gpu.json", [large])
    assert "GB of device memory" in result["left_out"][large.name]
    late = run(dry, tmp_path / "gpu.json", [large], limit=-1.0)
    assert "limit" in late["left_out"][large.name]


def test_cases_that_are_not_there_are_refused(gpu, monkeypatch, capsys):
    """Before anything is measured: the figures of an earlier run would be written over by none."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cases", "resnet50;vgg"])
    with pytest.raises(SystemExit):
        gpu.main.main()
    assert "argument --cases: there is no case with 'vgg' in its name" in capsys.readouterr().err


def test_the_state_of_the_device_is_asked_of_the_driver(dry, monkeypatch):
    asked = []

    def answer(command, **options):
        asked.append(command)
        return SimpleNamespace(stdout="H200, 1980 MHz\n")

    monkeypatch.setattr(dry.main.subprocess, "run", answer)
    assert dry.main.device_state() == "H200, 1980 MHz"
    assert "clocks.sm" in asked[0][1]

"""`benchmarks/cpu.py` as its user meets it: what it runs, what it leaves out and says so, and what it writes."""

import importlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gpuadam.workloads import uniform

ROOT = Path(__file__).parents[1]
OWN = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
    """Modules of benchmarks/, for one test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield
    for name in OWN & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def cpu():
    return importlib.import_module("cpu")


def run(tmp_path, *options):
    """What the command writes, and what it prints."""
    path, environment = tmp_path / "folder" / "cpu.json", {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "benchmarks" / "cpu.py", "--json", path, "--seconds", "0.01", *options]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    return (json.loads(path.read_text()) if path.exists() else None), done.stdout


def test_a_case_is_measured_beside_its_peers_and_memory(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    result, printed = run(tmp_path, "--cases", "10x128", "--contenders", "gpuadam,torch-fused,thinc", "--threads", "1")
    (case,) = result["cases"]
    assert (case["case"], case["tensors"], case["elements"], case["bytes_moved"]) == ("10x128", 10, 1280, 28 * 1280)
    assert list(case["seconds"]) == ["gpuadam", "torch-fused"]
    assert all(found["count"] >= 3 and found["min"] > 0 for found in case["seconds"].values())
    assert list(case["speed_up"]) == ["torch-fused"]
    assert set(case["memory_bytes_per_second"]) == {"copy", "triad", "scale"}
    assert "thinc" in {**case["left_out"], **result["missing"]}
    assert result["unfinished"] == []
    assert "10x128:  gpuadam" in printed


def test_what_there_is_no_time_for_is_told(tmp_path, cpu):
    arguments = cpu.read_arguments(["--cases", "10x128,overhead", "--limit", "-1"])
    assert list(cpu.measure(arguments)) == []
    arguments = cpu.read_arguments(["--cases", "10x128,100x128", "--contenders", "gpuadam", "--limit", "3", "--quick"])
    slow = importlib.import_module("cpu_measure")

    def measured(case, *others):
        time.sleep(3.1)
        return {"case": case.name}

    slow.measure_case = measured
    found = [(name, result["unfinished"]) for name, result in cpu.measure(arguments)]
    assert found == [("10x128", ["100x128"])]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--cases", "resnet"], "argument --cases: there is no 'resnet'"),
        (["--contenders", "apex"], "no 'apex'"),
        (["--contenders", "torch-fused"], "gpuadam is what the others are compared with"),
        (["--threads", "0"], "argument --threads: '0'; allowed are whole numbers from 1"),
    ],
)
def test_what_is_refused(cpu, options, named, capsys):
    with pytest.raises(SystemExit):
        cpu.read_arguments(options)
    assert named in capsys.readouterr().err


def test_names_of_cases_are_their_own(cpu):
    cases = {case for members in cpu.make_sets(10**11).values() for case in members}
    assert len({case.name for case in cases}) == len(cases) > 35
    largest = max(cases, key=lambda case: case.workload.elements)
    assert cpu.read_arguments([]).asked[0].name == "1x20000000"
    assert largest.workload.elements <= 10**11 // 32


def test_who_does_not_fit_is_left_out_with_the_reason(monkeypatch):
    measure, registry = importlib.import_module("cpu_measure"), importlib.import_module("cpu_registry")
    case = measure.Case(uniform(1, 1_000_000))
    monkeypatch.setattr(measure, "free_in_machine", lambda: 45_000_000)
    monkeypatch.setattr(measure, "free_in_groups", list)
    kinds = {name: registry.CONTENDERS[name] for name in ("gpuadam", "torch-foreach", "torch-fused", "optax")}
    taken, left_out = measure.choose(case, kinds)
    assert list(taken) == ["gpuadam", "torch-fused"]  # 16 + 16 of 0.8 * 45; foreach would take 24
    assert left_out["torch-foreach"] == "it needs 0.0240 GB beside the others; there are 0.0200 GB"


def fail(case=None):
    raise ZeroDivisionError("on purpose")


def leave(case=None):
    os._exit(3)


@pytest.mark.parametrize(
    ("maker", "reason"), [(fail, "ZeroDivisionError: on purpose"), (leave, "its process ended with 3")]
)
def test_one_that_fails_does_not_end_the_run(maker, reason):
    workers = importlib.import_module("cpu_workers")
    with workers.Workers() as own:
        assert own.make({"bad": maker, "good": dict}) == {"bad": reason}
        assert own.make({"bad": partial(dict, a=1)}) == {}


def test_memory_is_what_is_allocated():
    """32 MB that are kept, 64 MB that a step takes for a while."""
    memory, workers = importlib.import_module("cpu_memory"), importlib.import_module("cpu_workers")
    if not memory.is_possible():
        pytest.skip("Linux tells of no process' peak here")
    case = memory.Case(uniform(1, 1_000_000))
    found = workers.in_new_process(partial(memory.measure_memory, Allocates, case))
    assert found == pytest.approx({"held": 32, "beyond": 64}, abs=1.0)


class Allocates:
    """A contender of which all allocations are known."""

    def __init__(self, case):
        self.size = 4 * case.workload.elements
        self.kept = [bytearray(b"x") * self.size for _ in range(8)]

    def step(self):
        bytearray(b"x") * (16 * self.size)


def test_a_step_costs_the_same_whatever_the_number_of_tensors():
    """In Python: work for each of 10,000 tensors would take a hundred times as long."""
    overhead = importlib.import_module("cpu_overhead")
    few, many = (overhead.measure_one(uniform(count, 0), 0.2) for count in (1, 10_000))
    assert many["step"]["min"] < 3 * few["step"]["min"] + 5e-6

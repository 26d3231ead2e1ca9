"""scripts/gpu_check.py, as far as it needs no GPU: its limits, and that nothing is left out in silence."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu_check(monkeypatch):
    """The script as a module that finds a machine on which every command passes, but no compute-sanitizer."""
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)
    module.given = []

    def run(command, limit):
        module.given.append((command, limit))
        output = "reason:" if module.REASON in command else "small case: done"
        return {"status": "passed", "code": 0, "seconds": 0.0, "output": output}

    def check_tests(out):
        run(["tests"], module.LIMITS["tests"])
        return {"status": "passed", "seconds": 0.0, "output": ""}

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "find_sanitizer", lambda: None)
    monkeypatch.setitem(module.PARTS, "tests", check_tests)
    return module


def test_all_limits_together_are_below_eight_minutes(gpu_check, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "find_sanitizer", lambda: "compute-sanitizer")
    assert gpu_check.main([str(tmp_path)]) == 0
    limits = [limit for _, limit in gpu_check.given]
    assert sorted(limits) == sorted(gpu_check.LIMITS.values()), (
        "each limit is that of one command, and none has another"
    )
    assert sum(limits) < 8 * 60
    assert gpu_check.LIMITS["benchmark"] > gpu_check.BENCHMARK_BEGINS
    tools = [command[2] for command, _ in gpu_check.given if command[0] == "compute-sanitizer"]
    assert tools == ["memcheck", "racecheck", "initcheck"]


def test_a_missing_compute_sanitizer_is_a_failure(gpu_check, tmp_path, capsys):
    assert gpu_check.main([str(tmp_path)]) == 1
    assert "sanitizers: failed in 0 s compute-sanitizer not found" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["parts"]["sanitizers"]["status"] == "failed"
    assert [name for name, part in summary["parts"].items() if part["status"] != "passed"] == ["sanitizers"]
    assert "not found" in json.loads((tmp_path / "sanitizers.json").read_text())["output"]


@pytest.mark.parametrize("options", [["--without-sanitizers"], ["--parts", "doctor,tests,benchmark"]], ids=" ".join)
def test_the_sanitizers_may_be_left_out(gpu_check, tmp_path, options):
    assert gpu_check.main([str(tmp_path), *options]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [*summary["parts"]] == ["doctor", "tests", "benchmark"]


def test_nothing_is_left_to_run(gpu_check, tmp_path, capsys):
    for options, text in (
        (["--parts", "sanitizers", "--without-sanitizers"], "no part is left"),
        (["--parts", "all"], "no part 'all'"),
    ):
        with pytest.raises(SystemExit) as ended:
            gpu_check.main([str(tmp_path), *options])
        assert ended.value.code == 2
        assert text in capsys.readouterr().err

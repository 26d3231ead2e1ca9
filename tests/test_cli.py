"""The command line as a user meets it: the doctor, the version, and what is no command."""

import functools
import re
import subprocess
import sys

import numpy as np
import pytest
from cli_checks import ROOT, number, raises

import gpuadam
from gpuadam import cli, cuda, doctor, nvrtc


@pytest.fixture
def no_cupy(monkeypatch):
    """CuPy cannot be imported, and what was found out about it before is forgotten; afterwards too."""
    monkeypatch.setattr(cuda, "unavailable_reason", functools.cache(cuda.unavailable_reason.__wrapped__))
    monkeypatch.setattr(doctor, "unavailable_reason", cuda.unavailable_reason)
    monkeypatch.setattr(nvrtc, "load_nvrtc", functools.cache(nvrtc.load_nvrtc.__wrapped__))
    for name in ("cupy", "cupy_backends", "cupy_backends.cuda.libs"):
        monkeypatch.setitem(sys.modules, name, None)


# ---- the doctor


def test_the_doctor_from_the_shell():
    code = (
        "import sys; from gpuadam.cli import main; status = main([]); "
        "print([name for name in ('rich', 'matplotlib', 'sklearn') if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all is well\n[]\n" in done.stdout
    assert all(text in done.stdout for text in ("Python", "NumPy", "Numba", "CuPy", "sources", "subnormal", "auto"))
    assert re.search(r"AdamW on the CPU +ok: 100,000 elements within \S+ of float64; allowed is 4.8e-07", done.stdout)


def test_the_doctor_lines_up(capsys):
    assert cli.main(["doctor"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(rows) >= 10
    assert all(line[19] == " " and line[20] != " " for line in rows)


@pytest.mark.usefixtures("no_cupy")
def test_the_doctor_without_cupy(capsys):
    assert cli.main([]) == 0
    output = capsys.readouterr().out
    assert re.search(r"CuPy +none", output)
    assert re.search(r"auto +cpu: CuPy cannot be imported .* pip install 'gpuadam\[cuda13\]'", output)
    assert "NVRTC" not in output


class Wrong(gpuadam.AdamW):
    """AdamW that is off by one part in a million."""

    def __init__(self, params, **settings):
        super().__init__(params, **settings)
        self.params = params

    def step(self, grads=None):
        super().step(grads)
        self.params[0] *= np.float32(1 + 1e-6)


def test_the_doctor_finds_a_wrong_step(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "AdamW", Wrong)
    assert cli.main([]) == 1
    output = capsys.readouterr().out
    assert re.search(r"AdamW on the CPU +FAILED: (?s:.*)\nFAILED: AdamW on the CPU", output)


def test_the_doctor_reports_an_error_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "AdamW", raises(RuntimeError("first line\nsecond line")))
    assert cli.main([]) == 1
    assert re.search(r"FAILED: RuntimeError: first line second line\n +NVRTC compiles", capsys.readouterr().out)


def test_the_doctor_sees_flushed_subnormals(monkeypatch):
    monkeypatch.setattr(doctor, "flushes_subnormals", lambda: True)
    assert "FLUSHED" in doctor.devices()[0][1]


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpuadam {gpuadam.__version__}\n"


# ---- with a GPU


@pytest.mark.gpu
@pytest.mark.skipif(cuda.unavailable_reason() is not None, reason="there is no GPU")
def test_the_same_demo_and_the_doctor_on_a_gpu(tmp_path, capsys):
    assert cli.main(["demo", "--backend", "cuda", "--out", str(tmp_path / "a.png")]) == 0
    assert float(number("GPU, with cupy arrays(?s:.*)held-out accuracy", capsys.readouterr().out)) >= 97
    assert cli.main([]) == 0
    assert re.search(r"same bits on both +ok: 0 of 100,000", capsys.readouterr().out)

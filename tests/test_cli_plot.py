"""`python -m gpuadam plot` as a user meets it."""

import os
import subprocess
import sys

import pytest
from cli_checks import PNG, ROOT, python_m_gpuadam, refusal

from gpuadam import cli, gallery, plot_command

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
WARMUP = "warmup_cosine_decay(0, 3e-4, warmup_steps=1000, decay_steps=10000)"


def test_a_schedule_in_the_terminal():
    done = python_m_gpuadam("plot", WARMUP)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("warmup_cosine_decay(")
    assert lines[1].split()[0] == "0.0003"
    assert lines[-1].split() == ["0", "10,999"], "a tenth more than the largest number"


def test_schedules_side_by_side(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "90")
    assert cli.main(["plot", "--steps", "50", "constant(0.5)", "step / 100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["constant(0.5)", "step", "/", "100"]
    assert lines[-1].split() == ["0", "49", "0", "49"]


def test_a_terminal_without_such_letters():
    command = [sys.executable, "-c", "from gpuadam.cli import main; main(['plot', 'step'])"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=True, cwd=ROOT)
    assert b"*" in done.stdout
    assert done.stderr == b""


def test_a_text_of_several_lines_has_a_title_of_one(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["plot", "cosine_decay(\n    0.1,\n    900,\n)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cosine_decay( 0.1, 900, )"
    assert lines[1].split()[0] == "0.1"


@pytest.mark.parametrize("option", ["-o", "--out"])
def test_a_picture(option, tmp_path, capsys):
    path = tmp_path / "a.png"
    assert cli.main(["plot", "cosine_decay(0.1, 900)", "step", option, str(path)]) == 0
    assert path.read_bytes().startswith(PNG)
    assert capsys.readouterr().out == f"picture              {path}\n"


def test_the_gallery(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    path = tmp_path / "a.png"
    assert cli.main(["plot", "--gallery", "-o", str(path)]) == 0
    assert path.read_bytes().startswith(PNG)
    capsys.readouterr()
    assert cli.main(["plot", "--gallery"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n{text[:30]}" in f"\n{output}" for text in gallery.EXAMPLES.values())
    curves = plot_command.gallery_curves()
    assert [curve.title + curve.note for curve in curves] == list(gallery.EXAMPLES.values())


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("cosine_decay(0.1, 900)", 990),
        ("step", 1000),
        ("constant(3)", 100),
        ("0.25 * cosine_decay(1e5, 2000)", 2200),
        ("cosine_decay(1, 1e3)", 100),
        (f"cosine_decay(1, {2**53})", 2**53),
        ("parameter('99999999999999999999', 1)", 2**53),
    ],
)
def test_how_many_steps_there_are_by_default(text, steps):
    assert plot_command.default_steps(text) == steps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give one schedule or more, such as 'cosine_decay(0.1, 900)', or --gallery"),
        (["--gallery", "step"], "give one schedule or more"),
        (["9**9**9"], "argument SCHEDULE: '9**9**9': at column 1: this is no finite number"),
        (["step", "lambda: 1"], "argument SCHEDULE: 'lambda: 1': at column 1: lambda is not allowed"),
        (["cosine_decay(1,\n\n0)"], "decay_steps must be finite and > 0"),
        (["step", "--steps", "0"], "'0'; allowed are whole numbers from 1 to 10000000"),
        (["step", "--steps", "-5"], "'-5'; allowed are whole numbers from 1"),
        (["step", "--steps", "1000000000"], "allowed are whole numbers from 1"),
        (["step", "-o", "no/such/a.png"], "in a folder that exists"),
        (["step", "-o", "a.jpg"], "end in .png"),
        (["step", "--colour"], "--colour"),
    ],
    ids=str,
)
def test_what_is_refused_in_one_line(arguments, told, capsys):
    assert told in refusal(["plot", *arguments], capsys)


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["plot", "step"]) == 0
    capsys.readouterr()
    assert "pip install 'gpuadam[plot]'" in refusal(["plot", "step", "-o", str(tmp_path / "a.png")], capsys)


def test_a_schedule_that_begins_with_a_sign(capsys):
    assert cli.main(["plot", "--", "-step"]) == 0
    assert capsys.readouterr().out.startswith("-step")

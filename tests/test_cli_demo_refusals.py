"""What the demo refuses: in one line, before anything runs."""

import sys

import numpy as np
import pytest
from cli_checks import QUICK, python_m_gpuadam, raises, refusal, trained

from gpuadam import cli, demo

BAD = {
    "--epochs": ("from 1 to 1000", ["0", "1.5", "1001"]),
    "--batch-size": ("from 1 to 1437", ["0", "1438"]),
    "--lr": ("> 0 and <= 1", ["0", "-1", "-1e-3", "2", "nan", "-inf", "fast"]),
    "--seed": ("from 0 to 4294967295", ["-1", "two\nlines"]),
    "--optimizer": ("'rmsprop'", ["lion"]),
    "--schedule": ("'warmup-cosine'", ["wobble"]),
    "--backend": ("'cuda'", ["tpu"]),
    "--clip-norm": ("numbers > 0, and 0 or none", ["-1", "inf", "nan", "much"]),
    "--dtype": ("float32, bfloat16, float16", ["float64", "none"]),
    "--master": ("none, float32, remainder", ["float16"]),
    "--rounding": ("nearest, stochastic", ["up"]),
    "--state-dtype": ("float32, bfloat16, int8", ["float16"]),
    "--save": ("end in .safetensors, in a folder that exists", ["no/such.safetensors", "run.pickle"]),
    "--out": ("end in .png, in a folder that exists", ["no/such/folder.png", "picture.jpg", ".", ""]),
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in BAD for value in BAD[option][1]])
def test_a_bad_value_is_told_in_one_line(option, value, capsys):
    line = refusal(["demo", option, value], capsys)
    assert all(text in line for text in (option, repr(value), BAD[option][0]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["demo", "--epoch", "3"], "--epoch"), (["demo", "--lr"], "--lr"), (["dmeo"], "'dmeo'"), (["--quiet"], "--quiet")],
)
def test_what_is_no_option_or_command_is_told_in_one_line(arguments, told, capsys):
    assert told in refusal(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--master=remainder"], "allowed with --dtype float32 are --master none"),
        (["--rounding=stochastic"], "allowed with --dtype float32 are --master none"),
        (["--dtype=float16", "--master=remainder"], "'hidden.weight' is float16"),
        (["--dtype=bfloat16", "--master=float32", "--rounding=stochastic"], "allowed is one of them"),
        (["--find-lr", "--resume=x"], "argument --find-lr: a run that is resumed keeps its schedule"),
        (["--find-lr", "--lr=0.1"], "argument --find-lr: it finds the rate that --lr gives"),
        (["--find-lr", "--master=remainder"], "allowed with --dtype float32 are --master none"),
        (["--resume=no/such.safetensors"], "'no/such.safetensors': there is no such file"),
    ],
)
def test_modes_that_do_not_go_together_are_told_in_one_line(arguments, told, capsys):
    assert told in refusal(["demo", *arguments], capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--epochs=1"], "holds 1 epochs already; allowed are --epochs above that"),
        (["--batch-size=300"], "no whole epochs of 4; allowed is the --batch-size"),
        (["--optimizer=sgd"], "does not fit"),
        (["--dtype=bfloat16"], "does not fit"),
    ],
)
def test_a_run_that_cannot_be_resumed_is_told_in_one_line(arguments, told, tmp_path, capsys):
    saved = tmp_path / "run.safetensors"
    trained(demo.Options(epochs=1, batch_size=200, save=saved))
    assert told in refusal(["demo", "--batch-size=200", f"--resume={saved}", *arguments], capsys)


def test_a_refusal_from_the_shell():
    done = python_m_gpuadam("demo", "--lr", "-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpuadam demo: error: argument --lr: '-1'; allowed are numbers > 0 and <= 1\n"


def test_the_default_picture_is_tried_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo.png").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "--out" in refusal(["demo"], capsys)


def test_trying_a_picture_touches_nothing(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    cli.file_named(".png")(str(tmp_path / "old.png"))
    cli.file_named(".png")(str(tmp_path / "new.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_a_picture_that_fails_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(demo, "draw", raises(OSError(28, "No space left on device")))
    assert cli.main(QUICK) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_packages_are_told_with_the_command_that_helps(monkeypatch, capsys):
    for name in ("rich", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    line = refusal(["demo"], capsys)
    assert "rich, scikit-learn: pip install 'gpuadam[demo]'" in line
    assert "matplotlib" not in line


def test_cuda_without_a_gpu_is_told_with_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(demo, "unavailable_reason", lambda: "a reason\non two lines")
    line = refusal(["demo", "--backend", "cuda"], capsys)
    assert all(text in line for text in ("--backend", "'cuda'", "a reason on two lines"))
    assert demo.array_module("auto") is np


def test_an_interrupt_leaves_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(demo, "train", raises(KeyboardInterrupt()))
    assert cli.main(QUICK) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_picture_of_the_range_test_that_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_lr.png").mkdir()
    assert cli.main([*QUICK, "--find-lr", "--batch-size=200", f"--out={tmp_path / 'a.png'}"]) == 2
    assert "a_lr.png' cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()

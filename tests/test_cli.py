"""The command line as a user meets it: the demo, its refusals, and the doctor."""

import dataclasses
import functools
import io
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpuadam
from gpuadam import cli, cuda, demo, doctor, nvrtc

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n\x1a\n"
QUICK = ["demo", "--backend", "cpu", "--epochs", "2"]


def python_m_gpuadam(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gpuadam", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **settings)


def number(label, output):
    return re.search(rf"{label} +(\S+)", output)[1]


@pytest.fixture
def no_cupy(monkeypatch):
    """CuPy cannot be imported, and what was found out about it before is forgotten; afterwards too."""
    monkeypatch.setattr(cuda, "unavailable_reason", functools.cache(cuda.unavailable_reason.__wrapped__))
    monkeypatch.setattr(doctor, "unavailable_reason", cuda.unavailable_reason)
    monkeypatch.setattr(nvrtc, "load_nvrtc", functools.cache(nvrtc.load_nvrtc.__wrapped__))
    for name in ("cupy", "cupy_backends", "cupy_backends.cuda.libs"):
        monkeypatch.setitem(sys.modules, name, None)


def trained(options, epochs=None):
    """A run of the demo, interrupted after so many epochs."""
    run = demo.begin(np, options)
    with demo.one_blas_thread():
        list(itertools.islice(demo.train(run), epochs))
    return run


def raises(error):
    """A function that raises, whatever it is given."""

    def fail(*arguments, **settings):
        raise error

    return fail


# ---- the demo


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    begin = time.perf_counter()
    done = python_m_gpuadam("demo", "--backend", "cpu", cwd=folder)
    return done, folder, time.perf_counter() - begin


def test_the_default_run_learns_the_digits_in_time(default_run):
    done, folder, seconds = default_run
    assert (done.returncode, done.stderr) == (0, "")
    assert float(number("held-out accuracy", done.stdout)) >= 97
    assert (folder / "demo.png").read_bytes().startswith(PNG)
    assert seconds < 60


def test_a_second_run_has_the_same_bits_in_another_process(default_run, tmp_path, capsys):
    assert cli.main(["demo", "--backend", "cpu", "--out", str(tmp_path / "again.png")]) == 0
    assert number("exactly", capsys.readouterr().out) == number("exactly", default_run[0].stdout)


def test_another_seed_has_other_bits(tmp_path, capsys):
    losses = []
    for seed in "01":
        assert cli.main([*QUICK, "--seed", seed, "--out", str(tmp_path / "a.png")]) == 0
        losses.append(number("exactly", capsys.readouterr().out))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("optimizer", demo.OPTIMIZERS)
def test_every_optimizer_learns(optimizer):
    history = trained(demo.Options(optimizer=optimizer)).history
    assert min(history.accuracies[-1], history.averages[-1]) >= 97


@pytest.mark.parametrize("schedule", demo.SCHEDULES)
@pytest.mark.parametrize("batch_size", [200, demo.TRAINING])
def test_the_optimizer_follows_every_schedule(schedule, batch_size):
    history = trained(demo.Options(schedule=schedule, epochs=3, batch_size=batch_size)).history
    assert history.next_lrs == [history.schedule(step) for step in history.steps]
    assert 0 < max(history.schedule(np.arange(history.steps[-1]))) <= demo.Options.lr


@pytest.mark.parametrize("lr", ["1e-300", "1"])
def test_a_single_step_can_be_drawn(lr, tmp_path, capsys):
    out = tmp_path / "one.PNG"
    assert cli.main(["demo", "--epochs=1", f"--batch-size={demo.TRAINING}", f"--lr={lr}", f"--out={out}"]) == 0
    assert out.read_bytes().startswith(PNG)
    assert "1 epochs, 1 steps" in capsys.readouterr().out


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    params = {name: value.astype(np.float64) for name, value in demo.new_params(np, 0, np.float32).items()}
    grads = {name: np.empty_like(value) for name, value in params.items()}
    images, targets = rng.random((5, 64)), np.eye(10)[[3, 1, 4, 1, 5]]
    demo.loss_and_gradients(np, params, grads, images, targets)
    spare = {name: np.empty_like(value) for name, value in params.items()}
    for name, param in params.items():
        place = tuple(rng.integers(param.shape))
        value, losses = param[place], []
        for change in (1e-6, -1e-6):
            param[place] = value + change
            losses.append(demo.loss_and_gradients(np, params, spare, images, targets))
        param[place] = value
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(grads[name][place], rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dtype=bfloat16", "--master=remainder"],
        ["--dtype=float16", "--rounding=stochastic", "--state-dtype=int8", "--clip-norm=0.5"],
        ["--dtype=bfloat16", "--master=float32", "--state-dtype=bfloat16", "--clip-norm=none"],
    ],
    ids=" ".join,
)
def test_every_mode_learns(arguments, tmp_path, capsys):
    assert cli.main(["demo", "--backend=cpu", f"--out={tmp_path / 'a.png'}", *arguments]) == 0
    output = capsys.readouterr().out
    assert float(number("held-out accuracy", output)) >= 97
    assert float(number("of the average", output)) >= 97


def test_the_modes_are_those_of_the_optimizer():
    options = demo.Options(dtype="bfloat16", master="remainder", state_dtype="int8", clip_norm=0.5, seed=3)
    run = demo.begin(np, options)
    state = run.optimizer.state_dict()["state"]["hidden.weight"]
    kinds = {name: array.dtype.name for name, array in state.items() if isinstance(array, np.ndarray)}
    sizes = {"exp_avg": "uint8", "exp_avg_sq": "uint8", "remainder": "uint16", "ema": "float32"}
    assert kinds == {**sizes, "exp_avg_scale": "float32", "exp_avg_sq_scale": "float32"}
    assert {param.dtype.name for param in run.params.values()} == {"bfloat16"}
    assert run.optimizer.hyperparameters()[0]["clip_norm"] == 0.5


def test_clipping_changes_the_run():
    few = demo.Options(epochs=1, batch_size=200)
    losses = [trained(dataclasses.replace(few, clip_norm=norm)).history.losses for norm in (None, 1e9, 0.01)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_follows_from_seed_and_number_alone(epoch):
    images, digits, *_ = demo.load_data()

    def batches(seed, number):
        return np.concatenate([images for images, _ in demo.batches(np, images, digits, 100, seed, number)])

    assert np.array_equal(batches(1, epoch), batches(1, epoch))
    assert not np.array_equal(batches(1, epoch), batches(1, epoch + 1))
    assert not np.array_equal(batches(1, epoch), batches(2, epoch))


@pytest.mark.parametrize(
    "modes",
    [{}, {"dtype": "bfloat16", "master": "remainder"}, {"dtype": "float16", "rounding": "stochastic"}],
    ids=["float32", "remainder", "stochastic"],
)
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(modes, tmp_path):
    saved = tmp_path / "run.safetensors"
    options = demo.Options(epochs=4, batch_size=200, state_dtype="int8", **modes)
    whole = trained(options)
    trained(dataclasses.replace(options, save=saved), epochs=2)
    resumed = trained(dataclasses.replace(options, resume=saved))
    assert (resumed.first_epoch, resumed.differences) == (2, [])
    assert resumed.history.losses == whole.history.losses[-len(resumed.history.losses) :]
    assert resumed.history.averages == whole.history.averages[2:]
    assert all(resumed.params[name].tobytes() == whole.params[name].tobytes() for name in whole.params)


def test_resuming_from_the_shell(tmp_path, capsys):
    saved, out = tmp_path / "run.safetensors", f"--out={tmp_path / 'a.png'}"
    small = ["demo", "--batch-size=200", out]
    assert cli.main([*small, "--epochs=6"]) == 0
    whole = capsys.readouterr().out
    assert cli.main([*small, "--epochs=3", f"--save={saved}"]) == 0
    assert f"run                  {saved}" in capsys.readouterr().out
    assert cli.main([*small, "--epochs=6", f"--resume={saved}", f"--save={saved}"]) == 0
    resumed = capsys.readouterr().out
    assert f"goes on after epoch 3 of {saved}" in resumed
    assert "other than then: lr of group 0 is a schedule in the file, another here" in resumed
    assert number("exactly", resumed) != number("exactly", whole), "it began under the schedule of three epochs"


def test_an_interrupt_from_the_keyboard_leaves_the_last_epoch(tmp_path, monkeypatch, capsys):
    saved = tmp_path / "run.safetensors"
    small = ["demo", "--batch-size=200", "--epochs=4", f"--out={tmp_path / 'a.png'}"]
    assert cli.main(small) == 0
    whole = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(demo, "accuracy", interrupted_at(5, demo.accuracy))
        assert cli.main([*small, f"--save={saved}"]) == 130
    assert "goes on after epoch 2" not in capsys.readouterr().out
    assert cli.main([*small, f"--resume={saved}"]) == 0
    resumed = capsys.readouterr().out
    assert "goes on after epoch 2" in resumed
    assert number("exactly", resumed) == number("exactly", whole)
    assert number("held-out accuracy", resumed) == number("held-out accuracy", whole)


def interrupted_at(call, function):
    """The function, which at this call is interrupted from the keyboard."""
    calls = itertools.count(1)

    def stand_in(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return stand_in


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_a_progress_bar(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert cli.main([*QUICK, "--out", str(tmp_path / "a.png")]) == 0
    assert "epoch 2/2" in sys.stderr.getvalue()


# ---- what the demo refuses

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


def refusal(arguments, capsys):
    """The one line that the arguments must earn."""
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n"), told.err[-1:]) == ("", 1, "\n")
    return told.err


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

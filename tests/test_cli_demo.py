"""The demo as a user meets it: what it learns, how it resumes, and how it finds a learning rate."""

import dataclasses
import io
import itertools
import re
import sys
import time

import numpy as np
import pytest
from cli_checks import PNG, QUICK, number, python_m_gpuadam, trained

from gpuadam import cli, demo, demo_lr


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


# ---- a learning rate that it finds


def test_the_demo_finds_its_learning_rate(tmp_path, capsys):
    out = tmp_path / "a.png"
    small = ["--backend=cpu", "--batch-size=200", "--epochs=30"]
    assert cli.main(["demo", "--find-lr", *small, f"--out={out}"]) == 0
    output = capsys.readouterr().out
    rates = {method: float(number(method, output).rstrip(",")) for method in ("steepest", "valley", "slide", "minimum")}
    assert all(1e-5 < rate < 1 for rate in rates.values())
    taken = re.search(r"(\w+) +\S+, which is taken", output)[1]
    assert float(number("peak", output).rstrip(",")) == pytest.approx(rates[taken], rel=0.01)
    assert float(number("held-out accuracy", output)) >= 95
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_lr.png"]
    assert (tmp_path / "a_lr.png").read_bytes().startswith(PNG)


def test_the_training_is_that_of_the_rate_that_was_found(tmp_path, capsys):
    options = demo.Options(backend="cpu", epochs=2, batch_size=200, out=tmp_path / "a.png")
    demo_lr.run(options)
    found = demo_lr.find(np, options).suggestion(demo_lr.METHOD)
    history = trained(dataclasses.replace(options, lr=found)).history
    assert number("exactly", capsys.readouterr().out) == f"{history.losses[-1].hex()}:"


def test_the_range_test_is_that_of_the_run_with_its_modes():
    options = demo.Options(dtype="bfloat16", master="remainder", optimizer="nadam", batch_size=200)
    finder = demo_lr.find(np, options)
    assert finder._optimizer.rule.name == "nadam"
    assert "remainder" in finder._optimizer.state_dict()["state"]["hidden.weight"]
    assert finder.history["lr"][0] == 1e-6
    assert len(finder.history["lr"]) > 100

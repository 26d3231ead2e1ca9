"""ReduceLROnPlateau against those of PyTorch, thinc, optax and Keras over random metrics; what a rewrite costs."""

import itertools
import math
import random

import fake_cupy
import numpy as np
import pytest
from fake_device import machine
from fake_twins import NEEDS_COMPILER, adamw, capture, stand_in  # noqa: F401 (a fixture)

import gpuadam
from gpuadam import ReduceLROnPlateau, schedules
from gpuadam.schedules import maximum, parameter

NAN = math.nan


def optimizer_of(*rates):
    """One group for each learning rate."""
    return gpuadam.SGD([{"params": [np.ones(1, np.float32)], "lr": rate} for rate in rates], lr=0.0)


def rates(optimizer):
    return [group["lr"] for group in optimizer.hyperparameters()]


def metrics(seed, count=200):
    """Numbers that fall, rise, stand still, change sign, and now and then are none."""
    rng = random.Random(seed)
    value, found = 3.0, []
    for _ in range(count):
        value += rng.choice([0.0, 0.0, 1e-5, -1e-5, -1e-3, -0.3, 0.2])
        found.append(rng.choice([NAN, math.inf]) if rng.random() < 0.03 else value)
    return found


ARGUMENTS = [
    {},
    {"patience": 0},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "cooldown": 3},
    {"patience": 1, "threshold": 0.0},
    {"patience": 2, "threshold": 0.01, "threshold_mode": "abs"},
    {"patience": 1, "factor": 0.3, "min_lr": 0.004},
    {"patience": 1, "factor": 0.3, "min_lr": [0.004, 0.02]},
    {"patience": 1, "factor": 0.3, "min_lr": 0.5},
    {"patience": 0, "factor": 0.5, "eps": 0.003},
]


@pytest.mark.parametrize(("mode", "arguments"), [*itertools.product(("min", "max"), ARGUMENTS)], ids=str)
def test_pytorch(mode, arguments):
    torch = pytest.importorskip("torch")
    lowest = 0.1
    for seed in range(5):
        groups = [{"params": [torch.zeros(1)], "lr": lr} for lr in (0.1, 0.01)]
        theirs = torch.optim.SGD(groups)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode, **arguments)
        ours = optimizer_of(0.1 * parameter("first", 1.0), parameter("second", 0.01))
        plateau = ReduceLROnPlateau(ours, mode, name=["first", "second"], **arguments)
        for metric in metrics(seed):
            sign = 1 if mode == "min" else -1
            scheduler.step(sign * metric)
            plateau.step(sign * metric)
            assert rates(ours) == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12)
            for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
                assert getattr(plateau, name) == getattr(scheduler, name)
        lowest = min(lowest, *rates(ours))
    assert lowest < 0.01 or arguments.get("min_lr") == 0.5


def test_pytorch_with_one_parameter_for_all_groups():
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in (0.1, 0.01)])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=1, eps=0.0)
    ours = optimizer_of(0.1 * parameter("plateau", 1.0), 0.01 * parameter("plateau", 1.0))
    plateau = ReduceLROnPlateau(ours, patience=1, eps=0.0)
    for metric in metrics(7):
        scheduler.step(metric)
        plateau.step(metric)
        assert rates(ours) == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12)


@pytest.mark.parametrize(("max_patience", "scale"), [(1, 0.5), (3, 0.1)])
def test_thinc(max_patience, scale):
    """Its `plateau` waits for a score to rise by however little."""
    theirs = pytest.importorskip("thinc.schedules")
    for seed in range(5):
        schedule = theirs.plateau(max_patience, scale, theirs.decaying(0.1, 0.01))
        ours = optimizer_of(parameter("plateau", 1.0) * schedules.inverse_time_decay(0.1, 1, 0.01))
        plateau = ReduceLROnPlateau(ours, "max", scale, max_patience - 1, 0.0, "abs", eps=0.0)
        for step, score in enumerate(metrics(seed)):
            expected = schedule(step, last_score=(step, -score if step else 0.0))  # a first score of NaN stays its best
            plateau.step(-score if step else 0.0)
            assert rates(ours) == pytest.approx([expected], rel=1e-12)
            ours.step([np.zeros(1, np.float32)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 2},
        {"patience": 1, "rtol": 0.0, "atol": 1e-3, "factor": 0.5},
        {"patience": 1, "rtol": 0.01, "atol": 0.05, "cooldown": 2},
        {"patience": 1, "accumulation_size": 4},
        {"patience": 1, "factor": 0.3, "min_scale": 0.05},
    ],
    ids=str,
)
def test_optax(arguments):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    own = dict(arguments)
    own["patience"] -= 1
    own["threshold"] = own.pop("rtol", 1e-4)
    with jax.enable_x64(True):
        transformation = optax.contrib.reduce_on_plateau(**arguments)
        gradient = np.ones(1)
        state = transformation.init(gradient)
        update = jax.jit(lambda state, value: transformation.update(gradient, state, value=value)[1])
        ours = optimizer_of(0.1 * parameter("plateau", 1.0))
        plateau = ReduceLROnPlateau(ours, eps=0.0, **own)
        for metric in [*metrics(1), *metrics(2)]:
            state = update(state, metric)
            plateau.step(metric)
            assert ours.parameters()["plateau"] == pytest.approx(float(state.scale), rel=1e-12)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras on PyTorch
@pytest.mark.parametrize(("patience", "cooldown"), [(1, 0), (3, 0), (2, 1), (2, 3)])
def test_keras(patience, cooldown, monkeypatch):
    """Its callback reduces one bad metric earlier, and counts the last one of the cooldown."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    callback = keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience, mode="min", cooldown=cooldown)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    callback.set_model(model)
    callback.on_train_begin()
    ours = optimizer_of(parameter("plateau", 1.0))
    plateau = ReduceLROnPlateau(
        ours, factor=0.5, patience=patience - 1, threshold=1e-4, threshold_mode="abs", cooldown=max(cooldown - 1, 0)
    )
    for metric in metrics(3, 60):
        callback.on_epoch_end(0, {"loss": metric})
        plateau.step(metric)
        if float(model.optimizer.learning_rate) <= 1e-7:
            break
        assert ours.parameters()["plateau"] == pytest.approx(float(model.optimizer.learning_rate), rel=1e-6)


def test_with_a_schedule_and_a_bound():
    """Within a warm-up; the bound is part of the schedule."""
    ours = optimizer_of(maximum(schedules.linear_warmup(1.0, 4) * parameter("plateau", 1.0), 0.02))
    plateau = ReduceLROnPlateau(ours, patience=0)
    found = []
    for metric in (3.0, 3.0, 2.0, 3.0, 3.0, 3.0):
        found += rates(ours)
        ours.step([np.ones(1, np.float32)])
        plateau.step(metric)
    assert found == pytest.approx([0.02, 0.25, 0.05, 0.075, 0.02, 0.02], rel=1e-12)


def test_a_run_goes_on_from_its_state():
    make = {"patience": 1, "cooldown": 1, "accumulation_size": 3}
    first = optimizer_of(0.1 * parameter("plateau", 1.0))
    plateau = ReduceLROnPlateau(first, **make)
    sequence = metrics(4)
    for metric in sequence[:20]:
        plateau.step(metric)
    second = optimizer_of(0.1 * parameter("plateau", 1.0))
    second.load_state_dict(first.state_dict())
    resumed = ReduceLROnPlateau(second, **make)
    resumed.load_state_dict(plateau.state_dict())
    seen = set()
    for metric in sequence[20:]:
        plateau.step(metric)
        resumed.step(metric)
        assert first.parameters() == second.parameters()
        assert str(plateau.state_dict()) == str(resumed.state_dict())
        seen |= set(second.parameters().values())
    assert len(seen) > 2


@NEEDS_COMPILER
@pytest.mark.usefixtures("stand_in")
def test_a_rewrite_uploads_one_number_and_no_graph_is_captured_again():
    def rate():
        return parameter("plateau", 1.0) * schedules.sampled(lambda k: 1e-3 * (k + 1), 500)

    twins = adamw(lr=rate())
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream)
    for _ in range(3):
        graph.launch(stream)
        twins.host.step()
    with stream:
        plateaus = [ReduceLROnPlateau(own, patience=0, factor=0.5) for own in (twins.host, twins.device)]
        machine.copies.clear()
        for plateau in plateaus:
            plateau.step(1.0)
        assert machine.copies == []
        for plateau in plateaus:
            plateau.step(1.0)
        assert [size for _, size in machine.copies] == [8, 16]  # the number, and the word that it has changed
    graph.launch(stream)
    twins.host.step()
    stream.synchronize()
    twins.check()
    assert twins.device.hyperparameters()[0]["lr"] == pytest.approx(0.5 * 5e-3)


BAD = {
    "mode": ({"mode": "down"}, "mode is 'down'; allowed are"),
    "threshold_mode": ({"threshold_mode": "both"}, "threshold_mode is 'both'; allowed are"),
    "factor": ({"factor": 1.0}, "factor must be < 1, got 1.0"),
    "factor 0": ({"factor": 0.0}, "factor must be finite and > 0, got 0.0"),
    "patience": ({"patience": -1}, "patience is -1; allowed are whole numbers"),
    "patience 1.5": ({"patience": 1.5}, "patience is 1.5; allowed are whole numbers"),
    "cooldown": ({"cooldown": -1}, "cooldown is -1; allowed are whole numbers"),
    "accumulation_size": ({"accumulation_size": 0}, "accumulation_size must be >= 1, got 0"),
    "threshold": ({"threshold": NAN}, "threshold must be finite and >= 0, got nan"),
    "atol": ({"atol": -1.0}, "atol must be finite and >= 0, got -1.0"),
    "eps": ({"eps": -1.0}, "eps must be finite and >= 0, got -1.0"),
    "min_scale": ({"min_scale": -1.0}, "min_scale must be finite and >= 0, got -1.0"),
    "min_lr": ({"min_lr": -1.0}, "min_lr must be finite and >= 0, got -1.0"),
    "min_lr of another length": ({"min_lr": [0.0, 0.0]}, r"min_lr must be a number, or 1 as of name, got \[0.0, 0.0\]"),
    "name": ({"name": "scale"}, r"name is 'scale'; allowed are the named parameters of the optimizer, \['plateau'\]"),
    "no name": ({"name": []}, r"name must be a text, or a list of different ones, got \[\]"),
    "a name twice": ({"name": ["plateau"] * 2}, "name must be a text, or a list of different ones"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        ReduceLROnPlateau(optimizer_of(0.1 * parameter("plateau", 1.0)), **arguments)


@pytest.mark.parametrize(
    "own",
    [
        [schedules.cosine_decay(0.1, 10) * parameter("plateau", 1.0)],
        [0.1 * parameter("plateau", 1.0), 0.2 * parameter("plateau", 1.0)],
        [0.1 + parameter("plateau", 1.0)],
        [parameter("plateau", 1.0) * parameter("plateau", 1.0)],
    ],
    ids=["schedule", "two numbers", "sum", "square"],
)
def test_a_bound_of_what_is_no_number(own):
    with pytest.raises(ValueError, match=r"min_lr is 0.01, but 'plateau' is not multiplied by one and the same number"):
        ReduceLROnPlateau(optimizer_of(*own), min_lr=0.01)
    ReduceLROnPlateau(optimizer_of(*own))


def test_a_bound_of_numpy():
    plateau = ReduceLROnPlateau(optimizer_of(0.1 * parameter("plateau", 1.0)), min_lr=np.float32(0.0625), patience=0)
    for _ in range(3):
        plateau.step(1.0)
    assert plateau.optimizer.hyperparameters()[0]["lr"] == 0.0625


def test_bad_types():
    plateau = ReduceLROnPlateau(optimizer_of(0.1 * parameter("plateau", 1.0)))
    with pytest.raises(TypeError, match=r"metric must be a number, got '1\.0'"):
        plateau.step("1.0")
    with pytest.raises(TypeError, match=r"metric must be a number, got array\(\[1\., 1\.\]\)"):
        plateau.step(np.ones(2))
    with pytest.raises(TypeError, match="name must be a list, got 3"):
        ReduceLROnPlateau(plateau.optimizer, name=3)
    with pytest.raises(TypeError, match="optimizer must be one of gpuadam, got dict"):
        ReduceLROnPlateau({})
    with pytest.raises(ValueError, match=r"state_dict has \['best'\]; allowed are"):
        plateau.load_state_dict({"best": 1.0})
    good = plateau.state_dict()
    for key, bad, message in (
        ("best", "low", "best must be a number, got 'low'"),
        ("cooldown_counter", None, "cooldown_counter is None; allowed are whole numbers"),
        ("last_epoch", -1, "last_epoch is -1; allowed are whole numbers"),
        ("num_bad_epochs", 1.5, r"num_bad_epochs is 1\.5; allowed are whole numbers"),
        ("pending", 3, "pending must be a list, got 3"),
        ("pending", [0.0], r"pending must be a mean and a count, got \[0\.0\]"),
        ("pending", ["1", 0], "the mean of pending must be a number, got '1'"),
        ("pending", [0.0, -1], "the count of pending is -1; allowed are whole numbers"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            plateau.load_state_dict({**good, "best": 7.0, key: bad})
        assert plateau.state_dict() == good
    assert plateau.last_epoch == 0


def test_a_parameter_that_is_there_no_more():
    optimizer = optimizer_of(0.1 * parameter("plateau", 1.0))
    plateau = ReduceLROnPlateau(optimizer, patience=0)
    plateau.step(1.0)
    optimizer.set_hyperparameters(lr=0.1)
    with pytest.raises(ValueError, match=r"name is 'plateau', which the schedules hold no more; allowed are \[\]"):
        plateau.step(1.0)
    assert plateau.last_epoch == 1

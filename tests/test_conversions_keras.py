"""Every schedule of Keras as one of ours: its numbers in double, or a refusal by name."""

import inspect
import os
import re

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("torch", reason="PyTorch is not installed")
keras = pytest.importorskip("keras", reason="Keras is not installed")

from keras.optimizers import schedules as theirs  # noqa: E402

import gpuadam.keras  # noqa: E402
from gpuadam.keras import as_schedule  # noqa: E402

STEPS = range(250)
SCHEDULES = [
    "ExponentialDecay(0.1, 30, 0.5)",
    "ExponentialDecay(0.1, 30, 0.5, staircase=True)",
    "InverseTimeDecay(0.1, 30, 0.5)",
    "InverseTimeDecay(0.1, 30, 0.5, staircase=True)",
    "PolynomialDecay(0.1, 100)",
    "PolynomialDecay(0.1, 100, 0.02, 2.0)",
    "PolynomialDecay(0.1, 30, 0.01, 0.5, cycle=True)",
    "PiecewiseConstantDecay([30, 80], [0.1, 0.05, 0.2])",
    "CosineDecay(0.1, 100)",
    "CosineDecay(0.1, 100, alpha=0.2)",
    "CosineDecay(0.01, 100, alpha=0.1, warmup_target=0.1, warmup_steps=20)",
    "CosineDecay(0.01, 100, warmup_target=0.1, warmup_steps=0)",
    "CosineDecay(0.1, 100, warmup_steps=20)",
    "CosineDecayRestarts(0.1, 10)",
    "CosineDecayRestarts(0.1, 40, t_mul=1.0, m_mul=0.9)",
    "CosineDecayRestarts(0.1, 7, t_mul=1.5, m_mul=0.5, alpha=0.1)",
]


@pytest.fixture
def in_double():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("text", SCHEDULES)
def test_the_numbers(text):
    """But for the steps at which Keras restarts, which it looks for by a logarithm, and may miss."""
    schedule = eval(text, vars(theirs))
    ours = as_schedule(schedule)
    expected = np.array([float(schedule(np.float64(step))) for step in STEPS])
    distance = np.abs(ours(np.array(STEPS)) - expected)
    assert (distance > 1e-10 * expected.max()).sum() <= ("t_mul=1.5" in text)
    assert np.ptp(expected) > 0.05


def test_every_class_of_keras_converts_or_is_refused():
    classes = {name for name, kind in vars(theirs).items() if inspect.isclass(kind)}
    known = {kind.__name__ for kind in gpuadam.keras.FORMULAS}
    assert classes - known == {"LearningRateSchedule"}
    assert known == {re.match(r"\w+", text)[0] for text in SCHEDULES}


def test_what_is_refused():
    class Own(theirs.ExponentialDecay):
        def __call__(self, step):
            return 1.0

    for schedule, name in ((Own(0.1, 10, 0.5), "Own"), (theirs.LearningRateSchedule(), "LearningRateSchedule"),
                           (0.1, "float")):  # fmt: skip
        with pytest.raises(
            TypeError, match=rf"schedule must be one of keras\.optimizers\.schedules, got {name}: write"
        ):
            as_schedule(schedule)

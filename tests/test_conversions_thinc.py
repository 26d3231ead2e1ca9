"""Every schedule of thinc as one of ours: its numbers, or a refusal by name."""

import inspect
import re

import numpy as np
import pytest

theirs = pytest.importorskip("thinc.schedules", reason="thinc is not installed")

from thinc_cases import IS_9  # noqa: E402

if not IS_9:
    pytest.skip("thinc 9, whose schedules have formulas, is not installed", allow_module_level=True)

import gpuadam.thinc  # noqa: E402
from gpuadam.thinc import as_schedule  # noqa: E402

STEPS = range(400)
SCHEDULES = [
    "constant(0.1)",
    "constant_then(0.1, 10, decaying(0.2, 1e-2))",
    "constant_then(0.3, 5, constant_then(0.1, 10, warmup_linear(0.1, 20, 100)))",
    "decaying(0.1, 1e-2)",
    "decaying(0.1, 1e-2, t=5.0)",
    "compounding(1.0, 32.0, 1.05)",
    "compounding(0.1, 0.001, 0.95, t=5.0)",
    "warmup_linear(0.1, 10, 100)",
    "warmup_linear(0.1, 0, 100)",
    "slanted_triangular(0.1, 100)",
    "slanted_triangular(0.1, 105, cut_frac=0.25, ratio=8, t=3.0)",
    "cyclic_triangular(0.01, 0.1, 8)",
]


@pytest.mark.parametrize("text", SCHEDULES)
def test_the_numbers_over_the_run_and_beyond(text):
    schedule = eval(text, vars(theirs))
    expected = np.array([float(schedule(step)) for step in STEPS])
    assert np.abs(as_schedule(schedule)(np.array(STEPS)) - expected).max() <= 1e-10 * np.abs(expected).max()


def test_every_schedule_of_thinc_converts_or_is_refused():
    found = {name for name, make in vars(theirs).items()
             if inspect.isfunction(make) and inspect.signature(make).return_annotation is not inspect.Signature.empty
             and "Schedule" in str(inspect.signature(make).return_annotation)}  # fmt: skip
    assert found - set(gpuadam.thinc.FORMULAS) == {"plateau"}
    assert set(gpuadam.thinc.FORMULAS) == {name for text in SCHEDULES for name in re.findall(r"\w+(?=\()", text)}


def test_what_is_refused():
    plateau = theirs.plateau(3, 0.5, theirs.constant(0.1))
    message = r"plateau follows a score.*ReduceLROnPlateau\(optimizer, 'max', 0\.5, 2, 0\.0, 'abs', eps=0\.0\)"
    for schedule in (plateau, theirs.constant_then(0.1, 10, plateau)):
        with pytest.raises(TypeError, match=message):
            as_schedule(schedule)
    for name in ("own", "constant"):
        with pytest.raises(TypeError, match=rf"schedule must be one of thinc\.schedules, got '{name}': write"):
            as_schedule(theirs.Schedule(name, lambda schedule, step: 0.1 * step, attrs={"rate": 0.1}))
    with pytest.raises(TypeError, match=r"schedule must be one of thinc\.schedules, got float"):
        as_schedule(0.1)

"""Every schedule that has another name somewhere, on a device: the bits of the CPU for 100,000 steps."""

import device_evaluator
import equivalents
import pytest
from bfloat16 import ml_dtypes  # noqa: F401 (what is imported below needs it)
from cases import assert_same_bits
from test_schedule_bits import STEPS, TEXTS
from twins import MARKS

pytestmark = MARKS


@pytest.mark.parametrize("text", TEXTS)
def test_the_bits_of_100_000_steps(text, monkeypatch, tmp_path):
    kernel = device_evaluator.load_evaluator(monkeypatch, tmp_path)
    schedule = equivalents.evaluate(text)
    assert_same_bits(schedule(STEPS), device_evaluator.sample(kernel, schedule, STEPS), text)

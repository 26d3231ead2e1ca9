"""Every schedule that has another name somewhere: the same bits from Numba and from the kernel's own evaluator."""

import device_evaluator
import equivalents
import host_evaluator
import host_kernels
import numpy as np
import pytest
from cases import assert_same_bits
from equivalents_page import homes

pytestmark = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")

ROWS = [row for home in homes(equivalents) for row in home.ROWS]
TEXTS = sorted({row.here for row in ROWS if "accumulator(" not in row.here})  # those need a clock that ticks: test_bits
STEPS = np.concatenate([np.arange(100_000), 2**31 + np.arange(-2, 3), 2**40 + np.arange(-2, 3)])


@pytest.mark.parametrize("text", TEXTS)
def test_the_bits_of_100_000_steps(text):
    schedule = equivalents.evaluate(text)
    ours = schedule(STEPS)
    assert_same_bits(ours, host_evaluator.sample(schedule, STEPS), text)
    assert np.isfinite(ours).all()


def test_one_operation_in_another_order_is_seen():
    schedule = equivalents.evaluate("cosine_decay(0.1, 100_000)")
    patch = host_kernels.planted(
        "exact_math.cuh", "copysign(1.0, x) * sin_turn", "copysign(1.0000000000000002, x) * sin_turn"
    )
    assert (schedule(STEPS) != host_evaluator.sample(schedule, STEPS, patch)).any()


def test_the_evaluator_that_a_device_runs_compiles(monkeypatch):
    pytest.importorskip("cupy", reason="CuPy, which has the binding of NVRTC, is not installed")
    assert device_evaluator.compile_evaluator(monkeypatch, 90)[:4] == b"\x7fELF"

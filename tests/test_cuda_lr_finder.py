"""The range test by `gpuadam.cuda` on the stand-in for CuPy: the same history, everything back, and captured graphs."""

import fake_cupy
import numpy as np
import pytest
from cases import LR
from fake_twins import (
    NEEDS_COMPILER,
    Twins,
    adamw,
    capture,
    numbers,
    stand_in,  # noqa: F401 (a fixture)
    to_device,
)
from recipe_modes import MODES

import gpuadam
from gpuadam import LRFinder

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


def range_tests(twins, grads_of, **settings):
    """The test on both; their histories."""
    found = []
    for optimizer, place in ((twins.host, np.asarray), (twins.device, to_device)):
        calls = []

        def train_step(optimizer=optimizer, place=place, calls=calls):
            calls.append(1)
            optimizer.step([None if grad is None else place(grad) for grad in grads_of(len(calls))])
            return 1 / len(calls)

        finder = LRFinder(optimizer)
        finder.range_test(train_step, start_lr=1e-4, end_lr=0.1, num_iter=6, **settings)
        found.append(finder.history)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_brought_back(mode):
    dtype, grad_dtype, settings = MODES[mode]
    shapes = [(1031,), (67, 71), (5,)]
    untested, twins = (
        Twins(gpuadam.AdamW, [numbers(i, shape, dtype) for i, shape in enumerate(shapes)], lr=LR, **settings)
        for _ in range(2)
    )

    def grads_of(k, rests=None):
        return [None if i == rests else numbers(100 * k + i, shape, grad_dtype) for i, shape in enumerate(shapes)]

    def step(own, k, rests=None):
        own.host.step(grads_of(k, rests))
        own.device.step([None if grad is None else to_device(grad) for grad in grads_of(k, rests)])

    for k in range(3):
        step(untested, k, rests=k % 2)
        step(twins, k, rests=k % 2)
    ours, theirs = range_tests(twins, lambda k: grads_of(50 + k, rests=2))
    assert ours == theirs
    assert len(ours["lr"]) == 6
    for k in range(3, 6):
        step(untested, k)
        step(twins, k)
    twins.check()
    for expected, mirror in zip(untested.params, twins.mirrors, strict=True):
        assert expected.tobytes() == mirror.get().tobytes()


def test_a_graph_is_trained_with_and_goes_on():
    """The ramp moves in replays, and afterwards they go on from where they were."""
    twins = adamw()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream)
    for _ in range(2):
        graph.launch(stream)
        twins.host.step()

    def replay():
        graph.launch(stream)
        return 1.0

    with stream:
        finder = LRFinder(twins.device)
        finder.range_test(replay, start_lr=1e-4, end_lr=0.1, num_iter=6)
    np.testing.assert_allclose(finder.history["lr"], np.geomspace(1e-4, 0.1, 6), rtol=1e-14)
    for _ in range(3):
        graph.launch(stream)
        twins.host.step()
    stream.synchronize()
    twins.check()


def test_a_range_test_in_a_capture_is_refused():
    twins = adamw()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="captured"):
            LRFinder(twins.device).range_test(lambda: 1.0)
        stream.end_capture()
    twins.check()

"""`gpuadam.cuda` on the stand-in for CuPy: the order of work on several streams, captured graphs, held steps."""

from concurrent.futures import ThreadPoolExecutor

import fake_cupy
import numpy as np
import pytest
from cases import LR
from fake_device import machine
from fake_twins import (
    NEEDS_COMPILER,
    adamw,
    capture,
    numbers,
    stand_in,  # noqa: F401 (a fixture)
    to_device,
    until_step,
)

import gpuadam
from gpuadam import ScheduleError, cuda, schedules

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


# ---- streams


def run_on_streams():
    twins = adamw()
    streams = [fake_cupy.cuda.Stream(non_blocking=True) for _ in range(2)] + [fake_cupy.cuda.Stream.null]
    for k in range(9):
        with streams[k % 3]:
            if k % 2:
                twins.both("set_hyperparameters", lr=0.01 * (k + 1))
            twins.both("step")
    with streams[0]:
        twins.check()


def test_steps_on_several_streams_are_ordered():
    run_on_streams()


def test_that_a_missing_wait_would_be_seen(monkeypatch):
    monkeypatch.setattr(fake_cupy.Stream, "wait_event", lambda stream, event: None)
    with pytest.raises(AssertionError):
        run_on_streams()


def test_a_load_waits_for_the_steps_on_another_stream():
    twins = adamw()
    twins.both("step")
    saved = twins.host.state_dict()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    with stream:
        twins.both("step")
    with fake_cupy.cuda.Stream(non_blocking=True):
        twins.both("load_state_dict", saved)
        twins.both("step")
        twins.check()


def test_steps_in_several_threads_are_ordered():
    twins = adamw()

    def work(k):
        with fake_cupy.cuda.Stream(non_blocking=True):
            twins.both("set_hyperparameters", lr=0.01 * (k + 1))
            twins.both("step")

    with ThreadPoolExecutor(1) as pool:
        for k in range(4):
            (work(k) if k % 2 else pool.submit(work, k).result())
    twins.check()


# ---- captures


@pytest.mark.parametrize("mode", [None, 0], ids=["relaxed", "global"])
def test_a_captured_graph_replays_a_whole_schedule(mode):
    scale = schedules.parameter("scale", 1.0)
    twins = adamw(lr=schedules.cosine_decay(0.1, 20) * scale)
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream, mode)
    assert [launch.is_captured for launch in machine.launches] == [True]
    for change in (lambda: twins.both("set_parameter", "scale", 0.5), lambda: twins.both("set_hyperparameters", lr=LR)):
        for _ in range(10):
            graph.launch(stream)
            twins.host.step()
        change()
    for _ in range(3):
        graph.launch(stream)
        twins.host.step()
    with stream:
        twins.both("step")
    twins.check()
    assert twins.device.state_dict()["groups"][0]["step"] == 24


def change_and_replay_by_turns():
    """The stream of the graph waits for changes that were made under another one, and the other way round."""
    twins = adamw()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream)
    for k in range(4):
        twins.both("set_hyperparameters", lr=0.01 * (k + 1))
        graph.launch(stream)
        twins.both("step")
        graph.launch(stream)
        twins.host.step()
        twins.host.step()
    stream.synchronize()
    twins.check()


def test_changes_and_replays_on_different_streams_are_ordered():
    change_and_replay_by_turns()


def test_that_a_graph_that_does_not_wait_would_be_seen(monkeypatch):
    monkeypatch.setattr(cuda.Tables, "_leave", lambda tables, stream: None)
    with pytest.raises(AssertionError):
        change_and_replay_by_turns()


def test_nothing_may_change_while_a_stream_is_captured():
    twins = adamw()
    other = [to_device(numbers(9, mirror.shape, np.float32)) for mirror in twins.mirrors]
    state = twins.host.state_dict()
    before = len(machine.copies)
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        for change in (
            lambda: twins.device.bind(other),
            lambda: twins.device.step(other),
            lambda: twins.device.set_hyperparameters(lr=0.1),
            lambda: twins.device.load_state_dict(state),
            twins.device.state_dict,
            twins.device.hyperparameters,
        ):
            with pytest.raises(RuntimeError, match=r"captured.*bind the gradients.*before the capture"):
                change()
        twins.device.step()
        graph = stream.end_capture()
    assert len(machine.copies) == before
    graph.launch(stream)
    twins.host.step()
    twins.check()


def test_a_capture_does_not_outrun_another_stream():
    """A graph cannot wait for work outside it; so the work must be over, or have been on the stream of the graph."""
    twins = adamw()
    twins.both("step")
    streams = [fake_cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    with pytest.raises(RuntimeError, match=r"call hyperparameters\(\)"):
        capture(twins.device, streams[0])
    twins.device.hyperparameters()
    capture(twins.device, streams[0]).launch(streams[0])
    twins.host.step()
    twins.both("set_hyperparameters", lr=0.2)
    graph = capture(twins.device, streams[0])  # this stream was made to wait
    with pytest.raises(RuntimeError, match=r"call hyperparameters\(\)"):
        capture(twins.device, streams[1])
    graph.launch(streams[0])
    twins.host.step()
    streams[0].synchronize()
    twins.check()


def test_an_optimizer_is_not_made_in_a_capture():
    """Its tables would be filled by the graph, and never before."""
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    param = fake_cupy.zeros(3, np.float32)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="Capture"):
            gpuadam.AdamW([param])
        stream.end_capture()


def test_a_step_beside_a_capture_stays_out_of_it():
    twins = adamw()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        twins.device.step()
        with fake_cupy.cuda.Stream.null:
            twins.both("step")
        graph = stream.end_capture()
    assert len(graph.actions) == 1
    graph.launch(stream)
    twins.host.step()
    stream.synchronize()
    twins.check()


# ---- held steps


def steps_until_the_error(optimizer):
    """How many steps went through, and what the next one raised."""
    for count in range(1000):
        try:
            optimizer.step()
        except ScheduleError as error:
            return count, str(error)
    return None


def test_a_schedule_that_turns_nan_holds_the_steps():
    twins = adamw(lr=until_step(5))
    told = steps_until_the_error(twins.host)
    found = steps_until_the_error(twins.device)
    assert "lr of group 0 would be nan at step 5" in told[1]
    assert told[0] == 5
    assert cuda.POLL <= found[0] < 5 + 2 * cuda.POLL
    assert found[1] == told[1]
    launches = len(machine.launches)
    with pytest.raises(ScheduleError):
        twins.device.step()
    assert len(machine.launches) == launches
    twins.check()
    twins.both("set_hyperparameters", lr=0.1)
    for _ in range(3):
        twins.both("step")
    twins.check()


def test_a_held_step_is_told_at_once_to_who_asks():
    twins = adamw(lr=until_step(2))
    twins.both("step")
    assert twins.device.hyperparameters()[0]["lr"] == 0.1
    twins.both("step")
    for optimizer in (twins.host, twins.device):
        with pytest.raises(ScheduleError, match="at step 2"):
            optimizer.hyperparameters()
    twins.device.step()
    twins.both("set_hyperparameters", lr=0.1)
    twins.both("step")
    twins.check()


def test_replays_of_a_graph_are_held_too():
    twins = adamw(lr=until_step(2))
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream)
    for _ in range(5):
        graph.launch(stream)
    for _ in range(2):
        twins.host.step()
    with pytest.raises(ScheduleError, match="at step 2"):
        twins.device.hyperparameters()
    twins.check()
    twins.both("set_hyperparameters", lr=0.1)
    graph.launch(stream)
    twins.host.step()
    twins.check()


def test_a_launch_that_fails_is_told_of_at_once_if_asked(monkeypatch):
    monkeypatch.setenv("GPUADAM_SYNC", "1")
    twins = adamw(7)
    twins.device.step()

    def fail(stream):
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(fake_cupy.cuda.Stream, "synchronize", fail)
    with pytest.raises(RuntimeError, match=r"cudaErrorIllegalAddress.*half written.*last checkpoint"):
        twins.device.step()
    with pytest.raises(RuntimeError, match="a step was interrupted"):
        twins.device.step()


def test_a_step_waits_for_nothing_unless_asked():
    twins = adamw(7)
    twins.device.step()
    before = machine.synchronisations
    twins.device.step()
    assert machine.synchronisations == before


def test_a_child_of_the_process_that_made_an_optimizer_is_refused(monkeypatch):
    twins = adamw(7)
    twins.device.step()
    with monkeypatch.context() as child:
        child.setattr("gpuadam.engine.os.getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="does not survive a fork into process -1: start processes by 'spawn'"):
            twins.device.step()
    twins.device.step()

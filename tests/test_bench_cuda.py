"""`bench` on a GPU, as far as it needs none: the stand-in for CuPy does the work, as late as a device may."""

import json
import time

import fake_cupy
import numpy as np
import pytest
from fake_device import machine
from fake_twins import NEEDS_COMPILER, stand_in  # noqa: F401 (a fixture)

import gpuadam
from gpuadam import bench_cases, bench_command, bench_cuda, cli, cuda
from gpuadam.bench_cases import make_cases, make_step
from gpuadam.workloads import uniform

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


@pytest.fixture
def small(monkeypatch):
    """Short batches and small buffers."""
    monkeypatch.setattr(bench_cuda, "BATCH", 1e-4)
    monkeypatch.setattr(bench_cuda, "ARRAY", 2**18)


def test_the_time_of_the_device_is_told_apart_from_the_hosts():
    def step():
        machine.current_queue().put(lambda work: time.sleep(4e-3))
        end = time.perf_counter() + 4e-3
        while time.perf_counter() < end:
            pass

    found = bench_cuda.GPU().sampler(step)()
    assert min(found["seconds"], found["host_seconds"]) >= 4e-3
    assert found["seconds"] < 7e-3
    assert found["wall_seconds"] >= 8e-3  # the stand-in begins when it is waited for


def test_streams_are_of_arrays_that_no_cache_holds(small):
    streams = bench_cuda.GPU().streams()
    machine.copies.clear()
    streams["copy"].run()
    ((kind, size),) = machine.copies
    assert kind == fake_cupy.runtime.memcpyDeviceToDevice
    assert streams["copy"].moved == 2 * size
    assert size >= 4 * fake_cupy.L2


def test_the_cache_is_emptied_before_each_step():
    device, steps = bench_cuda.GPU(), []
    sample = device.sampler(lambda: steps.append(len(machine.launches)))
    steps.clear()
    machine.launches.clear()
    sample()
    assert {launch.name for launch in machine.launches} == {"stream_read"}
    apart = len(machine.launches)
    assert steps == [*range(1, apart + 1), *((apart + 1) * [apart])]


def stepped(xp, monkeypatch):
    """The parameters of a case after some steps."""
    made = []

    class Noted(gpuadam.AdamW):
        def __init__(self, params, **settings):
            super().__init__(params, **settings)
            made.extend(params)

    monkeypatch.setitem(bench_cases.OPTIMIZERS, "adamw", Noted)
    (case,) = make_cases([uniform(3, 1500)], "adamw", "float32", ["all"], {})
    made.clear()
    step = make_step(case, xp)
    for _ in range(3):
        step()
    return made


def test_the_steps_are_those_of_the_cpu(monkeypatch):
    for here, there in zip(stepped(np, monkeypatch), stepped(fake_cupy, monkeypatch), strict=True):
        np.testing.assert_array_equal(here, there.get())


def test_a_run_on_the_gpu(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_command, "unavailable_reason", cuda.unavailable_reason)
    path = tmp_path / "a.json"
    options = ["--tensors", "1,3", "--sizes", "1000", "--quick", "--seconds", "0.001", "--json", str(path)]
    assert cli.main(["bench", "--backend", "cuda", *options]) == 0
    result = json.loads(path.read_text())
    assert (result["backend"], result["machine"]["device"]) == ("cuda", "stand-in")
    for case in result["cases"]:
        assert set(case["memory_bytes_per_second"]) == {"copy", "copy kernel", "triad", "scale"}
        assert not case["in_cache"]
        assert case["bytes_per_second"]["max"] == pytest.approx(28 * case["elements"] / case["seconds"]["min"])
        assert 0 < case["host_seconds"]["median"] <= case["wall_seconds"]["max"]
    output = capsys.readouterr().out
    assert "of the host" in output
    assert output.startswith("AdamW, float32, gradients bound; stand-in")


def test_what_does_not_fit_on_the_gpu_is_left_out(small, monkeypatch, tmp_path):
    path = tmp_path / "a.json"
    monkeypatch.setattr(fake_cupy.runtime, "memGetInfo", lambda: (10**6, 10**7))
    options = ["--sizes", "100,1e5", "--quick", "--seconds", "0.001", "--json", str(path)]
    assert cli.main(["bench", "--backend", "cuda", *options]) == 0
    result = json.loads(path.read_text())
    assert [case["case"] for case in result["cases"]] == ["1x100"]
    assert [*result["left_out"]] == ["one tensor of 100,000"]


def test_a_gpu_has_no_threads_to_choose(capsys):
    assert cli.main(["bench", "--backend", "cuda", "--threads", "1"]) == 2
    assert "argument --threads" in capsys.readouterr().err

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
    monkeypatch.setattr(bench_cuda, "PIECE", 2**18)


def test_the_time_of_the_device_is_told_apart_from_the_hosts():
    def step():
        machine.current_queue().put(lambda work: time.sleep(4e-3))
        end = time.perf_counter() + 4e-3
        while time.perf_counter() < end:
            pass

    found = bench_cuda.GPU().sampler(step)()
    assert min(found["seconds"], found["host_seconds"]) >= 4e-3
    assert found["wall_seconds"] == pytest.approx(found["seconds"] + found["host_seconds"], rel=0.1)


def test_the_copy_moves_what_it_says(small):
    device = bench_cuda.GPU()
    (stream,) = device.streams().values()
    stream.run()
    size = sum(size for kind, size in machine.copies if kind == fake_cupy.runtime.memcpyDeviceToDevice)
    assert stream.moved == 2 * size
    assert size >= 4 * device.cache


@pytest.mark.parametrize(
    ("tensors", "size", "sets"),
    [(1, 10**6, 1), (1, 4096, 4), (1, 10, bench_cuda.MOST_SETS), (10_000, 1, 2), (30_000, 1, 1)],
)
def test_sets_in_turn_leave_nothing_in_the_cache(tensors, size, sets):
    (case,) = make_cases([uniform(tensors, size)], "adamw", "float32", ["plain"], {})
    assert bench_cuda.GPU().sets(case.held, tensors) == sets


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
    step = make_step(case, xp, 1)
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
        assert set(case["memory_bytes_per_second"]) == {"copy"}
        assert case["sets_in_turn"] == -(-4 * fake_cupy.L2 // case["bytes_held"])
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

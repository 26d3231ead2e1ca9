"""`gpuadam.cuda` on the stand-in for CuPy: bits, launches, uploads, memory, devices, and the kernels on disk."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from cases import LR, assert_same_bits
from fake_device import machine
from fake_twins import (
    NEEDS_COMPILER,
    Twins,
    adamw,
    arrays,
    assert_same_state,
    forget,
    numbers,
    stand_in,  # noqa: F401 (a fixture)
    to_device,
    until_step,
)

import gpuadam
from gpuadam import cuda, cuda_memory, expressions, nvrtc, schedules
from gpuadam.adam_rules import ADAM
from gpuadam.formats import Specialisation
from gpuadam.tables import LAUNCH

ADAMW = nvrtc.step_kernel(Specialisation(ADAM, "float32", "float32", ("float32", "float32", None)))
ROOT = Path(__file__).parents[1]
pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


# ---- bits


RULES = {
    "adam": (gpuadam.Adam, {"weight_decay": 0.05}),
    "adamw amsgrad raw": (gpuadam.AdamW, {"amsgrad": True}),
    "adamw amsgrad corrected": (gpuadam.AdamW, {"amsgrad": "corrected", "maximize": True, "eps_placement": "hat"}),
    "lamb": (gpuadam.LAMB, {"eps": 1e-3, "always_adapt": False}),
    "nadam": (gpuadam.NAdam, {"eps": 1e-3, "betas": (0.8, 0.95)}),
    "sgd": (gpuadam.SGD, {}),
    "sgd nesterov": (gpuadam.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (gpuadam.RMSprop, {"eps": 1e-3}),
    "rmsprop centered momentum": (gpuadam.RMSprop, {"centered": True, "momentum": 0.9, "lr_placement": "inside"}),
    "rmsprop tensorflow": (gpuadam.RMSprop, {"initial_square_avg": 1.0, "eps_placement": "inside", "momentum": 0.5}),
}


def two_groups(params):
    """Both formats in the first group, float64 in the second."""
    return [{"params": params[:10]}, {"params": params[10:], "lr": 0.02, "weight_decay": 0.01}]


@pytest.mark.parametrize("name", RULES)
def test_the_bits_are_those_of_the_cpu(name):
    """Both formats in one optimizer, groups, a schedule, gradients that are missing or move."""
    make, options = RULES[name]
    twins = Twins(make, arrays(0), two_groups, lr=LR, **options)
    for k in range(5):
        grads = arrays(100 + k)
        twins.step([None if k in (1, 2) and i % 3 == k else grad for i, grad in enumerate(grads)])
    twins.check()
    twins.both("set_hyperparameters", group=1, lr=0.3)
    twins.both("step")
    twins.check()


def test_a_state_goes_from_one_backend_to_the_other():
    def accumulating():
        return schedules.step * 1e-3 + expressions.accumulator("sum", 0.0, lambda value: value * 0.5 + 1e-3)

    twins = Twins(gpuadam.AdamW, arrays(0), lr=accumulating(), amsgrad=True)
    twins.step([grad if i % 4 else None for i, grad in enumerate(arrays(1))])
    twins.step(arrays(2))
    crossed = Twins(gpuadam.AdamW, [param.copy("K") for param in twins.params], lr=accumulating(), amsgrad=True)
    crossed.host.load_state_dict(twins.device.state_dict())
    crossed.device.load_state_dict(twins.host.state_dict())
    for k in range(3):
        twins.step(arrays(3 + k))
        crossed.step(arrays(3 + k))
    twins.check()
    crossed.check()
    assert_same_state(twins.host.state_dict(), crossed.host.state_dict())


# ---- launches and uploads


def test_a_step_is_one_launch_for_each_format_and_nothing_else():
    twins = Twins(gpuadam.AdamW, arrays(0), two_groups, lr=LR)
    twins.bind(arrays(1))
    machine.copies.clear()
    for _ in range(20):
        twins.both("step")
    assert machine.copies == []
    assert len(machine.launches) == 40
    assert {launch.name.split("_")[1] for launch in machine.launches} == {"float32", "float64"}
    assert len({(launch.name, launch.grid, launch.argument) for launch in machine.launches}) == 2
    records = [np.frombuffer(launch.argument, LAUNCH)[0] for launch in machine.launches[:2]]
    grids = [launch.grid[0] for launch in machine.launches[:2]]
    assert [record["blocks"] for record in records] == [sum(grids)] * 2
    covered = [record["chunks_per_block"] * grid for record, grid in zip(records, grids, strict=True)]
    assert all(record["chunk_count"] <= n for record, n in zip(records, covered, strict=True))
    twins.check()


@pytest.mark.parametrize("processors", [1, 200])
def test_the_grid_fills_the_device_and_no_more(processors):
    machine.processors = processors
    twins = adamw(40_000)
    twins.both("step")
    assert machine.launches[-1].grid == ((4,) if processors == 1 else (40,))
    twins.check()


def test_an_optimizer_without_elements_still_counts_its_steps():
    twins = adamw(0, 0)
    for _ in range(3):
        twins.both("step")
    assert machine.launches[-1].grid == (1,)
    twins.check()
    assert twins.device.state_dict()["groups"][0]["step"] == 3


def test_an_empty_upload_and_one_beyond_the_table():
    tables = adamw().device._engine.tables
    tables.upload("clocks", 0, tables.download("clocks")[:0])
    with pytest.raises(RuntimeError, match="'revision' has room for 1 rows, not for 2"):
        tables.upload("revision", 1, tables.download("revision"))


def test_changes_before_every_step():
    twins = adamw()
    twins.both("step")
    for k in range(cuda_memory.RING):
        twins.both("set_hyperparameters", lr=0.01 * (k + 1))
        twins.both("step")
    twins.check()


def upload_many():
    """More uploads than the ring has places, of many sizes."""
    upload, stream = cuda_memory.Upload(), fake_cupy.cuda.Stream(non_blocking=True)
    sources = [numbers(k, 1 + 97 * (k * 7 % 11), np.float64) for k in range(5 * cuda_memory.RING)]
    with stream:
        targets = [fake_cupy.zeros(source.nbytes, np.uint8) for source in sources]
        for target, source in zip(targets, sources, strict=True):
            upload(target.data.ptr, source, stream)
        for target, source in zip(targets, sources, strict=True):
            assert target.get().tobytes() == source.tobytes()


def test_more_uploads_than_the_ring_has_places():
    upload_many()


def test_that_a_place_of_the_ring_taken_too_early_would_be_seen(monkeypatch):
    monkeypatch.setattr(fake_cupy.Event, "synchronize", lambda event: None)
    with pytest.raises(AssertionError):
        upload_many()


# ---- memory and devices


class Tensor:
    """An array that may move, as PyTorch's: its address is asked for before every step."""

    def __init__(self, array):
        self.array = array

    def __getattr__(self, name):
        return getattr(self.array, name)

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__

    def stride(self):
        return self.array.strides

    def data_ptr(self):
        return self.array.data.ptr

    def move(self):
        self.array = fake_cupy.asarray(self.array.get())


def test_arrays_that_move_are_found():
    param, grad = numbers(0, 1100, np.float32), numbers(1, 1100, np.float32)
    tensors = [Tensor(fake_cupy.asarray(param)), Tensor(fake_cupy.asarray(grad))]
    host, device = gpuadam.AdamW([param], lr=LR), gpuadam.AdamW(tensors[:1], lr=LR)
    host.bind([grad])
    device.bind(tensors[1:])
    for k in range(6):
        if k:
            tensors[k % 2].move()
        host.step()
        device.step()
    assert_same_bits(param, tensors[0].get())
    assert_same_state(host.state_dict(), device.state_dict())


def test_what_is_bound_is_kept_alive_and_no_longer():
    params = [fake_cupy.asarray(numbers(0, 5000, np.float32))]
    grads = [fake_cupy.asarray(numbers(1, 5000, np.float32))]
    optimizer = gpuadam.AdamW(params)
    optimizer.bind(grads)
    del params, grads
    gc.collect()
    optimizer.step()
    optimizer.state_dict()
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    assert [block.size for block in machine.blocks if block.device is not None and block.freed_at == np.inf] == []


def drop_optimizers_with_copies_under_way():
    for _ in range(3):
        twins = adamw(lr=until_step(1000))
        for _ in range(cuda.POLL):  # the last one asks for the progress
            twins.device.step()
        twins.device.set_hyperparameters(lr=0.2)
        del twins
        gc.collect()
    fake_cupy.cuda.Device().synchronize()


def test_pinned_memory_outlives_the_copies_that_use_it():
    drop_optimizers_with_copies_under_way()
    assert cuda.retired
    assert cuda.new_slot(8)[0].size() == 512
    assert not cuda.retired


def test_that_pinned_memory_given_back_too_early_would_be_seen(monkeypatch):
    monkeypatch.setattr(cuda, "weakref", SimpleNamespace(finalize=lambda *_: None))
    with pytest.raises(AssertionError, match="was freed before"):
        drop_optimizers_with_copies_under_way()


def test_arrays_are_aligned_and_states_lie_as_their_parameter():
    twins = Twins(gpuadam.AdamW, arrays(0), lr=LR)
    for own, param in zip(twins.device._engine.tensors.arrays, twins.params, strict=True):
        for array in own.values():
            if array is not None:
                assert array.data.ptr % 64 == 0
                assert array.strides == param.strides or param.size < 2


def test_another_device_than_the_current_one():
    elsewhere = fake_cupy.cuda.Device(1)
    with elsewhere:
        twins = adamw(bound=False)
        grads = [to_device(numbers(3, mirror.shape, np.float32)) for mirror in twins.mirrors]
        stream = fake_cupy.cuda.Stream(non_blocking=True)
    with fake_cupy.cuda.Stream(non_blocking=True):  # of device 0
        optimizer = gpuadam.AdamW(twins.mirrors, lr=LR)
        optimizer.bind(grads)
        for _ in range(3):
            optimizer.step()
        twins.device = optimizer
        optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        twins.host.step([numbers(3, param.shape, np.float32) for param in twins.params])
    twins.check()
    with elsewhere, stream:
        stream.begin_capture()
        with fake_cupy.cuda.Device(0), pytest.raises(RuntimeError, match="captured"):
            optimizer.set_hyperparameters(lr=0.1)
        with fake_cupy.cuda.Device(0):
            optimizer.step()
        graph = stream.end_capture()
        graph.launch()
    twins.host.step()
    twins.check()
    assert machine.device == 0


# ---- no CUDA


def test_without_cupy_the_reason_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'gpuadam[cuda13]'" in cuda.unavailable_reason()
    with pytest.raises(RuntimeError, match=r"backend 'cuda' is not available: CuPy cannot be imported"):
        gpuadam.Adam([], backend="cuda")


def test_without_a_device_the_reason_says_so():
    machine.device_count = 0
    assert cuda.unavailable_reason() == "CuPy finds no CUDA device"
    forget()
    machine.device_count = -1
    assert "no CUDA driver or device (cudaErrorNoDevice" in cuda.unavailable_reason()
    machine.device_count = 2
    with pytest.raises(RuntimeError, match="cudaErrorNoDevice"):
        cuda.require()


def test_without_a_driver_the_reason_is_the_one_of_cupy():
    code = "from gpuadam import cuda; print(cuda.unavailable_reason())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.startswith(("CuPy finds no CUDA", "CuPy cannot be imported")), done.stderr


def test_numpy_arrays_are_not_taken_to_the_device():
    with pytest.raises(ValueError, match="nothing is copied in silence"):
        gpuadam.Adam([numbers(0, 3, np.float32)], backend="cuda")
    with pytest.raises(ValueError, match="nothing is copied in silence"):
        gpuadam.Adam([fake_cupy.zeros(3, np.float32)], backend="cpu")


# ---- kernels on disk


def test_a_kernel_that_does_not_compile_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path))
    broken = {**nvrtc.sources(), "rules.cuh": "#error deliberately broken"}
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "sources", lambda: broken)
        with pytest.raises(nvrtc.KernelCompileError, match=r"(?s)-arch=sm_90 .*-DKERNEL=adam_.*deliberately broken"):
            adamw()
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--no-such-option"))
        with pytest.raises(nvrtc.KernelCompileError, match="no-such-option"):
            adamw()
    with monkeypatch.context() as patch:
        patch.setattr(fake_cupy.Device, "compute_capability", "12")
        with pytest.raises(nvrtc.KernelCompileError, match="-arch=sm_12 "):
            adamw()
    assert list(tmp_path.iterdir()) == []
    adamw()


def test_the_kept_kernel_is_keyed_by_options_and_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(nvrtc, "compile_kernel", lambda *_: (b"\x7fELF", ""))
    paths = [nvrtc.cubin_path(ADAMW, 90), nvrtc.cubin_path(ADAMW, 100)]
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "-lineinfo"))
    paths.append(nvrtc.cubin_path(ADAMW, 90))
    other = type("Compiler", (), {"getVersion": staticmethod(lambda: (99, 0))})
    monkeypatch.setattr(nvrtc, "load_nvrtc", lambda: other)
    paths.append(nvrtc.cubin_path(ADAMW, 90))
    assert len(set(paths)) == 4
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_threads_may_make_the_same_kernel_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path / "made" / "on demand"))
    barrier, replace = threading.Barrier(8), os.replace
    monkeypatch.setattr(nvrtc, "compile_kernel", lambda *_: (barrier.wait(), (b"\x7fELF" + bytes(100_000), ""))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (barrier.wait(), replace(*paths)))
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: nvrtc.cubin_path(ADAMW, 90), range(8)))
    (path,) = paths
    assert len(path.read_bytes()) == 100_004
    assert list(path.parent.iterdir()) == [path]


def test_processes_may_make_the_same_kernel_at_once(tmp_path):
    code = (
        "from gpuadam import adam_rules, formats, nvrtc; "
        "kind = formats.Specialisation(adam_rules.ADAM, 'float32', 'float32', ('float32', 'float32', None)); "
        "print(nvrtc.cubin_path(nvrtc.step_kernel(kind), 90))"
    )
    environment = {**os.environ, "GPUADAM_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) for _ in "ab"]
    printed = {process.communicate()[0].strip() for process in started}
    assert printed == {str(path) for path in tmp_path.iterdir()}
    assert [process.returncode for process in started] == [0, 0]


@pytest.mark.parametrize("name", ["", "below"])
def test_a_cache_that_is_no_folder_is_an_error_that_says_what_to_do(name, monkeypatch, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(path / name))
    with pytest.raises(nvrtc.KernelCompileError, match="set GPUADAM_CACHE_DIR to a folder to write to"):
        adamw()

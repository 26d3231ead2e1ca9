"""Whether the stand-in for CuPy has the real one's names and signatures, and shows what it is there to show."""

import gc
import inspect
import operator
import re
import sys
from pathlib import Path

import fake_cupy
import fake_device
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from fake_device import CUDARuntimeError, machine

from gpuadam import cuda, cuda_memory

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
OURS = {"queue"}  # names of the stand-in that CuPy has not


@pytest.fixture(autouse=True)
def _fresh():
    fake_device.reset()


def parameters(function) -> list[str]:
    """Names of a function's parameters; Cython has them in the first line of its docstring."""
    try:
        return [name for name in inspect.signature(function).parameters if name != "self"]
    except ValueError:
        listed = re.search(r"\((.*?)\)(?: ->|$|\n)", function.__doc__, re.DOTALL)[1].replace("\\", "")
        names = [part.split("=")[0].split()[-1] for part in listed.split(",") if part.strip()]
        return [name for name in names if name not in ("self", "*")]


def pairs():
    """Every public function of the stand-in, and the real one."""
    for name in ("empty", "zeros", "asarray", "get_default_memory_pool"):
        yield name, getattr(fake_cupy, name), getattr(cupy, name)
    for name in ("get", "set", "view", "fill", "copy", "astype"):
        yield name, getattr(fake_cupy.ndarray, name), getattr(cupy.ndarray, name)
    for name in ("Event", "Stream", "Device", "alloc_pinned_memory", "get_current_stream", "get_elapsed_time"):
        yield name, getattr(fake_cupy.cuda, name), getattr(cupy.cuda, name)
    for name in ("Event", "Stream", "Device", "Graph", "PinnedMemoryPointer"):
        theirs = getattr(cupy.cuda, name)
        for method, ours in vars(getattr(fake_cupy.cuda, name)).items():
            if inspect.isfunction(ours) and not method.startswith("_"):
                yield f"{name}.{method}", ours, getattr(theirs, method)
    asked = ("getDeviceProperties", "driverGetVersion", "runtimeGetVersion", "memGetInfo")
    for name in ("memcpyAsync", "getDeviceCount", *asked):
        yield name, getattr(fake_cupy.cuda.runtime, name), getattr(cupy.cuda.runtime, name)


@pytest.mark.parametrize(("ours", "theirs"), [pytest.param(*pair[1:], id=pair[0]) for pair in pairs()])
def test_signatures_are_those_of_cupy(ours, theirs):
    assert parameters(ours) == parameters(theirs)


def test_attributes_are_those_of_cupy():
    for name in ("Event", "Stream", "Device", "Graph", "PinnedMemoryPointer"):
        public = {key for key in vars(getattr(fake_cupy.cuda, name)) if not key.startswith("_")} - OURS
        assert [key for key in public if not hasattr(getattr(cupy.cuda, name), key) and key != "ptr"] == []
    for key in ("device", "data", "shape", "strides", "dtype", "nbytes", "reshape", "transpose", "__getitem__"):
        assert hasattr(cupy.ndarray, key)
    assert hasattr(cupy.ndarray, "__cuda_array_interface__")
    assert {"path"} < set(parameters(cupy.RawModule))
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    for kind in ("memcpyHostToDevice", "memcpyDeviceToHost", "memcpyDeviceToDevice"):
        assert getattr(fake_cupy.cuda.runtime, kind) == getattr(cupy.cuda.runtime, kind)


def test_what_the_backend_asks_of_cupy_is_there():
    text = "".join(Path(module.__file__).read_text() for module in (cuda, cuda_memory))
    used = set(re.findall(r"cupy\.((?:cuda\.)?(?:runtime\.)?\w+)", text))
    assert "cuda.runtime.memcpyAsync" in used
    for module in (cupy, fake_cupy):
        for name in used - {"cuda", "cuda.runtime"}:
            assert operator.attrgetter(name)(module) is not None


def test_pinned_memory_of_cupy_is_read_and_written_through_numpy():
    """Over memory of our own, since there may be no driver that pins any."""
    own = np.arange(600, dtype=np.uint8)
    memory = type("Memory", (), {"ptr": own.ctypes.data, "size": own.nbytes})
    pinned = cupy.cuda.PinnedMemoryPointer(memory, 0)
    assert (pinned.ptr, pinned.size()) == (own.ctypes.data, 600)
    np.frombuffer(pinned, np.uint8, 10)[:] = 7
    assert own[:12].tolist() == [7] * 10 + [10, 11]


# ---- that it shows what it is there to show


def test_work_is_done_late_and_in_order():
    array = fake_cupy.zeros(3, np.float32)
    array[...] = fake_cupy.asarray(np.ones(3, np.float32))
    assert array.memory.view(np.uint8)[0] == 0xA5
    assert array.get().tolist() == [1, 1, 1]
    event = fake_cupy.cuda.Stream.null.record()
    assert [event.done, event.done] == [False, True]


def test_streams_are_ordered_by_events_alone():
    a, b = (fake_cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with a:
        array = fake_cupy.zeros(1, np.float32)
    with b:
        array[...] = fake_cupy.asarray(np.ones(1, np.float32))
    b.synchronize()
    assert array.memory[0] == 1
    a.synchronize()
    assert array.memory[0] == 0  # the fill came too late
    with a:
        array[...] = fake_cupy.asarray(np.full(1, 2, np.float32))
    b.wait_event(a.record())
    b.synchronize()
    assert array.memory[0] == 2


def test_the_legacy_stream_and_the_blocking_ones_wait_for_each_other():
    blocking = fake_cupy.cuda.Stream()
    with blocking:
        array = fake_cupy.zeros(1, np.float32)
    assert array.get().tolist() == [0]
    array[...] = fake_cupy.asarray(np.ones(1, np.float32))
    blocking.synchronize()
    assert array.memory[0] == 1


def pinned_copy():
    pinned = fake_cupy.cuda.alloc_pinned_memory(8)
    np.frombuffer(pinned, np.uint8, 8)[:] = 1
    array = fake_cupy.zeros(8, np.uint8)
    fake_cupy.cuda.runtime.memcpyAsync(array.data.ptr, pinned.ptr, 8, 1, 0)
    return pinned, array


def test_pinned_memory_is_read_late():
    pinned, array = pinned_copy()
    np.frombuffer(pinned, np.uint8, 8)[:] = 2
    assert array.get().tolist() == [2] * 8
    pinned, array = pinned_copy()
    del pinned
    gc.collect()
    with pytest.raises(AssertionError, match="freed before"):
        array.get()


def test_a_copy_the_wrong_way_or_into_nowhere_is_refused():
    pinned, array = pinned_copy()
    array.get()
    for target, source, size, kind in [
        (pinned.ptr, array.data.ptr, 8, 1),
        (array.data.ptr, pinned.ptr, 8, 3),
        (array.data.ptr + 4, pinned.ptr, 8, 1),
    ]:
        with pytest.raises(AssertionError):
            fake_cupy.cuda.runtime.memcpyAsync(target, source, size, kind, 0)


def test_a_capture_refuses_what_cuda_refuses():
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    outside = fake_cupy.cuda.Stream.null.record()
    array = fake_cupy.zeros(1, np.float32)
    with stream:
        stream.begin_capture(mode=0)
        refused = (
            stream.record,
            stream.synchronize,
            outside.synchronize,
            lambda: outside.done,
            lambda: stream.wait_event(outside),
            lambda: fake_cupy.cuda.alloc_pinned_memory(1),
            lambda: array.__setitem__(..., array),
            array.get,
        )
        for call in refused:
            with pytest.raises(CUDARuntimeError, match="Capture"):
                call()
        assert stream.is_capturing()
        stream.end_capture()
    with pytest.raises(RuntimeError, match="legacy"):
        fake_cupy.cuda.Stream.null.begin_capture()


def test_streams_and_events_belong_to_a_device():
    with fake_cupy.cuda.Device(1):
        stream, event = fake_cupy.cuda.Stream(), fake_cupy.cuda.Event()
    with pytest.raises(CUDARuntimeError, match="InvalidResourceHandle"):
        event.record(fake_cupy.cuda.Stream.null)
    with pytest.raises(RuntimeError, match="another device"), stream:
        pass
    with pytest.raises(CUDARuntimeError, match="InvalidDevice"), fake_cupy.cuda.Device(2):
        pass
    assert machine.device == 0


def test_memory_of_another_device_is_left_alone():
    with fake_cupy.cuda.Device(1):
        there, here = fake_cupy.zeros(3, np.float32), fake_cupy.zeros(3, np.float32)
    for change in (lambda: there.fill(1), there.copy, lambda: there.astype(np.float64), lambda: there[:].fill(1)):
        with pytest.raises(AssertionError, match="another device"):
            change()
    with pytest.raises(AssertionError, match="another device"):
        there[...] = here
    assert there.get().tolist() == [0, 0, 0]  # `get` goes there itself


def test_16_bits_are_copied_as_they_are(monkeypatch):
    """Also what is no number; whether CuPy has a loop over bfloat16 depends on what was imported."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    words = np.arange(0x7F7E, 0x7F84, dtype=np.uint16)
    array = fake_cupy.asarray(words.view(ml_dtypes.bfloat16))
    with pytest.raises(AssertionError, match="bfloat16"):
        array.astype(np.float32)
    target = fake_cupy.zeros(6, np.uint16).view(ml_dtypes.bfloat16)
    cuda_memory.overwrite(target, cuda_memory.copy_of(array))
    assert cuda_memory.to_host(target).view(np.uint16).tolist() == words.tolist()
    assert (array.view(np.uint16).astype(np.uint32) << 16).get().tolist() == [word << 16 for word in words.tolist()]

"""What only a device can show: launches, graphs, streams, more than 2^31 elements, PyTorch, compile times."""

import ctypes
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
from bfloat16 import ml_dtypes  # noqa: F401 (what is imported below needs it)
from cases import LR, assert_same_bits
from twins import MARKS, Twins, arrays, awkward, cupy, to_device

import gpuadam
from gpuadam import cuda, schedules

pytestmark = MARKS


class Driver:
    """The part of the CUDA driver that CuPy does not show: of what kinds the nodes of a graph are."""

    KINDS: ClassVar = {0: "kernel", 1: "memcpy", 2: "memset", 3: "host"}  # CUgraphNodeType

    def __init__(self):
        self.library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        assert status == 0, f"{name}: CUDA error {status}"

    def nodes(self, graph):
        """The kind of every node of one of CuPy's graphs."""
        handle, count = ctypes.c_void_p(graph.graph), ctypes.c_size_t()
        self.call("cuGraphGetNodes", handle, None, ctypes.byref(count))
        nodes = (ctypes.c_void_p * count.value)()
        self.call("cuGraphGetNodes", handle, nodes, ctypes.byref(count))
        kinds = []
        for node in nodes:
            kind = ctypes.c_int()
            self.call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(kind))
            kinds.append(self.KINDS.get(kind.value, str(kind.value)))
        return sorted(kinds)


def recorded(act):
    """What the driver was given by a function while its stream was captured: the kinds of the graph's nodes."""
    stream = cupy.cuda.get_current_stream()
    stream.begin_capture()
    try:
        act()
    finally:
        graph = stream.end_capture()
    return Driver().nodes(graph)


def step_twice(optimizer):
    optimizer.step()
    optimizer.step()


def test_a_step_is_one_launch():
    """The driver counts, not we: a captured step is a graph of one node, a kernel.

    CuPy has no counter of launches, and a profiler may not be there. Steps that are not captured go through the same
    loop over launches; that each ticks the clocks once shows in the count after a hundred of them.
    """
    params = arrays(np.float32, 0) + [awkward(100, np.float32, i) for i in range(1000)]
    groups = [{"params": [to_device(p) for p in params[i::7]], "lr": LR * (i + 1)} for i in range(7)]
    optimizer = gpuadam.AdamW(groups)
    optimizer.bind([to_device(p) for i in range(7) for p in params[i::7]])
    other = cupy.zeros(1000, np.float32)
    other.fill(1)  # compiled here, not while it is captured
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        optimizer.step()
        assert recorded(optimizer.step) == ["kernel"]
        optimizer.step()
        # and that more would be seen:
        assert recorded(lambda: step_twice(optimizer)) == ["kernel", "kernel"]
        assert recorded(lambda: (optimizer.step(), other.fill(2))) == ["kernel", "kernel"]
        assert recorded(lambda: (optimizer.step(), other.data.memset_async(0, 4000))) == ["kernel", "memset"]
        for _ in range(98):
            optimizer.step()
        stream.synchronize()
    assert optimizer.state_dict()["groups"][0]["step"] == 100  # what was captured did not run


def test_a_norm_is_one_launch_more_and_an_exchange_is_none_in_a_graph():
    optimizer = gpuadam.AdamW([to_device(awkward(3000, np.float32, 1))], lr=LR, clip_norm=1.0, ema_decay=0.9)
    optimizer.bind([to_device(awkward(3000, np.float32, 2))])
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        optimizer.step()
        assert recorded(optimizer.step) == ["kernel", "kernel"]
        stream.begin_capture()
        try:
            with pytest.raises(RuntimeError, match="captured"):
                optimizer.swap_ema()
        finally:
            stream.end_capture()


def capture(optimizer, stream):
    """A graph of one step. The steps before it were on the same stream."""
    with stream:
        stream.begin_capture()
        try:
            optimizer.step()
        finally:
            graph = stream.end_capture()
    return graph


def bound_twins(**settings):
    """Twins with gradients that stay, and one step done on a stream of its own."""
    twins = Twins(gpuadam.AdamW, arrays(np.float32, 0), **settings)
    grads = arrays(np.float32, 99)
    twins.host.bind(grads)
    twins.device.bind([to_device(grad) for grad in grads])
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        twins.device.step()
    stream.synchronize()
    twins.host.step()
    return twins, stream


def test_a_captured_graph_replays_a_whole_schedule():
    scale = schedules.parameter("scale", 1.0)
    twins, stream = bound_twins(lr=LR * scale, weight_decay=schedules.cosine_decay(0.1, 20), decay="scheduled")
    graph = capture(twins.device, stream)
    twins.check()  # nothing ran while it was captured
    for value in (1.0, 0.5, 0.25):  # a number that changes needs no new capture
        for optimizer in (twins.host, twins.device):
            optimizer.set_parameter("scale", value)
        cupy.cuda.Device().synchronize()
        for _ in range(10):
            graph.launch(stream)
            twins.host.step()
        stream.synchronize()
        twins.check()
    with stream:
        twins.device.step()
    twins.host.step()
    stream.synchronize()
    twins.check()
    assert twins.host.state_dict()["groups"][0]["step"] == 32


def test_tables_may_not_change_while_a_stream_is_captured():
    twins, stream = bound_twins(lr=LR)
    others = [to_device(param) for param in arrays(np.float32, 5)]
    state = twins.host.state_dict()
    with stream:
        stream.begin_capture()
        try:
            for change in (
                lambda: twins.device.bind(others),
                lambda: twins.device.set_hyperparameters(lr=0.1),
                lambda: twins.device.load_state_dict(state),
            ):
                with pytest.raises(RuntimeError, match="captured"):
                    change()
        finally:
            stream.end_capture()
    twins.check()
    twins.host.step()
    with stream:
        twins.device.step()
    stream.synchronize()
    twins.check()


def test_steps_on_two_streams_are_ordered():
    twins = Twins(gpuadam.AdamW, [awkward(3_000_000, np.float32, 1)], lr=LR)
    grad = awkward(3_000_000, np.float32, 2)
    twins.host.bind([grad])
    twins.device.bind([to_device(grad)])
    cupy.cuda.Device().synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream.null]
    for k in range(60):
        with streams[k % 3]:
            if k % 5 == 0:
                twins.device.set_hyperparameters(lr=0.01 * (k + 1))
            twins.device.step()
        if k % 5 == 0:
            twins.host.set_hyperparameters(lr=0.01 * (k + 1))
        twins.host.step()
    cupy.cuda.Device().synchronize()
    twins.check()


def indexed(count, function):
    """Numbers that depend on the place, made in place: sin or cos of the index."""
    values = cupy.arange(count, dtype=np.float32)
    return function(values, out=values)


def test_more_than_2_to_the_31_elements():
    count = 2**31 + 5
    free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
    if free < 4 * 4 * count + 2**31:
        pytest.skip(f"needs {4 * 4 * count + 2**31} bytes of device memory, {free} are free")
    cupy.get_default_memory_pool().free_all_blocks()
    try:
        param, grad = indexed(count, cupy.cos), indexed(count, cupy.sin)
        generator = np.random.default_rng(3)
        starts = [0, 2**31 - 3000, *generator.integers(0, count - 5000, 50).tolist()]
        pieces = [slice(start, start + 5000) for start in starts] + [slice(count - 5000, count)]

        def samples(array):
            return np.concatenate([cupy.asnumpy(array[piece]) for piece in pieces])

        host_param, host_grad = samples(param), samples(grad)
        host, device = gpuadam.AdamW([host_param], lr=LR), gpuadam.AdamW([param], lr=LR)
        for _ in range(3):
            host.step([host_grad])
            device.step([grad])
        assert_same_bits(host_param, samples(param), "parameter")
        for name in ("exp_avg", "exp_avg_sq"):
            assert_same_bits(
                host._engine.tensors.arrays[0][name], samples(device._engine.tensors.arrays[0][name]), name
            )
    finally:
        param = grad = device = None
        cupy.get_default_memory_pool().free_all_blocks()


def test_pytorch_tensors_on_the_device():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch was built without CUDA, or sees no device")
    params, grads = (
        [awkward(shape, np.float32, seed + i) for i, shape in enumerate([(), (5,), (33, 70)])] for seed in (0, 9)
    )
    mirrors = [torch.nn.Parameter(torch.from_numpy(param.copy()).cuda()) for param in params]
    for mirror, grad in zip(mirrors, grads, strict=True):
        mirror.grad = torch.from_numpy(grad.copy()).cuda()
    host, device = gpuadam.AdamW(params, lr=LR), gpuadam.AdamW(mirrors, lr=LR)
    for k in range(10):
        host.step(grads)
        if k == 5:  # as a model does that is moved to and fro
            mirrors[2].data = mirrors[2].data.clone()
        device.step([mirror.grad for mirror in mirrors])
    torch.cuda.synchronize()
    for i, (param, mirror) in enumerate(zip(params, mirrors, strict=True)):
        assert_same_bits(param, mirror.detach().cpu().numpy(), f"parameter {i}")


def test_a_kernel_is_compiled_once_and_kept(tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("GPUADAM_CACHE_DIR", str(tmp_path))
    param, grad = cupy.ones(1000, np.float32), cupy.ones(1000, np.float32)
    gpuadam.AdamW([param]).step([grad])  # CuPy and Numba have done what they do at first
    kept = []
    for title in ("first step, no kernel on disk", "first step, kernel on disk"):
        cuda.load_kernel.cache_clear()
        if not kept:
            for path in tmp_path.iterdir():
                path.unlink()
        begin = time.perf_counter()
        gpuadam.AdamW([param]).step([grad])
        cupy.cuda.Device().synchronize()
        seconds = time.perf_counter() - begin
        record_property(title, seconds)
        assert seconds < 5.0
        kept.append({path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()})
    assert len(kept[0]) == 1
    assert kept[0] == kept[1]
    cuda.load_kernel.cache_clear()

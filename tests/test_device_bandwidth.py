"""Streams over a GPU's memory and the timing of a step on it: the kernels made by g++, time as the test gives it."""

import ctypes
import subprocess

import fake_cupy
import host_kernels
import numpy as np
import pytest
from fake_device import machine
from fake_measuring import clock  # noqa: F401 (a fixture)
from fake_twins import stand_in  # noqa: F401 (a fixture)

from gpuadam import device_bandwidth, device_samples, nvrtc

NAMES = ("copy", "triad", "scale", "read")
# One block after another, and in each the threads one by one: these kernels share nothing and have no barriers.
HOST = """
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
struct Index {{ int x; }} threadIdx, blockIdx, gridDim;
#include "{source}"
template <typename... Given> void each(void (*kernel)(Given...), int grid, Given... given) {{
    gridDim.x = grid;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < BLOCK; ++threadIdx.x) kernel(given...);
}}
extern "C" {{
void run_copy(int grid, Pair* a, Pair* b, long long n) {{
    each<Pair*, const Pair*, long long>(stream_copy, grid, a, b, n);
}}
void run_triad(int grid, Pair* a, Pair* b, Pair* c, double f, long long n) {{
    each<Pair*, const Pair*, const Pair*, double, long long>(stream_triad, grid, a, b, c, f, n);
}}
void run_scale(int grid, Pair* a, double f, long long n) {{
    each<Pair*, double, long long>(stream_scale, grid, a, f, n);
}}
void run_read(int grid, double* a, Pair* b, double never, long long n) {{
    each<double*, const Pair*, double, long long>(stream_read, grid, a, b, never, n);
}}
}}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if host_kernels.COMPILER is None:
        pytest.skip("g++ is not there to make the kernels")
    folder = tmp_path_factory.mktemp("streams")
    source = nvrtc.source_folder().resolve() / "streams.cu"
    (folder / "host.cpp").write_text(HOST.format(source=source))
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-DBLOCK={nvrtc.BLOCK}"]
    command = [str(host_kernels.COMPILER), *options, "-o", "streams.so", "host.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "streams.so"))


def launch(kernels, name, grid, *arguments):
    kinds = {np.ndarray: lambda a: ctypes.c_void_p(a.ctypes.data), float: ctypes.c_double, int: ctypes.c_longlong}
    getattr(kernels, f"run_{name}")(ctypes.c_int(grid), *(kinds[type(given)](given) for given in arguments))


@pytest.mark.parametrize("grid", [1, 3, 7])
@pytest.mark.parametrize("tiles", [1, 7])
def test_the_loops_do_what_they_are_named_after_for_every_element(kernels, tiles, grid):
    random = np.random.default_rng(0)
    size = tiles * device_bandwidth.TILE // 8
    a, b, c = random.standard_normal((3, size))
    target = a.copy()
    launch(kernels, "copy", grid, target, b, size // 2)
    np.testing.assert_array_equal(target, b)
    launch(kernels, "triad", grid, target, b, c, 0.5, size // 2)
    np.testing.assert_array_equal(target, b + 0.5 * c)
    target = a.copy()
    launch(kernels, "scale", grid, target, 3.0, size // 2)
    np.testing.assert_array_equal(target, 3.0 * a)
    found = np.zeros(1)
    launch(kernels, "read", 1, found, np.ones(size), float(tiles * 8), size // 2)  # the sum of each thread
    assert found[0] == tiles * 8
    launch(kernels, "read", grid, found, np.ones(size), -1.0, size // 2)
    assert found[0] == tiles * 8


@pytest.mark.parametrize("architecture", [75, 90, 120])
@pytest.mark.parametrize("name", NAMES)
def test_nvrtc_compiles_them(name, architecture):
    pytest.importorskip("cupy", reason="CuPy, whose binding of NVRTC is needed, is not installed")
    _, ptx = nvrtc.compile_kernel(nvrtc.Kernel(f"stream_{name}", "streams.cu"), architecture)
    body = ptx[ptx.index(f".entry stream_{name}") :].split("\n}")[0]
    loads = 8 if name == "triad" else 4
    assert body.count("v2.f64") + body.count("v2.b64") >= loads


@pytest.mark.usefixtures("stand_in")
def test_streams_count_the_bytes_that_they_move():
    size = 3 * device_bandwidth.TILE
    streams = device_bandwidth.device_streams(size - 1)
    moved = {"copy": 2 * size, "copy kernel": 2 * size, "triad": 3 * size, "scale": 2 * size}
    assert {name: stream.moved for name, stream in streams.items()} == moved
    machine.copies.clear()
    for stream in streams.values():
        stream.run()
    assert machine.copies == [(fake_cupy.cuda.runtime.memcpyDeviceToDevice, size)]
    names = ["stream_copy", "stream_triad", "stream_scale"]
    assert [(launch.name, launch.grid) for launch in machine.launches] == [(name, (3,)) for name in names]


@pytest.mark.usefixtures("stand_in")
def test_a_flush_reads_several_times_the_cache(monkeypatch):
    launched = []
    monkeypatch.setattr(device_bandwidth, "load_kernel", lambda *_: lambda *given: launched.append(given))
    device_bandwidth.flusher()()
    ((_, _, (target, source, never, count)),) = launched
    assert source.nbytes == 16 * count >= 4 * device_bandwidth.l2_bytes()
    assert never < 0 < source.get().min()
    assert target.nbytes == 8


@pytest.mark.parametrize("flushes", [True, False])
def test_a_sample_tells_the_device_from_the_host(clock, flushes):  # noqa: F811
    """A step that takes the host 2 ms and the device 5, after a flush of 7: the device then never waits for the host.

    In a row, or without a flush, it waits for the first of the three steps.
    """
    calls = []

    def step():
        calls.append("step")
        clock.enqueue(host=2e-3, device=5e-3)

    def flush():
        calls.append("flush")
        clock.enqueue(host=1e-3, device=7e-3)

    sample = device_samples.device_sampler(step, flush if flushes else None, batch=20e-3)
    calls.clear()
    found = sample()
    assert found["seconds"] == pytest.approx(5e-3 if flushes else 17e-3 / 3)
    assert found["host_seconds"] == pytest.approx(2e-3)
    assert found["wall_seconds"] == pytest.approx(17e-3 / 3)
    apart = ["flush", "step"] if flushes else ["step"]
    assert calls == [*(3 * apart), *(4 * ["step"])]


def test_a_slow_host_is_part_of_the_time_between_the_events(clock):  # noqa: F811
    sample = device_samples.device_sampler(lambda: clock.enqueue(host=4e-3, device=1e-3))
    assert sample() == pytest.approx({"seconds": 4.5e-3, "host_seconds": 4e-3, "wall_seconds": 4.5e-3})

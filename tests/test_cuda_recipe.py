"""The training recipe on the stand-in for CuPy: formats, clipping, averages, skipped steps, graphs, files."""

import fake_cupy
import numpy as np
import pytest
from cases import LR, assert_same_bits
from fake_device import machine
from fake_twins import (
    NEEDS_COMPILER,
    Twins,
    capture,
    numbers,
    stand_in,  # noqa: F401 (a fixture)
    to_device,
)
from recipe_modes import AVERAGE, BF16, F16, F32, F64, MODES

import gpuadam
from gpuadam import cuda, schedules
from gpuadam.tables import LAUNCH

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


def tensors(seed, dtype):
    """Empty, one element, around a chunk, off a 16-byte boundary, and enough for 8-bit states in either order."""
    found = [numbers(seed + i, shape, dtype) for i, shape in enumerate([(0,), (), (1024,), (1031,), (67, 71)])]
    return [*found, numbers(seed + 5, 1032, dtype)[1:], np.asfortranarray(numbers(seed + 6, (64, 65), dtype))]


def two_groups(params):
    return [{"params": params[:3]}, {"params": params[3:], "lr": 0.02, "lr_scale": 0.5}]


def step(twins, grads, grad_scale=None, found_inf=None):
    """One step on both; the gradients are afterwards the same again, zero if they are to be left so."""
    mirrors = [None if grad is None else to_device(grad) for grad in grads]
    scalars = {"grad_scale": grad_scale, "found_inf": found_inf}
    copies = {name: to_device(value) if isinstance(value, np.ndarray) else value for name, value in scalars.items()}
    twins.host.step(grads, **scalars)
    twins.device.step(mirrors, **copies)
    for i, (grad, mirror) in enumerate(zip(grads, mirrors, strict=True)):
        if grad is not None:
            assert_same_bits(grad, mirror.get(), f"gradient {i}")
    return grads


# ---- bits


@pytest.mark.parametrize("mode", MODES)
def test_the_bits_of_every_mode_are_those_of_the_cpu(mode):
    """Gradients that are missing, scaled by numbers and arrays of either format, and a step that is skipped."""
    dtype, grad_dtype, settings = MODES[mode]
    twins = Twins(gpuadam.AdamW, tensors(0, dtype), two_groups, lr=LR, **settings)
    scalars = [(None, None), (4.0, 0), (np.array([0.5], F32), np.zeros(1, F64)), (np.full((), 3.0), np.ones(1, F32))]
    for k, (grad_scale, found_inf) in enumerate(scalars):
        grads = tensors(100 * k + 100, grad_dtype)
        step(twins, [None if i % 4 == k - 1 else grad for i, grad in enumerate(grads)], grad_scale, found_inf)
    left = step(twins, tensors(900, grad_dtype), 2.0, True)
    assert all(not grad.any() for grad in left) == ("zero_grads" in settings)
    assert twins.device.skipped_steps == twins.host.skipped_steps == 2
    if "clip_norm" in settings:
        assert twins.device.gradient_norms() == twins.host.gradient_norms()
    twins.check()
    if "ema_decay" in settings:
        check_swap(twins)


def check_swap(twins):
    """The averages in the place of the parameters, and back."""
    before = [mirror.get() for mirror in twins.mirrors]
    twins.both("swap_ema")
    assert any((mirror.get() != old).any() for mirror, old in zip(twins.mirrors, before, strict=True))
    for i, (param, mirror) in enumerate(zip(twins.params, twins.mirrors, strict=True)):
        assert_same_bits(param, mirror.get(), f"average of {i}")
    with pytest.raises(RuntimeError, match="call swap_ema"):
        twins.device.step()
    twins.both("swap_ema")
    for mirror, old in zip(twins.mirrors, before, strict=True):
        assert_same_bits(mirror.get(), old)
    twins.check()


def test_gradients_of_another_format_than_before():
    """Kernels, chunks and spans are sorted anew."""
    params = [numbers(i, size, BF16) for i, size in enumerate((3000, 5, 1500, 280_000))]
    twins = Twins(gpuadam.AdamW, params, lr=LR, clip_norm=1.0, clip_scope="tensor")
    for k, kinds in enumerate([(BF16,) * 4, (F32, BF16, F32, BF16), (F32,) * 4, (F16, F32, BF16, F32), (BF16,) * 4]):
        launched = len(machine.launches)
        grads = [numbers(10 * k + i, param.shape, kinds[i]) for i, param in enumerate(params)]
        step(twins, grads)
        assert len(machine.launches) - launched == 1 + len(set(kinds))
        expected = [np.linalg.norm(grad.astype(F64)) for grad in grads]
        assert np.allclose(twins.device.gradient_norms(), expected, rtol=1e-13)
        assert twins.device.gradient_norms() == twins.host.gradient_norms()
    twins.check()


# ---- launches


@pytest.mark.parametrize(
    ("dtypes", "settings", "sources"),
    [
        ([F32] * 3, {}, ["adam"]),
        ([F32] * 3, {"clip_norm": 1.0}, ["reduce", "adam"]),
        ([F32] * 3, {"nonfinite": "skip"}, ["reduce", "adam"]),
        ([F32, BF16, F32], {}, ["adam", "adam"]),
        ([F32, BF16, F32], {"clip_norm": 1.0}, ["reduce", "adam", "adam"]),
    ],
)
def test_how_many_launches_a_step_is(dtypes, settings, sources):
    params = [numbers(i, 1500, dtype) for i, dtype in enumerate(dtypes)]
    twins = Twins(gpuadam.AdamW, params, lr=LR, **settings)
    twins.bind([numbers(9 + i, 1500, dtype) for i, dtype in enumerate(dtypes)])
    twins.both("step")
    twins.both("step")
    assert [launch.name.split("_")[0] for launch in machine.launches] == 2 * sources
    twins.check()


def busy_twins(**settings):
    """A schedule, clipping by one, an average, and scalars on the device; gradients and scalars come back too."""
    recipe = {"lr": LR, "clip_norm": schedules.linear_warmup(1.0, 9, 0.1), **AVERAGE, **settings}
    twins = Twins(gpuadam.AdamW, [numbers(i, size, F32) for i, size in enumerate((3000, 7))], **recipe)
    grads = [numbers(9 + i, param.shape, F32) for i, param in enumerate(twins.params)]
    scalars = {"grad_scale": np.full(1, 4.0, F32), "found_inf": np.zeros(1, F32)}
    mirrors = [to_device(grad) for grad in grads], {name: to_device(value) for name, value in scalars.items()}
    twins.host.bind(grads, **scalars)
    twins.device.bind(mirrors[0], **mirrors[1])
    fake_cupy.cuda.Device().synchronize()
    return twins, (grads, scalars), mirrors


def test_no_launch_argument_changes_and_nothing_is_copied():
    twins, _, _ = busy_twins()
    twins.both("step")
    machine.copies.clear()
    waited = machine.synchronisations
    for _ in range(9):
        twins.both("step")
    assert (machine.copies, machine.synchronisations) == ([], waited)
    assert len(machine.launches) == 20
    assert len({(launch.name, launch.grid, launch.argument) for launch in machine.launches}) == 2
    twins.check()


def test_an_exchange_is_one_launch_for_each_set_of_formats():
    def layout(members):
        return [{"params": members[:1]}, {"params": members[1:], "master": "remainder"}]

    params = [numbers(0, 1500, F32), numbers(1, 1500, BF16), numbers(2, 9, F32)]
    twins = Twins(gpuadam.AdamW, params, layout, lr=0.1, **AVERAGE)
    step(twins, [numbers(5 + i, param.shape, param.dtype) for i, param in enumerate(params)])
    machine.launches.clear()
    check_swap(twins)
    names = ["swap_float32", "swap_bfloat16_master_remainder"]
    assert [launch.name for launch in machine.launches] == 2 * names
    arguments = [np.frombuffer(launch.argument, LAUNCH)[0] for launch in machine.launches]
    assert [record["chunk_count"] for record in arguments] == [3, 2] * 2


# ---- skipped steps


def test_skipped_steps_are_counted_without_waiting():
    twins, grads, (_, scalars) = busy_twins()
    found = scalars["found_inf"]
    twins.device.step()
    before = [mirror.get() for mirror in twins.mirrors]
    found[...] = to_device(np.ones(1, F32))
    waited = machine.synchronisations
    for _ in range(5):
        twins.device.step()
    assert machine.synchronisations == waited
    assert twins.device.skipped_steps == 5
    assert machine.synchronisations > waited
    for mirror, old in zip(twins.mirrors, before, strict=True):
        assert_same_bits(mirror.get(), old)
    found[...] = to_device(np.zeros(1, F32))
    twins.device.step()
    twins.host.step()
    grads[1]["found_inf"][...] = 1
    for _ in range(5):
        twins.host.step()
    grads[1]["found_inf"][...] = 0
    twins.host.step()
    twins.check()


def raises_later(twins, grads):
    """The step is launched, since nobody waits; one of the next is not, and raises."""
    with pytest.raises(FloatingPointError, match="not finite"):
        twins.host.step(grads)
    twins.device.step([to_device(grad) for grad in grads])
    with pytest.raises(FloatingPointError, match=r"gradient of 1 is not finite"):
        several_steps(twins.device)


def several_steps(optimizer):
    for _ in range(5):
        optimizer.step()


def watchful_twins():
    params = [numbers(i, 1100, F32) for i in range(3)]
    return Twins(gpuadam.AdamW, params, lr=LR, nonfinite="raise"), [numbers(9 + i, 1100, F32) for i in range(3)]


def test_a_step_that_overflows_raises_at_a_later_one():
    twins, grads = watchful_twins()
    step(twins, grads)
    bad = [grads[0], np.where(np.arange(1100) == 1050, np.inf, grads[1]).astype(F32), grads[2]]
    launched = len(machine.launches)
    raises_later(twins, bad)
    twins.device.bind([to_device(grad) for grad in grads])
    assert told_until_a_step_goes_through(twins.device) <= 2
    for _ in range((len(machine.launches) - launched) // 2 - 2):  # those under way when the first one was told
        with pytest.raises(FloatingPointError):
            twins.host.step()
    twins.host.step(grads)
    twins.check()


def told_until_a_step_goes_through(optimizer):
    """How often it raises again."""
    for count in range(9):
        try:
            optimizer.step()
        except FloatingPointError:
            continue
        return count
    return None


def test_a_state_that_is_loaded_has_overflowed_nowhere():
    twins, grads = watchful_twins()
    step(twins, grads)
    saved = twins.host.state_dict()
    raises_later(twins, [grads[0], np.full(1100, np.nan, F32), grads[2]])
    twins.both("load_state_dict", saved)
    for _ in range(4):
        step(twins, grads)
    twins.check()


# ---- streams and graphs


def test_a_graph_replays_clipping_averages_and_scalars():
    twins, (grads, scalars), (mirrors, device_scalars) = busy_twins()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    graph = capture(twins.device, stream)
    assert len(graph.actions) == 2
    for k in range(8):
        with stream:
            for grad, mirror in zip(grads, mirrors, strict=True):
                grad[...] = numbers(50 + k, grad.shape, F32)
                mirror[...] = to_device(grad)
            scalars["found_inf"][...] = k == 3
            scalars["grad_scale"][...] = 2.0**k
            for name, value in scalars.items():
                device_scalars[name][...] = to_device(value)
            graph.launch(stream)
        twins.host.step()
    stream.synchronize()
    twins.check()
    assert twins.device.gradient_norms() == twins.host.gradient_norms()
    assert twins.device.skipped_steps == 1


def swap_on_streams():
    """A bfloat16 parameter alone cannot hold its average: it is kept, and put back, in the order of the streams."""
    twins = Twins(gpuadam.AdamW, [numbers(0, 3000, BF16)], lr=0.1, **AVERAGE)
    twins.bind([numbers(1, 3000, BF16)])
    fake_cupy.cuda.Device().synchronize()
    streams = [fake_cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    graph = capture(twins.device, streams[0])
    for _ in range(2):
        graph.launch(streams[0])
        twins.host.step()
        for stream in streams[1:]:
            with stream:
                twins.both("swap_ema")
    graph.launch(streams[0])
    twins.host.step()
    for k in (1, 0, 2):  # as early as they may
        streams[k].synchronize()
    twins.check()


def test_exchanges_and_steps_on_several_streams_are_ordered():
    swap_on_streams()


@pytest.mark.parametrize("name", ["require_writable", "_leave"])
def test_that_an_exchange_that_does_not_wait_would_be_seen(name, monkeypatch):
    monkeypatch.setattr(cuda.Tables, name, lambda *_: None)
    with pytest.raises(AssertionError):
        swap_on_streams()


def test_neither_an_exchange_nor_a_count_in_a_capture():
    twins, _, _ = busy_twins()
    stream = fake_cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        for refused in (
            twins.device.swap_ema,
            twins.device.gradient_norms,
            lambda: twins.device.skipped_steps,
            lambda: twins.device.bind(twins.mirrors, grad_scale=2.0),
        ):
            with pytest.raises((RuntimeError, ValueError), match=r"captured|shares memory"):
                refused()
        twins.device.step()
        graph = stream.end_capture()
    graph.launch(stream)
    twins.host.step()
    stream.synchronize()
    twins.check()


# ---- groups, files, devices


def test_a_group_is_added():
    twins = Twins(gpuadam.AdamW, tensors(0, BF16), two_groups, lr=LR, clip_norm=1.0, master="remainder", **AVERAGE)
    for k in range(2):
        step(twins, [None if i == k + 2 else grad for i, grad in enumerate(tensors(100 + 10 * k, BF16))])
    new = [numbers(70, (65, 70), F32), numbers(71, 5, BF16)]
    mirrors = [to_device(array) for array in new]
    for optimizer, members in ((twins.host, new), (twins.device, mirrors)):
        optimizer.add_group({"params": members, "lr": 0.3, "state_dtype": "int8"})
    twins.params, twins.mirrors = [*twins.params, *new], [*twins.mirrors, *mirrors]
    with pytest.raises(ValueError, match="no gradients"):
        twins.device.step()
    for k in range(2):
        grads = [*tensors(200 + 10 * k, BF16), numbers(300 + k, (65, 70), F32), numbers(400 + k, 5, F32)]
        step(twins, grads)
    twins.check()
    check_swap(twins)


def test_files_of_both_backends_are_the_same_bytes(tmp_path):
    def make(seed):
        settings = {"lr": LR, "clip_norm": 1.0, "state_dtype": "int8", "master": "float32", "rounding": "nearest"}
        return Twins(gpuadam.AdamW, tensors(seed, BF16), two_groups, **settings, **AVERAGE)

    twins = make(0)
    for k in range(3):
        step(twins, [None if i == k else grad for i, grad in enumerate(tensors(100 + 10 * k, BF16))], found_inf=k == 1)
    paths = tmp_path / "host", tmp_path / "device"
    for optimizer, path in zip((twins.host, twins.device), paths, strict=True):
        optimizer.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    crossed = make(50)
    crossed.host.load(paths[1])
    crossed.device.load(paths[0])
    crossed.check()
    for both in (twins, crossed):
        step(both, tensors(500, BF16))
        both.check()
    assert_same_bits(twins.params[4], crossed.params[4])


def test_an_optimizer_on_a_device_that_is_not_the_current_one(tmp_path):
    with fake_cupy.cuda.Device(1):
        mirrors, gradients = ([to_device(array) for array in tensors(seed, BF16)] for seed in (0, 100))
        scale = to_device(np.full(1, 2.0, F32))
    settings = {"state_dtype": "int8", "clip_norm": 1.0, **AVERAGE}
    host, device = gpuadam.AdamW(tensors(0, BF16), **settings), gpuadam.AdamW(mirrors, **settings)
    host.step(tensors(100, BF16), grad_scale=2.0)
    device.step(gradients, grad_scale=scale)
    for optimizer, name in ((host, "a"), (device, "b")):
        optimizer.swap_ema()
        optimizer.swap_ema()
        optimizer.save(tmp_path / name)
        optimizer.load(tmp_path / name)
        optimizer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert machine.device == 0
    with pytest.raises(ValueError, match="grad_scale lies on"):
        device.bind(gradients, grad_scale=to_device(np.ones(1, F32)))

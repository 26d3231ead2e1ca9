"""Bad parameters are refused before anything is written: dtypes, devices, memory, shapes, groups.

By the right exception, with a message that names what is wrong, its value and what is allowed; and the optimizer then
goes on as if nothing had happened. The rows are those of the fault table.
"""

import numpy as np
import pytest
from bad_input import (
    DTYPE_NAMES,
    DTYPES,
    F32,
    F64,
    VIEWS,
    OnGPU,
    Pair,
    ThroughDLPack,
    aligned_at,
    filled,
    frozen,
    refused,
    refused_parameter,
)

from gpuadam import Adam, AdamW, RMSprop, schedules

# ---- row 4: dtypes


@pytest.mark.parametrize("name", [*DTYPE_NAMES, "S4", "datetime64[s]", "f4,f4"])
def test_dtype_of_a_parameter(name):
    bad = np.zeros(6, name)
    refused_parameter(bad, TypeError, [f"dtype {bad.dtype}", *DTYPES], [bad] if name != "object" else [])


@pytest.mark.parametrize("form", ["f2", "f4", "f8"])
def test_the_byte_order_of_another_machine(form):
    foreign = np.dtype(form).newbyteorder("S")
    bad = np.ones(5, foreign)
    refused_parameter(bad, TypeError, ["byte order", bad.dtype.str, "native"], [bad])
    if form == "f8":
        pair = Pair()
        with pair.refuses(TypeError, "gradient 'b'", bad.dtype.str, "float64", "allowed for it are float32, float64"):
            pair.optimizer.step({**filled(), "b": bad})


@pytest.mark.parametrize("bad", [None, 1.0, "abc", b"abc", [1.0, 2.0], (1.0,), Exception(), F32(1)], ids=repr)
def test_parameters_that_are_no_arrays(bad):
    refused_parameter(bad, TypeError, [type(bad).__name__, "allowed are NumPy arrays", "__dlpack__"])


def test_a_masked_array_whose_mask_would_be_ignored():
    masked = np.ma.masked_array(np.ones(5), mask=[1, 0, 0, 0, 0])
    refused_parameter(masked, TypeError, ["MaskedArray", "mask", "allowed"], [masked.data])
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'b'", "MaskedArray", "allowed"):
        pair.optimizer.step({**filled(), "b": masked})


# ---- row 5: devices. No GPU is needed to refuse one: these classes only claim to lie there.


class OnOther:
    """An array that claims to lie on a device that we do not serve."""

    def __dlpack_device__(self):
        return 8, 0  # Metal

    def __dlpack__(self, **keywords):
        raise AssertionError("nobody should ask")


def test_parameters_on_several_devices():
    param = np.ones(5)
    for params, texts in (
        ([OnGPU(0), OnGPU(1, 8192)], ["('cuda', 0)", "('cuda', 1)"]),
        ([param, OnGPU(0)], ["('cpu', 0)", "('cuda', 0)"]),
    ):
        refused(Adam, params, ValueError, ["several devices", *texts, "one for each"], watched=[param])
        refused(Adam, [{"params": [p]} for p in params], ValueError, ["several devices", *texts], watched=[param])


def test_a_device_that_is_not_served():
    refused_parameter(OnOther(), TypeError, ["OnOther", "DLPack device type 8"])


def test_a_backend_where_the_parameters_do_not_lie():
    param = np.ones(5)
    texts = ["'cuda'", "('cpu', 0)", "nothing is copied"]
    refused(Adam, [param], ValueError, texts, watched=[param], backend="cuda")
    refused(Adam, [OnGPU()], ValueError, ["'cpu'", "('cuda', 0)", "nothing is copied"], backend="cpu")


# ---- row 42: no GPU


@pytest.fixture
def without_cupy(monkeypatch):
    from gpuadam import cuda

    cuda.unavailable_reason.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    yield
    cuda.unavailable_reason.cache_clear()


@pytest.mark.usefixtures("without_cupy")
def test_cuda_without_cupy_says_what_to_install():
    for params, backend in (([], "cuda"), ([OnGPU()], "auto"), ([OnGPU()], "cuda")):
        texts = ["backend 'cuda' is not available", "CuPy cannot be imported", "pip install 'gpuadam[cuda13]'"]
        refused(Adam, params, RuntimeError, texts, backend=backend)


@pytest.mark.usefixtures("without_cupy")
def test_host_arrays_need_no_cupy():
    param = np.ones(5)
    Adam([param]).step([np.ones(5)])
    assert param[0] != 1


# ---- rows 6 and 7: what is not one dense run of memory


@pytest.mark.parametrize("view", VIEWS)
def test_parameters_that_are_not_dense(view):
    base = np.arange(24, dtype=F32)
    bad = VIEWS[view](base)
    refused_parameter(
        bad, ValueError, [f"shape {bad.shape}", f"strides {bad.strides}", "one dense run", "allowed"], [base]
    )


def test_permuted_orders_are_dense_and_allowed():
    """Every order of three axes, gradient alike: the elements that belong together meet, the states come out alike."""
    values, grads = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    plain = values.copy()
    straight = Adam([plain])
    straight.step([grads])
    for axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        back = np.argsort(axes)
        param = values.transpose(axes).copy().transpose(back)
        optimizer = Adam([param])
        optimizer.step([grads.transpose(axes).copy().transpose(back)])
        assert np.array_equal(param, plain)
        ours, theirs = (o.state_dict()["state"][0]["exp_avg_sq"] for o in (optimizer, straight))
        assert np.array_equal(ours, theirs)


def test_axes_of_length_one_may_have_any_stride():
    base = np.ones(4, F32)
    param = np.lib.stride_tricks.as_strided(base, (1, 4, 1), (1000, 4, 12))
    Adam([param]).step([np.ones((1, 4, 1), F32)])
    assert np.all(base != 1)


# ---- row 8, 9: the same memory twice


def test_the_same_array_twice():
    array = np.ones(6, F32)
    again = ["shares memory", "memory of its own", "once"]
    refused(Adam, [array, array], ValueError, ["parameter 1", "parameter 0", *again], watched=[array])
    refused(Adam, {"a": array, "b": array.view()}, ValueError, ["'a'", "'b'", *again], watched=[array])
    groups = [{"params": [array]}, {"params": [array]}]
    refused(Adam, groups, ValueError, ["parameter 1", "parameter 0", *again], watched=[array])


OVERLAPS = [((0, 6), (5, 10)), ((0, 10), (3, 5)), ((4, 6), (0, 10)), ((1, 2), (1, 9))]


@pytest.mark.parametrize(("first", "second"), OVERLAPS)
def test_overlapping_parameters(first, second):
    base = np.ones(10, F32)
    arrays = [base[slice(*first)], np.ones(3, F32), base[slice(*second)]]
    refused(Adam, arrays, ValueError, ["parameter 0", "parameter 2", "shares memory"], watched=[base])


def test_a_far_overlap_behind_a_long_array():
    """The neighbour in the sorted order is not the one that overlaps."""
    base = np.ones(100, F32)
    arrays = [base[:90], base[10:20], base[95:]]
    refused(Adam, arrays, ValueError, ["parameter 1 shares memory with parameter 0"], watched=[base])
    refused(Adam, [base[:90], base[80:95]], ValueError, ["parameter 1", "parameter 0"], watched=[base])


def test_neighbours_are_no_overlap():
    """Thirds of one buffer, of odd lengths: the same bits as arrays of their own."""
    base, own = np.ones(20), [np.ones(7), np.ones(6), np.ones(7)]
    grads = np.random.default_rng(0).standard_normal(20)
    parts = [slice(0, 7), slice(7, 13), slice(13, 20)]
    Adam([base[part] for part in parts]).step([grads[part] for part in parts])
    Adam(own).step([grads[part] for part in parts])
    assert np.array_equal(base, np.concatenate(own))


# ---- row 11: read-only memory


def test_read_only_parameters(tmp_path):
    fixed = np.ones(4, F32)
    fixed.flags.writeable = False
    fixed.tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", F32, "r")
    for bad in (fixed, np.frombuffer(bytes(16), F32), mapped, np.broadcast_to(F32(1), (1,)), ThroughDLPack(fixed)):
        refused_parameter(bad, ValueError, ["read-only", "in place"], [fixed])


def test_a_stranger_is_updated_through_dlpack():
    array = np.ones(4, F32)
    Adam([ThroughDLPack(array)]).step([ThroughDLPack(np.ones(4, F32))])
    assert np.allclose(array, 0.999)


# ---- row 12: JAX


@pytest.mark.parametrize("module", ["jax", "jax._src.array", "jaxlib._jax", "jaxlib.xla_extension"])
def test_jax_arrays(module):
    array = np.ones(5)
    jax_array = type("ArrayImpl", (ThroughDLPack,), {"__module__": module})(array)
    refused_parameter(jax_array, TypeError, ["JAX", "immutable", "in place"], [array])
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'b'", "JAX"):
        pair.optimizer.step({**filled(), "b": jax_array})


# ---- rows 14 and 15: empty and 0-d


def empties(numbers, dtype=F64):
    shapes = [(0,), (0, 3), (3, 0), (2, 0, 4)]
    return [np.zeros(shapes[i % 4], dtype) for i in range(numbers)]


@pytest.mark.parametrize("make", [Adam, RMSprop])
@pytest.mark.parametrize("place", ["first", "middle", "last", "everywhere"])
def test_empty_tensors_among_others(place, make):
    full, twins = [np.ones(5), np.ones(1030)], [np.ones(5), np.ones(1030)]
    a, b = full
    c, d, e = empties(3)
    params = {"first": [c, a, b], "middle": [a, c, b], "last": [a, b, c], "everywhere": [c, a, d, b, e]}[place]
    grads = [np.full(p.shape, 0.5) for p in params]
    optimizer, other = make(params), make(twins)
    for _ in range(3):
        optimizer.step(grads)
        other.step([np.full(5, 0.5), np.full(1030, 0.5)])
    assert frozen(full) == frozen(twins)
    assert [own["updates"] for own in optimizer.state_dict()["state"].values()] == [3] * len(params)


@pytest.mark.parametrize("params", [[], {}, empties(1), empties(4), [{"params": []}, {"params": empties(2)}]], ids=len)
def test_nothing_but_empty_tensors_is_a_step_that_counts(params):
    lr = schedules.linear_warmup(1.0, 4)
    optimizer = Adam(params, lr=lr)
    groups = len(optimizer.state_dict()["groups"])
    count = len(optimizer.state_dict()["state"])
    for k in range(3):
        assert [h["lr"] for h in optimizer.hyperparameters()] == [lr(k)] * groups
        optimizer.step({} if isinstance(params, dict) else empties(count) if count else [])
    assert [group["step"] for group in optimizer.state_dict()["groups"]] == [3] * groups
    resumed = Adam(params, lr=lr)
    resumed.load_state_dict(optimizer.state_dict())
    assert frozen(resumed.state_dict()) == frozen(optimizer.state_dict())


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_0_d_arrays(make):
    params, twin = [np.array(2.0), np.array(2.0, F32)], np.array([2.0])
    optimizer, other = make(params, lr=0.1), make([twin], lr=0.1)
    for _ in range(3):
        optimizer.step([np.array(0.5), np.array(0.5, F32)])
        other.step([np.array([0.5])])
    assert params[0].shape == ()
    assert params[0] == twin[0]
    assert abs(params[1] - twin[0]) < 1e-6


# ---- row 17: alignment


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("elements", [1, 2, 3, 5])
def test_views_off_the_wide_alignment_give_the_same_bits(dtype, elements):
    size = np.dtype(dtype).itemsize
    start = np.random.default_rng(3).standard_normal(2049).astype(dtype)
    results = []
    for offset in (0, elements * size):
        param, grad = aligned_at(offset, 2049, dtype), aligned_at(elements * size - offset, 2049, dtype)
        param[...], grad[...] = start, start[::-1] / 3
        optimizer = AdamW([param], lr=0.1)
        for _ in range(3):
            optimizer.step([grad])
        results.append(param.copy())
    assert frozen(results[0]) == frozen(results[1])
    assert not np.array_equal(results[0], start)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_elements_that_straddle_their_own_alignment(dtype, offset):
    """A GPU faults on such an address, and takes the whole context with it."""
    bad = aligned_at(offset, 5, dtype)
    texts = ["begins at address", str(bad.ctypes.data), f"multiple of its {np.dtype(dtype).itemsize} bytes"]
    refused_parameter(bad, ValueError, texts, [bad])
    if dtype is F64:
        pair = Pair()
        with pair.refuses(ValueError, "gradient 'b'", *texts):
            pair.optimizer.step({**filled(), "b": bad})


# ---- malformed groups


def test_malformed_parameters():
    a, b = np.ones(3), np.ones(4)
    for params, error, texts in (
        (None, TypeError, ["params", "list or dict of arrays", "NoneType"]),
        (5, TypeError, ["params", "list or dict of arrays", "int"]),
        ("abc", TypeError, ["params", "list or dict of arrays", "str"]),
        (a, TypeError, ["params", "a single ndarray", "[array]"]),
        (F32(1), TypeError, ["params", "a single float32", "[array]"]),
        ([a, {"params": [b]}], TypeError, ["mixes arrays and groups", "allowed"]),
        ([{"params": [b]}, a], TypeError, ["mixes arrays and groups", "allowed"]),
        ([[a, b]], TypeError, ["parameter 0", "list", "allowed"]),
        ([{"lr": 0.1}], ValueError, ["group 0", "'params'"]),
        ([{"params": [a]}, {}], ValueError, ["group 1", "'params'"]),
        ([{"params": [a]}, {"params": None}], ValueError, ["group 1", "'params'"]),
        ([{"params": [a]}, {"params": 5}], TypeError, ["group 1", "list or dict of arrays", "int"]),
        ([{"params": "abc"}], TypeError, ["group 0", "list or dict of arrays", "str"]),
        ([{"params": [a], "Lr": 1}], ValueError, ["group 0", "unknown setting 'Lr'", "allowed", "'lr'", "'maximize'"]),
        ([{"params": [a], "momentum": 1}], ValueError, ["unknown setting 'momentum'", "'betas'"]),
        ([{"params": [a], "backend": "cpu"}], ValueError, ["unknown setting 'backend'"]),
        ([{"params": [a], "absent_states": "cpu"}], ValueError, ["unknown setting 'absent_states'"]),
        ([{"params": [a], 3: 1, "x": 2}], ValueError, ["unknown setting 3", "allowed"]),
        ([{"params": {"k": a}}, {"params": {"k": b}}], ValueError, ["'k'", "group 0", "group 1"]),
        ([{"params": {1: a}}, {"params": [b]}], ValueError, ["parameter 1", "group 0", "group 1"]),
    ):
        refused(Adam, params, error, texts, watched=[a, b])


@pytest.mark.parametrize(
    "form",
    [
        lambda arrays: (array for array in arrays),
        tuple,
        lambda arrays: [{"params": arrays}],
        lambda arrays: [{"params": (array for array in arrays)}],
        lambda arrays: [{"params": arrays[0]}, {"params": {1: arrays[1]}, "lr": 1e-3}],
        lambda arrays: dict(enumerate(arrays)),
        lambda arrays: iter([{"params": arrays}]),
    ],
)
def test_forms_that_are_welcome(form):
    arrays, twins = [np.ones(3), np.ones(4)], [np.ones(3), np.ones(4)]
    grads = [np.ones(3), np.full(4, 2.0)]
    Adam(form(arrays)).step(grads)
    Adam(twins).step(grad for grad in grads)
    assert frozen(arrays) == frozen(twins)
    assert arrays[0][0] != 1

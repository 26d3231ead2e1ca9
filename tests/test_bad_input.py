"""Bad input is refused before anything is written.

By the right exception, with a message that names what is wrong, its value and what is allowed; and the optimizer then
goes on as if nothing had happened. The rows are those of the fault table.
"""

import contextlib
import copy
import decimal
import math
import warnings

import numpy as np
import pytest
import torch

import gpuadam
from gpuadam import Adam, AdamW, RMSprop, ScheduleError, schedules

F32, F64 = np.float32, np.float64
DTYPES = ("float32", "float64")
LAYOUT = {"w": ((3, 4), F32), "b": ((5,), F64)}


def filled(scale=1.0, seed=0, layout=LAYOUT):
    random = np.random.default_rng(seed)
    return {name: (scale * random.standard_normal(shape)).astype(dtype) for name, (shape, dtype) in layout.items()}


def frozen(value):
    """A value as something that can be compared to the bit, NaN and the sign of zero included."""
    if isinstance(value, dict):
        return {name: frozen(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


class Pair:
    """An optimizer that gets the bad call, and its twin that never does."""

    def __init__(self, make=AdamW, **settings):
        settings = {"lr": 0.1, **settings}
        self.params, self.twins = filled(), filled()
        self.optimizer, self.twin = make(self.params, **settings), make(self.twins, **settings)
        self.grads, self.twin_grads = filled(0.1, 1), filled(0.1, 1)
        self.optimizer.step(self.grads)
        self.twin.step(self.twin_grads)

    def picture(self):
        optimizer = self.optimizer
        return frozen([self.params, self.grads, optimizer.state_dict(), optimizer.hyperparameters()])

    def go_on(self):
        """Two steps: with the gradients that are still in force, and with others."""
        for grads in (None, filled(2.0, 2)):
            before = frozen(self.params)
            self.optimizer.step(grads)
            self.twin.step(copy.deepcopy(grads))
            assert frozen(self.params) != before
            assert frozen(self.params) == frozen(self.twins)
            assert frozen(self.optimizer.state_dict()) == frozen(self.twin.state_dict())

    @contextlib.contextmanager
    def refuses(self, error, *texts):
        before = self.picture()
        with pytest.raises(error) as caught:
            yield
        check_message(caught.value, error, texts)
        assert self.picture() == before, "something was written"
        self.go_on()


def check_message(raised, error, texts):
    assert type(raised) is error, f"{type(raised).__name__} for {error.__name__}"
    message = str(raised)
    for text in texts:
        assert text in message, f"{text!r} is not in {message!r}"


def refused(make, arguments, error, texts, *, watched=(), **settings):
    """The constructor refuses; no array has changed, and one that was good still serves."""
    before = frozen(list(watched))
    with pytest.raises(error) as caught:
        make(arguments, **settings)
    check_message(caught.value, error, texts)
    assert frozen(list(watched)) == before, "something was written"


def refused_parameter(bad, error, texts, watched=()):
    good, twin, grad = np.ones(6, F32), np.ones(6, F32), np.full(6, 0.5, F32)
    for arguments, name in (([good, bad], "parameter 1"), ({"a": good, "x": bad}, "parameter 'x'")):
        refused(Adam, arguments, error, [name, *texts], watched=[good, *watched])
    Adam([good]).step([grad])
    Adam([twin]).step([grad])
    assert frozen(good) == frozen(twin)
    assert good[0] != 1


def aligned_at(offset, count, dtype):
    """A view whose address is `offset` bytes beyond a multiple of 64."""
    raw = np.zeros(count * np.dtype(dtype).itemsize + 128, np.uint8)
    begin = -raw.ctypes.data % 64 + offset
    return raw[begin : begin + count * np.dtype(dtype).itemsize].view(dtype)


# ---- row 2: the shape of a gradient


@pytest.mark.parametrize("shape", [(4,), (6,), (0,), (), (5, 1), (1, 5), (2, 5)], ids=str)
def test_shape_of_a_gradient(shape):
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'b'", f"has shape {shape}", "parameter has (5,)"):
        pair.optimizer.step({**filled(), "b": np.zeros(shape)})


def test_shape_of_a_gradient_in_a_list_is_named_by_its_position():
    param, grads = [np.ones(3, F32), np.ones(4, F32)], [np.ones(3, F32), np.ones(3, F32)]
    optimizer = Adam(param)
    with pytest.raises(ValueError, match=r"gradient 1 has shape \(3,\), its parameter has \(4,\)"):
        optimizer.step(grads)
    assert all(np.all(p == 1) for p in param)


def test_a_transposed_shape_is_refused_and_a_square_transposed_gradient_too():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'w'", "(4, 3)", "(3, 4)"):
        pair.optimizer.step({**filled(), "w": np.zeros((3, 4), F32).T})
    square = np.ones((4, 4), F32)
    optimizer = Adam({"s": square})
    with pytest.raises(ValueError, match=r"gradient 's' has strides \(4, 16\) .* \(16, 4\); allowed is the same order"):
        optimizer.step({"s": np.ones((4, 4), F32).T})
    assert np.all(square == 1)


# ---- row 4: dtypes


DTYPE_NAMES = ["int8", "int32", "int64", "uint8", "bool", "float16", "complex64", "complex128", "longdouble", "object"]


@pytest.mark.parametrize("name", [*DTYPE_NAMES, "S4", "datetime64[s]", "f4,f4"])
def test_dtype_of_a_parameter(name):
    bad = np.zeros(6, name)
    refused_parameter(bad, TypeError, [f"dtype {bad.dtype}", *DTYPES], [bad] if name != "object" else [])


@pytest.mark.parametrize("name", [*DTYPE_NAMES, "float32"])
def test_dtype_of_a_gradient(name):
    pair, bad = Pair(), np.zeros(5, name)
    with pair.refuses(TypeError, "gradient 'b'", f"dtype {bad.dtype}", "float64", "allowed is the same dtype"):
        pair.optimizer.step({**filled(), "b": bad})


def test_a_float64_gradient_of_a_float32_parameter():
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'w'", "dtype float64", "its parameter has float32", "same dtype"):
        pair.optimizer.step({**filled(), "w": np.zeros((3, 4))})


@pytest.mark.parametrize("form", ["f4", "f8"])
def test_the_byte_order_of_another_machine(form):
    foreign = np.dtype(form).newbyteorder("S")
    bad = np.ones(5, foreign)
    refused_parameter(bad, TypeError, ["byte order", bad.dtype.str, "native"], [bad])
    if form == "f8":
        pair = Pair()
        with pair.refuses(TypeError, "gradient 'b'", bad.dtype.str, "float64", "allowed is the same dtype"):
            pair.optimizer.step({**filled(), "b": bad})


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.complex64, torch.bool], ids=str)
def test_dtype_of_a_torch_parameter(dtype):
    refused_parameter(torch.zeros(4, dtype=dtype), TypeError, [str(dtype).removeprefix("torch."), *DTYPES])


def test_torch_tensors_that_numpy_cannot_read():
    for bad, text in (
        (torch.zeros(4, dtype=torch.bfloat16), "DLPack"),
        (torch.eye(4).to_sparse(), "strided"),
        (torch.zeros(4, device="meta"), "meta"),
        (torch.zeros(4)._neg_view(), "resolve_neg()"),  # its memory holds -x
    ):
        refused_parameter(bad, TypeError, [text])


def test_a_sparse_gradient():
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'w'", "Tensor", "strided"):
        pair.optimizer.step({**filled(), "w": torch.ones(3, 4).to_sparse()})


@pytest.mark.parametrize("bad", [None, 1.0, "abc", b"abc", [1.0, 2.0], (1.0,), Exception(), F32(1)], ids=repr)
def test_parameters_that_are_no_arrays(bad):
    refused_parameter(bad, TypeError, [type(bad).__name__, "allowed are NumPy arrays", "__dlpack__"])


@pytest.mark.parametrize("bad", [1.0, "abc", [1.0] * 5, F64(1), Adam], ids=repr)
def test_gradients_that_are_no_arrays(bad):
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'b'", type(bad).__name__, "allowed are NumPy arrays", "__dlpack__"):
        pair.optimizer.step({**filled(), "b": bad})


def test_a_masked_array_whose_mask_would_be_ignored():
    masked = np.ma.masked_array(np.ones(5), mask=[1, 0, 0, 0, 0])
    refused_parameter(masked, TypeError, ["MaskedArray", "mask", "allowed"], [masked.data])
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'b'", "MaskedArray", "allowed"):
        pair.optimizer.step({**filled(), "b": masked})


# ---- row 5: devices. No GPU is needed to refuse one: these classes only claim to lie there.


class OnGPU:
    """An array that claims to lie on a GPU."""

    def __init__(self, number=0, address=4096, shape=(5,), form="<f8", read_only=False):
        self.device, self._interface = number, {"typestr": form, "shape": shape, "version": 3}
        self._interface["data"] = (address, read_only)

    @property
    def __cuda_array_interface__(self):
        return self._interface


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


def test_a_gradient_on_another_device():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'b'", "('cuda', 0)", "('cpu', 0)", "nothing is copied in silence"):
        pair.optimizer.step({**filled(), "b": OnGPU()})


def test_a_device_that_is_not_served():
    refused_parameter(OnOther(), TypeError, ["OnOther", "DLPack device type 8"])


@pytest.mark.parametrize("backend", ["gpu", "CUDA", "", None, 0, ["cpu"]], ids=repr)
def test_unknown_backend(backend):
    param = np.ones(5)
    texts = ["backend", repr(backend), "'auto', 'cpu', 'cuda'"]
    refused(Adam, [param], ValueError, texts, watched=[param], backend=backend)


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


VIEWS = {
    "every second": lambda a: a[::2],
    "columns": lambda a: a.reshape(6, 4)[:, 1:3],
    "backwards": lambda a: a[::-1],
    "rows backwards": lambda a: a.reshape(6, 4)[::-1],
    "columns backwards": lambda a: a.reshape(6, 4)[:, ::-1],
    "expanded": lambda a: np.lib.stride_tricks.as_strided(a, (24,), (0,)),
    "expanded rows": lambda a: np.lib.stride_tricks.as_strided(a, (6, 4), (0, a.itemsize)),
    "windows": lambda a: np.lib.stride_tricks.as_strided(a, (20, 5), (a.itemsize, a.itemsize)),
    "diagonal": lambda a: np.lib.stride_tricks.as_strided(a, (4,), (5 * a.itemsize,)),
}


@pytest.mark.parametrize("view", VIEWS)
def test_parameters_that_are_not_dense(view):
    base = np.arange(24, dtype=F32)
    bad = VIEWS[view](base)
    refused_parameter(
        bad, ValueError, [f"shape {bad.shape}", f"strides {bad.strides}", "one dense run", "allowed"], [base]
    )


@pytest.mark.parametrize("view", VIEWS)
def test_gradients_that_are_not_dense(view):
    base = np.arange(24, dtype=F32)
    bad = VIEWS[view](base)
    param = np.ones(bad.shape, F32)
    grad, twin = np.full(bad.shape, 0.5, F32), param.copy()
    optimizer = Adam({"p": param})
    texts = ["gradient 'p'", f"strides {bad.strides}", "one dense run", "allowed"]
    with pytest.raises(ValueError, match="gradient") as caught:
        optimizer.step({"p": bad})
    check_message(caught.value, ValueError, texts)
    assert np.array_equal(param, twin)
    optimizer.step({"p": grad})
    Adam({"p": twin}).step({"p": grad})
    assert frozen(param) == frozen(twin)


def test_torch_views_that_are_not_dense():
    base = torch.arange(24.0)
    for bad in (base[::2], base[:1].expand(6), base.reshape(6, 4)[:, 1:], torch.zeros(3, dtype=torch.complex64).imag):
        refused_parameter(bad, ValueError, [f"shape {tuple(bad.shape)}", "one dense run", "allowed"], [base.numpy()])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_gradient_in_the_other_order(order):
    param = np.asarray(np.arange(12.0).reshape(3, 4), order=order)
    other = np.asarray(np.ones((3, 4)), order="F" if order == "C" else "C")
    before = param.copy()
    optimizer = Adam({"p": param})
    texts = ["gradient 'p'", str(other.strides), str(param.strides), "allowed is the same order"]
    with pytest.raises(ValueError, match="gradient") as caught:
        optimizer.step({"p": other})
    check_message(caught.value, ValueError, texts)
    assert np.array_equal(param, before)
    optimizer.step({"p": np.asarray(np.ones((3, 4)), order=order)})
    assert np.allclose(param, before - 1e-3)


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
    tensor = torch.nn.Parameter(torch.ones(4))
    refused(Adam, [tensor, tensor.detach()], ValueError, ["parameter 1", "parameter 0", *again])


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


def test_gradients_that_overlap_a_parameter():
    pair, spare = Pair(), np.ones(9)
    for bad in (pair.params["b"], pair.params["b"][:], pair.params["b"][::1]):
        with pair.refuses(ValueError, "gradient 'b'", "parameter 'b'", "shares memory", "memory of its own"):
            pair.optimizer.step({**filled(), "b": bad})
    optimizer = Adam([spare[:4], spare[4:8]])
    for grads in ([np.ones(4), spare[2:6]], [spare[4:8], np.ones(4)], [spare[5:9], None]):
        with pytest.raises(ValueError, match=r"(gradient|parameter) \d shares memory with (gradient|parameter) \d"):
            optimizer.step(grads)
        assert np.all(spare == 1)


def test_gradients_that_overlap_each_other():
    arrays, base = [np.ones(4), np.ones(4)], np.ones(7)
    optimizer = Adam(arrays)
    for grads in ([base[:4], base[3:]], [base[:4]] * 2):
        with pytest.raises(ValueError, match="gradient 1 shares memory with gradient 0"):
            optimizer.step(grads)
        assert all(np.all(array == 1) for array in arrays)


def test_state_dict_gives_copies():
    pair = Pair()
    state = pair.optimizer.state_dict()
    for array in (array for own in state["state"].values() for array in own.values() if isinstance(array, np.ndarray)):
        array[...] = np.nan
    state["groups"][0]["step"] = -1
    pair.go_on()


# ---- row 11: read-only memory


class ThroughDLPack:
    """A stranger that exports a NumPy array, read-only or not."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_read_only_parameters(tmp_path):
    fixed = np.ones(4, F32)
    fixed.flags.writeable = False
    fixed.tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", F32, "r")
    for bad in (fixed, np.frombuffer(bytes(16), F32), mapped, np.broadcast_to(F32(1), (1,)), ThroughDLPack(fixed)):
        refused_parameter(bad, ValueError, ["read-only", "in place"], [fixed])


def test_read_only_gradients_are_welcome():
    param, grad = np.ones(4, F32), np.ones(4, F32)
    grad.flags.writeable = False
    Adam([param]).step([grad])
    assert np.all(param != 1)
    assert np.all(grad == 1)


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


# ---- rows 3, 13, 40: PyTorch's tensors, which change behind our back


def test_requires_grad_and_parameters_are_updated_in_place():
    start, grad = np.linspace(-1, 1, 5, dtype=F32), np.linspace(1, 2, 5, dtype=F32)
    tensors = [torch.nn.Parameter(torch.tensor(start)), torch.tensor(start, requires_grad=True), torch.tensor(start)]
    twin, addresses = start.copy(), [tensor.data_ptr() for tensor in tensors]
    optimizer, other = Adam(tensors), Adam([twin])
    for _ in range(3):
        grads = [torch.tensor(grad, requires_grad=i == 1) for i in range(3)]
        optimizer.step(grads)
        other.step([grad])
    assert addresses == [tensor.data_ptr() for tensor in tensors]
    for tensor in tensors:
        assert np.array_equal(tensor.detach().numpy(), twin)


def torch_pair():
    return torch.nn.Parameter(torch.ones(4)), torch.full((4,), 0.5), np.ones(4, F32), np.full(4, 0.5, F32)


@pytest.mark.parametrize("rebind", [False, True])
def test_a_parameter_whose_data_moved_is_followed(rebind):
    param, grad, twin, twin_grad = torch_pair()
    optimizer, other = Adam([param]), Adam([twin])
    optimizer.step([grad])
    other.step([twin_grad])
    old = param.data
    param.data = torch.full((4,), 2.0)
    twin[...] = 2
    optimizer.step([grad] if rebind else None)
    other.step()
    assert np.array_equal(param.detach().numpy(), twin)
    assert torch.all(old == old[0])
    assert old[0] != param[0]


def test_a_gradient_whose_data_moved_is_followed():
    param, grad, twin, twin_grad = torch_pair()
    optimizer, other = Adam([param]), Adam([twin])
    optimizer.step([grad])
    other.step([twin_grad])
    grad.data = torch.full((4,), -3.0)
    twin_grad[...] = -3
    optimizer.step()
    other.step()
    assert np.array_equal(param.detach().numpy(), twin)


REPLACEMENTS = {
    "larger": lambda data: torch.ones(8),
    "smaller, elsewhere": lambda data: torch.ones(2),
    "smaller, in place": lambda data: data[:2],
    "other shape, in place": lambda data: data.reshape(2, 2),
    "other dtype": lambda data: torch.ones(4, dtype=torch.float64),
    "half": lambda data: data.half(),
    "not dense": lambda data: torch.ones(8)[::2],
    "freed": None,
}


@pytest.mark.parametrize("rebind", [False, True], ids=["step()", "step(grads)"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_replaced_parameter_is_refused(name, rebind):
    param, grad, twin, twin_grad = torch_pair()
    optimizer, other = Adam([param]), Adam([twin])
    optimizer.step([grad])
    other.step([twin_grad])
    before, data, held = frozen(optimizer.state_dict()), param.data, param.detach().clone()
    if name == "freed":
        param.untyped_storage().resize_(0)
    else:
        param.data = REPLACEMENTS[name](data)
    with pytest.raises((TypeError, ValueError), match=r"parameter 0 (was float32 of shape|has dtype|of shape|has no)"):
        optimizer.step([grad] if rebind else None)
    assert frozen(optimizer.state_dict()) == before
    if name == "freed":
        param.untyped_storage().resize_(16)
    param.data = held
    optimizer.step()
    other.step()
    assert np.array_equal(param.detach().numpy(), twin)


def test_a_square_parameter_transposed_in_place_is_noticed():
    param = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2))
    optimizer, grad = Adam([param]), torch.ones(2, 2)
    optimizer.step([grad])
    before = param.detach().clone()
    param.data = param.data.t()
    with pytest.raises(ValueError, match=r"parameter 0 was float32 of shape \(2, 2\) and strides \(8, 4\)"):
        optimizer.step()
    assert torch.equal(param.detach().t(), before)


def test_a_freed_gradient_is_refused():
    param, grad, _, _ = torch_pair()
    optimizer = Adam([param])
    optimizer.step([grad])
    before = param.detach().clone()
    grad.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="gradient 0 has no memory"):
        optimizer.step()
    assert torch.equal(param.detach(), before)


def test_numpy_arrays_are_pinned():
    param, grad = np.ones(4, F32), np.ones(4, F32)
    optimizer = Adam([param])
    optimizer.step([grad])
    address = param.ctypes.data
    for array in (param, grad):
        with pytest.raises(ValueError, match="cannot resize"):
            array.resize(10**6, refcheck=False)
    assert param.ctypes.data == address
    optimizer.step([np.ones(4, F32)])
    grad.resize(8, refcheck=False)  # no longer in force, so free
    assert grad.shape == (8,)


def test_what_is_borrowed_is_kept_alive():
    param = np.ones(50_000, F32)
    optimizer = Adam([param])
    optimizer.bind([np.full(50_000, 0.25, F32)])  # nobody else holds it
    scratch = [np.full(50_000, np.nan, F32) for _ in range(8)]
    optimizer.step()
    assert np.allclose(param, 0.999)
    assert len(scratch) == 8


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


def test_empty_torch_tensors_do_not_look_as_if_they_moved():
    param, empty = torch.ones(4), torch.empty(0)
    optimizer = Adam([param, empty])
    optimizer.step([torch.ones(4), torch.empty(0)])
    assert not optimizer._tensors.have_moved()
    empty.data = torch.ones(8)
    with pytest.raises(ValueError, match=r"parameter 1 was float32 of shape \(0,\)"):
        optimizer.step()


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_0_d_arrays(make):
    params, twin = [np.array(2.0), np.array(2.0, F32), torch.tensor(2.0)], np.array([2.0])
    optimizer, other = make(params, lr=0.1), make([twin], lr=0.1)
    for _ in range(3):
        optimizer.step([np.array(0.5), np.array(0.5, F32), torch.tensor(0.5)])
        other.step([np.array([0.5])])
    assert params[0].shape == ()
    assert params[0] == twin[0]
    assert params[1] == params[2].numpy()
    assert abs(params[1] - twin[0]) < 1e-6


def test_a_0_d_gradient_does_not_broadcast():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'w'", "shape ()", "(3, 4)"):
        pair.optimizer.step({**filled(), "w": np.array(1, F32)})


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


# ---- row 20: counters


@pytest.mark.parametrize("count", [2**24, 2**31, 2**32, 2**53 - 1])
def test_counters_go_on_beyond_what_a_float32_or_int32_counts(count):
    param = np.ones(3, F32)
    optimizer = Adam([param], lr=schedules.exponential_decay(0.1, 2**52, 0.5))
    state = optimizer.state_dict()
    for own in (state["groups"][0], state["state"][0]):
        own["step"] = own["updates"] = count
    optimizer.load_state_dict(state)
    optimizer.step([np.ones(3, F32)])
    own = optimizer.state_dict()["state"][0]
    assert (own["step"], own["updates"]) == (count + 1, count + 1)
    assert np.all(np.isfinite(param))
    assert np.all(param < 1)


# ---- rows 21 to 24: hyperparameters


ADAM_NAMES = ["lr", "beta1", "beta2", "eps", "weight_decay"]
RMSPROP_NAMES = ["lr", "alpha", "eps", "weight_decay", "momentum"]
NAMES = [(make, name) for make, names in ((AdamW, ADAM_NAMES), (RMSprop, RMSPROP_NAMES)) for name in names]
OUT_OF_RANGE = [math.nan, math.inf, -math.inf, -1.0, -1e-300, F32("nan"), 1e39]
NO_NUMBERS = ["0.1", None, True, np.True_, [0.1], np.array([0.1]), np.array(0.1), 0.1j, {}, torch.tensor(0.1)]
NO_NUMBERS += [decimal.Decimal("0.1"), b"1"]


def setting(name, value):
    if name in ("beta1", "beta2"):
        return {"betas": (value, 0.5) if name == "beta1" else (0.5, value)}
    return {name: value}


def refused_everywhere(make, name, value, error, texts):
    """In the constructor, in a group, for one group or all of them later, and none of it has an effect."""
    param, bad = np.ones(5), setting(name, value)
    where = f"{name} of group 0"
    refused(make, [param], error, [where, *texts], watched=[param], **bad)
    groups = [{"params": []}, {"params": [param], **bad}]
    refused(make, groups, error, [f"{name} of group 1", *texts], watched=[param])
    pair = Pair(make)
    for chosen in (None, 0, -1):
        with pair.refuses(error, where, *texts):
            pair.optimizer.set_hyperparameters(chosen, **bad)
    with pair.refuses(error, where, *texts):  # a good one beside it has no effect either
        pair.optimizer.set_hyperparameters(**{"eps": 0.5, "lr": 0.5, **bad})


@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_numbers_out_of_range(make, name, value):
    allowed = "a number >= 0 and < 1" if name in ("beta1", "beta2", "alpha") else "a finite number >= 0"
    texts = [f"is {float(value)!r}", f"allowed is {allowed}, or a schedule"]
    refused_everywhere(make, name, value, ValueError, texts)


@pytest.mark.parametrize("value", [1.0, 1, 2, np.float64(1)], ids=repr)
@pytest.mark.parametrize(("make", "name"), [(AdamW, "beta1"), (AdamW, "beta2"), (RMSprop, "alpha")])
def test_a_beta_of_one_or_more(make, name, value):
    refused_everywhere(make, name, value, ValueError, [f"is {float(value)!r}", "allowed is a number >= 0 and < 1"])


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_no_numbers(make, name, value):
    refused_everywhere(make, name, value, TypeError, ["must be a number", f"got {value!r}"])


@pytest.mark.parametrize("value", [lambda step: 0.1, float, np.sqrt], ids=["lambda", "class", "ufunc"])
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_plain_callables(make, name, value):
    refused_everywhere(make, name, value, TypeError, ["plain callable", "schedules.sampled", "schedules.step"])


@pytest.mark.parametrize("value", [0.9, (), (0.9,), (0.9, 0.9, 0.9), "ab", {0.8, 0.9}, None, np.array(0.9)], ids=repr)
def test_betas_that_are_not_two(value):
    param, texts = np.ones(5), ["betas of group 0", "two, beta1 and beta2", f"got {value!r}"]
    refused(Adam, [param], ValueError, texts, watched=[param], betas=value)
    pair = Pair()
    with pair.refuses(ValueError, *texts):
        pair.optimizer.set_hyperparameters(lr=0.5, betas=value)


@pytest.mark.parametrize("name", ["beta3", "betas2", "params", "amsgrad", "momentum", "LR"])
def test_hyperparameters_that_there_are_not(name):
    pair = Pair()
    with pair.refuses(ValueError, "adam", repr(name), "allowed are", "'weight_decay'"):
        pair.optimizer.set_hyperparameters(lr=0.5, **{name: 0.1})


@pytest.mark.parametrize("group", [1, -2, "0", 0.0, True, [0]], ids=repr)
def test_groups_that_there_are_not(group):
    pair = Pair()
    with pair.refuses(ValueError, f"group is {group!r}", "allowed are 0 to 0"):
        pair.optimizer.set_hyperparameters(group, lr=0.5)


def test_momentum_cannot_come_later_without_a_buffer():
    pair = Pair(RMSprop)
    for value in (0.9, schedules.constant(0.9)):
        with pair.refuses(ValueError, "group 0", "momentum_buffer", "momentum", "constructor"):
            pair.optimizer.set_hyperparameters(momentum=value)
    pair.optimizer.set_hyperparameters(momentum=0)
    pair.go_on()


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_an_eps_that_is_0_in_float32(make):
    param, wide = np.ones(5, F32), np.ones(5)
    texts = ["eps of group 0", "is 1e-46", "0 in float32", "allowed is 0 or >= 1.4e-45"]
    refused(make, [param], ValueError, texts, watched=[param], eps=1e-46)
    make([wide], eps=1e-46).step([np.ones(5)])
    assert np.all(wide != 1)
    make([param], eps=1.5e-45).step([np.ones(5, F32)])
    assert np.all(param != 1)
    pair = Pair(make)
    with pair.refuses(ValueError, *texts):
        pair.optimizer.set_hyperparameters(eps=1e-46)


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_eps_0_is_allowed_and_divides_0_by_0(make):
    """Row 26 too: no ZeroDivisionError out of Numba."""
    param = np.ones(3, F32)
    make([param], eps=0, lr=0.5).step([np.array([1, 0, -1], F32)])
    assert np.isnan(param).tolist() == [False, True, False]


def test_a_rate_that_flips_signs_warns_once():
    param = np.ones(5)
    with pytest.warns(UserWarning, match="lr of group 0 times weight_decay is above 1") as caught:
        optimizer = AdamW([param], lr=2.0, weight_decay=0.6)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.step([np.ones(5)])
        AdamW([param], lr=2.0, weight_decay=0.5)
        Adam([param], lr=2.0, weight_decay=0.6)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        *[(Adam, name, bad) for name in ("maximize", "amsgrad") for bad in (None, 1, "yes", 0.0, np.array([1, 2]))],
        *[(Adam, name, bad) for name in ("eps_placement", "decay") for bad in (None, True, "Inside", 1, ["inside"])],
        *[(RMSprop, name, bad) for name in ("centered", "bias_correction") for bad in (None, 1, "yes", "raw")],
        *[(RMSprop, name, bad) for name in ("eps_placement", "lr_placement") for bad in (None, "hat", "corrected")],
    ],
    ids=repr,
)  # fmt: skip
def test_options_with_unknown_values(make, name, bad):
    param = np.ones(5)
    texts = [f"{name} of group 0", f"is {bad!r}", "allowed are ("]
    refused(make, [param], ValueError, texts, watched=[param], **{name: bad})
    groups = [{"params": []}, {"params": [param], name: bad}]
    refused(make, groups, ValueError, [f"{name} of group 1", *texts[1:]], watched=[param])


def test_the_initial_square_average_is_a_number_in_range():
    param = np.ones(5)
    for bad in (math.nan, math.inf, -1e-9):
        texts = ["initial_square_avg of group 0", f"is {bad!r}", "allowed is a finite number >= 0"]
        refused(RMSprop, [param], ValueError, texts, watched=[param], initial_square_avg=bad)
    for bad in ("1", None, True, [1.0]):
        texts = ["initial_square_avg of group 0", "must be a number", f"got {bad!r}"]
        refused(RMSprop, [param], TypeError, texts, watched=[param], initial_square_avg=bad)


# ---- rows 22, 26, 28: schedules


BAD_SCHEDULES = {
    "negative": ("lr", schedules.step - 1.0, "-1.0", "a finite number >= 0"),
    "0/0": ("lr", schedules.step / schedules.step, "nan", "a finite number >= 0"),
    "1/0": ("lr", 1.0 / schedules.step, "inf", "a finite number >= 0"),
    "log 0": ("eps", schedules.log(schedules.step), "-inf", "a finite number >= 0"),
    "overflow": ("weight_decay", schedules.exp(schedules.step + 1000.0), "inf", "a finite number >= 0"),
    "beta of one": ("beta1", schedules.constant(1.0), "1.0", "a number >= 0 and < 1"),
    "beta of NaN": ("beta2", schedules.parameter("beta", math.nan), "nan", "a number >= 0 and < 1"),
}


@pytest.mark.parametrize("name", BAD_SCHEDULES)
def test_schedules_out_of_range_at_the_first_step(name):
    which, schedule, value, allowed = BAD_SCHEDULES[name]
    param = np.ones(5)
    texts = [f"{which} of group 1", value, "step 0", f"allowed is {allowed}", "nothing was written"]
    groups = [{"params": []}, {"params": [param], **setting(which, schedule)}]
    refused(Adam, groups, ScheduleError, texts, watched=[param])


def test_schedules_that_are_too_much_for_the_tables():
    """A program may grow into the room that it has; beyond that it is refused before anything has changed."""
    grown = Pair()
    grown.optimizer.set_hyperparameters(lr=schedules.sampled(lambda k: 0.1, 4000))
    for _ in range(2):
        grown.optimizer.step()
        grown.twin.step()
        assert frozen(grown.params) == frozen(grown.twins)
    long = schedules.sampled(lambda k: 0.1, 5000)
    deep = schedules.step
    for k in range(5000):
        deep = deep + k
    many = sum((schedules.accumulator(f"a{i}", 1.0, lambda x: x) for i in range(5)), schedules.constant(0.0))
    wide = schedules.step
    for k in range(70):  # each is needed twice, so 70 results are kept
        part = schedules.step * k
        wide = schedules.where(part > 1, wide, part + 1) + part
    pair = Pair()
    for schedule, texts in (
        (long, ["5", "'values'", "room for 4096", "new optimizer"]),
        (deep, ["'program'", "room for 4096", "new optimizer"]),
        (many, ["4 accumulators", "got 5", "'a0'"]),
        (wide, ["too large", "64"]),
    ):
        with pair.refuses(ValueError, *texts):
            pair.optimizer.set_hyperparameters(lr=schedule, eps=0.5)
    with pair.refuses(ValueError, "too large"):
        pair.optimizer.set_hyperparameters(weight_decay=wide)


def test_names_that_stand_for_two_things():
    param = np.ones(5)
    one, two = (schedules.parameter("scale", value) for value in (1.0, 2.0))
    texts = ["'scale'", "two values", "1.0", "2.0", "one number"]
    refused(Adam, [{"params": [param], "lr": one}, {"params": [], "lr": two}], ValueError, texts, watched=[param])
    lr, decay = (schedules.accumulator("sum", value, lambda x: x / 2) for value in (1.0, 2.0))
    refused(Adam, [param], ValueError, ["accumulators", "'sum'"], watched=[param], lr=lr, weight_decay=decay)
    pair = Pair(lr=0.1 * one)
    with pair.refuses(ValueError, *texts):
        pair.optimizer.set_hyperparameters(eps=1e-3 * two)


PARAMETER_ERRORS = [("other", 1.0, KeyError, ["'other'", "'scale'"]), (5, 1.0, KeyError, ["5", "'scale'"])]
PARAMETER_ERRORS += [
    ("scale", bad, TypeError, ["parameter 'scale'", "must be a number", f"got {bad!r}"])
    for bad in ("1", None, True, [1.0], 1j, schedules.step)
]


@pytest.mark.parametrize(("name", "value", "error", "texts"), PARAMETER_ERRORS)
def test_bad_values_of_a_named_parameter(name, value, error, texts):
    pair = Pair(lr=0.1 * schedules.parameter("scale", 1.0))
    with pair.refuses(error, *texts):
        pair.optimizer.set_parameter(name, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_named_parameter_that_takes_the_rate_out_of_range_holds_the_step(value):
    pair = Pair(lr=0.1 * schedules.parameter("scale", 1.0))
    pair.optimizer.set_parameter("scale", value)
    before = frozen([pair.params, pair.optimizer.state_dict()])
    for _ in range(2):
        with pytest.raises(ScheduleError, match=r"lr of group 0 would be .* at step 1; allowed is a finite number"):
            pair.optimizer.step()
        assert frozen([pair.params, pair.optimizer.state_dict()]) == before
    pair.optimizer.set_parameter("scale", 1.0)
    pair.go_on()


# ---- row 25: subnormal and huge gradients


@pytest.mark.parametrize("grad", [1e-45, 1e-38, 1e-30, 1e-19, 1e19, 1e30, math.inf, math.nan, 0.0, -1e-45], ids=repr)
def test_subnormal_and_huge_gradients_as_in_ieee(grad):
    """The same bits as the formula in NumPy's float32, which flushes nothing."""
    half, tiny, param, p = F32(0.5), F32(1e-40), np.full(3, 1e-36, F32), F32(1e-36)
    optimizer = Adam([param], lr=1e-36, betas=(0.5, 0.5), eps=1e-40)
    m = v = F32(0)
    with np.errstate(all="ignore"):
        g = F32(grad)
        for corrections in (0.5, 0.75):
            optimizer.step([np.full(3, g)])
            m = m + half * (g - m)
            v = v + half * (g * g - v)
            denominator = np.sqrt(v) * F32(1 / math.sqrt(corrections)) + tiny
            p = p - F32(1e-36 / corrections) * (m / denominator)
    state = optimizer.state_dict()["state"][0]
    for ours, theirs in ((param, p), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
        assert np.array_equal(ours, np.full(3, theirs), equal_nan=True)


def test_a_thread_that_flushes_subnormals():
    param = np.ones(4, F32)
    assert torch.set_flush_denormal(True)
    try:
        refused(Adam, [param], RuntimeError, ["subnormal", "set_flush_denormal", "allow_flush=True"], watched=[param])
        Adam([param], allow_flush=True).step([np.ones(4, F32)])
    finally:
        torch.set_flush_denormal(False)
    assert np.all(param != 1)
    Adam([param])


# ---- malformed groups


def test_malformed_parameters():
    a, b = np.ones(3), np.ones(4)
    for params, error, texts in (
        (None, TypeError, ["params", "list or dict of arrays", "NoneType"]),
        (5, TypeError, ["params", "list or dict of arrays", "int"]),
        ("abc", TypeError, ["params", "list or dict of arrays", "str"]),
        (a, TypeError, ["params", "a single ndarray", "[array]"]),
        (torch.ones(3), TypeError, ["params", "a single Tensor", "[array]"]),
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


def test_unknown_keywords():
    for name in ("foreach", "fused", "capturable", "momentum"):
        with pytest.raises(TypeError, match=name):
            Adam([np.ones(3)], **{name: True})


# ---- gradients as a whole


@pytest.mark.parametrize(
    ("grads", "error", "texts"),
    [
        ([], ValueError, ["got 0 gradients for 2 parameters", "give None"]),
        ([np.ones((3, 4), F32)], ValueError, ["got 1 gradients for 2 parameters"]),
        ([np.ones((3, 4), F32), np.ones(5), None], ValueError, ["got 3 gradients for 2 parameters"]),
        ({"w": np.ones((3, 4), F32), "c": np.ones(5)}, ValueError, ["gradient 'c'", "no parameter", "['w', 'b']"]),
        ({0: np.ones((3, 4), F32)}, ValueError, ["gradient 0", "no parameter", "['w', 'b']"]),
        (np.ones((2, 4)), TypeError, ["grads", "list or a dict", "ndarray"]),
        (torch.ones(2), TypeError, ["grads", "list or a dict", "Tensor"]),
        (5, TypeError, ["grads", "list or a dict", "int"]),
        ("wb", TypeError, ["grads", "list or a dict", "str"]),
        (F32(1), TypeError, ["grads", "list or a dict", "float32"]),
        (lambda: None, TypeError, ["grads", "list or a dict", "function"]),
    ],
)
def test_gradients_that_do_not_fit_as_a_whole(grads, error, texts):
    for act in ("step", "bind"):
        pair = Pair()
        with pair.refuses(error, *texts):
            getattr(pair.optimizer, act)(grads)


def test_step_before_bind():
    param = np.ones(5)
    optimizer = Adam([param])
    with pytest.raises(ValueError, match=r"no gradients: give step\(grads\), or bind\(grads\)"):
        optimizer.step()
    assert np.all(param == 1)
    assert optimizer.state_dict()["groups"][0]["step"] == 0
    with pytest.raises(ValueError, match="shape"):
        optimizer.step([np.ones(4)])
    with pytest.raises(ValueError, match="no gradients"):
        optimizer.step()  # a refused gradient is not in force
    optimizer.bind([np.ones(5)])
    optimizer.step()
    assert np.allclose(param, 0.999)


def test_a_failed_bind_leaves_the_gradients_before_in_force():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'b'"):
        pair.optimizer.bind({"w": np.ones((3, 4), F32), "b": np.ones(4)})


# ---- row 34: states that do not fit


def saved(**settings):
    """A state with everything in it: two groups, a named parameter, an accumulator, three states."""
    optimizer = stateful(**settings)
    optimizer.step([np.ones((2, 3)), None])
    optimizer.step([np.ones((2, 3)), np.ones(4, F32)])
    return optimizer


def stateful(make=Adam, **settings):
    product = schedules.accumulator("product", 1.0, lambda x: x * 0.5)
    lr = 0.1 * product * schedules.parameter("scale", 1.0)
    groups = [{"params": [np.ones((2, 3))], "lr": lr}, {"params": [np.ones(4, F32)], "lr": 0.2}]
    if make is Adam:
        settings = {"amsgrad": True, **settings}
    return make(groups, **settings)


def change(path, value):
    def apply(state):
        *way, last = path
        for key in way:
            state = state[key]
        if value is DELETE:
            del state[last]
        else:
            state[last] = value

    return apply


DELETE = object()
COUNTS = "allowed are whole numbers from 0 to 2**53"
DIFFERENCES = {
    "other rule": (change(["rule"], "rmsprop"), ["of the rule 'rmsprop'", "this optimizer is 'adam'"]),
    "rule no name": (change(["rule"], 5), ["'rule' is a int"]),
    "older version": (change(["format_version"], 0), ["format version is 0", "allowed is 1"]),
    "newer version": (change(["format_version"], 2), ["format version is 2", "allowed is 1"]),
    "version no number": (change(["format_version"], "1"), ["'format_version' is a str"]),
    "group too many": (lambda s: s["groups"].append(s["groups"][0]), ["it has 3 groups, this optimizer has 2"]),
    "group too few": (lambda s: s["groups"].pop(), ["it has 1 groups, this optimizer has 2"]),
    "groups no list": (change(["groups"], 5), ["'groups' is a int"]),
    "group no dict": (change(["groups", 1], None), ["group 1 is a NoneType"]),
    "tensor too many": (change(["state", "x"], {}), ["the tensor 'x', which this optimizer has not"]),
    "tensor missing": (change(["state", 1], DELETE), ["it has no tensor 1"]),
    "tensor no dict": (change(["state", 1], 5), ["tensor 1 is a int"]),
    "states no dict": (change(["state"], []), ["'state' is a list"]),
    "shape": (change(["state", 0, "exp_avg"], np.ones((3, 2))), ["exp_avg of tensor 0", "float64 (3, 2)", "(2, 3)"]),
    "dtype": (change(["state", 0, "exp_avg"], np.ones((2, 3), F32)), ["exp_avg of tensor 0", "float32", "float64"]),
    "byte order": (change(["state", 1, "exp_avg"], np.ones(4, ">f4")), ["exp_avg of tensor 1", ">f4", "float32"]),
    "state missing": (change(["state", 0, "max_exp_avg_sq"], DELETE), ["states of tensor 0", "'max_exp_avg_sq'"]),
    "state too many": (change(["state", 0, "momentum"], np.ones(2)), ["states of tensor 0", "'momentum'"]),
    "state of another type of key": (change(["state", 0, 5], np.ones(2)), ["states of tensor 0", "5"]),
    "state garbage": (change(["state", 0, "exp_avg"], "abc"), ["exp_avg of tensor 0", "float64 (2, 3)"]),
    "state ragged": (change(["state", 0, "exp_avg"], [[1.0], [2.0, 3.0]]), ["exp_avg of tensor 0", "(2, 3)"]),
    "state None": (change(["state", 0, "exp_avg"], None), ["exp_avg of tensor 0", "object", "(2, 3)"]),
    "state needs grad": (
        change(["state", 1, "exp_avg"], torch.ones(4, requires_grad=True)), ["exp_avg of tensor 1", "(4,)"]),
    "accumulator missing": (
        change(["state", 0, "accumulators"], {}), ["accumulators of tensor 0 are []", "['product']"]),
    "accumulator other": (change(["groups", 0, "accumulators"], {"x": 1.0}), ["accumulators of group 0", "['x']"]),
    "accumulator too many": (change(["groups", 1, "accumulators"], {3: 1.0, "x": 1.0}), ["accumulators of group 1"]),
    "accumulators no dict": (change(["state", 0, "accumulators"], None), ["accumulators of tensor 0 are None"]),
    "accumulator garbage": (
        change(["state", 0, "accumulators", "product"], "x"), ["tensor 0", "accumulator 'product'", "got 'x'"]),
    "parameter missing": (change(["parameters"], {}), ["named parameters are []", "['scale']"]),
    "parameter other": (change(["parameters"], {"x": 1.0}), ["named parameters are ['x']", "['scale']"]),
    "parameter too many": (change(["parameters", 5], 1.0), ["named parameters are [5, 'scale']"]),
    "parameter garbage": (change(["parameters", "scale"], "big"), ["the parameter 'scale'", "got 'big'"]),
    "parameter bool": (change(["parameters", "scale"], True), ["the parameter 'scale'", "got True"]),
    "parameters no dict": (change(["parameters"], [1.0]), ["'parameters' is a list"]),
}  # fmt: skip
for _where, _path in (("group 1", ["groups", 1]), ("tensor 1", ["state", 1])):
    for _count in ("step", "updates"):
        for _bad in (-1, 2**53 + 1, 10**400, 1.0, math.nan, True, "3", None, [1]):
            _name = f"{_count} of {_where} {str(_bad)[:20]}"
            DIFFERENCES[_name] = (change([*_path, _count], _bad), [f"{_count} of {_where} is {_bad!r}", COUNTS])
        DIFFERENCES[f"no {_count} of {_where}"] = (change([*_path, _count], DELETE), [f"{_count} of {_where} is None"])
for _key in ("format_version", "rule", "groups", "state", "parameters"):
    DIFFERENCES[f"no entry {_key}"] = (change([_key], DELETE), [f"no entry '{_key}'"])


def check_refused_state(optimizer, twin, state, texts, **options):
    params = [array.owner for array in optimizer._tensors.params]
    before = frozen([params, optimizer.state_dict(), optimizer.hyperparameters()])
    with pytest.raises(ValueError, match="nothing was changed") as caught:
        optimizer.load_state_dict(state, **options)
    check_message(caught.value, ValueError, texts)
    assert frozen([params, optimizer.state_dict(), optimizer.hyperparameters()]) == before
    for other in (optimizer, twin):
        other.step([np.full((2, 3), 0.3), np.full(4, 0.7, F32)])
    assert frozen(params) == frozen([array.owner for array in twin._tensors.params])
    assert frozen(optimizer.state_dict()) == frozen(twin.state_dict())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_state_that_does_not_fit(name):
    apply, texts = DIFFERENCES[name]
    state = saved().state_dict()
    apply(state)
    check_refused_state(saved(), saved(), state, texts)
    fresh = stateful()
    check_refused_state(fresh, stateful(), state, texts)
    fresh.load_state_dict(saved().state_dict())


@pytest.mark.parametrize("state", [None, [], "abc", 5, np.ones(3)], ids=repr)
def test_a_state_that_is_no_dict(state):
    check_refused_state(saved(), saved(), state, [f"it is a {type(state).__name__}", "allowed is the dict"])


def test_every_difference_is_named():
    state = saved().state_dict()
    names = ["other rule", "group too many", "tensor too many", "tensor missing", "shape", "state missing"]
    names += ["accumulator missing", "parameter other", "step of group 1 -1", "updates of group 1 True"]
    for name in names:
        DIFFERENCES[name][0](state)
    check_refused_state(saved(), saved(), state, [text for name in names for text in DIFFERENCES[name][1]])
    state = saved().state_dict()
    for name in ("no entry rule", "newer version", "groups no list", "states no dict"):
        DIFFERENCES[name][0](state)
    texts = ["no entry 'rule'", "format version is 2", "'groups' is a int", "'state' is a list"]
    check_refused_state(saved(), saved(), state, texts)


def test_the_state_of_another_optimizer():
    state = stateful(RMSprop, momentum=0.9).state_dict()
    texts = ["of the rule 'rmsprop'", "states of tensor 0 are ['momentum_buffer', 'square_avg']", "states of tensor 1"]
    check_refused_state(saved(), saved(), state, texts)
    state = saved(amsgrad=False).state_dict()
    check_refused_state(saved(), saved(), state, ["states of tensor 0", "states of tensor 1", "'max_exp_avg_sq'"])


@pytest.mark.parametrize(
    ("name", "value", "texts"),
    [
        ("lr", math.nan, ["lr of group 1", "is nan", "allowed is a finite number"]),
        ("lr", -1, ["lr of group 1", "is -1.0", "allowed is a finite number"]),
        ("lr", DELETE, ["lr of group 1", "must be a number", "got None"]),
        ("beta1", 1.0, ["beta1 of group 1", "is 1.0", "allowed is a number >= 0 and < 1"]),
        ("beta2", "0.9", ["beta2 of group 1", "must be a number", "got '0.9'"]),
        ("eps", 1e-46, ["eps of group 1", "is 1e-46", "allowed is 0 or >= 1.4e-45"]),
        ("weight_decay", True, ["weight_decay of group 1", "got True"]),
    ],
)
def test_saved_hyperparameters_that_are_not_allowed(name, value, texts):
    state = saved().state_dict()
    change(["groups", 1, name], value)(state)
    check_refused_state(saved(), saved(), state, texts, hyperparameters=True)
    saved().load_state_dict(state)  # nobody asked for them


def test_all_saved_hyperparameters_are_named():
    state = saved().state_dict()
    for group, name, value in ((0, "eps", -1.0), (1, "lr", math.nan), (1, "beta1", 2.0)):
        state["groups"][group][name] = value
    texts = ["eps of group 0", "lr of group 1", "beta1 of group 1"]
    check_refused_state(saved(), saved(), state, texts, hyperparameters=True)


def test_the_public_errors_are_what_they_say():
    assert issubclass(gpuadam.ScheduleError, ValueError)

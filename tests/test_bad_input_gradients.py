"""Bad gradients are refused before anything is written.

By the right exception, with a message that names what is wrong, its value and what is allowed; and the optimizer then
goes on as if nothing had happened. The rows are those of the fault table.
"""

import math

import numpy as np
import pytest
from bad_input import DTYPE_NAMES, F32, F64, VIEWS, OnGPU, Pair, check_message, filled, frozen

from gpuadam import Adam

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


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_dtype_of_a_gradient(name):
    pair, bad = Pair(), np.zeros(5, name)
    allowed = "allowed for it are float32, float64, float16, bfloat16"
    with pair.refuses(TypeError, "gradient 'b'", f"dtype {bad.dtype}", "its parameter has float64", allowed):
        pair.optimizer.step({**filled(), "b": bad})


def test_a_float64_gradient_of_a_narrower_parameter():
    """The rule computes in float32, so most of it would be lost in silence."""
    pair, allowed = Pair(), "allowed for it are float32, float16, bfloat16"
    with pair.refuses(TypeError, "gradient 'w'", "dtype float64", "its parameter has float32", allowed):
        pair.optimizer.step({**filled(), "w": np.zeros((3, 4))})


@pytest.mark.parametrize("bad", [1.0, "abc", [1.0] * 5, F64(1), Adam], ids=repr)
def test_gradients_that_are_no_arrays(bad):
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'b'", type(bad).__name__, "allowed are NumPy arrays", "__dlpack__"):
        pair.optimizer.step({**filled(), "b": bad})


# ---- row 5: devices. No GPU is needed to refuse one: these classes only claim to lie there.


def test_a_gradient_on_another_device():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'b'", "('cuda', 0)", "('cpu', 0)", "nothing is copied in silence"):
        pair.optimizer.step({**filled(), "b": OnGPU()})


# ---- rows 6 and 7: what is not one dense run of memory


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


# ---- row 8, 9: the same memory twice


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


# ---- row 11: read-only memory


def test_read_only_gradients_are_welcome():
    param, grad = np.ones(4, F32), np.ones(4, F32)
    grad.flags.writeable = False
    Adam([param]).step([grad])
    assert np.all(param != 1)
    assert np.all(grad == 1)


# ---- rows 3, 13, 40: PyTorch's tensors, which change behind our back


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


def test_a_0_d_gradient_does_not_broadcast():
    pair = Pair()
    with pair.refuses(ValueError, "gradient 'w'", "shape ()", "(3, 4)"):
        pair.optimizer.step({**filled(), "w": np.array(1, F32)})


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

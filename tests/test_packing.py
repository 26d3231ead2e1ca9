"""`pack`: values, order of elements, alignment and zeros; training on the flat buffer is training on the arrays."""

import fake_cupy
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from cases import assert_same_bits
from fake_device import machine
from fake_twins import NEEDS_COMPILER, stand_in, to_device  # noqa: F401 (a fixture)

import gpuadam
from gpuadam import pack

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ALIGNMENT = 64


def numbers(*shape, dtype=np.float32, seed=0):
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape) + 10).astype(dtype)


def dense(dtype=np.float32, seed=0):
    """C, Fortran and permuted order; 0-d, empty, length 1; around 64 bytes."""
    found = [
        numbers(*shape, dtype=dtype, seed=seed) for shape in ((), (0,), (3,), (2, 0, 4), (8,), (16,), (33,), (4, 5))
    ]
    found += [numbers(7, 5, dtype=dtype, seed=seed).T, np.asfortranarray(numbers(3, 4, 5, dtype=dtype, seed=seed))]
    return [*found, numbers(3, 4, 5, dtype=dtype, seed=seed).transpose(1, 2, 0), numbers(6, dtype=dtype)[:, None].T]


def with_holes(dtype=np.float32):
    base = numbers(6, 8, dtype=dtype)
    return [base[:, ::2], base[::-1], base.T[1:], np.broadcast_to(base[0], (3, 8))]


def to_cupy(array):
    """A copy on the stand-in's device, in the same order of elements."""
    axes = np.argsort(array.strides)[::-1].tolist()
    return to_device(array.transpose(axes).copy()).transpose(np.argsort(axes).tolist())


def spread(array):
    """The strides that mean something."""
    return [stride for stride, length in zip(array.strides, array.shape, strict=True) if length > 1]


def address(array):
    return array.__array_interface__["data"][0]


# ---- the buffer and its views


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_views_have_the_values_in_a_buffer_of_aligned_runs_with_zeros_between(dtype):
    arrays = dense(dtype) + with_holes(dtype)
    originals = [array.copy() for array in arrays]
    flat, views = pack(arrays)
    assert (flat.ndim, flat.dtype, address(flat) % ALIGNMENT) == (1, dtype, 0)
    for array, original, view in zip(arrays, originals, views, strict=True):
        assert (view.shape, view.dtype) == (original.shape, original.dtype)
        assert np.array_equal(view, original)
        assert np.array_equal(array, original)
        assert not np.shares_memory(array, view)
        assert view.flags.writeable
        if view.size:
            assert np.shares_memory(flat, view)
            assert address(view) % ALIGNMENT == 0
    for number, view in enumerate(views):
        view[...] = number + 1
    assert all((view == number + 1).all() for number, view in enumerate(views)), "views overlap"
    for view in views:
        view[...] = 0
    assert not flat.any(), "there is something else than zero between the views"
    assert flat.nbytes < sum(array.nbytes + ALIGNMENT for array in arrays)


def test_padding_is_zero_as_soon_as_it_is_made():
    flat, (first, second) = pack([numbers(3), numbers(17)])
    assert np.array_equal(np.flatnonzero(flat), [*range(3), *range(16, 33)])
    assert flat[:3].tolist() == first.tolist()
    assert flat[16:33].tolist() == second.tolist()


def test_views_keep_the_order_of_elements():
    for array, view in zip(dense(), pack(dense())[1], strict=True):
        if view.size:
            assert view.ravel(order="K").tolist() == array.ravel(order="K").tolist()
            assert spread(view) == spread(array)
    assert all(view.flags.c_contiguous for view in pack(with_holes())[1])


def test_gradients_of_the_same_shapes_and_orders_lie_alike():
    flat, views = pack(dense())
    flat_grads, _ = pack([np.asarray(-2 * array) for array in dense()])  # NumPy keeps the order of elements
    assert np.array_equal(flat_grads, -2 * flat)
    zeros, grads = pack([np.zeros_like(view) for view in views])
    for grad, array in zip(grads, dense(), strict=True):
        grad[...] = np.ascontiguousarray(array).reshape(array.shape)  # a gradient in another order of elements
    assert np.array_equal(zeros, flat)


@pytest.mark.parametrize("empty", [[], (), {}, [np.zeros(0)], {"a": np.zeros((3, 0), np.float16)}], ids=repr)
def test_nothing_to_pack(empty):
    flat, views = pack(empty)
    assert flat.shape == (0,)
    assert isinstance(views, dict if isinstance(empty, dict) else list)
    assert len(views) == len(empty)
    gpuadam.RMSprop([flat.astype(np.float32)]).step([np.zeros(0, np.float32)])


def test_a_dict_gives_a_dict_and_a_list_a_list():
    weight, bias = numbers(2, 3), numbers(3)
    _, views = pack({"weight": weight, 7: bias})
    assert list(views) == ["weight", 7]
    assert np.array_equal(views["weight"], weight)
    assert np.array_equal(views[7], bias)
    for container in (list, tuple):
        _, views = pack(container([weight, bias]))
        assert type(views) is list
        assert np.array_equal(views[1], bias)


def test_what_has_the_array_interface_is_an_array():
    class Wrapped:
        def __init__(self, array):
            self.array = array
            self.__array_interface__ = array.__array_interface__

    frozen = numbers(4)
    frozen.flags.writeable = False
    _, views = pack([Wrapped(numbers(5, 3).T), frozen, np.float32(3)])
    assert np.array_equal(views[0], numbers(5, 3).T)
    assert views[1].flags.writeable
    assert views[2] == 3


# ---- training


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("make", [gpuadam.AdamW, gpuadam.RMSprop], ids=["adamw", "rmsprop"])
def test_training_the_buffer_is_training_the_arrays(make, dtype):
    arrays, settings = dense(dtype), {"lr": 0.1, "weight_decay": 0.1}
    flat, views = pack(arrays)
    start = [array.copy() for array in arrays]
    one, many = make([flat], **settings), make(arrays, **settings)
    for seed in range(3):
        grads = dense(dtype, seed=seed)
        one.step([pack(grads)[0]])
        many.step(grads)
    for view, array, old in zip(views, arrays, start, strict=True):
        assert_same_bits(view, array)
        assert not view.size or (view != old).all()
        view[...] = 0
    assert not flat.any(), "the padding has not stayed zero"


def test_an_epsilon_of_zero_harms_the_padding_alone():
    arrays, grads = [numbers(3), numbers(5)], [numbers(3, seed=1), numbers(5, seed=1)]
    flat, views = pack(arrays)
    gpuadam.RMSprop([flat], eps=0.0).step([pack(grads)[0]])
    gpuadam.RMSprop(arrays, eps=0.0).step(grads)
    for view, array in zip(views, arrays, strict=True):
        assert_same_bits(view, array)
        assert np.isfinite(view).all()
    assert np.isnan(flat).sum() == flat.size - 8


def test_pytorch_as_the_message_says():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    with pytest.raises(TypeError, match=r"array 0 is a PyTorch tensor: pack numpy.from_dlpack\(tensor.detach\(\)\)"):
        pack(list(model.parameters()))
    flat, views = pack([np.from_dlpack(tensor.detach()) for tensor in model.parameters()])
    for tensor, view in zip(model.parameters(), views, strict=True):
        tensor.data = torch.from_dlpack(view)
    before = model(torch.ones(3))
    flat *= 0
    assert before.abs().sum() > 0
    assert model(torch.ones(3)).abs().sum() == 0


# ---- what is refused

WEIGHT = numbers(4, 4)


class OnlyDLPack:
    __dlpack__ = WEIGHT.__dlpack__
    __dlpack_device__ = WEIGHT.__dlpack_device__


@pytest.mark.parametrize(
    ("arrays", "error", "texts"),
    [
        (WEIGHT, TypeError, ["arrays must be a list or dict", "ndarray"]),
        ("weights", TypeError, ["arrays must be a list or dict", "str"]),
        (None, TypeError, ["arrays must be a list or dict", "NoneType"]),
        ([1.0], TypeError, ["array 0 is a float", "NumPy", "CuPy"]),
        ({"w": [1.0]}, TypeError, ["array 'w' is a list", "NumPy", "CuPy"]),
        ([OnlyDLPack()], TypeError, ["array 0 is a OnlyDLPack", "__array_interface__"]),
        ([WEIGHT, np.ma.masked_array(WEIGHT)], TypeError, ["array 1 is a MaskedArray"]),
        ([np.zeros(3, np.int64)], TypeError, ["array 0 has dtype int64", "float16, bfloat16, float32, float64"]),
        ({"w": np.zeros(3, ">f4")}, TypeError, ["array 'w' has dtype >f4", "byte order"]),
        (
            {"a": numbers(2, dtype=np.float64), "b": numbers(2), "c": numbers(3)},
            ValueError,
            ["array 'a' is float64", "array 'b' is float32", "one dtype"],
        ),
        ([numbers(2), numbers(2, dtype=np.float16)], ValueError, ["array 1 is float16", "array 0 is float32"]),
        ([WEIGHT, numbers(3), WEIGHT.T], ValueError, ["array 2 shares memory with array 0", "tied"]),
    ],
)
def test_what_is_refused(arrays, error, texts):
    with pytest.raises(error) as raised:
        pack(arrays)
    assert all(text in str(raised.value) for text in texts), raised.value


# ---- CuPy


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_cupy_arrays(dtype):
    machine.device_count = 2
    with fake_cupy.cuda.Device(1):
        arrays = {str(i): to_cupy(array) for i, array in enumerate(dense(dtype))}
        arrays["holes"] = to_cupy(numbers(6, 8, dtype=dtype))[:, ::2]
    flat, views = pack(arrays)
    twin, expected = pack([*dense(dtype), numbers(6, 8, dtype=dtype)[:, ::2]])
    assert isinstance(flat, fake_cupy.ndarray)
    assert (flat.device, flat.dtype) == (fake_cupy.cuda.Device(1), dtype)
    assert flat.get().tobytes() == twin.tobytes()
    assert list(views) == list(arrays)
    for view, other in zip(views.values(), expected, strict=True):
        assert (view.shape, view.device) == (other.shape, flat.device)
        assert not view.size or spread(view) == spread(other)
        assert view.get().tobytes() == other.tobytes()
        assert not view.size or (view.data.ptr - flat.data.ptr) % ALIGNMENT == 0


@NEEDS_COMPILER
@pytest.mark.usefixtures("stand_in")
def test_training_a_cupy_buffer():
    flat, views = pack([to_cupy(array) for array in dense()])
    arrays = dense()
    gpuadam.AdamW([flat]).step([pack([to_cupy(array) for array in dense(seed=1)])[0]])
    gpuadam.AdamW(arrays).step(dense(seed=1))
    for view, array in zip(views, arrays, strict=True):
        assert_same_bits(view.get(), array)


@pytest.mark.usefixtures("stand_in")
def test_arrays_on_several_devices():
    machine.device_count = 2
    here = [to_cupy(numbers(2)), to_cupy(numbers(3))]
    with fake_cupy.cuda.Device(1):
        there = to_cupy(numbers(4))
    for odd, place in ((there, "('cuda', 1)"), (numbers(4), "('cpu', 0)")):
        with pytest.raises(ValueError, match="one device") as raised:
            pack([odd, *here])
        assert f"array 0 is float32 on {place}, array 1 is float32 on ('cuda', 0)" in str(raised.value)

"""PyTorch's tensors: bad ones are refused before anything is written, and changes behind our back are noticed.

By the right exception, with a message that names what is wrong, its value and what is allowed; and the optimizer then
goes on as if nothing had happened. The rows are those of the fault table.
"""

import numpy as np
import pytest
from bad_input import (
    DTYPES,
    F32,
    NAMES,
    Pair,
    change,
    check_refused_state,
    filled,
    frozen,
    refused,
    refused_everywhere,
    refused_parameter,
    saved,
    stateful,
)

from gpuadam import Adam, RMSprop

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

# ---- row 4: dtypes


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_dtype_of_a_torch_parameter(dtype):
    refused_parameter(torch.zeros(4, dtype=dtype), TypeError, [str(dtype).removeprefix("torch."), *DTYPES])


def test_torch_tensors_that_numpy_cannot_read():
    for bad, text in (
        (torch.eye(4).to_sparse(), "strided"),
        (torch.zeros(4, device="meta"), "meta"),
        (torch.zeros(4)._neg_view(), "resolve_neg()"),  # its memory holds -x
    ):
        refused_parameter(bad, TypeError, [text])


def test_a_sparse_gradient():
    pair = Pair()
    with pair.refuses(TypeError, "gradient 'w'", "Tensor", "strided"):
        pair.optimizer.step({**filled(), "w": torch.ones(3, 4).to_sparse()})


# ---- rows 6 and 7: what is not one dense run of memory


def test_torch_views_that_are_not_dense():
    base = torch.arange(24.0)
    for bad in (base[::2], base[:1].expand(6), base.reshape(6, 4)[:, 1:], torch.zeros(3, dtype=torch.complex64).imag):
        refused_parameter(bad, ValueError, [f"shape {tuple(bad.shape)}", "one dense run", "allowed"], [base.numpy()])


# ---- rows 3, 13, 40: PyTorch's tensors, which change behind our back


def test_the_same_tensor_twice():
    tensor = torch.nn.Parameter(torch.ones(4))
    texts = ["parameter 1", "parameter 0", "shares memory", "memory of its own", "once"]
    refused(Adam, [tensor, tensor.detach()], ValueError, texts, watched=[tensor.detach().numpy()])


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


# ---- rows 14 and 15: empty and 0-d


def test_empty_torch_tensors_do_not_look_as_if_they_moved():
    param, empty = torch.ones(4), torch.empty(0)
    optimizer = Adam([param, empty])
    optimizer.step([torch.ones(4), torch.empty(0)])
    assert not optimizer._engine.tensors.have_moved()
    empty.data = torch.ones(8)
    with pytest.raises(ValueError, match=r"parameter 1 was float32 of shape \(0,\)"):
        optimizer.step()


# ---- row 25: subnormal and huge gradients


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


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_a_0_d_tensor(make):
    param, twin = torch.tensor(2.0), np.array(2.0, F32)
    optimizer, other = make([param], lr=0.1), make([twin], lr=0.1)
    for _ in range(3):
        optimizer.step([torch.tensor(0.5)])
        other.step([np.array(0.5, F32)])
    assert param.shape == ()
    assert frozen(param.numpy()) == frozen(twin)
    assert twin != 2


# ---- where something else is expected


@pytest.mark.parametrize(("make", "name"), NAMES)
def test_a_tensor_is_no_number(make, name):
    value = torch.tensor(0.1)
    refused_everywhere(make, name, value, TypeError, ["must be a number", f"got {value!r}"])


def test_a_dtype_that_numpy_does_not_have():
    refused(Adam, [torch.ones(4).to(torch.float8_e4m3fn)], TypeError, ["parameter 0", "float8_e4m3fn", "allowed are"])


def test_a_single_tensor_is_no_list():
    tensor = torch.ones(3)
    refused(Adam, tensor, TypeError, ["params", "a single Tensor", "[array]"], watched=[tensor.numpy()])


@pytest.mark.parametrize("act", ["step", "bind"])
def test_a_single_tensor_is_no_list_of_gradients(act):
    pair = Pair()
    with pair.refuses(TypeError, "grads", "list or a dict", "Tensor"):
        getattr(pair.optimizer, act)(torch.ones(2))


@pytest.mark.parametrize("make", [saved, stateful])
def test_a_saved_state_that_needs_a_gradient(make):
    state = saved().state_dict()
    change(["state", 1, "exp_avg"], torch.ones(4, requires_grad=True))(state)
    check_refused_state(make(), make(), state, ["exp_avg of tensor 1", "(4,)"])

"""PyTorch's tensors on the CPU: updated where they lie, and autograd is told."""

import numpy as np
import pytest
from cases import LR, assert_same_bits, gradients, parameters

import gpuadam

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_the_bits_are_those_of_numpy():
    param, grads = parameters(100, np.float32), gradients(5, 100, np.float32)
    weight = torch.nn.Parameter(torch.tensor(param))
    ours, theirs = gpuadam.AdamW([weight], lr=LR), gpuadam.AdamW([param], lr=LR)
    for grad in grads:
        weight.grad = torch.tensor(grad)
        ours.step([weight.grad])
        theirs.step([grad])
    assert_same_bits(weight.detach().numpy(), param)


@pytest.mark.parametrize("master", [None, "float32", "remainder"])
def test_the_bits_of_bfloat16_are_those_of_numpy(master):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    param = parameters(100, np.float32).astype(ml_dtypes.bfloat16)
    weight = torch.tensor(param.astype(np.float32)).to(torch.bfloat16)
    ours, theirs = (gpuadam.AdamW([own], lr=LR, master=master) for own in (weight, param))
    for grad in gradients(5, 100, np.float32):
        ours.step([torch.tensor(grad).to(torch.bfloat16)])
        theirs.step([torch.tensor(grad).to(torch.bfloat16).float().numpy().astype(ml_dtypes.bfloat16)])
    assert_same_bits(weight.float().numpy(), param.astype(np.float32))


def test_autograd_refuses_values_that_a_step_has_replaced():
    """As after a step of torch.optim; without it the gradients would silently be those of the new values."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = gpuadam.Adam([weight], lr=0.1)
    loss = (weight**3).sum()
    optimizer.step([torch.ones(3)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("zero_grads", [False, True])
def test_autograd_is_told_of_gradients_that_a_step_zeroes_and_of_parameters_that_have_one(zero_grads):
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer, grad = gpuadam.SGD(weights, lr=0.1, zero_grads=zero_grads), torch.ones(3)
    versions = [tensor._version for tensor in (*weights, grad)]
    optimizer.step([grad, None])
    assert [tensor._version for tensor in (*weights, grad)] == [versions[0] + 1, versions[1], versions[2] + zero_grads]

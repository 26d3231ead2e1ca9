"""Checkpoints of `gpuadam.torch` and of torch.optim take each other's place in the middle of a run."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import (  # noqa: E402
    F32,
    F64,
    PAIR_IDS,
    PAIRS,
    assert_same_run,
    default_dtype,
    flat,
    handed_over,
    train,
    weights,
)

import gpuadam.torch  # noqa: E402
import gpuadam.torch as ours  # noqa: E402


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(("name", "options"), PAIRS, ids=PAIR_IDS)
def test_ours_goes_on_from_theirs_and_theirs_from_ours(name, options, dtype):
    with default_dtype(dtype):
        whole = getattr(torch.optim, name)(weights(dtype), **options)
        train(whole, range(10))
        there = handed_over(whole, ours, name, **options)
        for optimizer in (there, whole):
            train(optimizer, range(10, 30))
        assert_same_run(there, whole)
        back = handed_over(there, torch.optim, name, **options)
        for optimizer in (back, whole):
            train(optimizer, range(30, 50))
        assert_same_run(back, whole)
    if name != "SGD":  # which counts nothing in PyTorch
        assert float(there.state[flat(there)[0]]["step"]) == 30


@pytest.mark.parametrize("name", ["AdamW", "SGD", "NAdam"])
def test_options_of_the_file_are_taken_as_pytorch_takes_them(name):
    whole = getattr(torch.optim, name)(weights(), lr=0.02, weight_decay=0.3, maximize=True)
    train(whole, range(3))
    there = handed_over(whole, ours, name)
    back = handed_over(there, torch.optim, name)
    for optimizer in (whole, there, back):
        train(optimizer, range(3, 9))
    assert_same_run(there, whole)
    assert_same_run(there, back)


def test_pytorch_does_not_take_8_bit_codes_for_numbers():
    param = torch.nn.Parameter(torch.ones(128, 64))
    ours = gpuadam.torch.AdamW([param], state_dtype="int8")
    param.grad = torch.ones(128, 64)
    ours.step()
    assert "exp_avg_codes" in ours.state[param]
    theirs = torch.optim.AdamW([param])
    theirs.load_state_dict(ours.state_dict())
    with pytest.raises(KeyError, match="exp_avg"):
        theirs.step()

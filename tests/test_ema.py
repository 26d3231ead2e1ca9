"""Averages of the weights: their values are compared in test_recipe; here they are shown, hidden and kept."""

import math

import numpy as np
import pytest
from recipe_checks import BF16, F16, F32, F64, adamw, gradient_steps, memory, tensors

import gpuadam
from gpuadam import ema_warmup, schedules

FORMATS = [
    (F32, None),
    (F64, None),
    (F16, None),
    (BF16, None),
    (F16, "float32"),
    (BF16, "float32"),
    (BF16, "remainder"),
]


def trained(dtype=F32, steps=4, **settings):
    params = tensors(dtype)
    optimizer = adamw(params, **{"ema_decay": 0.9, "lr": 0.1, **settings})
    for now in gradient_steps(steps, dtype):
        optimizer.step(now)
    return optimizer, params


def averages(optimizer):
    return [own["ema"] for own in optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize(("dtype", "master"), FORMATS)
def test_the_block_shows_averages_and_gives_everything_back(dtype, master):
    """In the block the parameters are the averages, rounded to their format; after it every bit is as before."""
    optimizer, params = trained(dtype, master=master)
    before, expected = memory(optimizer, params), averages(optimizer)
    with optimizer.ema():
        for param, average in zip(params, expected, strict=True):
            close = average.astype(dtype)
            if master == "remainder":  # of two neighbours at the same distance it takes the larger
                assert np.all(np.abs(param.astype(F64) - average) <= np.abs(close.astype(F64) - average))
            else:
                assert param.tobytes() == close.tobytes()
        assert not np.array_equal(params[2].tobytes(), before[0][2])
    assert memory(optimizer, params) == before


@pytest.mark.parametrize(("dtype", "master"), FORMATS)
def test_evaluations_in_between_change_no_bit_of_the_run(dtype, master):
    (optimizer, params), (straight, others) = trained(dtype, 1, master=master), trained(dtype, 1, master=master)
    for now in gradient_steps(4, dtype):
        with optimizer.ema():
            pass
        optimizer.swap_ema()
        optimizer.swap_ema()
        optimizer.step(now)
        straight.step(now)
    assert memory(optimizer, params) == memory(straight, others)


def test_it_begins_as_the_parameters():
    params = tensors(BF16)
    optimizer = adamw(params, ema_decay=0.9)
    assert all(np.array_equal(a, p.astype(F32)) for a, p in zip(averages(optimizer), params, strict=True))


def test_it_keeps_what_a_16_bit_weight_loses():
    """An average of bfloat16 weights is a float32, and moves by less than they could."""
    param = np.ones(4, BF16)
    optimizer = gpuadam.SGD([param], lr=1.0, ema_decay=0.9999)
    optimizer.step([np.full(4, 0.5, BF16)])
    average = averages(optimizer)[0]
    assert average.dtype == F32
    assert np.allclose(1.0 - average, 5e-5, rtol=2e-3)
    with optimizer.ema():
        assert np.all(param == 1)
    assert np.all(param == 0.5)


def test_the_decay_by_hand():
    """A weight that falls to 0 in the first step: the average is the product of the decays."""
    for decay, factors in (
        (0.75, [0.75, 0.75, 0.75]),
        (ema_warmup(0.22), [2 / 11, 0.22, 0.22]),
        (1.0 - 1.0 / (1 + schedules.step), [0.0, 0.5, 2 / 3]),
    ):
        param = np.ones(1)
        optimizer = gpuadam.SGD([param], lr=1.0, ema_decay=decay)
        for k, grad in enumerate((np.ones(1), np.zeros(1), np.zeros(1))):
            optimizer.step([grad])
            assert math.isclose(averages(optimizer)[0][0], math.prod(factors[: k + 1]), abs_tol=1e-15)


def test_a_tensor_without_gradient_keeps_its_average():
    optimizer, _ = trained()
    before = averages(optimizer)
    grads = gradient_steps(1)[0]
    optimizer.step([grads[0], None, *grads[2:]])
    same = [np.array_equal(a, b) for a, b in zip(averages(optimizer), before, strict=True)]
    assert same == [False, True, False, False]


def test_a_group_without_average_is_not_shown():
    params = tensors()
    members = [{"params": params[:2], "ema_decay": 0.9}, {"params": params[2:]}]
    optimizer = adamw(members, lr=0.1)
    optimizer.step(gradient_steps(1)[0])
    before = [param.copy() for param in params]
    with optimizer.ema():
        same = [np.array_equal(a, b) for a, b in zip(params, before, strict=True)]
    assert same == [False, False, True, True]


REFUSED = {
    "step": lambda optimizer, path: optimizer.step(gradient_steps(1)[0]),
    "state_dict": lambda optimizer, path: optimizer.state_dict(),
    "save": lambda optimizer, path: optimizer.save(path),
    "set_hyperparameters": lambda optimizer, path: optimizer.set_hyperparameters(lr=1.0),
    "add_group": lambda optimizer, path: optimizer.add_group([np.ones(3, F32)]),
    "load_state_dict": lambda optimizer, path: optimizer.load_state_dict(adamw(tensors(), ema_decay=0.9).state_dict()),
    "load": lambda optimizer, path: optimizer.load(saved(path)),
}


def saved(path):
    trained(steps=2)[0].save(path)
    return path


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_while_averages_are_shown(what, tmp_path):
    optimizer, params = trained()
    before = memory(optimizer, params)
    with optimizer.ema(), pytest.raises(RuntimeError, match="hold their averages now"):
        REFUSED[what](optimizer, tmp_path / "run")
    assert memory(optimizer, params) == before


def test_an_exception_in_the_block_swaps_back():
    optimizer, params = trained()
    before = memory(optimizer, params)
    with pytest.raises(KeyError, match="evaluation"), optimizer.ema():
        raise KeyError("evaluation")
    assert memory(optimizer, params) == before
    optimizer.step(gradient_steps(1)[0])


def test_there_is_none_without_ema_decay():
    optimizer = adamw(tensors())
    for swap in (optimizer.swap_ema, optimizer.ema().__enter__):
        with pytest.raises(ValueError, match="no average of the parameters: give the constructor an ema_decay"):
            swap()
    assert "ema" not in optimizer.state_dict()["state"][0]


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan, "0.9"])
def test_decays_that_are_refused(decay):
    with pytest.raises((TypeError, ValueError), match="ema_decay"):
        adamw(tensors(), ema_decay=decay)


@pytest.mark.parametrize(("dtype", "master"), [(F32, None), (BF16, None), (BF16, "remainder")])
def test_averages_go_through_a_file(dtype, master, tmp_path):
    optimizer, params = trained(dtype, master=master)
    optimizer.save(tmp_path / "run")
    others = tensors(dtype)
    other = adamw(others, ema_decay=0.9, lr=0.1, master=master)
    other.load(tmp_path / "run")
    for now in gradient_steps(3, dtype):
        optimizer.step(now)
        other.step(now)
    assert memory(other, others) == memory(optimizer, params)

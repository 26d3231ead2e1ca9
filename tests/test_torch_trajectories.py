"""The optimizers of `gpuadam.torch` go where torch.optim's of the same name go: weights and states."""

import inspect

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import (  # noqa: E402
    F32,
    F64,
    PAIR_IDS,
    PAIRS,
    assert_same_bits,
    assert_same_run,
    default_dtype,
    error,
    flat,
    train,
    weights,
)

import gpuadam.torch as ours  # noqa: E402

NAMES = sorted({name for name, _ in PAIRS})


@pytest.mark.parametrize(("name", "options"), PAIRS, ids=PAIR_IDS)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_weights_and_states_are_theirs_over_50_steps(name, options, dtype):
    with default_dtype(dtype):
        a = getattr(ours, name)(weights(dtype), **options)
        b = getattr(torch.optim, name)(weights(dtype), **options)
        for optimizer in (a, b):
            train(optimizer, range(50))
    assert_same_run(a, b)
    assert error(flat(a), weights(dtype)) > 0.02  # so that there is something to compare
    assert [float(a.state[param]["step"]) for param in flat(a)] == [50.0] * len(flat(a))


@pytest.mark.parametrize("name", NAMES)
def test_positional_arguments_are_theirs(name):
    """As far as they are hyperparameters; foreach and its like go by keyword."""
    signature = inspect.signature(getattr(torch.optim, name))
    given = {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "momentum": 0.8, "dampening": 0.1, "alpha": 0.7, "rho": 0.7}
    given |= {"weight_decay": 0.2, "lr_decay": 0.3, "initial_accumulator_value": 0.4, "momentum_decay": 0.5}
    given |= {"amsgrad": True, "centered": True, "nesterov": False, "decoupled_weight_decay": True}
    kinds = list(signature.parameters.values())[1:]
    names = [kind.name for kind in kinds if kind.kind is kind.POSITIONAL_OR_KEYWORD and kind.name in given]
    values = [given[own] for own in names]
    a = getattr(ours, name)(weights(), *values)
    b = getattr(torch.optim, name)(weights(), *values)
    for optimizer in (a, b):
        train(optimizer, range(3))
    assert_same_run(a, b)
    shared = set(a.param_groups[0]) & set(b.param_groups[0]) - {"params"}
    assert set(names) <= shared
    assert {own: a.param_groups[0][own] for own in shared} == {own: b.param_groups[0][own] for own in shared}


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_theirs(name):
    a, b = getattr(ours, name)(weights()), getattr(torch.optim, name)(weights())
    assert {own: a.defaults[own] for own in set(a.defaults) & set(b.defaults)} == {
        own: b.defaults[own] for own in set(a.defaults) & set(b.defaults)
    }
    missing = set(b.defaults) - set(a.defaults)
    assert missing <= {"decoupled_weight_decay"}
    for optimizer in (a, b):
        train(optimizer, range(3))
    assert_same_run(a, b)


def test_switches_of_theirs_change_nothing():
    plain = ours.Adam(weights(), lr=0.01)
    switched = ours.Adam(weights(), lr=0.01, foreach=True, fused=False, capturable=True, differentiable=False)
    for optimizer in (plain, switched):
        train(optimizer, range(5))
    assert_same_bits(flat(plain), flat(switched))
    with pytest.raises(ValueError, match="differentiable is True; allowed is False"):
        ours.Adam(weights(), differentiable=True)

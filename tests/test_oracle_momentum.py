"""The oracle's SGD and NAdam, against PyTorch on the CPU, numbers recorded from Keras, and numbers by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import oracle_momentum
import pytest
from test_oracle import FIXED, GRADS, MOVING, PARAM, POINT, SLOPES, assert_same, at, falling

MOVING = {**MOVING, "dampening": lambda t: 0.5 / (t + 1), "momentum_decay": lambda t: 1.0 + math.sin(t)}
FIXED = {**FIXED, "dampening": 0.25, "momentum_decay": 0.5}


@pytest.fixture(name="torch")
def fixture_torch() -> Iterator[Any]:
    """PyTorch, with float64 as the default: NAdam keeps its product of momenta in that."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


def run_torch(torch: Any, name: str, per_step: dict[str, Any], shrink: Any = 0.0, **options: Any) -> oracle.Result:
    """GRADS through a PyTorch optimizer; per_step goes into the group every time, p *= 1 - shrink before the step."""
    p = torch.nn.Parameter(torch.tensor(PARAM))
    optimizer = getattr(torch.optim, name)([p], foreach=False, **options)
    for t, grad in enumerate(GRADS):
        optimizer.param_groups[0].update({key: at(value, t) for key, value in per_step.items()})
        p.grad = None if grad is None else torch.tensor(grad)
        if grad is not None:
            p.data.mul_(1.0 - at(shrink, t))
        optimizer.step()
    states = {key: value.numpy() for key, value in optimizer.state[p].items() if key not in ("step", "mu_product")}
    return oracle.Result(p.detach().numpy(), states, sum(grad is not None for grad in GRADS))


def pick(moving: bool, *names: str) -> dict[str, Any]:
    """The named hyperparameters, fixed or moving."""
    return {name: (MOVING if moving else FIXED)[name] for name in names}


SGD_FORMS = [  # the hyperparameters that are not 0, and nesterov
    ((), False),
    (("momentum",), False),
    (("momentum", "dampening"), False),
    (("momentum",), True),
]


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("names", "nesterov"), SGD_FORMS)
def test_sgd_against_torch(torch: Any, names: tuple[str, ...], nesterov: bool, maximize: bool, moving: bool) -> None:
    """Momentum, dampening, Nesterov, maximize, coupled decay, and the two others on a parameter shrunk by hand."""
    keys, decay = pick(moving, "lr", *names), pick(moving, "weight_decay")
    flags = {"maximize": maximize}
    theirs = {"maximize": maximize, "nesterov": nesterov, "momentum": 0.9 if names else 0.0}

    def ours(**more: Any) -> oracle.Result:
        return oracle_momentum.sgd(PARAM, GRADS, **keys, nesterov=nesterov, **flags, **more)

    plain = run_torch(torch, "SGD", keys, **theirs)
    assert_same(ours(), plain)
    assert_same(ours(**decay), run_torch(torch, "SGD", keys | decay, **theirs))
    by_lr = run_torch(torch, "SGD", keys, lambda t: at(keys["lr"], t) * at(decay["weight_decay"], t), **theirs)
    assert_same(ours(**decay, decay="decoupled"), by_lr)
    alone = run_torch(torch, "SGD", keys, decay["weight_decay"], **theirs)
    assert_same(ours(**decay, decay="scheduled"), alone)
    if moving and names:
        with pytest.raises(AssertionError, match="Not equal"):
            assert_same(ours(lr_placement="inside"), plain)


def test_sgd_with_lr_inside_is_torch_with_the_rate_in_the_gradient(torch: Any) -> None:
    """PyTorch at a rate of 1, its gradients multiplied by ours."""
    keys = pick(True, "momentum", "dampening")
    scaled = [None if grad is None else MOVING["lr"](t) * grad for t, grad in enumerate(GRADS)]
    ours = oracle_momentum.sgd(PARAM, GRADS, lr=MOVING["lr"], **keys, lr_placement="inside")
    assert_same(ours, oracle_momentum.sgd(PARAM, scaled, lr=1.0, **keys))
    assert_same(oracle_momentum.sgd(PARAM, GRADS, lr=1.0, **keys), run_torch(torch, "SGD", {"lr": 1.0, **keys}))


def test_planted_faults_in_sgd_turn_the_comparison_red(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dampening, Nesterov, decay, a rest that counts for nothing: each is noticed."""
    keys = pick(False, "lr", "momentum", "dampening", "weight_decay")
    theirs = run_torch(torch, "SGD", keys, momentum=0.9)
    assert_same(oracle_momentum.sgd(PARAM, GRADS, **keys), theirs)
    for fault in ({"dampening": 0.0}, {"nesterov": True}, {"decay": "decoupled"}, {"maximize": True}, {"momentum": 0}):
        with pytest.raises(AssertionError):
            assert_same(oracle_momentum.sgd(PARAM, GRADS, **(keys | fault)), theirs)


NADAM_KEYS = ("lr", "beta1", "beta2", "eps", "weight_decay", "momentum_decay")


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_nadam_against_torch(torch: Any, decoupled: bool, maximize: bool, moving: bool) -> None:
    """Decay of either kind or none, maximize, every scalar fixed or moving, with missing gradients."""
    flags = {"maximize": maximize, "decoupled_weight_decay": decoupled}
    for fixed in ({}, {"weight_decay": 0.0}, {"momentum_decay": 4e-3}):
        theirs, ours = pick(moving, *NADAM_KEYS) | fixed, pick(moving, *NADAM_KEYS) | fixed
        beta1, beta2 = theirs.pop("beta1"), theirs.pop("beta2")
        theirs["betas"] = lambda t, b=(beta1, beta2): (at(b[0], t), at(b[1], t))
        ours["betas"] = (ours.pop("beta1"), ours.pop("beta2"))
        expected = run_torch(torch, "NAdam", theirs, **flags)
        assert_same(oracle_momentum.nadam(PARAM, GRADS, **ours, **flags), expected)
        wrong = ({"momentum_decay": 0.0}, {"betas": (0.9, 0.9)}, {"maximize": not maximize}, {"eps_placement": "hat"})
        for fault in wrong:
            with pytest.raises(AssertionError, match="Not equal"):
                assert_same(oracle_momentum.nadam(PARAM, GRADS, **(ours | flags | fault)), expected)


def test_nadam_scheduled_decay_against_torch(torch: Any) -> None:
    """Decay by wd_t alone is PyTorch without decay on a parameter shrunk by hand."""
    keys = pick(True, "lr", "eps", "momentum_decay")
    theirs = run_torch(torch, "NAdam", keys, MOVING["weight_decay"])
    decay = {"weight_decay": MOVING["weight_decay"], "decay": "scheduled"}
    assert_same(oracle_momentum.nadam(PARAM, GRADS, **keys, **decay), theirs)


# Recorded in float64 from Keras 3.15.1; weight decay 0.1, momentum or beta1 0.8, beta2 0.75.
KERAS_SGD = {
    (0.0, False): [0.8549266689879943, -1.8819577429854661],
    (0.8, False): [0.7683813869208774, -1.8444140270331337],
    (0.8, True): [0.7527700412166293, -1.92376548999584],
}
KERAS_NADAM = {0.0: [1.0132872761420144, -1.9625219477807694], 0.1: [0.8983301387636161, -1.7678380342636386]}


@pytest.mark.parametrize(("momentum", "nesterov"), KERAS_SGD)
def test_sgd_against_records(momentum: float, nesterov: bool) -> None:
    """lr inside the buffer, and the twin of Keras."""
    keys = {"lr": falling, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.1}
    twin = oracle_momentum.sgd_keras(POINT, SLOPES, **keys)
    ours = oracle_momentum.sgd(POINT, SLOPES, **keys, decay="decoupled", lr_placement="inside")
    for found in (twin, ours):
        np.testing.assert_allclose(found.param, KERAS_SGD[momentum, nesterov], rtol=1e-14)
    if momentum:
        wrong = oracle_momentum.sgd(POINT, SLOPES, **keys, decay="decoupled").param
        assert not np.allclose(wrong, KERAS_SGD[momentum, nesterov], rtol=1e-3, atol=0)


@pytest.mark.parametrize("weight_decay", KERAS_NADAM)
def test_nadam_against_records(weight_decay: float) -> None:
    """Keras' Nadam has a momentum decay of 1."""
    keys = {"lr": falling, "betas": (0.8, 0.75), "eps": 0.01, "weight_decay": weight_decay, "decay": "decoupled"}
    ours = oracle_momentum.nadam(POINT, SLOPES, **keys, momentum_decay=1.0)
    np.testing.assert_allclose(ours.param, KERAS_NADAM[weight_decay], rtol=1e-14)
    assert not np.allclose(oracle_momentum.nadam(POINT, SLOPES, **keys).param, ours.param, rtol=1e-3, atol=0)


def test_sgd_by_hand() -> None:
    """Gradients 1, 1 at momentum 1/2: buffers 1, 3/2; dampened by 1/4: 1, 5/4; the rates 1, 1/2."""

    def moved(**options: Any) -> float:
        ones = [np.ones(1)] * 2
        rate = lambda t: (1.0, 0.5)[t]  # noqa: E731
        return float(-oracle_momentum.sgd(np.zeros(1), ones, lr=rate, momentum=0.5, **options).param[0])

    assert moved() == 1 + 0.5 * 1.5
    assert moved(dampening=0.25) == 1 + 0.5 * 1.25
    assert moved(nesterov=True) == 1.5 + 0.5 * 1.75
    assert moved(lr_placement="inside") == 1 + 1
    assert moved(lr_placement="inside", nesterov=True) == 1.5 + (0.5 + 0.5)


def test_nadam_by_hand() -> None:
    """momentum_decay 0 is mu = beta1 / 2: with beta1 = 1/2 and g = 2, P is 1/4, 1/16; m = 1, v_hat = 4."""
    grads = [np.array([2.0])]
    ours = oracle_momentum.nadam(np.zeros(1), grads, lr=1.0, betas=(0.5, 0.75), eps=1.0, momentum_decay=0.0)
    expected = (0.75 * 2 / 0.75 + 0.25 * 1 / (15 / 16)) / (2 + 1)
    assert float(-ours.param[0]) == pytest.approx(expected, rel=1e-15)


def test_unknown_options_are_refused() -> None:
    for rule, options in itertools.product((oracle_momentum.sgd, oracle_momentum.nadam), ({"decay": "L2"},)):
        with pytest.raises(ValueError, match="does not know"):
            rule(POINT, SLOPES, lr=1.0, **options)
    with pytest.raises(ValueError, match="does not know"):
        oracle_momentum.sgd(POINT, SLOPES, lr=1.0, lr_placement="in")
    with pytest.raises(ValueError, match="does not know"):
        oracle_momentum.nadam(POINT, SLOPES, lr=1.0, eps_placement="in")

"""The decay that has the sign of the parameter, and keras-adamw's optimizers, which have both."""

import dataclasses

import numpy as np
import oracle
import oracle_keras_adamw
import oracle_momentum
import pytest
from cases import ADAM, LR, NADAM, SGD, gradients, parameters
from test_rules import TOLERANCE, compare, error

import gpuadam
from gpuadam import l1_rules, schedules

STEPS = 12
ETA = schedules.cosine_decay(1.0, 10), oracle.cosine_decay(1.0, 10)
RATE = schedules.linear_warmup(0.05, 5, 0.01), oracle.linear_warmup(0.05, 5, 0.01)
FORMS = [
    (gpuadam.AdamW, oracle_keras_adamw.adamw, {"epsilon": 1e-3, "beta_1": 0.8}),
    (gpuadam.AdamW, oracle_keras_adamw.adamw, {"beta_2": 0.95, "amsgrad": True}),
    (gpuadam.NadamW, oracle_keras_adamw.nadamw, {"epsilon": 1e-3, "beta_1": 0.8}),
    (gpuadam.SGDW, oracle_keras_adamw.sgdw, {"momentum": 0.9}),
    (gpuadam.SGDW, oracle_keras_adamw.sgdw, {"momentum": 0.8, "nesterov": True}),
    (gpuadam.SGDW, oracle_keras_adamw.sgdw, {}),
]


def run(optimizer, grads):
    for grad in grads:
        optimizer.step([grad])


@pytest.mark.parametrize("penalties", [(0.03, 0.05), (None, 0.05), (0.0, 0.0)])
@pytest.mark.parametrize(("make", "reference", "own"), FORMS)
def test_keras_adamw(make, reference, own, penalties):
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    (l1, l2), every = penalties, {"total_iterations": 10, **own}
    settings = {"learning_rate": RATE[1], "eta": ETA[1], "penalties": (l1 or 0.0, l2), **every}
    expected = reference(param.copy(), grads, **settings)
    run(make.keras_adamw([param], RATE[0], eta=ETA[0], l1=l1, l2=l2, **every), grads)
    assert error(param, expected) < TOLERANCE[np.float64]
    for fault in ({"penalties": (0.04, 0.06)}, {"eta": 1.0}, {"learning_rate": 0.05}):
        wrong = reference(parameters(30, np.float64), grads, **{**settings, **fault})
        assert error(param, wrong) > 100 * TOLERANCE[np.float64]


@pytest.mark.parametrize("total", [1, 0, -3, 2.0, True, None])
def test_total_iterations_that_would_turn_the_decay_off(total):
    """keras-adamw says nothing, and neither decays nor anneals."""
    with pytest.raises(ValueError, match=rf"total_iterations is {total!r}; allowed are whole numbers >= 2"):
        gpuadam.AdamW.keras_adamw([np.ones(2)], total_iterations=total)


@pytest.mark.parametrize("make", [gpuadam.AdamW, gpuadam.NadamW, gpuadam.SGDW])
@pytest.mark.parametrize("name", ["learning_rate", "eta", "l1", "l2"])
def test_what_is_no_number_is_named(make, name):
    with pytest.raises(TypeError, match=f"{name} must be a number, got '0.1'"):
        make.keras_adamw([np.ones(2)], total_iterations=np.int64(4), **{name: "0.1"})


@pytest.mark.parametrize(
    "make", [gpuadam.Adam, gpuadam.AdamW, gpuadam.NAdam, gpuadam.NadamW, gpuadam.SGD, gpuadam.SGDW]
)
def test_zero_has_no_sign_and_each_decay_its_strength(make):
    """Without a gradient, and without the other decay, in float16 too: lr * l1, or l1."""
    for dtype in (np.float16, np.float32, np.float64):
        for decay, moved in (("decoupled", 0.125), ("scheduled", 0.25)):
            param = np.array([1.0, -2.0, 0.0, -0.0], dtype)
            optimizer = make([param], lr=0.5, weight_decay=0.0, l1_decay=0.25, decay=decay)
            optimizer.step([np.zeros(4, dtype)])
            assert np.array_equal(param, [1 - moved, moved - 2, 0.0, 0.0])
    param = np.array([1.0, -2.0, 0.0, np.nan])
    optimizer = gpuadam.SGD([param], lr=0.5, l1_decay=0.25)
    optimizer.step([np.ones(4)])
    assert np.array_equal(param, [1 - 0.625, -2 - 0.375, -0.5, np.nan], equal_nan=True)


def test_schedules_of_the_decay_and_groups():
    grads, arrays = gradients(STEPS, 30, np.float64), [parameters(30, np.float64) for _ in range(2)]
    falling = schedules.exponential_decay(0.1, 5, 0.5), oracle.exponential_decay(0.1, 5, 0.5)
    groups = [{"params": arrays[:1], "l1_decay": falling[0]}, {"params": arrays[1:]}]
    optimizer = gpuadam.AdamW(groups, lr=LR, l1_decay=0.02)
    for grad in grads:
        optimizer.step([grad, grad.copy()])
    for array, l1 in zip(arrays, (falling[1], 0.02), strict=True):
        lr = oracle.warmup_cosine_decay(0.0, 0.05, 3, 12)
        form = {"lr": lr, "weight_decay": 0.01, "decay": "decoupled", "l1_decay": l1}
        assert error(array, oracle.adam(parameters(30, np.float64), grads, **form).param) < TOLERANCE[np.float64]


def test_what_was_left_out_stays_out():
    optimizer = gpuadam.AdamW([np.ones(3)])
    assert "l1_decay" not in optimizer.hyperparameters()[0]
    with pytest.raises(ValueError, match="adam has no hyperparameter 'l1_decay'"):
        optimizer.set_hyperparameters(l1_decay=0.1)
    with pytest.raises(ValueError, match=r"l1_decay of group 0 is -0\.1; allowed is a number from 0"):
        gpuadam.SGD([np.ones(3)], l1_decay=-0.1)


@pytest.mark.parametrize("coupled", [True, False])
def test_the_oracle_against_the_gradient_of_the_penalty(coupled):
    """PyTorch's derivative of l1 |p| is l1 sign(p), 0 at 0."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    p = torch.nn.Parameter(torch.tensor([0.5, -1.5, 0.0, 2.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    grads = gradients(STEPS, 4, np.float64)
    form = {"momentum": 0.9, "l1_decay": 0.05, "decay": "coupled" if coupled else "decoupled"}
    ours = oracle_momentum.sgd(p.detach().numpy().copy(), grads, lr=0.1, **form)
    for grad in grads:
        (slope,) = torch.autograd.grad(0.05 * p.abs().sum(), p)
        p.grad = torch.tensor(grad) + (slope if coupled else 0.0)
        with torch.no_grad():
            p -= 0.0 if coupled else 0.1 * slope
        optimizer.step()
    np.testing.assert_allclose(ours.param, p.detach().numpy(), rtol=1e-12)


# ---- planted faults


def decoupled_for_scheduled(h, options):
    return l1_rules.adam_l1_coefficients(h, dataclasses.replace(options, decay="decoupled"))


def coupled_for_decoupled(h, options):
    return l1_rules.sgd_l1_coefficients(h, dataclasses.replace(options, decay="coupled"))


def no_l1(h, options):
    return l1_rules.nadam_l1_coefficients({**h, "l1_decay": 0.0 * h["l1_decay"]}, options)


FAULTS = {
    "decoupled for scheduled": ("adam_l1-scheduled-False", "algorithms.ADAM_L1", decoupled_for_scheduled),
    "coupled for decoupled": ("sgd_l1-decoupled-0.9", "momentum_algorithms.SGD_L1", coupled_for_decoupled),
    "no L1": ("nadam_l1-coupled", "algorithms.NADAM_L1", no_l1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_turn_the_comparison_red(fault, monkeypatch):
    name, place, coefficients = FAULTS[fault]
    case = next(case for case in ADAM + NADAM + SGD if case.name == name)
    assert compare(case, np.float32, lr=LR) < TOLERANCE[np.float32]
    rule = case.optimizer([]).rule
    monkeypatch.setattr(f"gpuadam.{place}", dataclasses.replace(rule, coefficients=coefficients))
    assert compare(case, np.float32, lr=LR) > 10 * TOLERANCE[np.float32]

"""RAdam, QHAdam, Adamax, Adagrad, Adadelta, Lion: schedules of their hyperparameters, edges, and planted faults."""

import dataclasses
import math

import numpy as np
import oracle
import oracle_adaptive
import pytest
from cases import ADAPTIVE, LR, NADAM, ORACLE_LR, gradients, parameters
from test_rules import TOLERANCE, compare, error

import gpuadam
from gpuadam import adam_variant_rules, adaptive_rules, schedules, sign_rules
from gpuadam.expressions import as_expr, updates
from gpuadam.jit import inlined

STEPS = 12
RISING = schedules.polynomial_decay(0.95, 10, end_lr=0.85), oracle.polynomial_decay(0.95, 10, end_lr=0.85)
FALLING = schedules.exponential_decay(0.1, 5, 0.5), oracle.exponential_decay(0.1, 5, 0.5)
MOVING = {  # ours, and the oracle's
    gpuadam.RAdam: (oracle_adaptive.radam, {"betas": (RISING, (0.95, 0.95)), "eps": FALLING}),
    gpuadam.QHAdam: (oracle_adaptive.qhadam, {"betas": (RISING, (0.99, 0.99)), "nus": (RISING, FALLING)}),
    gpuadam.Adamax: (oracle_adaptive.adamax, {"betas": (RISING, RISING), "eps": FALLING}),
    gpuadam.Adagrad: (oracle_adaptive.adagrad, {"lr_decay": FALLING, "eps": FALLING}),
    gpuadam.Adadelta: (oracle_adaptive.adadelta, {"rho": RISING, "eps": FALLING}),
    gpuadam.Lion: (oracle_adaptive.lion, {"betas": (RISING, FALLING)}),
}


def sides(settings, side):
    """The settings with one of each two: ours, or the oracle's."""
    pairs = {name: tuple(one[side] for one in settings[name]) for name in settings.keys() & {"betas", "nus"}}
    return {name: value[side] for name, value in settings.items() if name not in pairs} | pairs


@pytest.mark.parametrize("make", MOVING)
def test_schedules_of_every_hyperparameter(make):
    reference, settings = MOVING[make]
    settings = {**settings, "lr": (LR, ORACLE_LR), "weight_decay": FALLING, "decay": ("scheduled", "scheduled")}
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    expected = reference(param.copy(), grads, **sides(settings, 1))
    optimizer = make([param], **sides(settings, 0))
    for grad in grads:
        optimizer.step([grad])
    assert error(param, expected.param) < TOLERANCE[np.float64]


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 1e-3, 1e-5, 1e-8, 1e-12])
def test_the_length_of_the_average_without_cancellation(share):
    """Of RAdam, at 50 digits; the naive form loses all of them for beta2 near 1."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    beta2 = 1 - share
    ours = adam_variant_rules.length_of_average(as_expr(beta2))
    naive = []
    with mpmath.workdps(50):
        b = mpmath.mpf(beta2)
        for k in (1, 4, 5, 6, 7, 20, 1000, 10**6, 10**12):
            exact = 2 / (1 - b) - 1 - 2 * k * b**k / (1 - b**k)
            assert abs(ours(k - 1) / exact - 1) < 1e-14
            assert (ours(k - 1) > 5) == (exact > 5)
            naive.append(abs((2 / (1 - beta2) - 1 - 2 * k * beta2**k / (1 - beta2**k)) / exact - 1))
    assert max(naive) > 1e-14 or share > 0.01


def test_radam_is_rectified_from_where_the_average_is_long_enough():
    """At beta2 = 0.999 from the sixth update; where 2 / (1 - beta2) - 1 <= 5, never."""
    for beta2, rectified in ((0.999, 6), (0.6, math.inf), (0.0, math.inf)):
        param = np.zeros(1)
        optimizer = gpuadam.RAdam([param], lr=1.0, betas=(0.0, beta2), eps=0.0)
        for k in range(1, 10):
            before = param.copy()
            optimizer.step([np.full(1, 100.0)])
            assert (before - param == 100.0) == (k < rectified)


@pytest.mark.parametrize("threshold", [3.9, 0.0])
def test_a_threshold_below_4_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"threshold is {threshold}; allowed are numbers >= 4.0"):
        gpuadam.RAdam([np.ones(2)], threshold=threshold)


def test_pairs_are_named_when_they_are_none():
    with pytest.raises(ValueError, match=r"nus of group 0 must be a tuple of two, nu1 and nu2, got 0\.7"):
        gpuadam.QHAdam([np.ones(2)], nus=0.7)
    with pytest.raises(ValueError, match=r"nu2 of group 0 is 1\.5; allowed is a number from 0 to 1"):
        gpuadam.QHAdam([np.ones(2)], nus=(0.7, 1.5))
    with pytest.raises(ValueError, match=r"betas of group 0 must be a tuple of two, beta1 and beta2, got \(0\.9,\)"):
        gpuadam.Lion([np.ones(2)], betas=(0.9,))


def test_adagrad_of_keras():
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    form = {"initial_accumulator_value": 0.1, "eps_placement": "inside", "decay": "decoupled", "weight_decay": 0.05}
    expected = oracle_adaptive.adagrad(param.copy(), grads, lr=0.05, eps=1e-7, **form)
    optimizer = gpuadam.Adagrad.keras([param], 0.05, weight_decay=0.05)
    for grad in grads:
        optimizer.step([grad])
    assert error(param, expected.param) < TOLERANCE[np.float64]


@pytest.mark.parametrize("case", [c for c in NADAM if "momentum_schedule" in c.options], ids=lambda case: case.name)
def test_momentum_schedules_are_told_apart(case):
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    optimizer = case.optimizer([param])
    for grad in grads:
        optimizer.step([grad])
    for other in {"dozat", "constant", "keras-adamw"} - {case.options["momentum_schedule"]}:
        wrong = case.oracle(parameters(30, np.float64), grads, momentum_schedule=other).param
        assert error(param, wrong) > 1e8 * TOLERANCE[np.float64]


def test_the_state_of_one_rule_is_not_taken_for_that_of_another():
    """RAdam has the element function of Adam, but not its name."""
    optimizer = gpuadam.Adam([np.ones(3)])
    optimizer.step([np.ones(3)])
    with pytest.raises(ValueError, match="it is of the rule 'adam', this optimizer is 'radam'"):
        gpuadam.RAdam([np.ones(3)]).load_state_dict(optimizer.state_dict())


# ---- planted faults


@inlined
def sign_of_the_gradient(param, grad, exp_avg, c):
    param = param - c.decay * param - (c.step_size if grad > c.zero else -c.step_size)
    return param, exp_avg + c.weight2 * (grad - exp_avg)


@inlined
def maximum_that_does_not_fade(param, grad, exp_avg, exp_inf, c):
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    size = abs(grad) + c.eps_inside
    exp_inf = exp_inf if exp_inf > size else size
    return param - c.step_size * (exp_avg / exp_inf), exp_avg, exp_inf


@inlined
def steps_of_before_forgotten(param, grad, square_avg, acc_delta, c):
    square_avg = square_avg + c.weight * (grad * grad - square_avg)
    delta = math.sqrt(c.eps) / math.sqrt(square_avg + c.eps) * grad
    return param - c.step_size * delta, square_avg, acc_delta + c.weight * (delta * delta - acc_delta)


def not_rectified(h, options):
    right = adam_variant_rules.radam_coefficients(h, options)
    return right._replace(step_size=h["lr"] / (1.0 - h["beta1"] ** updates))


def rectified_one_late(h, options):
    return adam_variant_rules.radam_coefficients(h, dataclasses.replace(options, threshold=options.threshold + 1.0))


def no_share_of_the_square(h, options):
    return adam_variant_rules.qhadam_coefficients({**h, "nu2": 0.0 * h["nu2"] + 1.0}, options)


def fall_off_by_one(h, options):
    right = adaptive_rules.adagrad_coefficients(h, options)
    return right._replace(step_size=h["lr"] / (1.0 + updates * h["lr_decay"]))


FIRST = {case.name.split("-")[0]: case for case in reversed(ADAPTIVE)}
SHARED = next(case for case in ADAPTIVE if case.options.get("nus") == (0.7, 0.9))
FAULTS = {
    "not rectified": (FIRST["radam"], {"coefficients": not_rectified}),
    "rectified one late": (FIRST["radam"], {"coefficients": rectified_one_late}),
    "no share of the square": (SHARED, {"coefficients": no_share_of_the_square}),
    "a maximum that does not fade": (FIRST["adamax"], {"element": maximum_that_does_not_fade}),
    "fall off by one": (FIRST["adagrad"], {"coefficients": fall_off_by_one}),
    "the steps of before forgotten": (FIRST["adadelta"], {"element": steps_of_before_forgotten}),
    "the sign of the gradient": (FIRST["lion"], {"element": sign_of_the_gradient}),
}
PLACES = {
    "radam": "adam_variants.RADAM",
    "qhadam": "adam_variants.QHADAM",
    "adamax": "adaptive_algorithms.ADAMAX",
    "adagrad": "adaptive_algorithms.ADAGRAD",
    "adadelta": "adaptive_algorithms.ADADELTA",
    "lion": "adaptive_algorithms.LION",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_turn_the_comparison_red(fault, monkeypatch):
    """Each fault is at least ten times larger than the tolerance that accepts the rule."""
    case, changes = FAULTS[fault]
    assert compare(case, np.float32, lr=LR) < TOLERANCE[np.float32]
    rule = case.optimizer([]).rule
    monkeypatch.setattr(f"gpuadam.{PLACES[rule.name]}", dataclasses.replace(rule, **changes))
    assert compare(case, np.float32, lr=LR) > 10 * TOLERANCE[np.float32]


def test_lion_has_no_sign_of_zero():
    element = sign_rules.LION.element
    row = sign_rules.LionCoefficients(1.0, 0.0, 0.0, 0.9, 0.1, 0.99, 0.01, 0.0, 0.5)
    found = [element(1.0, grad, 0.0, row)[0] for grad in (2.0, -2.0, 0.0, -0.0)]
    assert found == [0.5, 1.5, 1.0, 1.0]
    assert math.isnan(element(1.0, math.nan, 0.0, row)[0])

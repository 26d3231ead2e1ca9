"""The rules on the CPU against the float64 oracle, which shares no line with the package; and planted faults."""

import dataclasses
import inspect
import math

import numpy as np
import oracle
import oracle_momentum
import pytest
from cases import ADAM, ADAPTIVE, CASES, IDS, LR, NADAM, ORACLE_LR, RMSPROP, SCHEDULE_FREE, SGD, gradients, parameters

import gpuadam
from gpuadam import adam_rules, cpu, momentum_rules, schedules
from gpuadam.expressions import accumulator, updates
from gpuadam.jit import inlined

STEPS = 12
# Relative to 1 + |value|. float64: what reordering and our exp and log may do. float32: rounding of 12 steps; the
# smallest planted fault below is 100 times larger.
TOLERANCE = {np.float64: 1e-13, np.float32: 5e-6}


def error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.max(np.abs(ours - theirs) / (1 + np.abs(theirs))))


def compare(case, dtype, steps=STEPS, **settings):
    """The largest error of the parameter and of every state after some steps."""
    reference = {name: ORACLE_LR if value is LR else value for name, value in settings.items()}
    param, grads = parameters(70, dtype), gradients(steps, 70, dtype)
    expected = case.oracle(param.astype(np.float64), [grad.astype(np.float64) for grad in grads], **reference)
    optimizer = case.optimizer([param], **settings)
    for grad in grads:
        optimizer.step([grad])
    state = optimizer.state_dict()["state"][0]
    assert state["updates"] == expected.updates
    found = {name: error(state[name], value) for name, value in expected.states.items()}
    return max([error(param, expected.param), *found.values()])


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_option_against_the_oracle(case, dtype):
    assert compare(case, dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "case", [*ADAM[::14], *NADAM[::6], *RMSPROP[::20], *SGD, *ADAPTIVE[::3], *SCHEDULE_FREE], ids=lambda case: case.name
)
def test_a_schedule_of_the_rate_against_the_oracle(case):
    assert compare(case, np.float64, lr=LR) < TOLERANCE[np.float64]


def test_schedules_of_the_other_hyperparameters():
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    beta1 = schedules.polynomial_decay(0.95, 10, end_lr=0.85)
    decay = schedules.exponential_decay(0.1, 5, 0.5)
    eps = schedules.linear_warmup(1e-3, 10, 1e-6)
    optimizer = gpuadam.AdamW([param], lr=0.05, betas=(beta1, 0.99), weight_decay=decay, eps=eps)
    expected = oracle.adam(
        param.copy(),
        grads,
        lr=0.05,
        betas=(oracle.polynomial_decay(0.95, 10, end_lr=0.85), 0.99),
        weight_decay=oracle.exponential_decay(0.1, 5, 0.5),
        eps=oracle.linear_warmup(1e-3, 10, 1e-6),
        decay="decoupled",
    )
    for grad in grads:
        optimizer.step([grad])
    assert error(param, expected.param) < TOLERANCE[np.float64]


def test_schedules_of_momentum_and_dampening():
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    momentum, dampening = schedules.one_cycle_momentum(10), schedules.linear_warmup(0.5, 10, 0.1)
    optimizer = gpuadam.SGD([param], lr=LR, momentum=momentum, dampening=dampening)
    moving = {"momentum": oracle.one_cycle_momentum(10), "dampening": oracle.linear_warmup(0.5, 10, 0.1)}
    expected = oracle_momentum.sgd(param.copy(), grads, lr=ORACLE_LR, **moving)
    for grad in grads:
        optimizer.step([grad])
    assert error(param, expected.param) < TOLERANCE[np.float64]


def test_schedules_of_nadam():
    """What a step has multiplied into the product stays there, whatever beta1 and the decay of mu are later."""
    grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
    beta1, decay = schedules.polynomial_decay(0.95, 10, end_lr=0.6), schedules.exponential_decay(2.0, 5, 0.5)
    optimizer = gpuadam.NAdam([param], lr=LR, betas=(beta1, 0.99), momentum_decay=decay)
    betas = (oracle.polynomial_decay(0.95, 10, end_lr=0.6), 0.99)
    expected = oracle_momentum.nadam(
        param.copy(), grads, lr=ORACLE_LR, betas=betas, momentum_decay=oracle.exponential_decay(2.0, 5, 0.5)
    )
    for grad in grads:
        optimizer.step([grad])
    assert error(param, expected.param) < TOLERANCE[np.float64]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "SGD"])
def test_the_positional_arguments_are_those_of_torch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(made).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for made in (getattr(gpuadam, name), getattr(torch.optim, name))
    )
    assert ours == theirs[: len(ours)]


def test_tensorflow_and_keras_forms():
    for make, reference, settings in (
        (gpuadam.RMSprop.tensorflow, oracle.rmsprop_tensorflow1, {"decay": 0.8, "momentum": 0.9, "centered": True}),
        (gpuadam.RMSprop.tensorflow, oracle.rmsprop_tensorflow1, {"decay": 0.9}),
        (gpuadam.RMSprop.keras, oracle.rmsprop_keras, {"rho": 0.8, "momentum": 0.5, "centered": False}),
        (gpuadam.RMSprop.keras, oracle.rmsprop_keras, {"rho": 0.8, "weight_decay": 0.05, "epsilon": 1e-3}),
    ):
        grads, param = gradients(STEPS, 30, np.float64), parameters(30, np.float64)
        expected = reference(param.copy(), grads, lr=0.05, **settings)
        optimizer = make([param], 0.05, **settings)
        for grad in grads:
            optimizer.step([grad])
        assert error(param, expected.param) < TOLERANCE[np.float64]


def test_the_first_step_is_exact():
    """At k = 1 m_hat = g and v_hat = g**2, so |dp| = lr |g| / (|g| + eps)."""
    grad = np.array([1e-3, -2.0, 1e-8, 0.0])
    param = np.zeros(4)
    gpuadam.Adam([param], lr=0.1).step([grad])
    assert np.allclose(param, -0.1 * grad / (np.abs(grad) + 1e-8), rtol=1e-14, atol=0)


def test_a_hundred_steps_of_float64_within_1e_13_of_50_digits():
    lr = schedules.warmup_cosine_decay(0.0, 0.01, 10, 100)
    grads = gradients(100, 6, np.float64, decades=6)
    param = parameters(6, np.float64)
    exact = oracle.adamw_mpmath(
        param.copy(), grads, lr=oracle.warmup_cosine_decay(0.0, 0.01, 10, 100), weight_decay=0.01
    )
    optimizer = gpuadam.AdamW([param], lr=lr)
    for grad in grads:
        optimizer.step([grad])
    worst = max(abs(float((ours - true) / true)) for ours, true in zip(param, exact, strict=True))
    assert worst < 1e-13


def test_closer_to_float64_than_the_usual_form():
    """beta2 = 0.9999, 2,000 steps: `beta * v + (1 - beta) * g * g` in float32 is off by more than 5e-5."""
    grads = gradients(2000, 256, np.float32, decades=0)
    param = np.zeros(256, np.float32)
    optimizer = gpuadam.Adam([param], betas=(0.9, 0.9999))
    exact, usual = np.zeros(256), np.zeros(256, np.float32)
    beta = np.float32(0.9999)
    for grad in grads:
        optimizer.step([grad])
        exact += (1 - 0.9999) * (grad.astype(np.float64) ** 2 - exact)
        usual = beta * usual + (np.float32(1) - beta) * grad * grad
    ours = optimizer.state_dict()["state"][0]["exp_avg_sq"]
    assert np.max(np.abs(ours / exact - 1)) < 5.3e-6 < 5e-5 < np.max(np.abs(usual / exact - 1))


@inlined
def no_update(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, c):
    exp_avg = exp_avg + c.weight1 * (grad - exp_avg)
    exp_avg_sq = exp_avg_sq + c.weight2 * (grad * grad - exp_avg_sq)
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


@inlined
def state_not_written(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, c):
    new = adam_rules.adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, c)
    return new[0], exp_avg, new[2], new[3]


def coupled_for_decoupled(h, options):
    return adam_rules.adam_coefficients(h, dataclasses.replace(options, decay="coupled"))


def no_bias_correction(h, options):
    return adam_rules.adam_coefficients(h, options)._replace(step_size=h["lr"], denominator_factor=1.0)


def step_off_by_one(h, options):
    beta1 = h["beta1"] ** (updates + 1)
    return adam_rules.adam_coefficients(h, options)._replace(step_size=h["lr"] / (1 - beta1))


def epsilon_misplaced(h, options):
    return adam_rules.adam_coefficients(h, dataclasses.replace(options, eps_placement="hat"))


def betas_swapped(h, options):
    return adam_rules.adam_coefficients({**h, "beta1": h["beta2"], "beta2": h["beta1"]}, options)


def mu(h, k):
    return h["beta1"] * (1 - 0.5 * 0.96 ** (k * h["momentum_decay"]))


def product_a_step_late(h, options):
    product = accumulator("product", 1.0, lambda before: before * mu(h, updates)) * mu(h, updates)
    late = h["lr"] * mu(h, updates + 1) / (1 - product)
    return adam_rules.nadam_coefficients(h, options)._replace(exp_avg_size=late)


def momentum_of_this_step(h, options):
    right = adam_rules.nadam_coefficients(h, options)
    return right._replace(exp_avg_size=right.exp_avg_size * mu(h, updates) / mu(h, updates + 1))


def no_momentum_decay(h, options):
    return adam_rules.nadam_coefficients({**h, "momentum_decay": 0 * h["momentum_decay"]}, options)


def dampened_at_the_first_step(h, options):
    return momentum_rules.sgd_coefficients(h, options)._replace(undamped=1 - h["dampening"])


def no_dampening(h, options):
    return momentum_rules.sgd_coefficients(h, options)._replace(undamped=1.0)


def nesterov_without_the_gradient(h, options):
    return momentum_rules.sgd_coefficients(h, options)._replace(grad_share=0.0)


def nesterov_without_the_momentum(h, options):
    return momentum_rules.sgd_coefficients(h, options)._replace(buffer_share=1.0)


def lr_placed_outside(h, options):
    return momentum_rules.sgd_coefficients(h, dataclasses.replace(options, lr_placement="outside"))


DAMPENED, NESTEROV, INSIDE = SGD[4], SGD[6], SGD[3]
COARSE = dataclasses.replace(ADAM[-1], options={**ADAM[-1].options, "eps": 1e-3, "weight_decay": 0.1})
FAULTS = {
    "no update": (COARSE, {"element": no_update}),
    "state not written": (COARSE, {"element": state_not_written}),
    "coupled for decoupled": (COARSE, {"coefficients": coupled_for_decoupled}),
    "no bias correction": (COARSE, {"coefficients": no_bias_correction}),
    "step off by one": (COARSE, {"coefficients": step_off_by_one}),
    "epsilon misplaced": (COARSE, {"coefficients": epsilon_misplaced}),
    "betas swapped": (COARSE, {"coefficients": betas_swapped}),
    "product a step late": (NADAM[1], {"coefficients": product_a_step_late}),
    "momentum of this step": (NADAM[1], {"coefficients": momentum_of_this_step}),
    "no momentum decay": (NADAM[1], {"coefficients": no_momentum_decay}),
    "dampened at the first step": (DAMPENED, {"coefficients": dampened_at_the_first_step}),
    "no dampening": (DAMPENED, {"coefficients": no_dampening}),
    "Nesterov without the gradient": (NESTEROV, {"coefficients": nesterov_without_the_gradient}),
    "Nesterov without the momentum": (NESTEROV, {"coefficients": nesterov_without_the_momentum}),
    "lr placed outside": (INSIDE, {"coefficients": lr_placed_outside}),
}
PLACES = {
    gpuadam.AdamW: "gpuadam.algorithms.ADAM",
    gpuadam.NAdam: "gpuadam.algorithms.NADAM",
    gpuadam.SGD: "gpuadam.momentum_rules.SGD",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_turn_the_comparison_red(fault, monkeypatch):
    """Each fault is at least ten times larger than the tolerance that accepts the rule."""
    case, changes = FAULTS[fault]
    assert compare(case, np.float32, lr=LR) < TOLERANCE[np.float32]
    rule = case.optimizer([]).rule
    monkeypatch.setattr(PLACES[case.make], dataclasses.replace(rule, **changes))
    assert compare(case, np.float32, lr=LR) > 10 * TOLERANCE[np.float32]


def test_a_skipped_last_element_turns_the_comparison_red(monkeypatch):
    short = gpuadam.tables.chunk_rows

    def without_the_last(tensors, numels):
        return short(tensors, numels)[:-1]

    monkeypatch.setattr("gpuadam.tables.chunk_rows", without_the_last)
    assert compare(ADAM[-1], np.float32) > 10 * TOLERANCE[np.float32]


def test_large_tensors_take_the_parallel_path_and_the_same_bits(monkeypatch):
    numel = 3 * cpu.SERIAL_ELEMENTS + 5
    grads = gradients(3, numel, np.float32)
    results = []
    for serial in (cpu.SERIAL_ELEMENTS, 1 << 60):
        monkeypatch.setattr(cpu, "SERIAL_ELEMENTS", serial)
        param = parameters(numel, np.float32)
        optimizer = gpuadam.AdamW([param])
        for grad in grads:
            optimizer.step([grad])
        results.append(param)
    assert np.array_equal(*results)


def test_rate_zero_leaves_the_parameters(monkeypatch):
    param = parameters(100, np.float32)
    before = param.copy()
    optimizer = gpuadam.AdamW([param], lr=0.0)
    optimizer.step(gradients(1, 100, np.float32))
    assert np.array_equal(param, before)
    assert math.isclose(optimizer.hyperparameters()[0]["lr"], 0.0)

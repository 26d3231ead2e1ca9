"""CPU against CUDA, bit for bit: every rule, option, format and schedule, on awkward numbers, shapes and histories."""

import numpy as np
import pytest
from bfloat16 import ml_dtypes  # noqa: F401 (what is imported below needs it)
from cases import CASES, IDS, LR, TOGETHER, groups_of
from twins import MARKS, Twins, arrays, awkward, to_device

import gpuadam
from gpuadam import gallery, schedules
from gpuadam.schedule_text import read_schedule
from gpuadam.schedules import absolute, exp, floor, log, log1p, maximum, minimum, step, where

pytestmark = MARKS
STEPS = 30
GOLDEN = 0.6180339887498949
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def run(twins, steps, dtype, first=0, edit=None):
    for k in range(first, first + steps):
        grads = arrays(dtype, 1000 + 50 * k)
        twins.step(edit(k, grads) if edit else grads)


@DTYPES
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_rule_option_and_format(case, dtype):
    twins = Twins(case.optimizer, arrays(dtype, 0), lr=LR)
    run(twins, 3, dtype)
    twins.check()
    run(twins, STEPS - 3, dtype, first=3)
    twins.check()


@DTYPES
@pytest.mark.parametrize("name", TOGETHER)
def test_all_cases_in_one_optimizer(name, dtype):
    """As many groups as there are cases of a class: kernels share a ticket, lanes share the programs."""
    cases = TOGETHER[name]
    params = [awkward(700 + 300 * i, dtype, i) for i in range(len(cases))]
    twins = Twins(cases[0].optimizer, params, lambda members: groups_of(cases, members), lr=LR)
    for k in range(STEPS):
        twins.step([awkward(param.shape, dtype, 100 + 7 * k) for param in params])
    twins.check()


def test_float32_and_float64_in_one_optimizer():
    params = arrays(np.float32, 0) + arrays(np.float64, 0)
    twins = Twins(gpuadam.AdamW, params, lambda a: [{"params": a[:20]}, {"params": a[20:], "amsgrad": True}], lr=LR)
    for k in range(STEPS):
        twins.step(arrays(np.float32, 50 * k + 1) + arrays(np.float64, 50 * k + 2))
    twins.check()


def one_group_each(rates):
    return lambda members: [{"params": [member], "lr": lr} for member, lr in zip(members, rates, strict=True)]


def rising(name, initial, factor):
    return schedules.accumulator(name, initial, lambda value: value * factor + 1e-3)


RATES = {
    **{name: read_schedule(text) for name, text in gallery.EXAMPLES.items()},
    "piecewise_constant right": schedules.piecewise_constant([5, 20], [0.1, 0.01, 0.001], boundary="right"),
    "exponential_decay staircase": schedules.exponential_decay(0.1, 7, 0.5, staircase=True, end_value=0.01),
    "polynomial_decay cycle": schedules.polynomial_decay(0.1, 9, 1e-3, power=2, cycle=True),
    "linear_warmup first": schedules.linear_warmup(0.1, 13, first=1),
    "one_cycle three": schedules.one_cycle(0.1, 60, three_phase=True, anneal="linear"),
    "cyclic exp_range": schedules.cyclic(0.01, 0.1, 7, mode="exp_range", gamma=0.99),
    "cosine_decay_restarts growing": schedules.cosine_decay_restarts(0.1, 6, 1.5, 0.8, 0.05),
    "sampled": schedules.sampled(lambda k: 0.1 / (1 + k) ** 0.7, 45),
    "sampled_epochs": schedules.sampled_epochs(lambda epoch, lr: lr / (1 + epoch), 9, 7, lr=0.1),
    "accumulator": minimum(rising("product", 1.0, 0.9), 1.0),
    "parameter": 0.1 * schedules.parameter("scale", 0.5) * schedules.linear_warmup(1.0, 8),
}


def test_every_family_of_schedules():
    families = {name for family in schedules.FAMILIES for name in family.__all__}
    assert families <= {name.split()[0] for name in RATES}
    params = [awkward(50, np.float32, i) for i in range(len(RATES))]
    twins = Twins(gpuadam.AdamW, params, one_group_each(RATES.values()))
    for k in range(70):
        twins.step([awkward(50, np.float32, 100 * k + i) for i in range(len(params))])
        twins.check_rows()
    twins.check()


def sweep(low, high):
    """Another place between the two at every step."""
    return low + (high - low) * (step * GOLDEN - floor(step * GOLDEN))


FORMULAS = [
    *(exp(sweep(*ends)) for ends in ((-1, 1), (-750, 710), (-1e-9, 1e-9))),
    *(schedules.expm1(sweep(*ends)) for ends in ((-1, 1), (-50, 60), (-1e-9, 1e-9))),
    *(log(value) for value in (sweep(0.5, 2), sweep(0, 1e6), exp(sweep(-740, 700)))),
    *(log1p(value) for value in (sweep(-1, 1), sweep(-1e-9, 1e-9), sweep(0, 1e9))),
    *(
        function(sweep(*ends))
        for function in (schedules.cospi, schedules.sinpi)
        for ends in ((-2, 2), (-1e6, 1e6), (-1e-9, 1e-9))
    ),
    *(schedules.tanh(sweep(*ends)) for ends in ((-1, 1), (-25, 25), (-1e-9, 1e-9))),
    *(schedules.acos(sweep(*ends)) for ends in ((-1, 1), (0.999999, 1), (-1e-9, 1e-9))),
    *(sweep(0.5, 2) ** exponent for exponent in (7, -3, 1000, 0.5, sweep(-900, 900))),
    *(schedules.sqrt(sweep(0, 1e300)), sweep(-1, 1) / sweep(2, 3), floor(sweep(-9, 9)), maximum(sweep(-1, 1), 0.1)),
    where(schedules.equal(floor(sweep(0, 3)), 1), sweep(1, 2), sweep(3, 4)),
]


def test_every_function_of_the_evaluator():
    params = [np.ones(1, np.float64) for _ in FORMULAS]
    bounded = [minimum(absolute(formula), 1e30) for formula in FORMULAS]
    twins = Twins(gpuadam.RMSprop, params, one_group_each(bounded))
    grads = [np.full(1, 1e-3) for _ in FORMULAS]
    mirrors = [to_device(grad) for grad in grads]
    for _ in range(500):
        twins.host.step(grads)
        twins.device.step(mirrors)
        twins.check_rows()


def test_missing_gradients_and_groups():
    generator = np.random.default_rng(5)
    twins = Twins(gpuadam.Adam, arrays(np.float32, 0), lambda a: [{"params": a[:5]}, {"params": a[5:], "lr": LR}])

    def edit(k, grads):
        return [None if generator.uniform() < 0.4 else grad for grad in grads]

    run(twins, STEPS, np.float32, edit=edit)
    twins.check()
    counts = {own["updates"] for own in twins.host.state_dict()["state"].values()}
    assert len(counts) > 3


def test_more_blocks_than_fit_at_once():
    params = [awkward(numel, np.float32, numel) for numel in (5_000_003, 3_000_000, *range(1, 2000))]
    twins = Twins(gpuadam.AdamW, params, lr=LR)
    for k in range(4):
        twins.step([awkward(param.shape, np.float32, 9 * k + 1) for param in params])
    twins.check()


def test_changes_from_the_host_between_steps():
    scale = schedules.parameter("scale", 1.0)
    twins = Twins(gpuadam.AdamW, arrays(np.float32, 0), lr=LR * scale)
    for value in (0.5, 2.0, 0.0):
        run(twins, 2, np.float32)
        for optimizer in (twins.host, twins.device):
            optimizer.set_parameter("scale", value)
            optimizer.set_hyperparameters(betas=(0.5 + value / 8, schedules.linear_warmup(0.9, 5, 0.5)))
        twins.check()
    run(twins, 2, np.float32)
    twins.check()
    assert twins.host.hyperparameters() == twins.device.hyperparameters()


def many_steps(optimizer, grads):
    """The device holds at once; the host sees it when it next looks."""
    for _ in range(1000):
        optimizer.step(grads)


def test_a_held_step_writes_nothing():
    twins = Twins(gpuadam.Adam, arrays(np.float32, 0), lr=where(step < 5, 0.1, -1.0))
    run(twins, 5, np.float32)
    grads = arrays(np.float32, 7)
    with pytest.raises(gpuadam.ScheduleError):
        twins.host.step(grads)
    mirrors = [to_device(grad) for grad in grads]
    with pytest.raises(gpuadam.ScheduleError, match="at step 5"):
        many_steps(twins.device, mirrors)
    with pytest.raises(gpuadam.ScheduleError):
        twins.device.hyperparameters()
    twins.check()
    for optimizer in (twins.host, twins.device):
        optimizer.set_hyperparameters(lr=0.1)
    run(twins, 5, np.float32)
    twins.check()


def test_a_run_goes_from_cpu_to_cuda_and_back():
    settings = {"lr": LR * minimum(rising("product", 1.0, 0.9), 1.0), "amsgrad": True}
    twins = Twins(gpuadam.AdamW, arrays(np.float32, 0), **settings)

    def edit(k, grads):
        return [None if i == k % 4 else grad for i, grad in enumerate(grads)]

    for k in range(3):
        run(twins, 5, np.float32, first=5 * k, edit=edit)
        host, device = twins.host.state_dict(), twins.device.state_dict()
        twins.host = gpuadam.AdamW(twins.params, **settings)
        twins.device = gpuadam.AdamW(twins.mirrors, **settings)
        twins.host.load_state_dict(device)
        twins.device.load_state_dict(host)
        twins.check()

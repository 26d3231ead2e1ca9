"""PyTorch's schedulers drive `gpuadam.torch` as they drive torch.optim; on top of a schedule they are a multiplier."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.optim import lr_scheduler as theirs  # noqa: E402
from torch.optim.swa_utils import SWALR  # noqa: E402
from torch_checks import assert_same_run, flat, train, weights  # noqa: E402

import gpuadam.torch as ours  # noqa: E402
from gpuadam import schedules  # noqa: E402

STEPS = 40
LR = schedules.warmup_cosine_decay(0.0, 0.05, 4, 40)
SCHEDULERS = {
    "LambdaLR": lambda o: theirs.LambdaLR(o, lambda k: 0.95**k),
    "MultiplicativeLR": lambda o: theirs.MultiplicativeLR(o, lambda k: 0.95),
    "StepLR": lambda o: theirs.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda o: theirs.MultiStepLR(o, [3, 9], 0.5),
    "ConstantLR": lambda o: theirs.ConstantLR(o, 0.5, 5),
    "LinearLR": lambda o: theirs.LinearLR(o, 0.1, 1.0, 10),
    "ExponentialLR": lambda o: theirs.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: theirs.PolynomialLR(o, 20, 2.0),
    "CosineAnnealingLR": lambda o: theirs.CosineAnnealingLR(o, 30),
    "CosineAnnealingWarmRestarts": lambda o: theirs.CosineAnnealingWarmRestarts(o, 7, 2),
    "CyclicLR": lambda o: theirs.CyclicLR(o, 0.001, 0.05, 5),
    "OneCycleLR": lambda o: theirs.OneCycleLR(o, 0.05, STEPS + 1),
    "SequentialLR": lambda o: theirs.SequentialLR(
        o, [theirs.LinearLR(o, 0.1, total_iters=5), theirs.CosineAnnealingLR(o, 25)], [5]
    ),
    "ChainedScheduler": lambda o: theirs.ChainedScheduler(
        [theirs.LinearLR(o, 0.1, total_iters=5), theirs.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: theirs.ReduceLROnPlateau(o, patience=1),
    "SWALR": lambda o: SWALR(o, 0.02, 5),
}


def advance(scheduler, step):
    scheduler.step(*([1.0 + step % 5] if isinstance(scheduler, theirs.ReduceLROnPlateau) else []))


def scheduled(module, name, make, lr):
    """A run under a scheduler, and the rates that it wrote."""
    optimizer = getattr(module, name)(weights(), lr=lr, **({"momentum": 0.9} if name == "SGD" else {}))
    scheduler, rates = make(optimizer), []
    for step in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        train(optimizer, [step])
        advance(scheduler, step)
    return optimizer, rates


def test_every_scheduler_of_theirs_is_here():
    assert set(theirs.__all__) - {"LRScheduler"} <= set(SCHEDULERS)


@pytest.mark.parametrize("is_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_run_under_a_scheduler_is_theirs(scheduler, name, is_tensor):
    runs = []
    for module in (ours, torch.optim):
        lr = torch.tensor(0.01) if is_tensor else 0.01
        runs.append(scheduled(module, name, SCHEDULERS[scheduler], lr))
    (a, own_rates), (b, their_rates) = runs
    assert own_rates == their_rates
    assert len(set(own_rates)) > 1
    assert isinstance(a.param_groups[0]["lr"], torch.Tensor) == isinstance(b.param_groups[0]["lr"], torch.Tensor)
    assert_same_run(a, b)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_on_a_schedule_a_scheduler_multiplies(scheduler):
    """The run is that of torch.optim whose rate is set by hand to the product, before every step."""
    multipliers = scheduled(torch.optim, "AdamW", SCHEDULERS[scheduler], 1.0)
    optimizer = torch.optim.AdamW(weights())

    def before(optimizer, step):
        optimizer.param_groups[0]["lr"] = multipliers[1][step] * float(LR(step))
        optimizer.param_groups[0]["betas"] = betas[step]  # some schedulers write them too

    betas = {}
    a = ours.AdamW(weights(), lr=LR)
    assert a.param_groups[0]["lr"] == 1.0
    own = SCHEDULERS[scheduler](a)
    for step in range(STEPS):
        betas[step] = a.param_groups[0]["betas"]
        expected = multipliers[1][step] * float(LR(step))
        assert a.hyperparameters()[0]["lr"] == pytest.approx(expected, rel=1e-14, abs=0)
        train(a, [step])
        advance(own, step)
    train(optimizer, range(STEPS), before)
    assert_same_run(a, optimizer)


def test_a_schedule_may_be_assigned_to_a_group_in_the_middle_of_a_run():
    """It goes on with the steps that there have been; another one, or a number, takes its place."""
    a, b = ours.AdamW(weights(), lr=0.01), torch.optim.AdamW(weights(), lr=0.01)
    ramp = schedules.step * 1e-3
    rates = {5: (LR, LR), 9: (ramp, ramp), 12: (0.5, ramp * 0.5), 15: (LR, LR)}
    now = 0.01

    def set_ours(optimizer, step):
        if step in rates:
            optimizer.param_groups[0]["lr"] = rates[step][0]

    def set_theirs(optimizer, step):
        nonlocal now
        now = rates[step][1] if step in rates else now
        optimizer.param_groups[0]["lr"] = now if isinstance(now, float) else float(now(step))

    train(a, range(20), set_ours)
    train(b, range(20), set_theirs)
    assert a.param_groups[0]["lr"] == 1.0
    assert_same_run(a, b)


def test_rates_a_rounding_error_below_zero_are_zero():
    """`LinearLR` from a third to 0, its own default start, may end at -1e-16: torch.optim goes on, and so do we."""
    runs = []
    for module in (ours, torch.optim):
        optimizer = module.SGD(weights(), lr=2.0)
        scheduler = theirs.LinearLR(optimizer, end_factor=0.0, total_iters=97)
        for step in range(100):
            train(optimizer, [step])
            scheduler.step()
        runs.append(optimizer)
    assert -1e-15 < runs[0].param_groups[0]["lr"] < 0
    assert_same_run(*runs)
    runs[0].param_groups[0]["lr"] = -1e-9
    with pytest.raises(ValueError, match=r"lr of group 0 is -1e-09; allowed is a number from 0"):
        runs[0].step()


def test_a_rate_that_is_a_tensor_is_read_each_step():
    runs = []
    for module in (ours, torch.optim):
        optimizer = module.AdamW(weights(), lr=torch.tensor(0.01))
        train(optimizer, range(3))
        optimizer.param_groups[0]["lr"].fill_(0.05)
        train(optimizer, range(3, 6))
        runs.append(optimizer)
    assert_same_run(*runs)
    other = ours.AdamW(weights(), lr=0.3)
    other.load_state_dict(runs[0].state_dict())
    other.param_groups[0]["lr"].fill_(0.7)  # is its own
    assert float(runs[0].param_groups[0]["lr"]) == pytest.approx(0.05)


@pytest.mark.parametrize("given", [torch.ones(2), torch.tensor(0.1, device="meta")], ids=["two", "elsewhere"])
def test_a_rate_that_is_no_number_on_the_cpu_is_refused(given):
    with pytest.raises(TypeError, match=r"lr is a tensor of shape .* allowed are a number, a schedule"):
        ours.AdamW(weights(), lr=given)
    optimizer = ours.AdamW(weights(), lr=0.1)
    train(optimizer, range(2))
    before = [param.detach().clone() for param in flat(optimizer)]
    optimizer.param_groups[0]["lr"] = given
    with pytest.raises(TypeError, match="lr of group 0 is a tensor of shape"):
        optimizer.step()
    assert all(map(torch.equal, before, flat(optimizer)))


def test_a_parameter_that_is_set_before_the_first_gradient_is_in_force():
    rate = schedules.constant(0.5) * schedules.parameter("scale", 1.0)
    param, later = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = ours.SGD([{"params": [param], "lr": rate}, {"params": [later]}], lr=0.0)
    optimizer.set_parameter("scale", 0.25)
    with pytest.raises(KeyError, match="there is no parameter 'scala'"):
        optimizer.set_parameter("scala", 0.25)
    param.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(param.detach(), torch.full((3,), 0.875))
    optimizer.set_parameter("scale", 0.5)
    later.grad = torch.ones(3)  # an engine anew: what was set early does not come back
    optimizer.step()
    assert torch.equal(param.detach(), torch.full((3,), 0.625))


def test_accumulators_are_carried_over_by_name_when_a_schedule_is_assigned_later():
    """The rule's own stands behind that of the new schedule, which starts at its beginning."""
    a, b = (rule([torch.nn.Parameter(torch.ones(5))], lr=0.1) for rule in (ours.NAdam, torch.optim.NAdam))
    for step in range(8):
        if step == 4:
            a.param_groups[0]["lr"] = 0.1 * schedules.accumulator("shrinking", 1.0, lambda value: 0.9 * value)
        if step >= 4:
            b.param_groups[0]["lr"] = 0.1 * 0.9 ** (step - 4)
        for optimizer in (a, b):
            optimizer.param_groups[0]["params"][0].grad = torch.linspace(-1, 1, 5) + 0.1 * step
            optimizer.step()
    ours_now, theirs_now = (optimizer.param_groups[0]["params"][0] for optimizer in (a, b))
    torch.testing.assert_close(ours_now, theirs_now, rtol=1e-6, atol=1e-7)

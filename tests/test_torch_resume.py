"""A run of `gpuadam.torch` that is stopped and resumed goes on bit for bit; what does not fit changes nothing."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import (  # noqa: E402
    F32,
    F64,
    assert_same_bits,
    assert_same_run,
    copied,
    flat,
    give_gradients,
    handed_over,
    through_file,
    train,
    weights,
)

import gpuadam.torch as ours  # noqa: E402
from gpuadam import ema_warmup, schedules  # noqa: E402

BF16 = torch.bfloat16
LR = schedules.warmup_cosine_decay(0.0, 0.05, 4, 40)
BIG = [(16, 32), (5,)]
RUNS = [
    ("AdamW", {"ema_decay": ema_warmup(0.9)}, F32),
    ("AdamW", {"ema_decay": 0.9, "master": "float32"}, BF16),
    ("AdamW", {"master": "remainder"}, BF16),
    ("AdamW", {"rounding": "stochastic"}, BF16),
    ("AdamW", {"state_dtype": "bfloat16"}, F32),
    ("AdamW", {"state_dtype": "int8", "int8_from": 16}, F32),
    ("NAdam", {}, F32),
    ("Adagrad", {"lr_decay": 0.1}, F64),
    ("SGD", {"momentum": 0.9}, F32),
    ("LAMB", {}, F32),
    ("Lion", {}, F32),
    ("QHAdam", {}, F32),
    ("AdamWScheduleFree", {"warmup_steps": 5}, F32),
    ("SGDScheduleFree", {"warmup_steps": 5}, F32),
]


def as_bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8) if tensor.ndim else tensor


def assert_same_everything(a, b):
    """Weights, states and what is to come."""
    assert_same_bits(flat(a), flat(b))
    for own, other in zip(flat(a), flat(b), strict=True):
        assert set(a.state[own]) == set(b.state[other])
        for name, value in a.state[own].items():
            assert torch.equal(as_bits(value), as_bits(b.state[other][name])), name
    assert a.hyperparameters() == b.hyperparameters()
    assert a.skipped_steps == b.skipped_steps


@pytest.mark.parametrize(("name", "options", "dtype"), RUNS, ids=[f"{n}-{'-'.join(o)}" for n, o, _ in RUNS])
def test_a_resumed_run_is_the_run_that_never_stopped(name, options, dtype):
    lr = 0.01 if "ScheduleFree" in name else LR
    whole = getattr(ours, name)(weights(dtype, BIG), lr=lr, **options)
    train(whole, range(7))
    fresh = handed_over(whole, ours, name, lr=lr, **options)
    used = getattr(ours, name)(weights(dtype, BIG), lr=lr, **options)
    train(used, range(50, 53))  # somewhere else, for others
    saved = copied(flat(whole))
    with torch.no_grad():
        for param, value in zip(flat(used), saved, strict=True):
            param.copy_(value)
    used.load_state_dict(whole.state_dict())
    for optimizer in (whole, fresh, used):
        train(optimizer, range(7, 15))
    assert_same_everything(whole, fresh)
    assert_same_everything(whole, used)


def test_named_parameters_of_schedules_are_resumed():
    lr = schedules.parameter("scale", 0.5) * LR
    whole = ours.AdamW(weights(), lr=lr)
    train(whole, range(3))
    whole.set_parameter("scale", 0.25)
    fresh = handed_over(whole, ours, "AdamW", lr=schedules.parameter("scale", 0.5) * LR)
    for optimizer in (whole, fresh):
        train(optimizer, range(3, 6))
    assert fresh.parameters() == {"scale": 0.25}
    assert_same_everything(whole, fresh)


def test_pytorch_goes_on_at_the_rate_of_now():
    optimizer = ours.AdamW(weights(), lr=LR)
    train(optimizer, range(9))
    theirs = handed_over(optimizer, torch.optim, "AdamW")
    assert theirs.param_groups[0]["lr"] == pytest.approx(float(LR(9)), rel=1e-14)
    train(theirs, range(9, 12))
    constant = handed_over(optimizer, ours, "AdamW", lr=0.3)
    train(constant, range(9, 12))
    assert_same_run(constant, theirs)


def test_a_schedule_goes_on_where_pytorch_stood():
    """PyTorch's checkpoints have no count of the group's: that of its tensors with the most updates stands for it."""
    theirs = torch.optim.AdamW(weights(), lr=0.01)
    give_gradients(flat(theirs), 0)
    flat(theirs)[0].grad = None
    theirs.step()
    train(theirs, range(1, 9))
    optimizer = handed_over(theirs, ours, "AdamW", lr=LR)
    assert optimizer.hyperparameters()[0]["lr"] == pytest.approx(float(LR(9)), rel=1e-14)
    assert [float(optimizer.state[param]["step"]) for param in flat(optimizer)] == [8.0, 9.0, 9.0, 9.0, 9.0]


def test_sgd_of_theirs_says_no_step_so_a_schedule_asks_for_it():
    theirs = torch.optim.SGD(weights(), lr=0.01, momentum=0.9)
    train(theirs, range(5))
    optimizer = ours.SGD(copied(flat(theirs)), lr=LR, momentum=0.9)
    with pytest.raises(ValueError, match=r"set state_dict\['param_groups'\]\[0\]\['schedule_step'\]"):
        optimizer.load_state_dict(theirs.state_dict())
    state_dict = copy.deepcopy(theirs.state_dict())
    state_dict["param_groups"][0]["schedule_step"] = 5
    optimizer.load_state_dict(state_dict)
    assert optimizer.hyperparameters()[0]["lr"] == pytest.approx(float(LR(5)), rel=1e-14)


def test_moments_of_16_bit_parameters_stay_float32():
    theirs = torch.optim.AdamW(weights(BF16), lr=0.01)
    train(theirs, range(3))
    optimizer = handed_over(theirs, ours, "AdamW", lr=0.01)
    train(optimizer, range(3, 6))
    again = handed_over(optimizer, ours, "AdamW", lr=0.01)
    for own in (optimizer, again):
        assert {own.state[param]["exp_avg_sq"].dtype for param in flat(own)} == {F32}
    for param, other in zip(flat(optimizer), flat(again), strict=True):
        assert torch.equal(optimizer.state[param]["exp_avg_sq"], again.state[other]["exp_avg_sq"])
        wide = optimizer.state[param]["exp_avg_sq"]
        assert not wide.numel() or not torch.equal(wide, wide.to(BF16).to(F32))  # there is something to lose
    back = handed_over(optimizer, torch.optim, "AdamW", lr=0.01)
    train(back, range(6, 8))


@pytest.mark.parametrize("module", [ours, torch.optim], ids=["ours", "theirs"])
def test_what_is_loaded_is_copied(module):
    source = module.AdamW(weights(), lr=0.01)
    train(source, range(3))
    given = source.state_dict()
    before = copy.deepcopy(given)
    optimizer = ours.AdamW(copied(flat(source)), lr=0.01)
    optimizer.load_state_dict(given)
    train(optimizer, range(3, 5))
    for number, entry in before["state"].items():
        for name, value in entry.items():
            assert torch.equal(value, given["state"][number][name]), name
    assert before["param_groups"] == given["param_groups"]


def test_loading_a_state_of_before_the_first_step_begins_anew():
    optimizer = ours.AdamW(weights(), lr=LR)
    start = copy.deepcopy(optimizer.state_dict())
    train(optimizer, range(4))
    with torch.no_grad():
        for param, value in zip(flat(optimizer), weights(), strict=True):
            param.copy_(value)
    optimizer.load_state_dict(start)
    assert not optimizer.state
    fresh = ours.AdamW(weights(), lr=LR)
    for own in (optimizer, fresh):
        train(own, range(4))
    assert_same_everything(optimizer, fresh)


def test_parameters_that_had_no_gradient_have_no_entry_and_begin_later():
    whole = ours.AdamW(weights(), lr=LR)
    give_gradients(flat(whole), 0)
    flat(whole)[1].grad = None
    whole.step()
    saved = through_file(whole.state_dict())
    assert sorted(saved["state"]) == [0, 2, 3, 4]
    fresh = ours.AdamW(copied(flat(whole)), lr=LR)
    fresh.load_state_dict(saved)
    for optimizer in (whole, fresh):
        train(optimizer, range(1, 5))
    assert_same_everything(whole, fresh)


def _broken():
    """State dicts that do not fit, each by one fault, and what the refusal says."""
    good = ours.AdamW([{"params": weights()[:2]}, {"params": weights()[2:], "lr": 0.02}], lr=LR)
    train(good, range(5))

    def with_fault(change):
        own = copy.deepcopy(good.state_dict())
        own["param_groups"][0]["initial_lr"] = 0.05  # an entry that is new here
        change(own)
        return own

    return {
        "shape": (with_fault(lambda s: s["state"][1].update(exp_avg=torch.ones(6))), "exp_avg of tensor 1"),
        "missing": (with_fault(lambda s: s["state"][2].pop("exp_avg_sq")), "states of tensor 2"),
        "no tensor": (with_fault(lambda s: s["state"][0].update(exp_avg="text")), "exp_avg of tensor 0 is"),
        "step": (with_fault(lambda s: s["state"][0].update(step=torch.tensor(-1.0))), "updates of tensor 0 is -1"),
        "lr": (with_fault(lambda s: s["param_groups"][1].update(lr=-1.0)), "lr of group 1 is -1.0"),
        "betas": (with_fault(lambda s: s["param_groups"][0].update(betas=(0.9, 1.0))), "beta2 of group 0 is 1.0"),
        "option": (with_fault(lambda s: s["param_groups"][0].update(maximize=3)), "maximize of group 0 is 3"),
        "amsgrad": (with_fault(lambda s: s["param_groups"][0].update(amsgrad=True)), "max_exp_avg_sq"),
        "size": (with_fault(lambda s: s["param_groups"][0]["params"].pop()), r"groups of \[1, 3\] parameters"),
        "count": (with_fault(lambda s: s["param_groups"].pop()), r"groups of \[2\] parameters"),
        "nothing": ({}, "no entries 'state' and 'param_groups'"),
        "rule": (torch.optim.SGD(weights(), momentum=0.9).state_dict(), "groups of"),
    }


@pytest.mark.parametrize("has_run", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("fault", _broken())
def test_a_load_that_does_not_fit_changes_nothing(fault, has_run):
    given, message = _broken()[fault]
    both = [ours.AdamW([{"params": own[:2]}, {"params": own[2:], "lr": 0.02}], lr=LR) for own in (weights(), weights())]
    for optimizer in both:
        train(optimizer, range(3 if has_run else 0))
    groups = [{name: value for name, value in group.items() if name != "params"} for group in both[0].param_groups]
    with pytest.raises((ValueError, TypeError), match=message):
        both[0].load_state_dict(given)
    assert [{n: v for n, v in group.items() if n != "params"} for group in both[0].param_groups] == groups
    assert_same_everything(*both)
    for optimizer in both:
        train(optimizer, range(3, 6))
    assert_same_everything(*both)


def test_hooks_may_change_what_is_saved_and_loaded():
    optimizer, calls = ours.AdamW(weights(), lr=0.01), []
    train(optimizer, range(2))
    optimizer.register_state_dict_pre_hook(lambda own: calls.append("saving"))
    optimizer.register_state_dict_post_hook(lambda own, found: {**found, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda own, given: {**given, "param_groups": _with_lr(given, 0.5)})
    optimizer.register_load_state_dict_post_hook(lambda own: calls.append("loaded"))
    saved = optimizer.state_dict()
    assert saved["extra"] == 1
    optimizer.load_state_dict(saved)
    assert calls == ["saving", "loaded"]
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.hyperparameters()[0]["lr"] == 0.5
    assert saved["param_groups"][0]["lr"] == 0.01


def _with_lr(given, lr):
    return [{**group, "lr": lr} for group in given["param_groups"]]


def test_names_of_parameters_are_saved_and_stay_their_own():
    named = [(f"weight{i}", param) for i, param in enumerate(weights())]
    optimizer, theirs = ours.AdamW(named, lr=0.01), torch.optim.AdamW(weights(), lr=0.01)
    train(theirs, range(2))
    optimizer.load_state_dict(theirs.state_dict())
    train(optimizer, [2])
    names = [f"weight{i}" for i in range(5)]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == names
    assert optimizer.param_groups[0]["param_names"] == names


@pytest.mark.parametrize("dtype", [BF16, F64], ids=str)
def test_a_state_is_loaded_into_a_model_of_another_dtype(dtype):
    source = ours.AdamW(weights(), lr=0.01)
    train(source, range(3))
    model = torch.nn.ParameterList(weights()).to(dtype)
    optimizer = ours.AdamW(model, lr=0.01)
    optimizer.load_state_dict(source.state_dict())
    kept = F64 if dtype == F64 else F32
    for param, other in zip(model, flat(source), strict=True):
        assert optimizer.state[param]["exp_avg"].dtype == kept
        assert torch.equal(optimizer.state[param]["exp_avg"].to(F32), source.state[other]["exp_avg"])
    train(optimizer, range(3, 5))


def test_states_that_are_views_of_the_own_memory_may_change_places():
    optimizer = ours.SGD([torch.nn.Parameter(torch.zeros(3)) for _ in range(2)], lr=1.0, momentum=0.9)
    for number, param in enumerate(flat(optimizer)):
        param.grad = torch.full((3,), 1.0 + number)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0], saved["state"][1] = saved["state"][1], saved["state"][0]
    optimizer.load_state_dict(saved)
    assert [float(optimizer.state[param]["momentum_buffer"][0]) for param in flat(optimizer)] == [2.0, 1.0]


def test_states_are_not_loaded_while_averages_are_shown():
    """Nor states of other tensors, for which another engine is made."""
    optimizer, other = (ours.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0, ema_decay=0.5) for _ in range(2))
    flat(optimizer)[0].grad = torch.ones(3)
    optimizer.step()
    with optimizer.ema(), pytest.raises(RuntimeError, match="the parameters hold their averages now"):
        optimizer.load_state_dict(other.state_dict())
    assert flat(optimizer)[0].tolist() == [-1.0] * 3

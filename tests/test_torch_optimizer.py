"""`gpuadam.torch` is a torch.optim.Optimizer: groups, late gradients, closures, hooks, states."""

import copy
import gc
import pickle
import weakref

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import assert_same_bits, assert_same_run, copied, flat, give_gradients, train, weights  # noqa: E402

import gpuadam.torch as ours  # noqa: E402
from gpuadam import schedules  # noqa: E402

BOTH = (ours, torch.optim)


def test_it_is_one_of_theirs():
    optimizer = ours.AdamW(weights(), lr=0.01)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert repr(optimizer).startswith("AdamW (\nParameter Group 0\n    amsgrad: False\n    betas: (0.9, 0.999)")
    assert torch.optim.lr_scheduler.StepLR(optimizer, 3).optimizer is optimizer


def test_groups_have_settings_of_their_own_and_more_may_come():
    runs = []
    for module in BOTH:
        own = weights()
        middle = {"params": own[2:3], "weight_decay": 0.3, "betas": (0.5, 0.6), "maximize": True, "name": "middle"}
        optimizer = module.AdamW([{"params": own[:2], "lr": 0.02}, middle], lr=0.01)
        train(optimizer, range(3))
        optimizer.add_param_group({"params": own[3:], "lr": 0.03, "amsgrad": True})
        train(optimizer, range(3, 8))
        runs.append(optimizer)
    a, b = runs
    assert_same_run(a, b)
    assert a.param_groups[1]["name"] == "middle"
    assert set(a.state[flat(a)[4]]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert [float(a.state[param]["step"]) for param in flat(a)] == [8.0, 8.0, 8.0, 5.0, 5.0]


def test_groups_that_were_added_have_schedules_of_their_own():
    fast, slow = schedules.exponential_decay(0.1, 1, 0.5), schedules.exponential_decay(0.1, 1, 0.9)
    own = weights()
    optimizer = ours.SGD(own[:2], lr=fast)
    train(optimizer, range(3))
    optimizer.add_param_group({"params": own[2:], "lr": slow})
    train(optimizer, [3])
    rates = [group["lr"] for group in optimizer.hyperparameters()]
    assert rates == pytest.approx([float(fast(4)), float(slow(1))], rel=1e-14)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]


@pytest.mark.parametrize(("name", "value"), [("amsgrad", True), ("state_dtype", "bfloat16")])
def test_options_that_decide_upon_states_cannot_be_changed_in_the_middle(name, value):
    optimizer = ours.AdamW(weights(), lr=0.01)
    train(optimizer, range(2))
    before = copied(flat(optimizer))
    optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match="cannot be changed in the middle of a run") as caught:
        optimizer.step()
    assert name in caught.value.__notes__[0]
    assert_same_bits(flat(optimizer), before)
    del optimizer.param_groups[0][name]
    optimizer.step()


@pytest.mark.parametrize("name", ["AdamW", "SGD", "RMSprop"])
def test_what_is_written_into_a_group_is_in_force_from_the_next_step(name):
    momenta = {"betas": (0.7, 0.8)} if name == "AdamW" else {"momentum": 0.5}
    writes = {2: {"lr": 0.05}, 3: {"weight_decay": 0.2}, 4: momenta, 5: {"maximize": True}, 7: {"lr": 0.01}}
    runs = []
    for module in BOTH:
        optimizer = getattr(module, name)(weights(), lr=0.01, **({} if name == "AdamW" else {"momentum": 0.9}))
        train(optimizer, range(10), lambda own, step: own.param_groups[0].update(writes.get(step, {})))
        runs.append(optimizer)
    assert_same_run(*runs)


def test_parameters_may_be_frozen_and_thawed():
    """Their states are made at their first gradient; without one they rest."""
    runs = []
    for module in BOTH:
        optimizer = module.AdamW(weights(), lr=0.01)
        for step in range(10):
            give_gradients(flat(optimizer), step)
            for index in (1, 2):
                if step < 4 + index or step == 8:
                    flat(optimizer)[index].grad = None
            optimizer.step()
            if module is ours and step == 4:
                assert flat(optimizer)[1] not in optimizer.state
        runs.append(optimizer)
    assert_same_run(*runs)
    assert [float(runs[0].state[param]["step"]) for param in flat(runs[0])] == [10.0, 4.0, 3.0, 10.0, 10.0]


def test_frozen_parameters_of_any_dtype_are_left_alone():
    frozen = torch.nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    own = weights()
    optimizer = ours.AdamW([frozen, *own], lr=0.01)
    for param in own:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert len(optimizer.state) == len(own)
    assert torch.equal(frozen, torch.ones(3, dtype=torch.int8))


def test_without_any_gradient_nothing_happens():
    optimizer = ours.AdamW(weights(), lr=schedules.constant(0.01))
    optimizer.step()
    assert not optimizer.state
    assert optimizer.state_dict()["state"] == {}
    assert_same_bits(flat(optimizer), weights())
    train(optimizer, range(2))
    fresh = ours.AdamW(weights(), lr=schedules.constant(0.01))
    train(fresh, range(2))
    assert_same_bits(flat(optimizer), flat(fresh))


def test_gradients_are_not_kept_alive():
    optimizer = ours.AdamW(weights(), lr=0.01)
    train(optimizer, range(3))
    seen = [weakref.ref(param.grad) for param in flat(optimizer)]
    optimizer.zero_grad()
    gc.collect()
    assert all(gradient() is None for gradient in seen)


def test_a_closure_is_called_with_gradients_on_and_its_loss_is_returned():
    runs = []
    for module in BOTH:
        param = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = module.SGD([param], lr=0.25)

        def closure(optimizer=optimizer, param=param):
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = (param**2).sum()
            loss.backward()
            return loss

        with torch.no_grad():
            runs.append([float(optimizer.step(closure)), float(optimizer.step(closure=closure)), *param.tolist()])
    assert runs[0] == runs[1] == [5.0, 1.25, 0.25, -0.5]


def test_zero_grad_takes_gradients_away_or_makes_them_zero():
    optimizer = ours.AdamW(weights(), lr=0.01)
    train(optimizer, [0])
    gradients = [param.grad for param in flat(optimizer)]
    optimizer.zero_grad(set_to_none=False)
    for param, grad in zip(flat(optimizer), gradients, strict=True):
        assert param.grad is grad
        assert not grad.any()
    optimizer.zero_grad()
    assert all(param.grad is None for param in flat(optimizer))


def test_hooks_stand_around_the_step():
    optimizer, calls = ours.AdamW(weights(), lr=0.01), []
    optimizer.register_step_pre_hook(lambda own, args, keywords: calls.append(copied(flat(own))))
    optimizer.register_step_post_hook(lambda own, args, keywords: calls.append(copied(flat(own))))
    train(optimizer, [0])
    assert_same_bits(calls[0], weights())
    assert_same_bits(calls[1], flat(optimizer))
    assert not torch.equal(calls[0][0], calls[1][0])
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert {"Optimizer.step#AdamW.step", "Optimizer.zero_grad#AdamW.zero_grad"} <= names


def test_autograd_is_told_of_a_step():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([param], lr=0.1)
    loss = (param**2).sum()
    param.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_states_are_read_as_theirs_and_written_where_the_step_reads():
    runs = []
    for module in BOTH:
        optimizer = module.Adam(weights(), lr=0.01)
        train(optimizer, range(2))
        state = optimizer.state[flat(optimizer)[0]]
        state["exp_avg"].fill_(7.0)
        state["exp_avg_sq"] = torch.ones(7, 5)
        assert float(state["step"]) == 2
        train(optimizer, range(2, 4))
        runs.append(optimizer)
    assert_same_run(*runs)
    a, b = runs
    first = flat(a)[0]
    assert first in a.state
    assert [own is param for own, param in zip(a.state, flat(a), strict=True)] == [True] * 5
    assert list(a.state[first]) == list(b.state[flat(b)[0]])
    assert a.state[first]["step"].dtype == torch.float32
    assert a.state[torch.zeros(3)] == {}
    assert a.state.get(torch.zeros(3)) == {}


def test_what_a_state_cannot_take_is_refused():
    optimizer = ours.Adam(weights(), lr=0.01)
    train(optimizer, range(2))
    state = optimizer.state[flat(optimizer)[0]]
    with pytest.raises(KeyError, match="'step' cannot be set; allowed are"):
        state["step"] = torch.tensor(7.0)
    with pytest.raises(KeyError, match="'anything' cannot be set; allowed are"):
        state["anything"] = 1
    with pytest.raises(TypeError, match="'exp_avg' is memory of the optimizer's"):
        del state["exp_avg"]
    for value in ({1: 2}, {}):
        with pytest.raises(AttributeError, match=r"state cannot be set; write load_state_dict"):
            optimizer.state = value


def test_the_count_of_steps_does_not_depend_on_the_default_dtype():
    """In bfloat16 it would stand still at 256."""
    optimizer = ours.Adam(weights(), lr=0.01)
    train(optimizer, range(259))
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert float(optimizer.state[flat(optimizer)[0]]["step"]) == 259
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("steps", [0, 2])
def test_it_is_not_copied(how, steps):
    optimizer = ours.Adam(weights(), lr=0.01)
    train(optimizer, range(steps))
    with pytest.raises(TypeError, match="an optimizer holds addresses: make a new one, and give it this one's state_d"):
        how(optimizer)

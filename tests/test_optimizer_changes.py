"""The optimizer in the course of a run, on the CPU: resuming, changes, what is reported, and steps that are held."""

import copy
import math
import pickle

import numpy as np
import oracle
import oracle_momentum
import pytest
from cases import CASES, IDS, LR, ORACLE_LR, assert_same_bits, gradients, parameters
from optimizer_checks import assert_like, follow, same_states

from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, ScheduleError, schedules

F32, F64 = np.float32, np.float64


# ---- resuming


STEPS = 7
MARKS = ["xxxxxxx", "x.x..xx", "..xxx.x", "......."]


def resumable(case):
    """A rate with an accumulator and a named parameter, times a schedule; a group with numbers only."""
    product = schedules.accumulator("product", 1.0, lambda x: x * 0.9)
    rate = LR * product * schedules.parameter("scale", 0.5)
    params = [parameters(n, F32, n) for n in (5, 11, 3, 2)]
    groups = [{"params": params[:3], "lr": rate}, {"params": params[3:]}]
    return params, case.optimizer(groups)


def run(optimizer, first, last):
    """Some steps, with one change of the parameter on the way."""
    for k in range(first, last):
        grads = [gradients(STEPS, n, F32, n)[k] for n in (5, 11, 3, 2)]
        if k == 3:
            optimizer.set_parameter("scale", 2.0)
        optimizer.step([grad if mark[k] == "x" else None for grad, mark in zip(grads, MARKS, strict=True)])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_resuming_at_any_step_is_exact_to_the_bit(case):
    params, straight = resumable(case)
    saved = []
    for k in range(STEPS):
        saved.append(([param.copy() for param in params], straight.state_dict()))
        run(straight, k, k + 1)
    end = straight.state_dict()
    for k, (values, state) in enumerate(saved):
        others, resumed = resumable(case)
        run(resumed, 0, (3 * k) % 5)  # it has a past of its own, which must leave no trace
        for other, value in zip(others, values, strict=True):
            other[...] = value
        resumed.load_state_dict(state)
        same_states(resumed.state_dict(), state)
        run(resumed, k, STEPS)
        for ours, theirs in zip(others, params, strict=True):
            assert_same_bits(ours, theirs, f"resumed at step {k}")
        same_states(resumed.state_dict(), end)
    assert len({tuple(values[0]) for values, _ in saved}) > 2, "nothing has moved"


def test_a_state_goes_through_numpy_files(tmp_path):
    """It holds arrays, numbers and names only."""
    params, optimizer = resumable(CASES[0])
    run(optimizer, 0, 3)
    state = optimizer.state_dict()
    arrays = {f"{name}/{key}": v for name, own in state["state"].items() for key, v in own.items()}
    np.savez(tmp_path / "state.npz", **{key: v for key, v in arrays.items() if isinstance(v, np.ndarray)})
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        for key in file:
            name, which = key.split("/")
            state["state"][int(name)][which] = file[key]
    others, resumed = resumable(CASES[0])
    for other, param in zip(others, params, strict=True):
        other[...] = param
    resumed.load_state_dict(state)
    run(optimizer, 3, STEPS)
    run(resumed, 3, STEPS)
    same_states(resumed.state_dict(), optimizer.state_dict())


def test_a_loaded_state_is_copied():
    param = np.ones(3)
    optimizer = Adam([param], lr=0.1)
    optimizer.step([np.ones(3)])
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    state["state"][0]["exp_avg"][...] = np.nan
    optimizer.step()
    assert not np.any(np.isnan(param))


def test_loading_with_bound_gradients_keeps_them_bound():
    params = [np.ones(3), np.ones(3)]
    optimizer = Adam(params, lr=LR)
    optimizer.step([np.ones(3), None])
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert [(own["step"], own["updates"]) for own in state.values()] == [(2, 2), (2, 0)]
    assert np.all(params[1] == 1)


def test_hyperparameters_stay_the_constructors_unless_asked_for():
    def make(**numbers):
        groups = [{"params": [np.ones(2)], "lr": LR}, {"params": [np.ones(2)]}]
        return AdamW(groups, **numbers)

    old = make(lr=0.3, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2)
    state, new = old.state_dict(), make(lr=0.1)
    before = new.hyperparameters()
    new.load_state_dict(state)
    assert new.hyperparameters() == before
    new.load_state_dict(state, hyperparameters=True)
    assert new.hyperparameters() == old.hyperparameters() != before
    assert new.state_dict()["groups"] == state["groups"]
    grads = [np.ones(2), np.full(2, -3.0)]
    for optimizer in (old, new):
        for _ in range(3):
            optimizer.step(grads)
    same_states(new.state_dict(), old.state_dict())
    assert new.hyperparameters()[0]["lr"] == LR(3)


# ---- changes in mid-run


def at(change, before, after):
    """What the oracle calls a value that is changed before step number `change`."""
    value = lambda x, t: x(t) if callable(x) else x  # noqa: E731
    return lambda t: value(before, t) if t < change else value(after, t)


CHANGES = {
    "number to number": ("lr", (0.1, 0.1), (0.02, 0.02)),
    "number to schedule": ("lr", (0.1, 0.1), (LR, ORACLE_LR)),
    "schedule to number": ("lr", (LR, ORACLE_LR), (0.1, 0.1)),
    "schedule to schedule": ("lr", (LR, ORACLE_LR), (0.1 / (1 + schedules.step), lambda t: 0.1 / (1 + t))),
    "eps": ("eps", (1e-3, 1e-3), (1e-1, 1e-1)),
    "decay": ("weight_decay", (0.0, 0.0), (0.1, 0.1)),
    "decay to schedule": ("weight_decay", (0.1, 0.1), (LR, ORACLE_LR)),
}


@pytest.mark.parametrize("change", [0, 1, 5])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(("make", "reference"), [(Adam, oracle.adam), (RMSprop, oracle.rmsprop)])
def test_a_change_of_a_hyperparameter(make, reference, name, change):
    which, (before, oracle_before), (after, oracle_after) = CHANGES[name]
    param, grads = parameters(20, F64), gradients(9, 20, F64)
    numbers = {"lr": 0.05}
    values = {**numbers, which: at(change, oracle_before, oracle_after)}
    expected = reference(param.copy(), grads, **values)
    optimizer = make([param], **{**numbers, which: before})
    for k, grad in enumerate(grads):
        if k == change:
            optimizer.set_hyperparameters(**{which: after})
        optimizer.step([grad])
    assert_like(optimizer, param, 0, expected)


def test_a_change_of_the_momenta_of_nadam_keeps_their_product():
    param, grads = parameters(20, F64), gradients(9, 20, F64)
    betas, decay = (at(4, 0.9, 0.5), 0.99), at(6, 4e-3, 1.0)
    expected = oracle_momentum.nadam(param.copy(), grads, lr=0.05, betas=betas, momentum_decay=decay)
    optimizer = NAdam([param], lr=0.05, betas=(0.9, 0.99))
    for k, grad in enumerate(grads):
        if k == 4:
            optimizer.set_hyperparameters(betas=(0.5, 0.99))
        if k == 6:
            optimizer.set_hyperparameters(momentum_decay=1.0)
        optimizer.step([grad])
    assert_like(optimizer, param, 0, expected)


def test_a_named_momentum_may_leave_0_later():
    """A named parameter is no number that stays: there is a buffer from the start."""
    param, grads = parameters(9, F64), gradients(8, 9, F64)
    for make, reference in ((RMSprop, oracle.rmsprop), (SGD, oracle_momentum.sgd)):
        param = parameters(9, F64)
        expected = reference(param.copy(), grads, lr=0.05, momentum=at(3, 0.0, 0.9))
        optimizer = make([param], lr=0.05, momentum=schedules.parameter("momentum", 0.0))
        for k, grad in enumerate(grads):
            if k == 3:
                optimizer.set_parameter("momentum", 0.9)
            optimizer.step([grad])
        assert_like(optimizer, param, 0, expected)


def test_a_change_of_the_betas_of_one_group():
    params, grads = [parameters(20, F64), parameters(20, F64)], gradients(9, 20, F64)
    betas = (at(4, 0.9, 0.5), at(4, 0.99, 0.8))
    expected = [oracle.adam(params[0].copy(), grads, lr=0.05, betas=betas) for betas in ((0.9, 0.99), betas)]
    optimizer = Adam([{"params": [param]} for param in params], lr=0.05, betas=(0.9, 0.99))
    for k, grad in enumerate(grads):
        if k == 4:
            optimizer.set_hyperparameters(1, betas=(0.5, schedules.constant(0.8)))
        optimizer.step([grad, grad.copy()])
    for i in range(2):
        assert_like(optimizer, params[i], i, expected[i])


def test_changes_with_tensors_that_rest():
    """All cohorts of the group see the change, each with its own count."""
    params, marks = [parameters(5, F64, i) for i in range(3)], ["xxxxxxxx", "x.x.x.x.", "...xxxxx"]
    grads = [follow(mark, 5, i) for i, mark in enumerate(marks)]
    lr = at(4, 0.1, ORACLE_LR)
    expected = [oracle.adam(p.copy(), g, lr=lr) for p, g in zip(params, grads, strict=True)]
    optimizer = Adam(params, lr=0.1)
    for k in range(8):
        if k == 4:
            optimizer.set_hyperparameters(lr=LR)
        optimizer.step([own[k] for own in grads])
    for i in range(3):
        assert_like(optimizer, params[i], i, expected[i])


def test_a_momentum_that_was_0_only_by_a_later_change():
    param, grads = parameters(9, F64), gradients(8, 9, F64)
    momentum = lambda t: 0.0 if 2 <= t < 5 else 0.9  # noqa: E731
    expected = oracle.rmsprop(param.copy(), grads, lr=0.05, momentum=momentum)
    optimizer = RMSprop([param], lr=0.05, momentum=0.9)
    for k, grad in enumerate(grads):
        if k in (2, 5):
            optimizer.set_hyperparameters(momentum=momentum(k))
        optimizer.step([grad])
    assert_like(optimizer, param, 0, expected)


def test_a_named_parameter_moves_every_schedule_that_holds_it():
    scale = schedules.parameter("scale", 1.0)
    params, grads = [parameters(9, F64), parameters(9, F64)], gradients(8, 9, F64)
    factor = at(3, 1.0, 0.25)
    expected = [
        oracle.adam(params[0].copy(), grads, lr=lambda t: 0.1 * factor(t)),
        oracle.adam(params[0].copy(), grads, lr=lambda t: ORACLE_LR(t) * factor(t)),
    ]
    optimizer = Adam([{"params": [params[0]], "lr": 0.1 * scale}, {"params": [params[1]], "lr": LR * scale}])
    assert optimizer.parameters() == {"scale": 1.0}
    for k, grad in enumerate(grads):
        if k == 3:
            optimizer.set_parameter("scale", 0.25)
        optimizer.step([grad, grad.copy()])
    assert optimizer.parameters() == {"scale": 0.25}
    for i in range(2):
        assert_like(optimizer, params[i], i, expected[i])


def test_a_named_parameter_outlives_a_change_of_another_hyperparameter():
    scale = schedules.parameter("scale", 1.0)
    optimizer = Adam([np.ones(2)], lr=0.1 * scale)
    optimizer.set_parameter("scale", 0.5)
    optimizer.set_hyperparameters(eps=1e-3, betas=(0.5, 0.5))
    assert optimizer.parameters() == {"scale": 0.5}
    assert optimizer.hyperparameters()[0]["lr"] == 0.1 * 0.5
    optimizer.set_hyperparameters(lr=0.2 * scale)
    assert optimizer.hyperparameters()[0]["lr"] == 0.2 * 0.5


def test_accumulators_keep_their_values_through_a_change():
    """`rate` goes on where it stood, in every cohort; `other`, which comes in before it, starts afresh."""
    rate = schedules.accumulator("rate", 1.0, lambda x: x * 0.5)
    other = schedules.accumulator("other", 1.0, lambda x: x * 0.25)
    params = [np.zeros(1), np.zeros(1)]
    optimizer = RMSprop(params, lr=rate, alpha=0.0, eps=0.0)
    one = np.ones(1)
    optimizer.step([one, None])
    optimizer.step([one, None])
    optimizer.set_hyperparameters(lr=rate * other)
    optimizer.step([one, one.copy()])
    optimizer.step([one, one.copy()])
    assert params[0] == -(1 + 0.5 + 0.25 * 1 + 0.125 * 0.25)
    assert params[1] == -(1 * 1 + 0.5 * 0.25)
    assert optimizer.state_dict()["state"][1]["accumulators"] == {"rate": 0.25, "other": 0.0625}


def test_a_program_grows_into_its_room():
    """A piecewise schedule of 900 pieces comes late: the same steps as if it had been there from the start.

    What has no room is refused: tests/test_bad_input_settings.py.
    """
    long = schedules.piecewise_constant(range(1, 900), [0.1 / (1 + k) for k in range(900)])
    results = []
    for first in (0.3, long):
        param, grads = parameters(20, F32), gradients(12, 20, F32)
        optimizer = Adam([param], lr=first)
        optimizer.set_hyperparameters(lr=long)
        for grad in grads:
            optimizer.step([grad])
        results.append(param)
    assert_same_bits(*results)


# ---- what is reported


def test_hyperparameters_are_what_the_schedules_say():
    beta1 = schedules.one_cycle_momentum(20)
    decay = schedules.exponential_decay(0.1, 3, 0.7)
    lr = schedules.one_cycle(0.5, 20, anneal="linear")
    optimizer = AdamW([{"params": [np.ones(2)]}, {"params": [np.ones(2)], "lr": LR}], lr=lr, betas=(beta1, 0.99),
                      weight_decay=decay)  # fmt: skip
    for k in range(25):
        first, second = optimizer.hyperparameters()
        assert first == {"lr": lr(k), "beta1": beta1(k), "beta2": 0.99, "eps": 1e-8, "weight_decay": decay(k)}
        assert second == {**first, "lr": LR(k)}
        assert all(type(value) is float for value in first.values())
        optimizer.step([np.ones(2), np.ones(2)])


def test_looking_changes_nothing():
    results = []
    for looks in (False, True):
        param, optimizer = parameters(9, F32), None
        optimizer = AdamW([param], lr=LR * schedules.accumulator("a", 1.0, lambda x: x * 0.5))
        for grad in gradients(6, 9, F32):
            optimizer.step([grad])
            if looks:
                optimizer.hyperparameters()
                optimizer.state_dict()
                optimizer.parameters()
        results.append(param)
    assert_same_bits(*results)


# ---- steps that are held


HELD = {
    "negative": ("lr", 0.1 * (1 - schedules.step / 2), 3, -0.05),
    "NaN": ("lr", schedules.sqrt(3 - schedules.step), 4, math.nan),
    "infinite": ("eps", 1 / (4 - schedules.step), 4, math.inf),
    "beta of one": ("beta1", schedules.minimum(schedules.step / 4, 1), 4, 1.0),
    "huge": ("weight_decay", schedules.exp(schedules.step * 40.0), 3, math.exp(120.0)),
}


@pytest.mark.parametrize("name", HELD)
def test_a_schedule_that_leaves_its_range_holds_the_step(name):
    which, schedule, last, value = HELD[name]
    setting = {"betas": (schedule, 0.9)} if which == "beta1" else {which: schedule}
    params, twins = [np.ones(3), np.ones(3)], [np.ones(3), np.ones(3)]
    grads = [np.full(3, 0.5), np.full(3, -0.25)]

    def make(arrays, **own):
        return Adam([{"params": [arrays[0]]}, {"params": [arrays[1]], **own}], lr=0.1)

    optimizer = make(params, **setting)
    for _ in range(last):
        optimizer.step(grads)
    before, state = [param.copy() for param in params], optimizer.state_dict()
    for act in (optimizer.step, lambda: optimizer.step(grads), lambda: optimizer.step([g.copy() for g in grads]),
                optimizer.hyperparameters):  # fmt: skip
        with pytest.raises(ScheduleError, match="nothing was written") as caught:
            act()
        low, high, text = optimizer.rule.hyperparameters[which]
        for part in (f"{which} of group 1", f"step {last}", f"allowed is {text}"):
            assert part in str(caught.value)
        named = float(str(caught.value).split("would be ")[1].split(" at step")[0])
        assert not low <= named <= high
        assert math.isclose(named, value, rel_tol=1e-12) or (math.isnan(named) and math.isnan(value))
        for param, held in zip(params, before, strict=True):
            assert_same_bits(param, held)
        same_states(optimizer.state_dict(), state)
        assert [group["step"] for group in optimizer.state_dict()["groups"]] == [last, last]
    repaired = {"betas": (0.5, 0.9)} if which == "beta1" else {which: 0.01}
    optimizer.set_hyperparameters(1, **repaired)
    twin = make(twins, **repaired)  # goes on like one that is brought to the same place
    twin.load_state_dict(state)
    for twin_param, held in zip(twins, before, strict=True):
        twin_param[...] = held
    for _ in range(3):
        optimizer.step()
        twin.step(grads)
    for ours, theirs in zip(params, twins, strict=True):
        assert_same_bits(ours, theirs)
    assert optimizer.state_dict()["groups"][1]["step"] == last + 3


def test_a_held_step_when_a_tensor_starts_to_rest():
    """The split of a cohort at a held step is no update either."""
    params = [np.ones(2), np.ones(2)]
    optimizer = Adam(params, lr=0.1 * (1 - schedules.step))
    optimizer.step([np.ones(2), np.ones(2)])
    optimizer.step([np.ones(2), np.ones(2)])  # at rate 0
    held = [param.copy() for param in params]
    with pytest.raises(ScheduleError, match=r"lr of group 0 would be -0\.1 at step 2"):
        optimizer.step([None, np.ones(2)])
    assert all(np.array_equal(a, b) for a, b in zip(params, held, strict=True))
    assert [(own["step"], own["updates"]) for own in optimizer.state_dict()["state"].values()] == [(2, 2)] * 2
    optimizer.set_hyperparameters(lr=0.1)
    optimizer.step([None, np.ones(2)])
    assert [own["updates"] for own in optimizer.state_dict()["state"].values()] == [2, 3]
    assert np.array_equal(params[0], held[0])
    assert not np.array_equal(params[1], held[1])


def test_a_resumed_optimizer_holds_the_same_step():
    lr = 0.1 * (2 - schedules.step)
    optimizer, resumed = Adam([np.ones(2)], lr=lr), Adam([np.ones(2)], lr=lr)
    for _ in range(3):
        optimizer.step([np.ones(2)])
    resumed.load_state_dict(optimizer.state_dict())
    with pytest.raises(ScheduleError, match="at step 3"):
        resumed.step([np.ones(2)])


def test_what_would_do_nothing_or_harm_is_refused():
    optimizer = Adam([np.ones(3)])
    with pytest.raises(AttributeError, match=r"write set_hyperparameters\(lr=\.\.\.\)"):
        optimizer.lr = 0.2
    for copy_of in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="give it this one's state_dict"):
            copy_of(optimizer)

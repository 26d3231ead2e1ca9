"""The optimizer as a whole, on the CPU, against the oracle: gradients that come and go, groups, threads, any values."""

import dataclasses
import math
import threading

import numpy as np
import oracle
import oracle_momentum
import pytest
from cases import CASES, LR, ORACLE_LR, assert_same_bits, gradients, parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_checks import TOLERANCE, assert_like, error, follow, same_states

import gpuadam
from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, ScheduleError, cpu, schedules

F32, F64 = np.float32, np.float64


# ---- gradients that are late or missing


PATTERNS = [
    "xxxxxxxxxxxx",
    "............",
    "....xxxxxxxx",  # the first one is late
    "...........x",
    "x...........",
    "x.x.x.x.x.x.",
    ".x.x.x.x.x.x",
    "xx..xxx...xx",
    "x.....x....x",
    "xxxxxxxxxxx.",
]
ALGORITHMS = {
    "adam": (Adam, oracle.adam, {"betas": (0.8, 0.95), "amsgrad": "corrected", "weight_decay": 0.05}),
    "adamw": (AdamW, oracle.adam, {"betas": (0.8, 0.95), "weight_decay": 0.05, "decay": "decoupled"}),
    "nadam": (NAdam, oracle_momentum.nadam, {"betas": (0.8, 0.95), "weight_decay": 0.05}),
    "sgd": (SGD, oracle_momentum.sgd, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    "rmsprop": (RMSprop, oracle.rmsprop, {"alpha": 0.8, "bias_correction": True, "momentum": 0.5, "eps": 1e-2}),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_tensor_counts_its_own_updates_while_schedules_go_on(name):
    make, reference, options = ALGORITHMS[name]
    params = [parameters(7, F64, i) for i in range(len(PATTERNS))]
    grads = [follow(pattern, seed=i) for i, pattern in enumerate(PATTERNS)]
    expected = [reference(p.copy(), g, lr=ORACLE_LR, **options) for p, g in zip(params, grads, strict=True)]
    optimizer = make(params, lr=LR, **options)
    for k in range(12):
        optimizer.step([own[k] for own in grads])
    for i, pattern in enumerate(PATTERNS):
        assert_like(optimizer, params[i], i, expected[i])
        own = optimizer.state_dict()["state"][i]
        assert (own["step"], own["updates"]) == (12, pattern.count("x"))
    assert np.array_equal(params[1], parameters(7, F64, 1)), "it never had a gradient"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), group_of=st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_any_pattern_of_missing_gradients(data, group_of):
    """Cohorts split in any order; a dict leaves out what rests; groups have rates of their own."""
    steps, count = 8, len(group_of)
    marks = data.draw(st.lists(st.text("x.", min_size=steps, max_size=steps), min_size=count, max_size=count))
    rates = [(0.05, 0.05), (LR, ORACLE_LR), (0.01 / (1 + schedules.step), lambda t: 0.01 / (1 + t))]
    params = {i: parameters(5, F64, i) for i in range(count)}
    grads = [follow(pattern, 5, i) for i, pattern in enumerate(marks)]
    expected = [oracle.adam(params[i].copy(), grads[i], lr=rates[group_of[i]][1]) for i in range(count)]
    members = [{i: params[i] for i in range(count) if group_of[i] == g} for g in range(3)]
    optimizer = Adam([{"params": own, "lr": rates[g][0]} for g, own in enumerate(members)])
    for k in range(steps):
        optimizer.step({i: own[k] for i, own in enumerate(grads) if own[k] is not None})
    for i in range(count):
        assert_like(optimizer, params[i], i, expected[i])


def test_steps_without_any_gradient_count_for_the_schedules_only():
    param = np.ones(3)
    optimizer = Adam([param], lr=LR)
    for k in range(4):
        assert optimizer.hyperparameters()[0]["lr"] == LR(k)
        optimizer.step([None])
    optimizer.step({})
    assert np.all(param == 1)
    state = optimizer.state_dict()["state"][0]
    assert (state["step"], state["updates"]) == (5, 0)
    assert not np.any(state["exp_avg"])


def test_an_accumulator_rests_with_its_tensor():
    """It advances with every applied update, so each tensor has the value of its own past."""
    lr = schedules.accumulator("rate", 0.5, lambda x: x * 0.5)
    params, marks = [np.zeros(2), np.zeros(2)], ["xxxx", "x..x"]
    optimizer = RMSprop(params, lr=lr, alpha=0.0, eps=0.0)  # every update is lr * sign(g)
    for k in range(4):
        optimizer.step([np.ones(2) if mark[k] == "x" else None for mark in marks])
    assert np.all(params[0] == -(0.5 + 0.25 + 0.125 + 0.0625))
    assert np.all(params[1] == -(0.5 + 0.25))


def test_the_tensor_with_most_updates_speaks_for_its_group():
    """Whatever the order in which the tensors began to differ, and after resuming too."""

    def make():
        rate = schedules.accumulator("rate", 0.5, lambda x: x * 0.5)
        return Adam([{"params": [np.ones(1), np.ones(1), np.ones(1)], "lr": rate}, {"params": [], "lr": rate}])

    one, optimizer = np.ones(1), make()
    for marks, rate, updates in (("x..", 0.25, 1), (".x.", 0.25, 1), (".x.", 0.125, 2), ("..x", 0.125, 2)):
        optimizer.step([one * i if mark == "x" else None for i, mark in enumerate(marks)])
        assert optimizer.hyperparameters()[0]["lr"] == rate
        resumed = make()
        resumed.load_state_dict(optimizer.state_dict())
        for other in (optimizer, resumed):
            assert other.state_dict()["groups"][0]["updates"] == updates
            assert other.state_dict()["groups"][0]["accumulators"] == {"rate": rate}
    for other in (optimizer, resumed):
        other.step([None, None, one])
        other.step([None, one, None])
    assert optimizer.state_dict()["groups"] == resumed.state_dict()["groups"]
    assert optimizer.hyperparameters() == resumed.hyperparameters()
    assert optimizer.state_dict()["groups"][0]["updates"] == 3
    assert optimizer.state_dict()["groups"][1]["step"] == 6


# ---- groups and containers


def test_lists_dicts_and_groups_are_the_same_update():
    grads = [gradients(5, n, F64, n) for n in (3, 1030)]
    results = []
    for form in (
        lambda a, b: [a, b],
        lambda a, b: {"a": a, "b": b},
        lambda a, b: [{"params": [a]}, {"params": [b]}],
        lambda a, b: [{"params": {"b": b}}, {"params": {"a": a}}],
    ):
        a, b = parameters(3, F64), parameters(1030, F64)
        params = form(a, b)
        optimizer = AdamW(params, lr=0.1)
        for k in range(5):
            named = {"a": grads[0][k], "b": grads[1][k]}
            optimizer.step([grads[0][k], grads[1][k]] if 0 in optimizer.state_dict()["state"] else named)
        results.append(np.concatenate([a, b]))
    for other in results[1:]:
        assert_same_bits(results[0], other)
    assert not np.array_equal(results[0], np.concatenate([parameters(3, F64), parameters(1030, F64)]))


def test_groups_with_settings_and_options_of_their_own():
    own = [
        {},
        {"lr": 0.01, "betas": (0.5, 0.7)},
        {"eps": 1e-2, "eps_placement": "inside"},
        {"eps": 1e-2, "eps_placement": "hat", "maximize": True},
        {"weight_decay": 0.1, "decay": "decoupled"},
        {"weight_decay": 0.1, "decay": "scheduled", "lr": LR},
        {"weight_decay": 0.1, "amsgrad": "raw"},
        {"amsgrad": "corrected", "betas": (0.0, 0.5)},
    ]
    common = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6}
    params = [parameters(9, F64, i) for i in range(len(own))]
    grads = [gradients(6, 9, F64, i) for i in range(len(own))]
    expected = []
    for param, grad, extra in zip(params, grads, own, strict=True):
        merged = {**common, **extra}
        merged["lr"] = ORACLE_LR if merged["lr"] is LR else merged["lr"]
        expected.append(oracle.adam(param.copy(), grad, **merged))
    optimizer = Adam([{"params": [param], **extra} for param, extra in zip(params, own, strict=True)], **common)
    for k in range(6):
        optimizer.step([grad[k] for grad in grads])
    for i in range(len(own)):
        assert_like(optimizer, params[i], i, expected[i])


def test_groups_of_rmsprop():
    own = [
        {},
        {"momentum": 0.9, "lr_placement": "inside", "lr": LR},
        {"centered": True, "eps": 1e-2, "eps_placement": "inside"},
        {"initial_square_avg": 1.0, "maximize": True},
        {"bias_correction": True, "weight_decay": 0.1, "decay": "decoupled"},
    ]
    params = [parameters(9, F64, i) for i in range(len(own))]
    grads = [gradients(6, 9, F64, i) for i in range(len(own))]
    optimizer = RMSprop([{"params": [p.copy()], **extra} for p, extra in zip(params, own, strict=True)], lr=0.05)
    ours = [array.owner for array in optimizer._engine.tensors.params]
    for k in range(6):
        optimizer.step([grad[k] for grad in grads])
    for i, extra in enumerate(own):
        merged = {"lr": 0.05, **extra}
        merged["lr"] = ORACLE_LR if merged["lr"] is LR else merged["lr"]
        assert_like(optimizer, ours[i], i, oracle.rmsprop(params[i], grads[i], **merged))


def test_both_dtypes_side_by_side():
    """float32 and float64 in one optimizer, with and without a third state: four kernels, one step."""
    kinds = [(dtype, amsgrad) for dtype in (F32, F64) for amsgrad in (False, True)]
    params = [parameters(40, F32).astype(dtype) for dtype, _ in kinds]
    grads = gradients(6, 40, F32)
    alone = []
    for dtype, amsgrad in kinds:
        param = parameters(40, F32).astype(dtype)
        optimizer = Adam([param], lr=LR, amsgrad=amsgrad)
        for grad in grads:
            optimizer.step([grad.astype(dtype)])
        alone.append(param)
    groups = [{"params": [p], "amsgrad": amsgrad} for p, (_, amsgrad) in zip(params, kinds, strict=True)]
    optimizer = Adam(groups, lr=LR)
    for grad in grads:
        optimizer.step([grad.astype(dtype) for dtype, _ in kinds])
    for ours, theirs in zip(params, alone, strict=True):
        assert_same_bits(ours, theirs)
    assert [group["step"] for group in optimizer.state_dict()["groups"]] == [6] * 4


@pytest.mark.parametrize("dtype", [F32, F64])
def test_fortran_order_is_the_same_update(dtype):
    values, grads = parameters(60, dtype).reshape(3, 4, 5), [g.reshape(3, 4, 5) for g in gradients(4, 60, dtype)]
    c_order, fortran = values.copy(), np.asfortranarray(values)
    optimizers = [Adam([array], lr=0.1, amsgrad=True) for array in (c_order, fortran)]
    for grad in grads:
        optimizers[0].step([grad])
        optimizers[1].step([np.asfortranarray(grad)])
    assert_same_bits(c_order, fortran)
    same_states(*(optimizer.state_dict() for optimizer in optimizers))
    resumed = Adam([values.copy()], lr=0.1, amsgrad=True)
    resumed.load_state_dict(optimizers[1].state_dict())  # from one order to the other
    same_states(resumed.state_dict(), optimizers[0].state_dict())


def test_two_hundred_tensors_of_mixed_sizes():
    random = np.random.default_rng(5)
    sizes = [*random.integers(0, 40, 150), *random.integers(1000, 5000, 45), 1023, 1024, 1025, 2048, 0]
    params = [parameters(int(n), F64, i) for i, n in enumerate(sizes)]
    starts = [param.copy() for param in params]
    optimizer = Adam(params, lr=LR)
    kept = [gradients(3, int(n), F64, i) for i, n in enumerate(sizes)]
    for k in range(3):
        optimizer.step([grad[k] for grad in kept])
    for start, param, grads in zip(starts, params, kept, strict=True):
        assert error(param, oracle.adam(start, grads, lr=ORACLE_LR).param) < TOLERANCE


def test_a_large_tensor_beside_small_ones_in_parallel_and_in_one_piece(monkeypatch):
    sizes = (7, 2**20 + 3, 1, 5000)
    assert max(sizes) > 2 * cpu.SERIAL_ELEMENTS
    results = []
    for serial in (cpu.SERIAL_ELEMENTS, 1 << 60):
        monkeypatch.setattr(cpu, "SERIAL_ELEMENTS", serial)
        params = [parameters(n, F32, n) for n in sizes]
        optimizer = AdamW(params, lr=LR)
        for k in range(2):
            optimizer.step([gradients(1, n, F32, k)[0] for n in sizes])
        results.append(params)
    for ours, theirs in zip(*results, strict=True):
        assert_same_bits(ours, theirs)
    assert np.count_nonzero(results[0][1] != parameters(sizes[1], F32, sizes[1])) > 0.99 * sizes[1]


# ---- binding


def test_bound_gradients_are_read_where_they_lie():
    param, grad = np.zeros(4), np.zeros(4)
    grads = gradients(6, 4, F64)
    optimizer = Adam([param], lr=0.1)
    optimizer.bind([grad])
    for values in grads:
        grad[...] = values
        optimizer.step()
    assert_like(optimizer, param, 0, oracle.adam(np.zeros(4), grads, lr=0.1))


def test_the_same_gradient_again_and_again():
    """step(grads) with the same array, bind once, and new arrays each time: the same bits."""
    results = []
    for way in ("same", "bound", "new"):
        param, grad = parameters(50, F32), gradients(1, 50, F32)[0]
        optimizer = AdamW([param], lr=LR)
        optimizer.bind([grad])
        for _ in range(10):
            optimizer.step({"same": [grad], "bound": None, "new": [grad.copy()]}[way])
        results.append(param)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_bound_lists_may_be_changed_without_an_effect_until_they_are_given_again():
    param, grads = np.zeros(3), [np.ones(3)]
    optimizer = RMSprop([param], lr=0.5, alpha=0.0, eps=0.0)
    optimizer.bind(grads)
    grads[0] = np.full(3, -1.0)
    optimizer.step()
    assert np.all(param == -0.5)
    optimizer.step(grads)
    assert np.all(param == 0)


# ---- threads


def test_three_threads_step_three_optimizers():
    """Large enough that each wants all cores: the parallel walks must wait for each other, not mix."""
    numel, steps = 3 * cpu.SERIAL_ELEMENTS + 11, 12
    kinds = [(AdamW, F32), (RMSprop, F32), (AdamW, F64)]

    def work(make, dtype, seed):
        param = parameters(numel, dtype, seed)
        optimizer = make([param, parameters(17, dtype, seed)], lr=LR)
        grads = [gradients(1, numel, dtype, seed)[0], gradients(1, 17, dtype, seed)[0]]
        for _ in range(steps):
            optimizer.step(grads)
        return param, optimizer.state_dict()

    alone = [work(make, dtype, seed) for seed, (make, dtype) in enumerate(kinds)]
    together = [None] * 3

    def thread(index):
        together[index] = work(*kinds[index], index)

    threads = [threading.Thread(target=thread, args=(index,)) for index in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for (ours, our_state), (theirs, their_state) in zip(together, alone, strict=True):
        assert_same_bits(ours, theirs)
        same_states(our_state, their_state)


def test_threads_that_share_one_optimizer():
    """Each call is whole: as many steps as calls, and the same bits whoever made them."""
    results = []
    for workers in (1, 4):
        param = parameters(2000, F32)
        optimizer = Adam([param], lr=LR)
        optimizer.bind(gradients(1, 2000, F32))

        def work(count, optimizer=optimizer):
            for _ in range(count):
                optimizer.step()
                optimizer.hyperparameters()

        threads = [threading.Thread(target=work, args=(40 // workers,)) for _ in range(workers)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert optimizer.state_dict()["groups"][0]["step"] == 40
        results.append(param)
    assert_same_bits(*results)


# ---- any shapes, values and options


ORDINARY = st.floats(-10, 10)
EXTREME = st.sampled_from([0.0, -0.0, 5e-324, -2e-308, 1e-160, 1e-45, 1e-8, 1e15, 1e30, -1e30, 1e150])
BROKEN = st.sampled_from([math.nan, math.inf, -math.inf])
SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4)
# The centred variance cancels: no tolerance holds for it at any values. tests/test_rules.py has it at ordinary ones.
ANY_CASE = st.sampled_from([case for case in CASES if not case.options.get("centered")])


def drawn(data, shape):
    values = st.one_of(ORDINARY, ORDINARY, EXTREME, BROKEN)
    count = math.prod(shape)
    return np.array(data.draw(st.lists(values, min_size=count, max_size=count)), F64).reshape(shape)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data(), case=ANY_CASE, shapes=SHAPES)
def test_any_shapes_values_and_options(data, case, shapes):
    """Tolerance 1e-12 of the largest value that had a part in it; what is not finite there is not finite here."""
    params = [drawn(data, shape) for shape in shapes]
    starts = [param.copy() for param in params]
    steps = data.draw(st.integers(1, 4))
    grads = [[drawn(data, shape) if data.draw(st.integers(0, 4)) else None for shape in shapes] for _ in range(steps)]
    optimizer = case.optimizer(params)
    for step in grads:
        optimizer.step(step)
    for i, start in enumerate(starts):
        with np.errstate(all="ignore"):
            expected = case.oracle(start, [step[i] for step in grads])
            errors = np.abs(params[i] - expected.param)
        assert optimizer.state_dict()["state"][i]["updates"] == expected.updates
        finite = np.isfinite(expected.param)
        assert np.array_equal(np.isfinite(params[i]), finite)
        scale = 1 + np.maximum(np.abs(start), np.abs(expected.param))
        assert np.all((errors <= 1e-12 * scale)[finite])


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in ("adamw", "adam-raw-hat")], ids=lambda c: c.name
)
def test_that_test_sees_a_fault(case):
    """A relative fault of 1e-9 in the rate is a thousand times more than the tolerance forgives."""
    wrong = dataclasses.replace(case, lr=case.lr * (1 + 1e-9))
    param = np.ones(4)
    grads = [np.array([1.0, 1e30, 1e-8, -3.0])] * 4
    expected = case.oracle(param.copy(), grads).param
    optimizer = wrong.optimizer([param])
    for grad in grads:
        optimizer.step([grad])
    assert np.max(np.abs(param - expected) / (1 + np.abs(expected))) > 1e-12


def test_the_classes_are_the_public_ones():
    assert {Adam, AdamW, NAdam, RMSprop, SGD, ScheduleError} <= {getattr(gpuadam, name) for name in gpuadam.__all__}

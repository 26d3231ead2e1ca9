"""The CUDA source against Numba, bit for bit: every rule, option and format, through the whole optimizer."""

import host_backend
import host_kernels
import numpy as np
import pytest
from cases import (
    ADAM,
    CASES,
    IDS,
    LR,
    NADAM,
    RMSPROP,
    RULES,
    SCHEDULE_FREE,
    SGD,
    TOGETHER,
    assert_same_bits,
    gradients,
    groups_of,
    parameters,
)
from host_backend import optimizer_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpuadam
from gpuadam import cpu, schedules

pytestmark = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")

STEPS = 7  # RAdam's denominator comes in at the sixth
SIZES = [0, 1, 3, 4, 127, 1023, 1024, 1025, 3001]
BOTH = [cpu, host_backend]


def trajectories(monkeypatch, make, sizes, dtype, steps=STEPS, backends=BOTH, edit=None, **settings):
    """Parameters, states and counters of the same run on each backend."""
    found = []
    for backend in backends:
        params = [parameters(numel, dtype, seed=i) for i, numel in enumerate(sizes)]
        optimizer = optimizer_on(backend, monkeypatch, make, params, **settings)
        for step in range(steps):
            grads = [gradients(1, numel, dtype, seed=100 * step + i, decades=30)[0] for i, numel in enumerate(sizes)]
            optimizer.step(edit(step, grads) if edit else grads)
        found.append((params, optimizer.state_dict()))
    return found


def assert_equal_runs(found):
    (params, state), (other_params, other_state) = found
    for i, (a, b) in enumerate(zip(params, other_params, strict=True)):
        assert_same_bits(a, b, f"parameter {i}")
    assert state["groups"] == other_state["groups"]
    for name, own in state["state"].items():
        for key, value in own.items():
            other = other_state["state"][name][key]
            if isinstance(value, np.ndarray):
                assert_same_bits(value, other, f"{key} of {name}")
            else:
                assert value == other


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_rule_option_and_format(case, dtype, monkeypatch):
    assert_equal_runs(trajectories(monkeypatch, case.optimizer, [1, 70, 1030], dtype))


@pytest.mark.parametrize("case", [ADAM[0], ADAM[-1], NADAM[0], RMSPROP[-1], SGD[5]], ids=lambda case: case.name)
def test_sizes_around_every_edge(case, monkeypatch):
    assert_equal_runs(trajectories(monkeypatch, case.optimizer, SIZES, np.float32, lr=LR))


@pytest.mark.parametrize("name", TOGETHER)
def test_all_cases_in_one_optimizer(name, monkeypatch):
    """As many groups as there are cases of a class."""
    cases = TOGETHER[name]
    sizes = [70 + 300 * i for i in range(len(cases))]
    runs = trajectories(
        monkeypatch, lambda params, **_: cases[0].optimizer(groups_of(cases, params)), sizes, np.float32
    )
    assert_equal_runs(runs)
    assert len(runs[0][1]["groups"]) == len(cases)


def test_a_block_of_256_threads(monkeypatch):
    monkeypatch.setattr(host_backend, "BLOCK", 256)
    assert_equal_runs(trajectories(monkeypatch, ADAM[-1].optimizer, [0, 5000, 70], np.float32, steps=3))


def test_float32_and_float64_share_the_ticket(monkeypatch):
    found = []
    for backend in BOTH:
        params = [parameters(2000, np.float32), parameters(700, np.float64), parameters(5, np.float32)]
        optimizer = optimizer_on(backend, monkeypatch, gpuadam.AdamW, params, lr=LR)
        for step in range(STEPS):
            optimizer.step([gradients(1, p.size, p.dtype, seed=step)[0] for p in params])
        found.append((params, optimizer.state_dict()))
    assert found[1][1]["groups"][0]["step"] == STEPS
    assert_equal_runs(found)


def test_groups_with_schedules_and_options_of_their_own(monkeypatch):
    found = []
    for backend in BOTH:
        params = [parameters(n, np.float32) for n in (300, 40, 1500)]
        groups = [
            {"params": params[:1], "lr": LR, "maximize": True},
            {"params": params[1:2], "weight_decay": schedules.cosine_decay(0.1, 4), "decay": "scheduled"},
            {"params": params[2:], "betas": (schedules.polynomial_decay(0.95, 4, end_lr=0.85), 0.98)},
        ]
        optimizer = optimizer_on(backend, monkeypatch, gpuadam.AdamW, groups, lr=0.02)
        for step in range(STEPS):
            optimizer.step([gradients(1, p.size, p.dtype, seed=step)[0] for p in params])
        found.append((params, optimizer.state_dict()))
    assert_equal_runs(found)


@pytest.mark.parametrize("case", [ADAM[-1], NADAM[0], SGD[4]], ids=lambda case: case.name)
def test_missing_gradients_split_cohorts(case, monkeypatch):
    def edit(step, grads):
        return [None if (step + i) % 3 == 0 and i < 4 else grad for i, grad in enumerate(grads)]

    found = trajectories(monkeypatch, case.optimizer, SIZES, np.float32, steps=8, edit=edit, lr=LR)
    assert len({own["updates"] for own in found[0][1]["state"].values()}) > 1
    assert_equal_runs(found)


def test_unaligned_and_permuted_arrays(monkeypatch):
    found = []
    for backend in BOTH:
        raw = parameters(3000, np.float32)
        params = [raw[1:1001], np.asfortranarray(raw[1008:1408].reshape(20, 20)), raw[1501:1502].reshape(())]
        optimizer = optimizer_on(backend, monkeypatch, gpuadam.Adam, params)
        for step in range(STEPS):
            grads = [gradients(1, p.size, p.dtype, seed=step)[0].reshape(p.shape) for p in params]
            grads[1] = np.asfortranarray(grads[1])
            optimizer.step(grads)
        found.append((params, optimizer.state_dict()))
    assert_equal_runs(found)


def test_a_held_step_writes_nothing_on_either(monkeypatch):
    lr = 0.1 - 0.03 * schedules.step  # negative at step 4
    found = []
    for backend in BOTH:
        params = [parameters(100, np.float32)]
        optimizer = optimizer_on(backend, monkeypatch, gpuadam.Adam, params, lr=lr)
        grads = gradients(1, 100, np.float32)
        for _ in range(4):
            optimizer.step(grads)
        before = params[0].copy()
        for _ in range(2):
            with pytest.raises(gpuadam.ScheduleError, match=r"lr of group 0 would be -0\.01\d* at step 4"):
                optimizer.step(grads)
        assert_same_bits(before, params[0])
        optimizer.set_hyperparameters(lr=0.1)
        optimizer.step(grads)
        found.append((params, optimizer.state_dict()))
    assert found[0][1]["groups"][0]["step"] == 5
    assert_equal_runs(found)


def test_accumulators_and_changes_from_the_host(monkeypatch):
    product = schedules.accumulator("product", 1.0, lambda value: value * 0.9)
    scale = schedules.parameter("scale", 1.0)
    found = []
    for backend in BOTH:
        params = [parameters(100, np.float32), parameters(2000, np.float32)]
        optimizer = optimizer_on(backend, monkeypatch, gpuadam.AdamW, params, lr=0.1 * product * scale)
        for step in range(8):
            if step == 3:
                optimizer.set_parameter("scale", 0.5)
            if step == 5:
                optimizer.set_hyperparameters(betas=(0.5, 0.9), weight_decay=schedules.cosine_decay(0.1, 10))
            optimizer.step([gradients(1, p.size, p.dtype, seed=step)[0] for p in params])
        found.append((params, optimizer.state_dict(), optimizer.hyperparameters()))
    assert found[0][2] == found[1][2]
    assert found[0][1]["groups"][0]["accumulators"]["product"] == pytest.approx(0.9**8)
    assert_equal_runs([run[:2] for run in found])


@pytest.mark.parametrize("case", [ADAM[-1], NADAM[0], SGD[4]], ids=lambda case: case.name)
def test_resume_from_one_backend_on_the_other(case, monkeypatch):
    whole = trajectories(monkeypatch, case.optimizer, [70, 1030], np.float32, steps=6, lr=LR)[0]
    for first, second in (BOTH, BOTH[::-1]):
        params, state = trajectories(
            monkeypatch, case.optimizer, [70, 1030], np.float32, steps=3, backends=[first], lr=LR
        )[0]
        optimizer = optimizer_on(second, monkeypatch, case.optimizer, params, lr=LR)
        optimizer.load_state_dict(state)
        for step in range(3, 6):
            grads = [gradients(1, n, np.float32, seed=100 * step + i, decades=30)[0] for i, n in enumerate((70, 1030))]
            optimizer.step(grads)
        assert_equal_runs([whole, (params, optimizer.state_dict())])


SPECIAL = [0.0, -0.0, 1e-45, -3e-39, 1.2e-38, 1e-30, 1e19, -1e30, 3e38, np.inf, -np.inf, np.nan, 1.0]


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_shapes_and_options(data, monkeypatch):
    case = data.draw(st.sampled_from(CASES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shapes = data.draw(st.lists(st.lists(st.integers(0, 6), max_size=3).map(tuple), min_size=1, max_size=4))
    values = st.sampled_from(SPECIAL) | st.floats(width=32)
    sizes = [int(np.prod(shape)) for shape in shapes]
    draws = data.draw(st.lists(values, min_size=4 * sum(sizes), max_size=4 * sum(sizes)))
    arrays = np.split(np.array(draws, dtype), 4)
    found = []
    for backend in BOTH:
        params = [a.reshape(s) for a, s in zip(np.split(arrays[0].copy(), np.cumsum(sizes)[:-1]), shapes, strict=True)]
        optimizer = optimizer_on(backend, monkeypatch, case.optimizer, params)
        for flat in arrays[1:]:
            parts = np.split(flat.copy(), np.cumsum(sizes)[:-1])
            optimizer.step([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
        found.append((params, optimizer.state_dict()))
    assert_equal_runs(found)


FAULTS = {  # one operation in another order is all it takes, or a coefficient more
    "adam": ("step_size * (exp_avg / denominator)", "step_size * exp_avg / denominator"),
    "nadam": (
        "sqrt(exp_avg_sq + eps_inside) * denominator_factor",
        "sqrt((exp_avg_sq + eps_inside) * denominator_factor * denominator_factor)",
    ),
    "sgd": ("undamped * update;", "undamped * lr_inside * grad;"),
    "rmsprop": ("lr_inside * (grad / (sqrt(", "lr_inside * grad / ((sqrt("),
    "adam_l1": (" adam<T>::update(param, grad,", " adam<T>::update(param, grad + l1,"),
    "nadam_l1": (" nadam<T>::update(param, grad,", " nadam<T>::update(param, grad + l1,"),
    "sgd_l1": ("sgd<T>::update(param, grad,", "sgd<T>::update(param, grad + l1,"),
    "radam": ("sqrt(second + eps_inside) * denominator_factor", "sqrt(second + eps_inside) / denominator_factor"),
    "qhadam": ("square_share * square +", "square_share * grad * grad +"),
    "adamax": ("step_size * (exp_avg / (exp_inf", "step_size * exp_avg / ((exp_inf"),
    "adagrad": ("step_size * (grad / (sqrt(square_sum", "step_size * grad / ((sqrt(square_sum"),
    "adadelta": ("/ sqrt(square_avg + eps) * grad", "* (grad / sqrt(square_avg + eps))"),
    "lion": ("beta2 * exp_avg + weight2 * grad", "exp_avg + weight2 * (grad - exp_avg)"),
    "lamb": ("exp_avg * mean_factor / denominator", "exp_avg / denominator * mean_factor"),
    "adamw_schedule_free": ("- (y_size * update + y_decay * param)", "- y_size * update - y_decay * param"),
    "sgd_schedule_free": ("- (y_size * grad + y_decay * param)", "- y_size * grad - y_decay * param"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_fault_planted_in_the_cuda_source_is_seen(rule, monkeypatch):
    own = {"adam": ADAM[-1], "rmsprop": RMSPROP[1], "sgd": SGD[5]}
    own |= {case.name.removesuffix("-warm"): case for case in SCHEDULE_FREE}
    case = own.get(rule.name) or next(case for case in CASES if case.name.startswith(rule.name))
    monkeypatch.setattr(host_backend, "PATCH", host_kernels.planted("rules.cuh", *FAULTS[rule.name]))
    with pytest.raises(AssertionError, match="differ, first at"):
        assert_equal_runs(trajectories(monkeypatch, case.optimizer, [70, 1030], np.float32))


def test_a_skipped_edge_in_the_cuda_source_is_seen(monkeypatch):
    fault = host_kernels.planted("granules.cuh", "int tile = whole; tile < count;", "int tile = whole; tile > count;")
    monkeypatch.setattr(host_backend, "PATCH", fault)
    with pytest.raises(AssertionError, match="differ, first at"):
        assert_equal_runs(trajectories(monkeypatch, ADAM[-1].optimizer, [1030 + 1], np.float32))

"""Schedule-free optimizers: what they show in evaluation, and what they keep of it; test_rules compares their steps."""

import dataclasses
import math

import host_backend
import host_kernels
import numpy as np
import pytest
from cases import LR, ORACLE_LR, SCHEDULE_FREE, assert_same_bits, gradients, parameters
from host_backend import optimizer_on
from recipe_checks import BF16, F16, F32, F64, gradient_steps, memory, tensors
from test_rules import TOLERANCE, compare

from gpuadam import AdamWScheduleFree, SGDScheduleFree, cpu, schedule_free_rules, schedules
from gpuadam.expressions import accumulator, updates

FORMATS = [
    (F32, None),
    (F64, None),
    (F16, None),
    (BF16, None),
    (F16, "float32"),
    (BF16, "float32"),
    (BF16, "remainder"),
]
KINDS = [AdamWScheduleFree, SGDScheduleFree]
BETA = 0.9
NEEDS_COMPILER = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")


def trained(make=AdamWScheduleFree, dtype=F32, steps=4, **settings):
    params = tensors(dtype)
    optimizer = make(params, **{"lr": 0.1, **settings})
    for now in gradient_steps(steps, dtype):
        optimizer.step(now)
    return optimizer, params


def states(optimizer):
    return list(optimizer.state_dict()["state"].values())


def exact(param, own):
    """The weight itself: the parameter, with what it leaves out."""
    if "remainder" in own:
        low = own["remainder"].view(np.int16).astype(np.int32)
        return ((param.view(np.uint16).astype(np.int32) << 16) + low).view(F32).astype(F64)
    return np.asarray(own.get("master", param), F64)


def last_bit(x, dtype):
    """The distance of the numbers of a format around x."""
    forms = {"float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149), "float64": (52, -1074)}
    digits, least = forms[np.dtype(dtype).name]
    return 2.0 ** np.maximum(np.frexp(x)[1] - 1.0 - digits, least)


# ---- what is shown


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("case", SCHEDULE_FREE, ids=lambda case: case.name)
def test_what_is_shown_is_the_average_of_the_oracle(case, dtype):
    param, grads = parameters(70, dtype), gradients(12, 70, dtype)
    expected = case.oracle(param.astype(F64), [grad.astype(F64) for grad in grads], lr=ORACLE_LR)
    optimizer = case.optimizer([param], lr=LR)
    for grad in grads:
        optimizer.step([grad])
    tolerance = 1e-13 if dtype == F64 else 5e-6
    optimizer.eval()
    assert np.max(np.abs(param - expected.x) / (1 + np.abs(expected.x))) < tolerance
    assert np.max(np.abs(expected.x - expected.param)) > 100 * tolerance
    optimizer.train()
    assert np.max(np.abs(param - expected.param) / (1 + np.abs(expected.param))) < tolerance


@pytest.mark.parametrize(("dtype", "master"), FORMATS)
@pytest.mark.parametrize("make", KINDS)
def test_every_format_shows_x_and_takes_y_back(make, dtype, master):
    """x is rounded once. 16 bits alone come back to the bit, float32 by half a last bit of the larger of x and y."""
    optimizer, params = trained(make, dtype, master=master)
    before, own = memory(optimizer, params), states(optimizer)
    ys = [exact(*pair) for pair in zip(params, own, strict=True)]
    zs = [kept["z"].astype(F64) for kept in own]
    xs = [y + (1 - 1 / BETA) * (z - y) for y, z in zip(ys, zs, strict=True)]
    is_wide = dtype == F64  # then nothing is more exact, this formula neither
    slack = 4 if is_wide else 0.51
    optimizer.eval()
    for param, x, y, z in zip(params, xs, ys, zs, strict=True):
        size = np.max(np.abs([x, y, z]), axis=0) if is_wide else x
        assert np.all(np.abs(param.astype(F64) - x) <= slack * last_bit(size, param.dtype))
    optimizer.train()
    if dtype in (F16, BF16) and master is None:
        assert memory(optimizer, params) == before
    for param, kept, x, y, z in zip(params, states(optimizer), xs, ys, zs, strict=True):
        size = np.max(np.abs([x, y, z] if is_wide else [x, y]), axis=0)
        form = np.dtype(F32) if master else param.dtype
        assert np.all(np.abs(exact(param, kept) - y) <= slack * last_bit(size, form))
        assert kept["z"].tobytes() == z.astype(kept["z"].dtype).tobytes()


def test_what_evaluations_cost_as_the_docstring_says():
    """float32: a few of a hundred weights move by half a last bit, and no further the next time."""
    param = np.random.default_rng(0).standard_normal(100_000).astype(F32)
    optimizer = AdamWScheduleFree([param], lr=0.01)
    for now in gradients(50, param.size, F32):
        optimizer.step([now + param])
    before = param.copy()
    with optimizer.averaged():
        assert np.mean(param != before) > 0.9
    once = param.copy()
    for _ in range(3):
        optimizer.eval()
        optimizer.train()
    assert_same_bits(param, once)
    assert 0.005 < np.mean(param != before) < 0.08


def test_each_group_has_its_own_mixture():
    """And a tensor that had no update yet shows itself."""
    params = [np.ones(3), np.ones(3), np.ones(3)]
    groups = [{"params": params[:1], "momentum": 0.5}, {"params": params[1:], "momentum": 0.25}]
    optimizer = SGDScheduleFree(groups, lr=1.0)
    for _ in range(2):
        optimizer.step([np.ones(3), np.ones(3), None])
    assert [param[0] for param in params] == [0.5 * -1 + 0.5 * -0.5, 0.75 * -1 + 0.25 * -0.5, 1.0]
    params[2][:] = 7.0
    with optimizer.averaged():
        assert [param[0] for param in params] == pytest.approx([-0.5, -0.5, 7.0], rel=1e-15)


def test_the_accumulators_by_hand():
    """Rates 1/2, 1, 1/2: the largest so far are 1/2, 1, 1, squared and times k they weigh 1/4, 2, 3."""
    lr = schedules.where(schedules.step < 2, 1.0, 0.5)
    optimizer = SGDScheduleFree([np.zeros(1)], lr=lr, warmup_steps=2, r=1.0)
    for _ in range(3):
        optimizer.step([np.ones(1)])
    assert states(optimizer)[0]["accumulators"] == {"lr_max": 1.0, "weight_sum": 0.25 + 2 + 3}
    z = np.array([-0.5, -1.5, -2.0])
    with optimizer.averaged():
        found = optimizer._engine.tensors.params[0].owner[0]
    assert found == pytest.approx(float(z @ [0.25, 2, 3]) / 5.25, rel=1e-14)


@pytest.mark.parametrize("make", KINDS)
def test_a_rate_of_zero_weighs_nothing(make):
    optimizer, params = trained(make, lr=schedules.where(schedules.step < 4, 0.0, 0.1))
    assert [param.tobytes() for param in params] == [param.tobytes() for param in tensors()]
    optimizer.step(gradient_steps(1)[0])
    assert all(np.all(np.isfinite(param)) for param in params)


def coefficients(**wrong):
    """Those of SGD, some of them made of the hyperparameters in a wrong way."""

    def made(h, options):
        right = schedule_free_rules.sgd_schedule_free_coefficients(h, options)
        return right._replace(**{name: make(h, right) for name, make in wrong.items()})

    return made


RULE_FAULTS = {
    "z begins at 0": coefficients(start=lambda h, right: 0.0),
    "y goes with z": coefficients(y_size=lambda h, right: right.lr),
    "no decay of y": coefficients(y_decay=lambda h, right: 0.0),
    "no decay of z": coefficients(decay=lambda h, right: 0.0),
    "the mean of all z": coefficients(average=lambda h, right: 1.0 / updates),
    "no warm-up of z": coefficients(lr=lambda h, right: h["lr"]),
    "the weights of a step before": coefficients(
        average=lambda h, right: accumulator("late", 1.0, lambda _: right.average)
    ),
}


@pytest.mark.parametrize("fault", RULE_FAULTS)
def test_planted_faults_turn_the_comparison_red(fault, monkeypatch):
    case = next(case for case in SCHEDULE_FREE if case.name == "sgd_schedule_free-powers")
    rule = dataclasses.replace(schedule_free_rules.SGD_SCHEDULE_FREE, coefficients=RULE_FAULTS[fault])
    assert compare(case, F32) < TOLERANCE[F32]
    monkeypatch.setattr("gpuadam.schedule_free.SGD_SCHEDULE_FREE", rule)
    assert compare(case, F32) > 10 * TOLERANCE[F32]


# ---- z


@pytest.mark.parametrize("make", KINDS)
def test_weights_that_are_loaded_after_the_making_are_the_beginning(make):
    """z begins at the first update, as the authors' does; so tensors may come in one by one."""
    found = []
    for is_loaded in (False, True):
        params = [np.full(5, 9.0, F32), np.full(3, 9.0, F32)] if is_loaded else tensors(sizes=(5, 3))
        optimizer = make(params, lr=0.1)
        with optimizer.averaged():
            pass
        for param, start in zip(params, tensors(sizes=(5, 3)), strict=True):
            param[:] = start
        for k, now in enumerate(gradient_steps(3, sizes=(5, 3))):
            optimizer.step([now[0], now[1] if k else None])
        found.append(memory(optimizer, params))
    assert found[0] == found[1]


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("dtype", [F32, BF16, F64])
def test_z_is_a_weight_and_never_less_than_float32(dtype, state_dtype):
    param = parameters(64 * 80, dtype).reshape(64, 80)
    optimizer = AdamWScheduleFree([param], state_dtype=state_dtype)
    optimizer.step([param.copy()])
    own = states(optimizer)[0]
    wide = F64 if dtype == F64 else F32
    narrow = {"bfloat16": BF16, "int8": np.uint8}[state_dtype]
    assert own["z"].dtype == wide
    assert own["exp_avg_sq"].dtype == (F64 if dtype == F64 else narrow)
    assert "z_scale" not in own


def test_z_keeps_what_a_16_bit_weight_loses():
    """Steps that a bfloat16 at 1 cannot take add up in z, and show in x."""
    param = np.ones(4, BF16)
    optimizer = SGDScheduleFree([param], lr=2.0**-12, momentum=0.5, master="float32")
    for _ in range(64):
        optimizer.step([np.ones(4, BF16)])
    assert states(optimizer)[0]["z"] == pytest.approx(1 - 64 * 2.0**-12)
    with optimizer.averaged():
        assert np.all(param == np.array(1 - 32.5 * 2.0**-12).astype(BF16))


# ---- modes


def test_to_repeat_a_mode_is_nothing():
    optimizer, params = trained()
    before = memory(optimizer, params)
    optimizer.train()
    assert memory(optimizer, params) == before
    optimizer.eval()
    shown = [param.copy() for param in params]
    optimizer.eval()
    with optimizer.averaged():
        pass
    assert all(np.array_equal(*pair) for pair in zip(params, shown, strict=True))
    optimizer.train()
    optimizer.step(gradient_steps(1)[0])


REFUSED = {
    "step": lambda optimizer, path: optimizer.step(gradient_steps(1)[0]),
    "state_dict": lambda optimizer, path: optimizer.state_dict(),
    "save": lambda optimizer, path: optimizer.save(path),
    "set_hyperparameters": lambda optimizer, path: optimizer.set_hyperparameters(lr=1.0),
    "add_group": lambda optimizer, path: optimizer.add_group([np.ones(3, F32)]),
    "load_state_dict": lambda optimizer, path: optimizer.load_state_dict(trained()[0].state_dict()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_in_evaluation(what, tmp_path):
    optimizer, params = trained()
    optimizer.eval()
    before = [param.copy() for param in params]
    with pytest.raises(RuntimeError, match=r"hold their averages now: call train\(\) first"):
        REFUSED[what](optimizer, tmp_path / "run")
    assert all(np.array_equal(*pair) for pair in zip(params, before, strict=True))


def test_an_exception_in_the_block_ends_the_evaluation():
    optimizer, _ = trained()
    with pytest.raises(KeyError, match="evaluation"), optimizer.averaged():
        raise KeyError("evaluation")
    optimizer.step(gradient_steps(1)[0])


@pytest.mark.parametrize("moves", ["eval", "train"])
def test_an_interrupted_change_of_mode_wants_a_load(moves, monkeypatch, tmp_path):
    optimizer, params = trained()
    before = memory(optimizer, params)
    optimizer.save(tmp_path / "run")
    if moves == "train":
        optimizer.eval()
    with monkeypatch.context() as patch:
        patch.setattr(type(optimizer._engine.tables), "swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            getattr(optimizer, moves)()
    for call in (optimizer.eval, optimizer.train, optimizer.step):
        with pytest.raises((RuntimeError, ValueError)):
            call()
    optimizer.load(tmp_path / "run")
    assert memory(optimizer, params) == before
    optimizer.step(gradient_steps(1)[0])


# ---- what is refused


@pytest.mark.parametrize(("make", "name"), [(AdamWScheduleFree, "beta1"), (SGDScheduleFree, "momentum")])
@pytest.mark.parametrize(
    "value", [0.0, 1.0, -0.5, math.nan, schedules.step, schedules.parameter("b", 0.9), None, "0.9"]
)
def test_the_mixture_is_a_number_between_0_and_1(make, name, value):
    settings = {"betas": (value, 0.99)} if name == "beta1" else {"momentum": value}
    allowed = r"number > 0 and < 1" if not isinstance(value, str | None) else "must be a number"
    with pytest.raises((TypeError, ValueError), match=rf"{name} of group 0 .*{allowed}"):
        make([np.ones(3)], **settings)


def test_the_mixture_stays():
    optimizer, params = trained(steps=1)
    before = memory(optimizer, params)
    with pytest.raises(ValueError, match=r"beta1 of group 0 is 0\.8; allowed is 0\.9 alone"):
        optimizer.set_hyperparameters(betas=(0.8, 0.9))
    assert memory(optimizer, params) == before
    optimizer.set_hyperparameters(betas=(0.9, 0.5), lr=0.2)
    assert optimizer.hyperparameters()[0]["beta2"] == 0.5


def test_a_state_of_another_mixture_is_refused_or_taken_with_it(tmp_path):
    optimizer, params = trained(betas=(0.8, 0.99))
    optimizer.save(tmp_path / "run")
    others = tensors()
    other = AdamWScheduleFree(others, lr=0.1)
    for take in (lambda: other.load(tmp_path / "run"), lambda: other.load_state_dict(optimizer.state_dict())):
        with pytest.raises(ValueError, match=r"beta1 of group 0 is 0\.8, with which parameters are mixed, here 0\.9"):
            take()
    other.load(tmp_path / "run", hyperparameters=True)
    optimizer.eval()
    other.eval()
    assert all(np.array_equal(*pair) for pair in zip(params, others, strict=True))


def test_there_is_one_average():
    for groups in ([np.ones(3)], [{"params": [np.ones(3)], "ema_decay": 0.9}]):
        shared = {} if isinstance(groups[0], dict) else {"ema_decay": 0.9}
        with pytest.raises(ValueError, match=r"ema_decay of group 0 is 0\.9, but adamw_schedule_free averages its"):
            AdamWScheduleFree(groups, **shared)
    for name in ("swap_ema", "reset_ema"):
        with pytest.raises(ValueError, match=r"averages its weights itself: call eval\(\) and train\(\)"):
            getattr(trained(steps=1)[0], name)()


@pytest.mark.parametrize("value", [-1, 1.5, True, None])
def test_warmups_that_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="warmup_steps of group 0 is"):
        SGDScheduleFree([np.ones(3)], warmup_steps=value)


# ---- runs


@pytest.mark.parametrize(("dtype", "master"), [(F32, None), (BF16, None), (BF16, "remainder")])
@pytest.mark.parametrize("make", KINDS)
def test_a_run_goes_on_from_a_file(make, dtype, master, tmp_path):
    settings = {"lr": LR, "warmup_steps": 3, "master": master, "state_dtype": "int8", "int8_from": 1}
    optimizer, params = trained(make, dtype, **settings)
    optimizer.save(tmp_path / "run")
    others = tensors(dtype)
    other = make(others, **settings)
    other.load(tmp_path / "run")
    for now in gradient_steps(3, dtype):
        optimizer.step(now)
        other.step(now)
    assert memory(other, others) == memory(optimizer, params)


def test_a_group_that_comes_later_begins_anew():
    optimizer, params = trained(warmup_steps=3)
    alone, expected = trained(warmup_steps=3)
    late, twin = parameters(9, F32), parameters(9, F32)
    fresh = AdamWScheduleFree([twin], lr=0.1, warmup_steps=3)
    optimizer.add_group([late])
    for now in gradient_steps(3):
        optimizer.step([*now, np.ones(9, F32)])
        alone.step(now)
        fresh.step([np.ones(9, F32)])
    optimizer.eval()
    alone.eval()
    fresh.eval()
    for ours, theirs in zip([*params, late], [*expected, twin], strict=True):
        assert_same_bits(ours, theirs)


# ---- both backends


def both(monkeypatch, make, dtype, master, patch=None):
    """The same run, evaluations included, on the CPU and of the CUDA source; what is shown, and what is left."""
    found = []
    monkeypatch.setattr(host_backend, "PATCH", patch)
    for backend in (cpu, host_backend):
        params = [parameters(size, F64, size).astype(dtype) for size in (0, 1, 7, 1024, 1031, 3000)]
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.3}]
        optimizer = optimizer_on(backend, monkeypatch, make, groups, lr=LR, master=master)
        shown = []
        for k in range(5):
            grads = [gradients(1, p.size, F64, seed=10 * k + i)[0].astype(dtype) for i, p in enumerate(params)]
            optimizer.step([None if k < 3 and i == 4 else grad for i, grad in enumerate(grads)])
            with optimizer.averaged():
                shown += [param.copy() for param in params]
        found.append((shown, memory(optimizer, params)))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert_same_bits(ours.view(f"u{ours.itemsize}"), theirs.view(f"u{ours.itemsize}"), "shown")
    assert found[0][1] == found[1][1]


@NEEDS_COMPILER
@pytest.mark.parametrize(("dtype", "master"), FORMATS)
@pytest.mark.parametrize("make", KINDS)
def test_both_backends_show_the_same_bits(make, dtype, master, monkeypatch):
    both(monkeypatch, make, dtype, master)


FAULTS = {
    "the other way": ("launch.evaluates ?", "!launch.evaluates ?"),
    "a form that loses more": ("(beta - 1.0) / beta", "1.0 - 1.0 / beta"),
    "another rounding": (
        "from + share * (z - from)",
        "static_cast<Compute>(share) * static_cast<Compute>(z - from) + from",
    ),
    "tensors without an update": ("updates > 0", "updates >= 0"),
}


@NEEDS_COMPILER
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_the_cuda_source_is_seen(fault, monkeypatch):
    dtype = F64 if "form" in fault else F32
    with pytest.raises(AssertionError):
        both(monkeypatch, AdamWScheduleFree, dtype, None, host_kernels.planted("swap.cu", *FAULTS[fault]))

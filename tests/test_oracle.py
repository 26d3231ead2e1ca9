"""The oracle itself, against PyTorch on the CPU, numbers recorded from other frameworks, and numbers by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest

RNG = np.random.default_rng(20240607)
PARAM = RNG.normal(size=7)
GRADS = [None if t in (4, 5, 17) else RNG.normal(size=7) * 10.0 ** (t % 4 - 2) for t in range(30)]
MOVING = {
    "lr": lambda t: 0.02 * 0.9**t,
    "beta1": lambda t: 0.8 + 0.005 * t,
    "beta2": lambda t: 0.99 - 0.002 * t,
    "eps": lambda t: 1e-3 / (t + 1),
    "weight_decay": lambda t: 0.1 * math.cos(t) ** 2,
    "alpha": lambda t: 0.99 - 0.003 * t,
    "momentum": lambda t: 0.9 - 0.01 * t,
}
FIXED = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "alpha": 0.99, "momentum": 0.9}


@pytest.fixture(scope="module", name="torch")
def fixture_torch() -> Any:
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def at(value: Any, t: int) -> float:
    """A number, or a function of t at t."""
    return value(t) if callable(value) else value


def run_torch(torch: Any, name: str, per_step: dict[str, Any], shrink: Any = 0.0, **options: Any) -> oracle.Result:
    """GRADS through a PyTorch optimizer; per_step goes into the group every time, p *= 1 - shrink before the step."""
    p = torch.nn.Parameter(torch.tensor(PARAM))
    first = {key: at(value, 0) for key, value in per_step.items()}
    if "beta1" in first:
        first["betas"] = (first.pop("beta1"), first.pop("beta2"))
    optimizer = getattr(torch.optim, name)([p], foreach=False, **first, **options)
    for t, grad in enumerate(GRADS):
        now = {key: at(value, t) for key, value in per_step.items()}
        if "beta1" in now:
            now["betas"] = (now.pop("beta1"), now.pop("beta2"))
        optimizer.param_groups[0].update(now)
        p.grad = None if grad is None else torch.tensor(grad)
        if grad is not None:
            p.data.mul_(1.0 - at(shrink, t))
        optimizer.step()
    states = {key: value.numpy() for key, value in optimizer.state[p].items() if key != "step"}
    return oracle.Result(p.detach().numpy(), states, int(optimizer.state[p]["step"]))


def assert_same(ours: oracle.Result, theirs: oracle.Result) -> None:
    """Same parameter, same states by name, same number of updates."""
    assert ours.updates == theirs.updates
    assert ours.states.keys() == theirs.states.keys()
    np.testing.assert_allclose(ours.param, theirs.param, rtol=1e-12, atol=1e-14)
    for name, value in theirs.states.items():
        np.testing.assert_allclose(ours.states[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


def run_adam(moving: bool, **options: Any) -> oracle.Result:
    """The oracle's Adam on GRADS with the fixed or the moving hyperparameters."""
    h = MOVING if moving else FIXED
    keys = {"lr": h["lr"], "betas": (h["beta1"], h["beta2"]), "eps": h["eps"], "weight_decay": h["weight_decay"]}
    return oracle.adam(PARAM, GRADS, **(keys | options))


def pick(moving: bool, *names: str) -> dict[str, Any]:
    """The named hyperparameters, fixed or moving."""
    return {name: (MOVING if moving else FIXED)[name] for name in names}


ADAM_KEYS = ("lr", "beta1", "beta2", "eps", "weight_decay")


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("amsgrad", [False, "raw"])
def test_adam_against_torch(torch: Any, decoupled: bool, moving: bool, maximize: bool, amsgrad: bool | str) -> None:
    """Adam and AdamW, AMSGrad, maximize, weight decay, every scalar fixed or moving, with missing gradients."""
    name, decay = ("AdamW", "decoupled") if decoupled else ("Adam", "coupled")
    theirs = run_torch(torch, name, pick(moving, *ADAM_KEYS), amsgrad=bool(amsgrad), maximize=maximize)
    assert_same(run_adam(moving, amsgrad=amsgrad, maximize=maximize, decay=decay), theirs)
    if not moving:
        plain = run_torch(torch, name, pick(False, *ADAM_KEYS[:4]), weight_decay=0.0, maximize=maximize)
        assert_same(run_adam(False, weight_decay=0.0, maximize=maximize, decay=decay), plain)


def test_adam_scheduled_decay_against_torch(torch: Any) -> None:
    """Decay by wd_t alone is PyTorch without decay on a parameter shrunk by hand."""
    theirs = run_torch(torch, "Adam", pick(True, *ADAM_KEYS[:4]), shrink=MOVING["weight_decay"])
    assert_same(run_adam(True, decay="scheduled"), theirs)


@pytest.mark.parametrize("amsgrad", [False, "raw"])
def test_adam_eps_hat_against_torch(torch: Any, amsgrad: bool | str) -> None:
    """The epsilon-hat form is PyTorch's with eps / sqrt(1 - beta2^k), k without the rests."""
    updates = {t: sum(g is not None for g in GRADS[: t + 1]) for t in range(len(GRADS))}
    keys = pick(False, *ADAM_KEYS) | {"eps": lambda t: 0.01 / math.sqrt(1 - 0.999 ** max(updates[t], 1))}
    theirs = run_torch(torch, "Adam", keys, amsgrad=bool(amsgrad))
    assert_same(run_adam(False, eps=0.01, eps_placement="hat", amsgrad=amsgrad), theirs)


def test_planted_faults_in_adam_turn_the_comparison_red(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coupled for decoupled, no bias correction, a rest that counts, wrong eps, wrong AMSGrad: each is noticed."""
    theirs = run_torch(torch, "AdamW", pick(False, *ADAM_KEYS), amsgrad=True)
    right = {"amsgrad": "raw", "decay": "decoupled"}
    assert_same(run_adam(False, **right), theirs)
    faults = ({"decay": "coupled"}, {"decay": "scheduled"}, {"amsgrad": "corrected"}, {"eps_placement": "hat"})
    for fault in (*faults, {"maximize": True}, {"betas": (0.9, 0.99)}):
        with pytest.raises(AssertionError, match="Not equal"):
            assert_same(run_adam(False, **(right | fault)), theirs)
    for name, broken in (
        ("_correction", lambda beta, k: 1.0),
        ("_steps", lambda grads, m: ((t, t + 1, g) for t, g in enumerate(grads) if g is not None)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(oracle, name, broken)
            wrong = run_adam(False, **right)
        assert not np.allclose(wrong.param, theirs.param, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_rmsprop_against_torch(torch: Any, moving: bool, momentum: bool, centered: bool, maximize: bool) -> None:
    """RMSprop, centered, momentum, maximize, coupled decay and the two others on a parameter shrunk by hand."""
    keys = pick(moving, "lr", "alpha", "eps", *(["momentum"] if momentum else []))
    flags = {"centered": centered, "maximize": maximize}
    decay = pick(moving, "weight_decay")
    theirs = run_torch(torch, "RMSprop", keys | decay, **flags)
    assert_same(oracle.rmsprop(PARAM, GRADS, **keys, **decay, **flags), theirs)
    plain = run_torch(torch, "RMSprop", keys, **flags)
    assert_same(oracle.rmsprop(PARAM, GRADS, **keys, **flags), plain)
    with pytest.raises(AssertionError):
        assert_same(oracle.rmsprop(PARAM, GRADS, **keys, **flags, eps_placement="inside"), plain)
    by_lr = run_torch(torch, "RMSprop", keys, lambda t: at(keys["lr"], t) * at(decay["weight_decay"], t), **flags)
    assert_same(oracle.rmsprop(PARAM, GRADS, **keys, **decay, **flags, decay="decoupled"), by_lr)
    alone = run_torch(torch, "RMSprop", keys, decay["weight_decay"], **flags)
    assert_same(oracle.rmsprop(PARAM, GRADS, **keys, **decay, **flags, decay="scheduled"), alone)


# Recorded in float64 from optax 0.2.8 (jax 0.10.2), Keras 3.15.1 and tf.compat.v1 of TensorFlow 2.21.0.
POINT = np.array([1.0, -2.0])
SLOPES = [np.array([((7 * t) % 5 - 1.5) / 4, ((3 * t) % 7 - 2.5) / 2]) for t in range(12)]
ADAM_RECORDS = [
    ("optax eps_root", [1.0930687557040695, -1.8543887541725876], 0.95, {"eps_placement": "inside"}),
    ("optax amsgrad", [1.108994851783149, -1.8518952105915623], 0.75, {"amsgrad": "corrected"}),
    ("optax adamw", [0.9743189132701732, -1.6665971084337203], 0.95, {"decay": "decoupled"}),
    (
        "keras amsgrad",
        [0.9817581027531513, -1.6631909933487299],
        0.75,
        {"amsgrad": "raw", "eps_placement": "hat", "decay": "decoupled"},
    ),
    ("keras", [0.9733169812129906, -1.6637399692831965], 0.75, {"eps_placement": "hat", "decay": "decoupled"}),
]
OPTAX_RMSPROP = {
    (False, "outside"): [0.7020820852397345, -2.3208642866852918],
    (False, "inside"): [0.7004930174585813, -2.322837987361262],
    (True, "outside"): [0.6962873355620063, -2.268885510401828],
    (True, "inside"): [0.6947052753222619, -2.270578568883317],
}
KERAS_RMSPROP = {
    False: [1.2703886905839576, -0.6385023342081999],
    True: [1.2941878644778564, -0.5225256378337803],
}
TENSORFLOW1_RMSPROP = {
    (0.0, False): [0.9333612055489486, -2.0616645080743106],
    (0.0, True): [0.9320715507108785, -2.06648376689858],
    (0.75, False): [0.7949802056727313, -2.008102066073092],
    (0.75, True): [0.7912198737886896, -2.0166716814275993],
}


def falling(t: float) -> float:
    """The learning rate of the recorded runs."""
    return 0.5 / (t + 2)


@pytest.mark.parametrize(("name", "expected", "beta2", "options"), ADAM_RECORDS, ids=[r[0] for r in ADAM_RECORDS])
def test_adam_against_records(name: str, expected: list[float], beta2: float, options: dict[str, Any]) -> None:
    """Adam's options that PyTorch lacks, against optax and Keras."""
    wd = 0.1 if "decay" in options else 0.0
    ours = oracle.adam(POINT, SLOPES, lr=falling, betas=(0.8, beta2), eps=0.01, weight_decay=wd, **options)
    np.testing.assert_allclose(ours.param, expected, rtol=1e-14, err_msg=name)
    wrong = options | {"eps_placement": "outside" if "eps_placement" in options else "hat"}
    ours = oracle.adam(POINT, SLOPES, lr=falling, betas=(0.8, beta2), eps=0.01, weight_decay=wd, **wrong)
    assert not np.allclose(ours.param, expected, rtol=1e-6, atol=0)


def test_rmsprop_against_records() -> None:
    """Bias correction and lr inside (optax), Keras with decay, TensorFlow 1 from ones; rmsprop and the twins."""
    for (centered, place), expected in OPTAX_RMSPROP.items():
        keys = {"lr": falling, "alpha": 0.9, "eps": 0.01, "momentum": 0.8, "centered": centered}
        keys |= {"eps_placement": place, "initial_square_avg": 0.5, "bias_correction": True}
        np.testing.assert_allclose(
            oracle.rmsprop(POINT, SLOPES, lr_placement="inside", **keys).param, expected, rtol=1e-14
        )
        wrong = oracle.rmsprop(POINT, SLOPES, lr_placement="outside", **keys).param
        assert not np.allclose(wrong, expected, rtol=1e-3, atol=0)
    for centered, expected in KERAS_RMSPROP.items():
        twin = oracle.rmsprop_keras(
            POINT, SLOPES, lr=falling, momentum=0.8, epsilon=0.01, centered=centered, weight_decay=0.1
        )
        np.testing.assert_allclose(twin.param, expected, rtol=1e-14)
    for (momentum, centered), expected in TENSORFLOW1_RMSPROP.items():
        twin = oracle.rmsprop_tensorflow1(
            POINT, SLOPES, lr=falling, decay=0.875, momentum=momentum, epsilon=2.0**-7, centered=centered
        )
        np.testing.assert_allclose(twin.param, expected, rtol=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_options_make_the_frameworks(momentum: float, centered: bool) -> None:
    """rmsprop with the right switches is TensorFlow 1's and Keras' RMSprop, and with a wrong one it is not."""
    keys = {"lr": MOVING["lr"], "momentum": momentum, "centered": centered}
    switches = {"eps_placement": "inside", "lr_placement": "inside", "alpha": 0.9}
    tf1 = oracle.rmsprop_tensorflow1(PARAM, GRADS, **keys)
    keras = oracle.rmsprop_keras(PARAM, GRADS, **keys, weight_decay=0.1)
    as_tf1 = switches | {"eps": 1e-10, "initial_square_avg": 1.0}
    as_keras = switches | {"eps": 1e-7, "weight_decay": 0.1, "decay": "decoupled"}
    for theirs, options in ((tf1, as_tf1), (keras, as_keras)):
        ours = oracle.rmsprop(PARAM, GRADS, **keys, **options)
        theirs.states = {name: theirs.states[name] for name in ours.states}
        assert_same(ours, theirs)
        for fault in ({"initial_square_avg": 0.5}, *([{"lr_placement": "outside"}] if momentum else [])):
            with pytest.raises(AssertionError):
                assert_same(oracle.rmsprop(PARAM, GRADS, **(keys | options | fault)), theirs)


def test_adam_by_hand() -> None:
    """beta 1/2 and 3/4, g = 2 then 0: m 1, 1/2; v 1, 3/4; corrections 1/2, 3/4 and 1/4, 7/16."""

    def moved(steps: int, eps: float, **options: Any) -> float:
        grads = [np.array([2.0]), np.array([0.0])][:steps]
        return float(-oracle.adam(np.zeros(1), grads, lr=1.0, betas=(0.5, 0.75), eps=eps, **options).param[0])

    assert moved(1, 1.0) == pytest.approx(2 / 3, rel=1e-15)
    assert moved(1, 1.0, eps_placement="hat") == pytest.approx(1 / 2, rel=1e-15)
    assert moved(1, 5.0, eps_placement="inside") == pytest.approx(2 / 3, rel=1e-15)
    root = math.sqrt(12 / 7)
    assert moved(2, 1.0) == pytest.approx(2 / 3 + (2 / 3) / (root + 1), rel=1e-15)
    assert moved(2, 1.0, amsgrad="raw") == pytest.approx(2 / 3 + (2 / 3) / (4 / math.sqrt(7) + 1), rel=1e-15)
    assert moved(2, 1.0, amsgrad="corrected") == pytest.approx(2 / 3 + (2 / 3) / (2 + 1), rel=1e-15)
    hat = 1 / 2 + (2 / 3) / (2 + 4 / math.sqrt(7))
    assert moved(2, 1.0, amsgrad="corrected", eps_placement="hat") == pytest.approx(hat, rel=1e-15)
    decayed = oracle.adam(
        np.ones(1), [np.zeros(1)] * 2, lr=7.0, weight_decay=lambda t: (0.5, 0.25)[t], decay="scheduled"
    )
    assert decayed.param[0] == 0.375


def test_degenerate_inputs_by_hand() -> None:
    """Both betas 0: lr sign(g), nearly; centered RMSprop under a constant gradient stays finite (variance 0)."""
    ours = oracle.adam(POINT, SLOPES[:1], lr=0.5, betas=(0.0, 0.0), eps=0.0)
    np.testing.assert_array_equal(ours.param, POINT - 0.5 * np.sign(SLOPES[0]))
    slopes = [np.linspace(0.1, 1.0, 50)] * 100
    ours = oracle.rmsprop(np.zeros(50), slopes, lr=1e-3, alpha=0.5, centered=True)
    assert np.isfinite(ours.param).all()
    assert (ours.states["square_avg"] < ours.states["grad_avg"] ** 2).any(), "the clamp at 0 was not needed"
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert oracle.rmsprop(np.zeros(1), [np.ones(1)], lr=1.0, eps=0.0, centered=True, alpha=0.0).param[0] == -np.inf


def test_unknown_options_are_refused() -> None:
    """A misspelt option is an error, not another formula."""
    for options in ({"amsgrad": True}, {"eps_placement": "out"}, {"decay": "L2"}):
        with pytest.raises(ValueError, match="does not know"):
            oracle.adam(POINT, SLOPES, lr=1.0, **options)
    for options in ({"lr_placement": "in"}, {"eps_placement": "hat"}, {"decay": "L2"}):
        with pytest.raises(ValueError, match="does not know"):
            oracle.rmsprop(POINT, SLOPES, lr=1.0, **options)


def run_scheduler(torch: Any, make: Callable[[Any, Any], Any], count: int, lr: float = 0.1) -> np.ndarray:
    """(lr, momentum) of a PyTorch scheduler at t = 0 .. count - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)
    scheduler, seen = make(torch.optim.lr_scheduler, optimizer), []
    for _ in range(count):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return np.array(seen)


def table(schedule: oracle.Schedule, count: int) -> np.ndarray:
    """A schedule at t = 0 .. count - 1."""
    return np.array([schedule(t) for t in range(count)])


def test_one_cycle_against_torch(torch: Any) -> None:
    """Learning rate and momentum, both anneals, both phase counts; the last value is then held."""
    for anneal, three_phase, pct in itertools.product(("cos", "linear"), (False, True), (0.3, 0.25, 0.17, 0.5)):
        keys = {"total_steps": 50, "pct_start": pct, "three_phase": three_phase}
        seen = run_scheduler(torch, lambda lib, o, k=keys, a=anneal: lib.OneCycleLR(o, 0.2, anneal_strategy=a, **k), 50)
        lr = oracle.one_cycle(0.2, anneal=anneal, **keys)
        np.testing.assert_allclose(table(lr, 50), seen[:, 0], rtol=1e-10)
        np.testing.assert_allclose(table(oracle.one_cycle_momentum(anneal=anneal, **keys), 50), seen[:, 1], rtol=1e-13)
        assert lr(50) == lr(1000) == lr(49) == pytest.approx(0.2 / 25 / 1e4, rel=1e-15)
        assert not np.allclose(table(lr, 51)[1:], seen[:, 0], rtol=1e-3)


def test_one_cycle_drives_adamw_as_in_torch(torch: Any) -> None:
    """AdamW with OneCycleLR, which also moves beta1, end to end."""
    p = torch.nn.Parameter(torch.tensor(PARAM))
    optimizer = torch.optim.AdamW([p], lr=1.0, foreach=False)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=27)
    grads = [g for g in GRADS if g is not None]
    for grad in grads:
        p.grad = torch.tensor(grad)
        optimizer.step()
        scheduler.step()
    betas = (oracle.one_cycle_momentum(27), 0.999)
    ours = oracle.adam(PARAM, grads, lr=oracle.one_cycle(0.05, 27), betas=betas, weight_decay=0.01, decay="decoupled")
    np.testing.assert_allclose(ours.param, p.detach().numpy(), rtol=1e-12)


def test_cyclic_against_torch(torch: Any) -> None:
    """The three modes, symmetric or not, with the inverse momentum."""
    for mode, down in itertools.product(("triangular", "triangular2", "exp_range"), (None, 7)):
        keys = {"mode": mode, "gamma": 0.97, "step_size_down": down}
        seen = run_scheduler(torch, lambda lib, o, k=keys: lib.CyclicLR(o, 0.01, 0.1, step_size_up=4, **k), 60)
        np.testing.assert_allclose(table(oracle.cyclic(0.01, 0.1, 4, **keys), 60), seen[:, 0], rtol=1e-12)
        np.testing.assert_allclose(table(oracle.cyclic(0.9, 0.8, 4, **keys), 60), seen[:, 1], rtol=1e-12)


TORCH_SCHEDULES = [
    ("constant", oracle.constant(0.1), lambda lib, o: lib.ConstantLR(o, 1.0)),
    ("cosine", oracle.cosine_decay(0.1, 59, 0.05), lambda lib, o: lib.CosineAnnealingLR(o, 59, 0.005)),
    ("exponential", oracle.exponential_decay(0.1, 1, 0.9), lambda lib, o: lib.ExponentialLR(o, 0.9)),
    ("step", oracle.exponential_decay(0.1, 7, 0.5, True), lambda lib, o: lib.StepLR(o, 7, 0.5)),
    ("polynomial", oracle.polynomial_decay(0.1, 30, 0.0, 2.0), lambda lib, o: lib.PolynomialLR(o, 30, 2.0)),
    ("warm-up", oracle.linear_warmup(0.1, 10, 0.02), lambda lib, o: lib.LinearLR(o, 0.2, 1.0, 10)),
    (
        "milestones",
        oracle.piecewise_constant([10, 20], [0.1, 0.01, 0.001], right=True),
        lambda lib, o: lib.MultiStepLR(o, [10, 20], 0.1),
    ),
    (
        "warm-up, cosine",
        oracle.warmup_cosine_decay(0.02, 0.1, 10, 59, 0.01),
        lambda lib, o: lib.SequentialLR(o, [lib.LinearLR(o, 0.2, 1.0, 10), lib.CosineAnnealingLR(o, 49, 0.01)], [10]),
    ),
    (
        "sequence",
        oracle.join(
            [oracle.constant(0.1), oracle.exponential_decay(0.1, 1, 0.9), oracle.cosine_decay(0.1, 50)], [5, 30]
        ),
        lambda lib, o: lib.SequentialLR(
            o, [lib.ConstantLR(o, 1.0), lib.ExponentialLR(o, 0.9), lib.CosineAnnealingLR(o, 50)], [5, 30]
        ),
    ),
    *(
        (
            f"restarts x{factor}",
            oracle.cosine_decay_restarts(0.1, 5, factor, alpha=0.05),
            lambda lib, o, f=factor: lib.CosineAnnealingWarmRestarts(o, 5, f, 0.005),
        )
        for factor in (1, 2, 3)
    ),
]


@pytest.mark.parametrize(("name", "ours", "make"), TORCH_SCHEDULES, ids=[row[0] for row in TORCH_SCHEDULES])
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_schedules_against_torch(torch: Any, name: str, ours: oracle.Schedule, make: Callable[..., Any]) -> None:
    """60 values of each schedule that PyTorch has; and the same shifted by one step must differ."""
    seen = run_scheduler(torch, make, 60)[:, 0]
    np.testing.assert_allclose(table(ours, 60), seen, rtol=1e-11, err_msg=name)
    if name != "constant":
        assert not np.allclose(table(ours, 61)[1:], seen, rtol=1e-3)


def test_piecewise_constant_by_hand() -> None:
    """At a boundary: the old value in TensorFlow, the new one in optax."""
    values = [1.0, 0.5, 0.1]
    left, right = (oracle.piecewise_constant([3, 7], values, right=r) for r in (False, True))
    assert [left(t) for t in (0, 2, 3, 4, 7, 8, 99)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1]
    assert [right(t) for t in (0, 2, 3, 4, 7, 8, 99)] == [1.0, 1.0, 0.5, 0.5, 0.1, 0.1, 0.1]
    with pytest.raises(ValueError, match="does not know"):
        oracle.piecewise_constant([3], [1.0])


def test_exponential_and_polynomial_by_hand() -> None:
    """TensorFlow's edges: half a decay period, the floor, the clamp, and cycle's jump one step after the multiple."""
    smooth, stairs = (oracle.exponential_decay(0.8, 4, 0.25, s) for s in (False, True))
    assert [smooth(t) for t in (0, 2, 4, 6)] == pytest.approx([0.8, 0.4, 0.2, 0.1], rel=1e-15)
    assert [stairs(t) for t in (0, 3, 4, 7, 8)] == pytest.approx([0.8, 0.8, 0.2, 0.2, 0.05], rel=1e-15)
    held, cycled = (oracle.polynomial_decay(1.1, 4, 0.1, 2.0, c) for c in (False, True))
    assert [held(t) for t in (0, 1, 2, 4, 5)] == pytest.approx([1.1, 0.6625, 0.35, 0.1, 0.1], rel=1e-15)
    first = [1.1, 0.6625, 0.1]
    assert [cycled(t) for t in (0, 1, 4)] == pytest.approx(first, rel=1e-15)
    second = [0.1 + (3 / 8) ** 2, 0.1 + 1 / 16, 0.1, 0.1 + (3 / 12) ** 2]
    assert [cycled(t) for t in (5, 6, 8, 9)] == pytest.approx(second, rel=1e-14)
    assert oracle.polynomial_decay(1.0, 10)(10) == 1e-4


def test_cosine_and_warm_up_by_hand() -> None:
    """The thirds of a half turn, the clamp, the first update of a warm-up, warm-up counted in decay_steps."""
    cosine = oracle.cosine_decay(2.0, 6, 0.25)
    assert [cosine(t) for t in (0, 2, 3, 4, 6, 7)] == pytest.approx([2.0, 1.625, 1.25, 0.875, 0.5, 0.5], rel=1e-15)
    warm = oracle.linear_warmup(0.4, 4)
    assert [warm(t) for t in (0, 1, 4, 9)] == [0.0, 0.1, 0.4, 0.4]
    assert oracle.linear_warmup(0.4, 0)(0) == 0.4
    both = oracle.warmup_cosine_decay(0.1, 0.5, 4, 10, 0.1)
    assert [both(t) for t in (0, 2, 4, 7, 10, 99)] == pytest.approx([0.1, 0.3, 0.5, 0.3, 0.1, 0.1], rel=1e-15)
    assert oracle.warmup_cosine_decay(0.0, 0.5, 0, 10)(0) == 0.5


def test_cyclic_by_hand() -> None:
    """bckenstler's README: base 0.001, max 0.006, step 2000; a fractional step as well."""
    places = (0, 1000, 2000, 3000, 4000, 6000)
    full = oracle.cyclic(0.001, 0.006, 2000)
    assert [full(t) for t in places] == pytest.approx([0.001, 0.0035, 0.006, 0.0035, 0.001, 0.006], rel=1e-14)
    half = oracle.cyclic(0.001, 0.006, 2000, "triangular2")
    assert [half(t) for t in places] == pytest.approx([0.001, 0.0035, 0.006, 0.0035, 0.001, 0.0035], rel=1e-14)
    shrinking = oracle.cyclic(0.001, 0.006, 2000, "exp_range", 0.99994)
    assert shrinking(2000) == pytest.approx(0.001 + 0.005 * 0.99994**2000, rel=1e-14)
    assert oracle.cyclic(0.0, 1.0, 2.5)(2) == 0.8
    assert oracle.cyclic(0.0, 1.0, 2.5)(5) == 0.0
    for t in range(40):  # the formula as printed, s = 5/2
        cycle = math.floor(1 + t / 5)
        assert oracle.cyclic(0.0, 1.0, 2.5)(t) == pytest.approx(max(0.0, 1 - abs(t / 2.5 - 2 * cycle + 1)), abs=1e-14)


def test_cosine_restarts_by_hand() -> None:
    """Heights m_mul^i with alpha outside them, and the very boundaries that a logarithm misses."""
    restarts = oracle.cosine_decay_restarts(2.0, 4, 1.5, 0.5, 0.1)
    values = [2.0, 1.1, 2 * (0.9 / 2 + 0.1), 2 * (0.9 / 4 + 0.1), 2 * (0.9 / 4 + 0.1), 2 * (0.9 / 8 + 0.1)]
    assert [restarts(t) for t in (0, 2, 4, 7, 10, 19)][:3] == pytest.approx(values[:3], rel=1e-15)
    assert [restarts(7), restarts(10), restarts(14.5)] == pytest.approx([values[3], values[4], values[5]], rel=1e-14)
    triple = oracle.cosine_decay_restarts(1.0, 10, 3.0)
    assert [triple(t) for t in (10, 40, 1210, 295240, 7971610)] == [1.0] * 5
    assert triple(295239) < 1e-9
    with pytest.raises(ValueError, match="does not know"):
        oracle.cosine_decay_restarts(1.0, 10, 0.5)


def test_join_by_hand() -> None:
    """The boundary belongs to the right-hand schedule, which starts at its own 0."""
    joined = oracle.join([lambda t: 100 + t, lambda t: 200 + t, lambda t: 300 + t], [3, 5])
    assert [joined(t) for t in range(7)] == [100, 101, 102, 200, 201, 300, 301]


def test_cosine_keeps_its_digits_near_the_end() -> None:
    """Against 50 digits: one step before the end of 100000, where 1 + cos has lost all but a few."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    schedule = oracle.cosine_decay(0.1, 100_000)
    with mpmath.mp.workdps(50):
        for t in (1, 50_000, 99_000, 99_990, 99_999):
            exact = mpmath.mpf(0.1) * (1 + mpmath.cos(mpmath.pi * t / 100_000)) / 2
            assert abs(schedule(t) / exact - 1) < 1e-15


def test_mpmath_adamw_in_closed_form() -> None:
    """Under a constant gradient m_hat = g and v_hat = g^2 for ever: p_n = p_0 q^n - lr u (1 - q^n) / (1 - q)."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    ours = oracle.adamw_mpmath([1.5, -0.7], [[0.3, -2.0]] * 3 + [None] + [[0.3, -2.0]] * 5, lr=0.01, weight_decay=0.1)
    with mpmath.mp.workdps(50):
        lr, wd, eps = mpmath.mpf(0.01), mpmath.mpf(0.1), mpmath.mpf(1e-8)
        q = 1 - lr * wd
        for value, start, slope in zip(ours, (1.5, -0.7), (0.3, -2.0), strict=True):
            g = mpmath.mpf(slope)
            exact = mpmath.mpf(start) * q**8 - lr * g / (abs(g) + eps) * (1 - q**8) / (1 - q)
            assert abs(value / exact - 1) < mpmath.mpf(10) ** -45


@pytest.mark.parametrize("beta2", [0.999, 0.9999999])
def test_float64_adamw_against_50_digits(beta2: float) -> None:
    """100 float64 steps stay within 1e-13 of 50 digits, and a decay forgotten does not."""
    pytest.importorskip("mpmath", reason="mpmath is not installed")
    start = np.array([1.5, -2.0, 3.25])
    grads = [np.random.default_rng(t).normal(size=3) for t in range(100)]
    keys = {"lr": oracle.cosine_decay(1e-3, 100), "betas": (0.9, beta2), "weight_decay": 0.01}
    exact = np.array([float(x) for x in oracle.adamw_mpmath(start, grads, **keys)])
    np.testing.assert_allclose(oracle.adam(start, grads, decay="decoupled", **keys).param, exact, rtol=1e-13)
    wrong = oracle.adam(start, grads, decay="decoupled", **(keys | {"weight_decay": 0.0})).param
    assert not np.allclose(wrong, exact, rtol=1e-5, atol=0)

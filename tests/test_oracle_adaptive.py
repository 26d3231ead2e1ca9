"""The oracle's RAdam, QHAdam, Adamax, Adagrad, Adadelta, Lion, against PyTorch, optax and Keras, and by hand.

Its NAdam too, against optax and Keras.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import oracle_adaptive
import oracle_momentum
import pytest
from test_oracle import FIXED, GRADS, MOVING, PARAM, assert_same, at

MOVING = {**MOVING, "lr_decay": lambda t: 0.5 / (t + 1), "rho": lambda t: 0.95 - 0.01 * t}
FIXED = {**FIXED, "lr_decay": 0.25, "rho": 0.8}
WHOLE = [grad for grad in GRADS if grad is not None]  # optax and Keras know no gradient that is missing


@pytest.fixture(name="torch")
def fixture_torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(name="optax")
def fixture_optax() -> Iterator[Any]:
    """optax in float64."""
    optax = pytest.importorskip("optax", reason="optax is not installed")
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield optax
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(name="keras")
def fixture_keras() -> Iterator[Any]:
    """Keras on PyTorch in float64."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="PyTorch is not installed")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    before = keras.backend.floatx()
    keras.backend.set_floatx("float64")
    yield keras
    keras.backend.set_floatx(before)


def with_betas(values: dict[str, Any]) -> dict[str, Any]:
    """beta1 and beta2 as the pair `betas`."""
    rest = {key: value for key, value in values.items() if key not in ("beta1", "beta2")}
    return rest | ({"betas": (values["beta1"], values["beta2"])} if "beta1" in values else {})


def run_torch(torch: Any, name: str, keys: dict[str, Any], shrink: Any = 0.0, **options: Any) -> oracle.Result:
    """GRADS through a PyTorch optimizer; the keys go into the group every time, p *= 1 - shrink before the step."""
    p = torch.nn.Parameter(torch.tensor(PARAM))
    optimizer = getattr(torch.optim, name)([p], foreach=False, **options)
    for t, grad in enumerate(GRADS):
        now = with_betas({key: at(value, t) for key, value in keys.items()})
        optimizer.param_groups[0].update(now)
        p.grad = None if grad is None else torch.tensor(grad)
        if grad is not None:
            p.data.mul_(1.0 - at(shrink, t))
        optimizer.step()
    states = {key: value.numpy() for key, value in optimizer.state[p].items() if key != "step"}
    return oracle.Result(p.detach().numpy(), states, sum(grad is not None for grad in GRADS))


MOMENTS = ("lr", "beta1", "beta2", "eps")
TORCH = {  # the oracle, its hyperparameters, the options that both have
    "RAdam": (oracle_adaptive.radam, MOMENTS, [{}, {"decoupled_weight_decay": True}]),
    "Adamax": (oracle_adaptive.adamax, MOMENTS, [{}]),
    "Adagrad": (oracle_adaptive.adagrad, ("lr", "lr_decay", "eps"), [{}, {"initial_accumulator_value": 0.1}]),
    "Adadelta": (oracle_adaptive.adadelta, ("lr", "rho", "eps"), [{}]),
}


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", TORCH)
def test_against_torch(torch: Any, name: str, maximize: bool, moving: bool) -> None:
    """Every option, every number fixed or moving, missing gradients; decay of all three kinds."""
    reference, names, choices = TORCH[name]
    table = MOVING if moving else FIXED
    keys = {key: table[key] for key in names}
    for own in choices:
        flags = {"maximize": maximize, **own}

        def ours(flags: dict[str, Any] = flags, **more: Any) -> oracle.Result:
            return reference(PARAM, GRADS, **{**with_betas(keys), **flags, **more})

        decay = table["weight_decay"]
        plain = run_torch(torch, name, keys, **flags)
        assert_same(ours(), plain)
        assert_same(ours(weight_decay=decay), run_torch(torch, name, keys | {"weight_decay": decay}, **flags))
        scheduled = run_torch(torch, name, keys, decay, **flags)
        if not own.get("decoupled_weight_decay"):
            assert_same(ours(weight_decay=decay, decay="scheduled"), scheduled)
        for fault in ({"maximize": not maximize}, {"weight_decay": 0.1}, {"lr": 0.011}):
            with pytest.raises(AssertionError, match="Not equal"):
                assert_same(ours(**fault), plain)


def run_optax(optimizer: Any) -> np.ndarray:
    """WHOLE through an optax optimizer."""
    import jax.numpy as jnp
    import optax

    param = jnp.asarray(PARAM)
    state = optimizer.init(param)
    for grad in WHOLE:
        changes, state = optimizer.update(jnp.asarray(grad), state, param)
        param = optax.apply_updates(param, changes)
    return np.asarray(param)


def optax_forms(optax: Any) -> Iterator[tuple[Any, Any]]:
    """Theirs, and what we take for the same."""
    pair = {"b1": 0.8, "b2": 0.95}
    betas = {"betas": (0.8, 0.95), "lr": 0.02}
    new = oracle_adaptive
    yield optax.radam(0.02, **pair, eps=0.01), (new.radam, {**betas, "eps": 0.01, "eps_placement": "outside"})
    root = {"eps": 0.01, "eps_placement": "inside", "threshold": 8.0}
    yield optax.radam(0.02, **pair, eps=0.0, eps_root=0.01, threshold=8.0), (new.radam, {**betas, **root})
    yield optax.adamax(0.02, **pair, eps=0.01), (new.adamax, {**betas, "eps": 0.01})
    decay = {"weight_decay": 0.1, "decay": "decoupled"}
    yield optax.adamaxw(0.02, **pair, eps=0.01, weight_decay=0.1), (new.adamax, {**betas, "eps": 0.01, **decay})
    inside = {"eps": 0.01, "eps_placement": "inside", "initial_accumulator_value": 0.3}
    yield optax.adagrad(0.02, 0.3, 0.01), (new.adagrad, {"lr": 0.02, **inside})
    yield optax.adadelta(0.02, rho=0.8, eps=0.01), (new.adadelta, {"lr": 0.02, "rho": 0.8, "eps": 0.01})
    constant = {**betas, "eps": 0.01, "momentum_schedule": "constant"}
    yield optax.nadam(0.02, **pair, eps=0.01), (oracle_momentum.nadam, constant)
    root = {"weight_decay": 0.1, "eps_placement": "inside", "decay": "decoupled"}
    theirs = optax.nadamw(0.02, **pair, eps=0.0, eps_root=0.01, weight_decay=0.1)
    yield theirs, (oracle_momentum.nadam, {**constant, **root})
    yield optax.lion(0.02, **pair, weight_decay=0.1), (new.lion, {**betas, "weight_decay": 0.1})


@pytest.mark.parametrize("number", range(9))
def test_against_optax(optax: Any, number: int) -> None:
    theirs, (reference, settings) = list(optax_forms(optax))[number]
    ours, expected = reference(PARAM, WHOLE, **settings).param, run_optax(theirs)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)
    wrong = reference(PARAM, WHOLE, **{**settings, "maximize": True}).param
    assert not np.allclose(wrong, expected, rtol=1e-3, atol=0)


KERAS = {
    "Adamax": (oracle_adaptive.adamax, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01}, {"eps_placement": "outside"}),
    "Adagrad": (
        oracle_adaptive.adagrad,
        {"initial_accumulator_value": 0.3, "epsilon": 0.01},
        {"eps_placement": "inside", "initial_accumulator_value": 0.3},
    ),
    "Adadelta": (oracle_adaptive.adadelta, {"rho": 0.8, "epsilon": 0.01}, {"rho": 0.8}),
    "Nadam": (oracle_momentum.nadam, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01}, {"momentum_decay": 1.0}),
    "Lion": (oracle_adaptive.lion, {"beta_1": 0.8, "beta_2": 0.95}, {}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, from NumPy 2
@pytest.mark.parametrize("weight_decay", [None, 0.1])
@pytest.mark.parametrize("name", KERAS)
def test_against_keras(keras: Any, name: str, weight_decay: float | None) -> None:
    reference, settings, options = KERAS[name]
    variable = keras.Variable(PARAM, dtype="float64")
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.02, weight_decay=weight_decay, **settings)
    for grad in WHOLE:
        optimizer.apply([keras.ops.convert_to_tensor(grad)], [variable])
    keys = {"lr": 0.02, "weight_decay": weight_decay or 0.0, "decay": "decoupled", **options}
    keys |= {"betas": (0.8, 0.95)} if "beta_1" in settings else {}
    keys |= {"eps": 0.01} if "epsilon" in settings else {}
    ours, expected = reference(PARAM, WHOLE, **keys).param, variable.value.detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)
    for fault in ({"lr": 0.01}, {"weight_decay": 0.2}, {"maximize": True}):
        assert not np.allclose(reference(PARAM, WHOLE, **{**keys, **fault}).param, expected, rtol=1e-4, atol=0)


def test_qhadam_by_hand() -> None:
    """Gradients 2, 4 at beta1 = 1/2, beta2 = 3/4: m_hat = 2, (1/2 + 2) / (3/4) = 10/3; v_hat = 4, 76/7."""
    moved = -oracle_adaptive.qhadam(
        np.zeros(1), [np.array([2.0]), np.array([4.0])], lr=1.0, betas=(0.5, 0.75), nus=(0.5, 0.25), eps=1.0
    ).param[0]
    v_hat = (0.75 * 0.25 * 4 + 0.25 * 16) / (1 - 0.75**2)
    second = (0.5 * 4 + 0.5 * 10 / 3) / (math.sqrt(0.75 * 16 + 0.25 * v_hat) + 1)
    assert moved == pytest.approx((0.5 * 2 + 0.5 * 2) / (math.sqrt(0.75 * 4 + 0.25 * 4) + 1) + second, rel=1e-15)


@pytest.mark.parametrize("moving", [False, True])
def test_qhadam_between_what_it_lies_between(moving: bool) -> None:
    """With nus of 1 it is Adam, with nus of 0 the sign, softened by eps."""
    table = MOVING if moving else FIXED
    keys = with_betas({key: table[key] for key in (*MOMENTS, "weight_decay")})
    for ours, theirs in (({}, {"decay": "coupled"}), ({"decouple_weight_decay": True}, {"decay": "decoupled"})):
        assert_same(oracle_adaptive.qhadam(PARAM, GRADS, **keys, **ours), oracle.adam(PARAM, GRADS, **keys, **theirs))
    own = {"lr": 0.1, "eps": 0.5}
    for name, value in (("nus", (0.0, 0.0)), ("nus", (0.3, 0.0))):
        moved = oracle_adaptive.qhadam(np.zeros(1), [np.array([-3.0])], **own, **{name: value}).param[0]
        assert moved == pytest.approx(0.1 * 3 / 3.5, rel=1e-14)


def test_lion_by_hand() -> None:
    """m = 0.01 after a gradient of 1; then 0.9 * 0.01 - 0.1 * 0.05 > 0 still, and a gradient of zeros moves nothing."""
    grads = [np.array([1.0, 0.0]), np.array([-0.05, 0.0]), np.array([-0.1, 0.0])]
    found = [oracle_adaptive.lion(np.zeros(2), grads[:k], lr=1.0).param.tolist() for k in (1, 2, 3)]
    assert found == [[-1.0, 0.0], [-2.0, 0.0], [-1.0, 0.0]]


@pytest.mark.parametrize("name", ["radam", "adamax", "adagrad"])
def test_epsilon_misplaced_turns_the_comparison_red(torch: Any, name: str) -> None:
    """As large as here it is seen."""
    reference, keys = getattr(oracle_adaptive, name), {"lr": 0.01, "eps": 0.1}
    theirs = run_torch(torch, {"radam": "RAdam"}.get(name, name.title()), keys)
    assert_same(reference(PARAM, GRADS, **keys), theirs)
    wrong = {"radam": "outside", "adamax": "outside", "adagrad": "inside"}[name]
    with pytest.raises(AssertionError, match="Not equal"):
        assert_same(reference(PARAM, GRADS, **keys, eps_placement=wrong), theirs)


def test_unknown_options_are_refused() -> None:
    for name in ("radam", "qhadam", "adamax", "adagrad", "adadelta", "lion"):
        with pytest.raises(ValueError, match="does not know"):
            getattr(oracle_adaptive, name)(PARAM, WHOLE, lr=1.0, decay="L2")
    for name in ("radam", "adamax", "adagrad"):
        with pytest.raises(ValueError, match="does not know"):
            getattr(oracle_adaptive, name)(PARAM, WHOLE, lr=1.0, eps_placement="in")

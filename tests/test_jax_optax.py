"""`gpuadam.jax` beside optax: its combinators around ours, and trajectories against its own optimizers."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("optax", reason="optax is not installed")

import jax
import jax.numpy as jnp
import optax
from jax_cases import run

import gpuadam.jax as ours
from gpuadam import schedules

STEPS = 50
MOMENTS = {"exp_avg": "mu", "exp_avg_sq": "nu"}
PAIRS = {  # theirs, ours, and which state of ours is which of theirs
    "adam": (optax.adam(0.01), ours.adam(lr=0.01), MOMENTS),
    "adam inside": (
        optax.adam(0.01, eps=0.0, eps_root=1e-3),
        ours.adam(0.01, eps=1e-3, eps_placement="inside"),
        MOMENTS,
    ),
    "amsgrad": (optax.amsgrad(0.01), ours.adam(0.01, amsgrad="corrected"), MOMENTS),
    "adamw": (optax.adamw(0.01, weight_decay=0.1), ours.adamw(lr=0.01, weight_decay=0.1), MOMENTS),
    "adamw schedule": (
        optax.adamw(optax.cosine_decay_schedule(0.01, 30)),
        ours.adamw(schedules.cosine_decay(0.01, 30), weight_decay=1e-4),
        MOMENTS,
    ),
    "clipped": (
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01)),
        ours.adam(0.01, clip_norm=0.5),
        MOMENTS,
    ),
    "nadam": (optax.nadam(0.01), ours.nadam(0.01, momentum_schedule="constant"), MOMENTS),
    "nadamw": (
        optax.nadamw(0.01, weight_decay=0.1),
        ours.nadamw(0.01, weight_decay=0.1, momentum_schedule="constant"),
        MOMENTS,
    ),
    "radam": (optax.radam(0.01), ours.radam(0.01, eps_placement="outside"), MOMENTS),
    "adamax": (optax.adamax(0.01), ours.adamax(0.01), {"exp_avg": "mu"}),
    "lamb": (optax.lamb(0.01, weight_decay=0.1), ours.lamb(0.01, weight_decay=0.1), MOMENTS),
    "lion": (optax.lion(0.01), ours.lion(0.01, weight_decay=1e-3), {"exp_avg": "mu"}),
    "sgd": (optax.sgd(0.01, momentum=0.9), ours.sgd(0.01, momentum=0.9), {"momentum_buffer": "trace"}),
    "nesterov": (optax.sgd(0.01, 0.9, nesterov=True), ours.sgd(0.01, 0.9, nesterov=True), {"momentum_buffer": "trace"}),
    "rmsprop": (optax.rmsprop(0.01), ours.rmsprop(0.01, alpha=0.9, eps_placement="inside"), {"square_avg": "nu"}),
    "rmsprop centered": (
        optax.rmsprop(0.01, centered=True, momentum=0.9),
        ours.rmsprop(0.01, 0.9, centered=True, momentum=0.9, eps_placement="inside", lr_placement="inside"),
        {},
    ),
    "adagrad": (
        optax.adagrad(0.01),
        ours.adagrad(0.01, initial_accumulator_value=0.1, eps=1e-7, eps_placement="inside"),
        {"sum": "sum_of_squares"},
    ),
    "adadelta": (optax.adadelta(1.0), ours.adadelta(1.0), {"square_avg": "e_g", "acc_delta": "e_x"}),
}
IN_DOUBLE = {"radam", "lamb"}  # optax's float32 is 2e-6 and 1e-6 off its own double: 1 - beta2 ** k is rounded


def numbers(seed):
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in (("a", (40, 7)), ("b", 9))}


PARAMS, GRADS = numbers(0), [numbers(k + 1) for k in range(STEPS)]


def theirs(transformation, params=PARAMS, grads=GRADS):
    """Parameters and state by optax's own loop."""

    @jax.jit
    def step(grad, state, params):
        updates, state = transformation.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    state = transformation.init(params)
    for grad in grads:
        params, state = step(grad, state, params)
    return params, state


def assert_close(ours, theirs, what):
    """As large as the largest number of an array: a sum that cancels has no figures of its own."""
    for name, right in theirs.items():
        scale = np.abs(np.asarray(right)).max()
        assert np.abs(np.asarray(ours[name]) - np.asarray(right)).max() <= 1e-6 * scale, f"{what} {name}"


@pytest.mark.parametrize("name", PAIRS)
def test_trajectories_are_those_of_optax(name):
    there, here, states = PAIRS[name]
    with jax.enable_x64(name in IN_DOUBLE):
        kind = np.float64 if name in IN_DOUBLE else np.float32
        expected, their_state = theirs(there, *jax.tree.map(lambda array: array.astype(kind), (PARAMS, GRADS)))
    params, state = run(here, PARAMS, GRADS)
    assert_close(params, expected, "parameter")
    for own, foreign in states.items():
        assert_close(state.slots[own], optax.tree.get(their_state, foreign), own)


def test_it_stands_where_optax_wants_a_transformation():
    params, state = theirs(ours.adamw(lr=0.01))
    expected, right = run(ours.adamw(lr=0.01), PARAMS, GRADS)
    assert_close(params, expected, "parameter")
    assert int(state.steps) == int(right.steps) == STEPS
    init, update = ours.adamw(lr=0.01)  # a pair, as optax has it
    assert callable(init)
    assert callable(update)


def test_deltas_lose_the_last_bits_and_apply_does_not():
    transformation = ours.adamw(lr=0.01)
    state = transformation.init(PARAMS)
    exact, _ = transformation.apply(GRADS[0], state, PARAMS)
    updates, _ = transformation.update(GRADS[0], state, PARAMS)
    added = optax.apply_updates(PARAMS, updates)
    worst = max(np.abs(np.asarray(added[name] - exact[name]) / exact[name]).max() for name in exact)
    assert 0 < worst < 2.0**-20
    differ = np.mean(np.concatenate([np.ravel(added[name] != exact[name]) for name in exact]))
    assert 0 < differ < 0.2
    print(f"largest difference {worst:.2g} of an element, {differ:.1%} of the elements differ")


def test_chain_before_and_after():
    before = optax.chain(optax.clip_by_global_norm(0.5), ours.adam(lr=0.01))
    assert_close(theirs(before)[0], theirs(PAIRS["clipped"][0])[0], "parameter")
    after = optax.chain(ours.sgd(lr=0.01, momentum=0.9), optax.scale(0.5))
    assert_close(theirs(after)[0], theirs(optax.sgd(0.005, momentum=0.9))[0], "parameter")


def test_masked_and_multi_transform():
    masked = theirs(optax.masked(ours.adamw(lr=0.01), {"a": True, "b": False}))[0]
    right = theirs(optax.masked(optax.adamw(0.01, weight_decay=0.01), {"a": True, "b": False}))[0]
    assert_close(masked, right, "parameter")

    def partitioned(first, second):
        return optax.multi_transform({"x": first, "y": second}, {"a": "x", "b": "y"})

    found = theirs(partitioned(ours.sgd(lr=0.1), ours.adam(lr=0.01)))[0]
    assert_close(found, theirs(partitioned(optax.sgd(0.1), optax.adam(0.01)))[0], "parameter")


def test_multi_steps_and_apply_if_finite():
    found, state = theirs(optax.MultiSteps(ours.adam(lr=0.01), every_k_schedule=5))
    assert_close(found, theirs(optax.MultiSteps(optax.adam(0.01), every_k_schedule=5))[0], "parameter")
    assert int(state.inner_opt_state.steps) == STEPS // 5
    grads = [{**grad, "b": grad["b"] * np.float32(np.nan if k in (3, 17) else 1)} for k, grad in enumerate(GRADS)]
    found, state = theirs(optax.apply_if_finite(ours.adam(lr=0.01), 5), grads=grads)
    right, _ = theirs(optax.apply_if_finite(optax.adam(0.01), 5), grads=grads)
    assert_close(found, right, "parameter")
    assert int(state.inner_state.steps) == STEPS - 2


def test_inject_hyperparams_is_not_needed_and_says_so():
    wrapped = optax.inject_hyperparams(optax.adamw)(learning_rate=0.01, weight_decay=0.1)
    transformation = ours.adamw(lr=0.01, weight_decay=0.1)
    step, state, params = jax.jit(transformation.apply), transformation.init(PARAMS), jax.tree.map(jnp.array, PARAMS)
    theirs_now, their_state = PARAMS, wrapped.init(PARAMS)
    update = jax.jit(wrapped.update)
    for k, grad in enumerate(GRADS):
        rate = jnp.float32(0.01 / (k + 1))
        state = state._replace(hyperparameters={**state.hyperparameters, "lr": rate})
        their_state.hyperparams["learning_rate"] = rate
        params, state = step(grad, state, params)
        updates, their_state = update(grad, their_state, theirs_now)
        theirs_now = optax.apply_updates(theirs_now, updates)
    assert_close(params, theirs_now, "parameter")
    assert step._cache_size() == 1

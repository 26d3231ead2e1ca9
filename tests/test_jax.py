"""`gpuadam.jax`: the bits of the optimizer over NumPy, in place where donated, over any tree; what is refused."""

import dataclasses
import threading
from collections import namedtuple

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import jax
import jax.numpy as jnp
import ml_dtypes
from jax_cases import RATE, RULES, check_same_bits, numbers, reference, run, step_of

import gpuadam
import gpuadam.jax as ours
from gpuadam import ema_warmup, schedules
from gpuadam.arrays import flushes_subnormals
from gpuadam.jax_buffers import ieee_arithmetic

STEPS = 50
DECAYED = {"ema_decay": ema_warmup(0.9), "weight_decay": 0.01}
RECIPES = {
    "clip_norm": {"clip_norm": 0.5},
    "clip_norm group": {"clip_norm": 0.5, "clip_scope": "group"},
    "clip_norm tensor": {"clip_norm": schedules.linear_decay(0.5, 0.1, 40), "clip_scope": "tensor"},
    "clip_value": {"clip_value": 0.05},
    "ema": DECAYED,
    "skip": {"nonfinite": "skip"},
    "named": {
        "lr": schedules.parameter("peak", 0.1) * 0.9**schedules.step,
        "betas": (schedules.parameter("peak", 0.1), 0.95),
    },
    "amsgrad": {"amsgrad": True, "maximize": True, "decay": "coupled"},
    "accumulator": {"lr": schedules.accumulator("rate", 0.1, lambda rate: rate * 0.97)},
}
RECIPES_OF_HALVES = {
    "nearest": {},
    "master": {"master": "float32", **DECAYED},
    "remainder": {"master": "remainder"},
    "stochastic": {"rounding": "stochastic", "state_dtype": "bfloat16", "seed": 7},
}


def check_run(transformation, params, grads, **settings):
    """Ours is what the optimizer over NumPy arrays has."""
    found = run(transformation(**settings), params, grads)
    check_same_bits(*found, *reference(transformation, params, grads, **settings))
    return found


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_the_bits_of_numpy(name):
    check_run(RULES[name], numbers(0), [numbers(k + 1) for k in range(STEPS)], lr=RATE)


def test_every_rule_but_the_schedule_free_is_offered():
    rules = {made for made in vars(gpuadam).values() if isinstance(made, type) and issubclass(made, gpuadam.Optimizer)}
    free = {made for made in rules if "ScheduleFree" in made.__name__}
    assert {made.args[0] for made in RULES.values()} == rules - free - {gpuadam.Optimizer}
    for made in free:
        with pytest.raises(ValueError, match=f"{made.__name__} shows other weights than it trains"):
            ours.transformation(made, lr=0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_has_the_bits_of_numpy(name):
    grads = [numbers(k + 1) for k in range(STEPS)]
    if name == "skip":
        for k in (0, 7, 8, 30):
            grads[k][1][5] = np.inf
    _, state = check_run(ours.adamw, numbers(0), grads, **{"lr": RATE, **RECIPES[name]})
    assert (int(state.steps), int(state.skipped_steps)) == ((46, 4) if name == "skip" else (50, 0))


@pytest.mark.parametrize("name", RECIPES_OF_HALVES)
def test_bfloat16_has_the_bits_of_numpy(name):
    grads = [numbers(k + 1, dtype=ml_dtypes.bfloat16) for k in range(STEPS)]
    check_run(ours.adamw, numbers(0, dtype=ml_dtypes.bfloat16), grads, lr=RATE, **RECIPES_OF_HALVES[name])


def test_float64_has_the_bits_of_numpy():
    with jax.enable_x64(True):
        grads = [numbers(k + 1, dtype=np.float64) for k in range(STEPS)]
        _, state = check_run(ours.adamw, numbers(0, dtype=np.float64), grads, lr=0.1, clip_norm=1.0)
        assert state.hyperparameters["lr"] == 0.1


def test_formats_may_differ_within_a_tree():
    with jax.enable_x64(True):
        dtypes = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
        params = [numbers(i, [(70,)], dtype)[0] for i, dtype in enumerate(dtypes)]
        dtypes[2:] = [np.float32, np.float16]  # of the gradients
        grads = [[numbers(k + i, [(70,)], dtype)[0] for i, dtype in enumerate(dtypes)] for k in range(5)]
        check_run(ours.adamw, params, grads, lr=0.1)


def test_subnormal_numbers_are_kept():
    """XLA lets its threads flush them: without more ado, 1e-20 ** 2 would be 0."""
    params, grads = [np.ones(2, np.float32)], [[np.array([1e-20, 1e-19], np.float32)]]
    _, state = run(ours.adam(lr=0.1, betas=(0.9, 0.5)), params, grads)
    np.testing.assert_allclose(np.asarray(state.slots["exp_avg_sq"][0], np.float64), [5e-41, 5e-39], rtol=1e-4)


def test_the_arithmetic_of_a_thread_is_left_as_it_was():
    """A callback of XLA's flushes subnormals before the block and behind it, and not within."""
    seen = []

    def look(_):
        seen.append(flushes_subnormals())
        with ieee_arithmetic():
            seen.append(flushes_subnormals())
        seen.append(flushes_subnormals())
        return np.float32(0)

    jax.jit(lambda x: jax.pure_callback(look, x, x))(jnp.float32(1)).block_until_ready()
    assert seen[1] is False
    assert seen[0] == seen[2]


# ---- in place, or not at all


def addresses(tree):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


def test_donated_arrays_are_changed_in_place():
    transformation = ours.adamw(lr=0.1, ema_decay=0.9)
    params = {"a": jnp.ones((100, 3)), "b": jnp.ones(5, jnp.bfloat16)}
    state, grads = transformation.init(params), jax.tree.map(jnp.ones_like, params)
    before, old, gradients = addresses((params, state.slots)), params, addresses(grads)
    step = step_of(transformation)
    for _ in range(3):
        params, state = step(params, state, grads)
        assert addresses((params, state.slots)) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert addresses(grads) == gradients
    assert jax.tree.all(jax.tree.map(lambda grad: (grad == 1).all(), grads))


@pytest.mark.parametrize("is_compiled", [True, False], ids=["jit", "eager"])
def test_what_is_not_donated_stays(is_compiled):
    transformation = ours.adamw(lr=0.1, ema_decay=0.9)
    shared = jnp.arange(1.0, 2000.0)
    params, grads = {"a": shared, "b": shared}, {"a": shared, "b": 2 * shared}  # one array thrice
    state = transformation.init(params)
    before = jax.tree.map(np.array, (params, grads, state))
    apply = jax.jit(transformation.apply) if is_compiled else transformation.apply
    first, second = apply(grads, state, params), apply(grads, state, params)
    jax.tree.map(np.testing.assert_array_equal, (params, grads, state), before)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    expected = [np.array(shared), np.array(shared)]
    gpuadam.AdamW(expected, lr=0.1, ema_decay=0.9).step([np.array(shared), 2 * np.array(shared)])
    np.testing.assert_array_equal(first[0]["b"], expected[1])


def test_gradients_that_are_the_parameters_themselves():
    """XLA knows that they are one buffer: here the donated one is read as the gradient while it is written."""
    transformation = ours.sgd(lr=0.1)
    square = jax.grad(lambda param: 0.5 * (param**2).sum())
    step = jax.jit(lambda state, param: transformation.apply(square(param), state, param), donate_argnums=(0, 1))
    again = jax.jit(lambda state, param: transformation.apply(param, state, param), donate_argnums=(0, 1))
    param = jnp.arange(1.0, 5000.0)
    expected = np.array(param)
    gpuadam.SGD([expected], lr=0.1).step([expected.copy()])
    for function in (step, again):
        found, _ = function(transformation.init(param), jnp.array(param))
        np.testing.assert_array_equal(found, expected)


def test_arrays_of_numpy_are_read_and_left_alone():
    transformation = ours.adamw(lr=0.1, ema_decay=0.9)
    params, grads = {"a": np.ones(512)}, {"a": np.ones(512)}  # doubles, of which JAX has none here
    state = transformation.init(params)
    for found, _ in (
        transformation.apply(grads, state, params),
        step_of(transformation)(params, transformation.init(params), grads),
    ):
        assert found["a"].dtype == jnp.float32
    updates, _ = transformation.update(grads, state, params)
    assert (params["a"] == 1).all()
    np.testing.assert_array_equal(jnp.float32(1) + updates["a"], found["a"])


def test_scan_and_fori_loop():
    transformation = ours.adamw(lr=RATE, clip_norm=0.5)
    params, grads = numbers(0), [numbers(k + 1) for k in range(6)]
    expected = run(transformation, params, grads)
    own = jax.tree.map(jnp.array, params)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    state = transformation.init(own)

    def scanned(carry, grad):
        return transformation.apply(grad, *carry[::-1]), None

    found, _ = jax.jit(lambda: jax.lax.scan(scanned, (own, state), stacked))()

    def body(k, carry):
        return transformation.apply(jax.tree.map(lambda leaf: leaf[k], stacked), *carry[::-1])

    looped = jax.jit(lambda: jax.lax.fori_loop(0, 6, body, (own, state)))()
    for other in (found, looped):
        jax.tree.map(np.testing.assert_array_equal, other, expected)


def test_compiled_functions_and_threads_share_a_transformation():
    transformation = ours.adamw(lr=RATE)
    first, second = (
        step_of(transformation),
        jax.jit(lambda params, state, grads: transformation.apply(grads, state, params)),
    )
    cases = [(numbers(i), [numbers(10 * i + k) for k in range(1, 9)]) for i in range(4)]
    expected = [reference(ours.adamw, *case, lr=RATE) for case in cases]
    found = [None] * 4

    def train(index):
        params = jax.tree.map(jnp.array, cases[index][0])
        state = transformation.init(params)
        for k, grad in enumerate(cases[index][1]):
            params, state = (first, second)[k % 2](params, state, jax.tree.map(jnp.array, grad))
        found[index] = params, state

    threads = [threading.Thread(target=train, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, right in zip(found, expected, strict=True):
        check_same_bits(*own, *right)


# ---- trees


Pair = namedtuple("Pair", ["weight", "bias"])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: jax.Array
    rest: object


TREES = {
    "array": lambda a: a,
    "dict": lambda a: {"x": {"y": a}, "z": [a + 1, (a + 2,)]},
    "namedtuple": lambda a: Pair(a, [a + 1, None]),
    "dataclass": lambda a: Layer(a, {"b": Layer(a + 1, None)}),
    "None": lambda a: {"a": None, "b": a},
    "empty": lambda a: {"a": (), "b": []},
    "0-d": lambda a: (a[0, 0], jnp.zeros((0, 3)), a),
}


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_trees_of_any_shape(make):
    params = make(jnp.arange(1.0, 13.0).reshape(3, 4))
    transformation = ours.adamw(lr=0.1, weight_decay=0.1)
    grads = jax.tree.map(lambda leaf: 2 * leaf, params)
    found, state = jax.jit(transformation.apply)(grads, transformation.init(params), params)
    expected = [np.array(leaf) for leaf in jax.tree.leaves(params)]
    gpuadam.AdamW(expected, lr=0.1, weight_decay=0.1).step([np.array(leaf) for leaf in jax.tree.leaves(grads)])
    assert jax.tree.structure(found) == jax.tree.structure(params)
    for own, right in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_array_equal(own, right)
    assert int(state.steps) == 1
    if expected:
        assert jax.tree.structure(state.slots["exp_avg"]) == jax.tree.structure(params)


# ---- what is refused


def test_vmap_and_grad_are_refused():
    transformation, param = ours.sgd(lr=0.1), jnp.ones(3)
    state = transformation.init(param)
    for axis in (None, 0):
        with pytest.raises(NotImplementedError, match="a step cannot be mapped by vmap"):
            jax.vmap(transformation.apply, (axis, None, 0))(
                param if axis is None else jnp.ones((2, 3)), state, jnp.ones((2, 3))
            )
    with pytest.raises(NotImplementedError, match="a step cannot be differentiated"):
        jax.grad(lambda own: transformation.apply(own, state, own)[0].sum())(param)
    with pytest.raises(NotImplementedError, match="a step cannot be mapped by vmap"):
        jax.vmap(transformation.update, (0, None, None))(jnp.ones((2, 3)), state, param)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_grads": True}, "zero_grads is True; with JAX, allowed is False"),
        ({"backend": "cpu"}, "backend is 'cpu'; with JAX, allowed is 'auto'"),
        ({"lr_scale": 2.0}, "lr_scale is 2.0; with JAX, allowed is 1.0"),
        ({"per_tensor_step": True}, "per_tensor_step is True; with JAX, allowed is False"),
        ({"state_dtype": "int8"}, "state_dtype is 'int8'; with JAX, allowed are 'float32' and 'bfloat16'"),
        ({"lr": -1.0}, "lr of group 0 is -1.0; allowed is"),
        ({"beta": 1.0}, "there is no argument 'beta'"),
    ],
)
def test_arguments_that_are_refused(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ours.adamw(**settings).init(jnp.ones(3))


GOOD = {"a": jnp.ones(3), "b": [jnp.ones((2, 2))]}


@pytest.mark.parametrize(
    ("grads", "params", "message"),
    [
        (GOOD, {**GOOD, "a": jnp.arange(3)}, r"params\['a'\] has dtype int32; allowed are arrays of float32"),
        (GOOD, {**GOOD, "a": 1.0}, r"params\['a'\] is a float; allowed are arrays of float32"),
        (GOOD, {**GOOD, "a": jnp.ones(3, jnp.complex64)}, r"params\['a'\] has dtype complex64"),
        (GOOD, {**GOOD, "a": jax.random.key(0)}, r"params\['a'\] has dtype key"),
        ({**GOOD, "a": jnp.arange(3)}, GOOD, r"the gradient of params\['a'\] has dtype int32"),
        ({**GOOD, "a": None}, GOOD, r"the gradient of params\['a'\] is a NoneType"),
        ({**GOOD, "a": jnp.ones(4)}, GOOD, r"the gradient of params\['a'\] has shape \(4,\), its parameter has \(3,\)"),
        ({**GOOD, "a": jnp.ones((3, 1))}, GOOD, r"has shape \(3, 1\), its parameter has \(3,\)"),
        ({"b": GOOD["b"]}, GOOD, "grads is not a tree like that of the parameters.*'a'"),
        ({**GOOD, "c": jnp.ones(1)}, GOOD, "grads is not a tree like that of the parameters.*'c'"),
        ({**GOOD, "b": GOOD["b"] * 2}, GOOD, "grads is not a tree like that of the parameters"),
    ],
)
@pytest.mark.parametrize("is_compiled", [True, False], ids=["jit", "eager"])
def test_arrays_that_are_refused(grads, params, message, is_compiled):
    transformation = ours.adamw(lr=0.1)
    state = transformation.init(GOOD)
    is_compiled &= params is GOOD  # jit itself makes an array of a number
    apply = jax.jit(transformation.apply, donate_argnums=(1, 2)) if is_compiled else transformation.apply
    with pytest.raises((TypeError, ValueError), match=message):
        apply(grads, state, params)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, GOOD)))
    with pytest.raises(ValueError, match=r"params is None: give update\(grads, state, params\)"):
        transformation.update(GOOD, state)

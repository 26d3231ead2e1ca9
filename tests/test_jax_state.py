"""The state of `gpuadam.jax`: replayed, resumed, stored, its numbers replaced; what does not fit is refused."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import jax
import jax.numpy as jnp
from jax_cases import numbers, run, step_of

import gpuadam
import gpuadam.jax as ours
from gpuadam import schedules
from gpuadam.jax_numbers import widened

GRADS = [numbers(k + 1) for k in range(12)]
RISING = schedules.accumulator("rate", 0.01, lambda rate: rate * 1.25)
SETTINGS = {"lr": RISING, "weight_decay": 0.1, "ema_decay": 0.9, "clip_norm": 1.0}


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def go_on(transformation, params, state, grads):
    step = jax.jit(transformation.apply)
    for grad in grads:
        params, state = step(grad, state, params)
    return params, state


def test_an_old_state_replays_its_steps():
    transformation = ours.adamw(**SETTINGS)
    middle = run(transformation, numbers(0), GRADS[:5])
    expected = go_on(transformation, *middle, GRADS[5:])
    other = run(transformation, numbers(99), GRADS)  # the same plan, another state
    assert_same(go_on(transformation, *middle, GRADS[5:]), expected)
    assert_same(go_on(transformation, *jax.tree.map(jnp.copy, middle), GRADS[5:]), expected)
    assert int(other[1].steps) == int(expected[1].steps) == 12


def test_a_new_transformation_goes_on_from_a_state_in_a_file(tmp_path):
    middle = run(ours.adamw(**SETTINGS), numbers(0), GRADS[:5])
    expected = go_on(ours.adamw(**SETTINGS), *middle, GRADS[5:])
    leaves, tree = jax.tree.flatten(middle)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as file:
        loaded = jax.tree.unflatten(tree, [file[name] for name in file.files])
    assert_same(go_on(ours.adamw(**SETTINGS), *loaded, GRADS[5:]), expected)


def test_orbax_stores_the_state(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint", reason="Orbax is not installed")
    grads = [grad[:-1] for grad in GRADS]  # without the empty array, which Orbax does not store
    middle = run(ours.adamw(**SETTINGS), numbers(0)[:-1], grads[:5])
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "middle", middle)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, middle)
        restored = checkpointer.restore(tmp_path / "middle", like)
    assert isinstance(restored[1], ours.State)
    expected = go_on(ours.adamw(**SETTINGS), *middle, grads[5:])
    assert_same(go_on(ours.adamw(**SETTINGS), *restored, grads[5:]), expected)


# ---- numbers


def with_number(state, **changed):
    return state._replace(hyperparameters={**state.hyperparameters, **changed})


@pytest.mark.parametrize("is_double", [False, True], ids=["float32", "x64"])
def test_a_number_is_replaced_without_compiling_anew(is_double):
    with jax.enable_x64(is_double):
        kind = np.float64 if is_double else np.float32
        transformation = ours.adamw(lr=0.1, betas=(0.8, 0.95))
        params, grads = jnp.asarray(numbers(0)[1], kind), [jnp.asarray(grad[1], kind) for grad in GRADS]
        own = np.array(params)
        optimizer = gpuadam.AdamW([own], lr=0.1, betas=(0.8, 0.95))
        state, step = transformation.init(params), jax.jit(transformation.apply)
        for k, grad in enumerate(grads):
            if k == 4:
                state = with_number(state, lr=jnp.asarray(0.03, kind))
                optimizer.set_hyperparameters(lr=float(kind(0.03)))
            if k == 8:
                state = with_number(state, lr=jnp.asarray(0.1, kind), beta1=jnp.asarray(0.7, kind))
                optimizer.set_hyperparameters(lr=0.1, betas=(float(kind(0.7)), 0.95))  # 0.1 to its last bit
            params, state = step(grad, state, params)
            optimizer.step([np.array(grad)])
            np.testing.assert_array_equal(params, own)
        assert step._cache_size() == 1


def test_a_number_is_replaced_within_jit_and_by_one_of_python():
    transformation = ours.sgd(lr=0.1)

    @jax.jit
    def step(grad, state, param, rate):
        return transformation.apply(grad, with_number(state, lr=rate), param)

    param, state = jnp.zeros(3), transformation.init(jnp.zeros(3))
    for rate in (0.5, 0.25, jnp.float32(1), 2):
        param, state = step(jnp.ones(3), state, param, rate)
        assert state.hyperparameters["lr"] == rate
        assert not state.hyperparameters["lr"].weak_type
    np.testing.assert_array_equal(param, -3.75 * np.ones(3))


@pytest.mark.parametrize("number", [1e-40, 2.0**-149, 2.0**-126, 0.1, 1.0, 3e38, 0.0])
def test_float32_numbers_become_doubles_exactly(number):
    """A step of SGD over doubles shows the rate: p - rate * 1, from 0."""
    words = jax.jit(widened)(jnp.asarray([number, -number], jnp.float32))
    found = np.asarray(words).view(np.float64).ravel()
    flushed = abs(np.float32(number)) < 2.0**-126  # XLA on the CPU reads subnormal numbers as 0
    np.testing.assert_array_equal(np.abs(found), 0.0 if flushed else np.float64(np.float32(number)))


def test_the_numbers_of_the_state_win_and_the_schedules_of_the_transformation():
    param, grad = jnp.zeros(3), jnp.ones(3)
    state = ours.sgd(lr=0.5).init(param)
    assert_same(ours.sgd(lr=0.125).apply(grad, state, param)[0], -0.5 * np.ones(3))
    rising, falling = (schedules.step + 1.0) * 0.5, (schedules.step + 1.0) / 0.5  # the same numbers, other programs
    _, state = ours.sgd(lr=rising).apply(grad, ours.sgd(lr=rising).init(param), param)
    assert_same(ours.sgd(lr=falling).apply(grad, state, param)[0], -4.0 * np.ones(3))
    longer = 0.25 + schedules.step * 0.5 + schedules.step * 0.125
    assert_same(ours.sgd(lr=longer).apply(grad, state, param)[0], -0.875 * np.ones(3))


def test_numbers_that_decide_upon_states_are_not_offered():
    state = ours.sgd(lr=0.1).init(jnp.ones(3))
    assert sorted(state.hyperparameters) == ["dampening", "lr", "weight_decay"]
    assert "momentum" in ours.sgd(lr=0.1, momentum=0.5).init(jnp.ones(3)).hyperparameters


def test_a_name_stands_for_one_number():
    transformation = ours.sgd(lr=schedules.parameter("x", 0.5) * 1, weight_decay=schedules.parameter("x", 0.5) * 1)
    state = with_number(transformation.init(jnp.ones(3)), x=0.25)
    assert_same(transformation.apply(jnp.ones(3), state, jnp.ones(3))[0], (1 - 0.25 * 1.25) * np.ones(3))


@pytest.mark.parametrize("is_compiled", [True, False], ids=["jit", "eager"])
def test_a_schedule_out_of_range_raises_and_nothing_is_written(is_compiled):
    transformation = ours.adamw(lr=schedules.where(schedules.step < 2, 0.1, -1.0))
    params, state = run(transformation, [np.ones(50, np.float32)], [[np.ones(50, np.float32)]] * 2)
    before = jax.tree.map(np.array, (params, state))
    assert bool(state.is_held)
    apply = jax.jit(transformation.apply) if is_compiled else transformation.apply
    with pytest.raises(Exception, match=r"ScheduleError: lr of group 0 would be -1.0 at step 2; allowed is"):
        jax.block_until_ready(apply([jnp.ones(50)], state, params))
    assert_same((params, state), before)
    with pytest.raises(gpuadam.ScheduleError, match=r"lr of group 0 would be -1.0 at step 0"):
        ours.adamw(lr=-1.0 * (schedules.step + 1)).init(params)
    plain = ours.adamw(lr=0.1)
    with pytest.raises(Exception, match=r"ScheduleError: lr of group 0 would be -1.0 at step 0"):
        jax.block_until_ready(plain.apply(params, with_number(plain.init(params), lr=-1.0), params))


def test_gradients_that_are_not_finite_raise():
    transformation = ours.adamw(lr=0.1, nonfinite="raise")
    param = jnp.ones(3)
    state = transformation.init(param)
    with pytest.raises(Exception, match="FloatingPointError: a gradient is not finite"):
        jax.block_until_ready(jax.jit(transformation.apply)(jnp.full(3, jnp.nan), state, param))
    found, _ = transformation.apply(jnp.ones(3), state, param)
    assert (found < 1).all()


# ---- states that do not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: tuple(state), "state is a tuple; allowed is what init or apply gave, a gpuadam.jax.State"),
        (lambda state: state._asdict(), "state is a dict"),
        (lambda state: ours.adam(lr=0.1).init(jnp.ones(4)), r"state.slots\['exp_avg'\] of params is float32 of shape"),
        (lambda state: ours.sgd(lr=0.1).init(jnp.ones(3)), r"state.slots has \[\]; these parameters and settings need"),
        (lambda state: ours.adam(lr=0.1, ema_decay=0.9).init(jnp.ones(3)), "state.slots has .'ema'"),
        (lambda state: ours.adam(lr=0.1).init([jnp.ones(3)]), "state.slots.* is a list; allowed is an array"),
        (lambda state: with_number(state, lr=jnp.ones(2)), r"hyperparameters\['lr'\] has shape \(2,\)"),
        (lambda state: with_number(state, lr="fast"), r"hyperparameters\['lr'\] is 'fast'; allowed is a number"),
        (lambda state: with_number(state, rate=0.1), "state.hyperparameters adds 'rate'; the numbers of this"),
        (lambda state: state._replace(hyperparameters={}), "state.hyperparameters lacks 'beta1'"),
        (lambda state: state._replace(clock=state.clock[1:]), r"state.clock is uint32 of shape \(13,\); allowed is"),
        (lambda state: state._replace(row=state.row.astype(int)), "state.row is int32 of shape"),
        (lambda state: state._replace(progress=None), "state.progress is a NoneType"),
    ],
)
def test_states_that_do_not_fit(change, message):
    transformation, param = ours.adam(lr=0.1), jnp.ones(3)
    with pytest.raises((TypeError, ValueError), match=message):
        transformation.apply(param, change(transformation.init(param)), param)


def test_init_under_jit_and_eval_shape():
    transformation = ours.adamw(**SETTINGS)
    params = [jnp.array(param) for param in numbers(0)]
    state = jax.jit(transformation.init)(params)
    assert_same(state, transformation.init(params))
    shapes = jax.eval_shape(transformation.init, params)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    step_of(transformation)(params, state, [jnp.ones_like(param) for param in params])  # each array is its own


def test_the_pool_of_a_plan_is_never_written():
    transformation = ours.sgd(lr=0.5)
    for _ in range(2):  # the second state begins as the first
        param = jnp.zeros(3)
        state, step = transformation.init(param), step_of(transformation)
        for rate in (0.5, 0.25):
            param, state = step(param, with_number(state, lr=jnp.float32(rate)), jnp.ones(3))
        assert_same(param, -0.75 * np.ones(3))


# ---- several devices


@functools.cache
def on_two_devices():
    """What `jax_devices.py` says, a line for each of its findings."""
    root = Path(__file__).parents[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    paths = os.pathsep.join(map(str, (root, root / "tests")))
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    script = Path(__file__).with_name("jax_devices.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n"))


@pytest.mark.parametrize(
    "finding",
    [
        "shard_map steps the shards of each device, without gathering",
        "shard_map and clip_norm are refused",
        "replicated parameters may be clipped in shard_map",
        "jit over sharded arrays gathers, and has the right bits",
        "pmap steps on each device",
        "two devices at the same time",
    ],
)
def test_two_devices(finding):
    assert finding in on_two_devices()

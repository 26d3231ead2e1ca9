"""Run by `test_jax_state.py` in a process with two CPU devices; a line for each finding."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax_cases import numbers

import gpuadam
import gpuadam.jax as ours

SHAPES = [(4,), (6, 50)]
PARAMS, GRADS = numbers(0, SHAPES), [numbers(k, SHAPES) for k in (1, 2, 3)]
MESH = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))


def expected(**settings):
    own = [param.copy() for param in PARAMS]
    optimizer = gpuadam.AdamW(own, lr=0.1, **settings)
    for grad in GRADS:
        optimizer.step(grad)
    return own


def check(finding, params, right):
    if all(np.array_equal(own, other) for own, other in zip(params, right, strict=True)):
        print(finding)


def train(apply, params, state):
    for grad in GRADS:
        params, state = apply(grad, state, params)
    return params


def sharded(transformation, spec, function=None):
    """The step under shard_map, parameters and a state for it."""
    params = jax.device_put(PARAMS, NamedSharding(MESH, spec))
    state = transformation.init(params)
    specs = jax.tree.map(lambda leaf: spec if leaf.shape in SHAPES else P(), state)
    function = function or transformation.apply
    apply = jax.shard_map(function, mesh=MESH, in_specs=(spec, specs, spec), out_specs=(spec, specs))
    return jax.jit(apply), params, state


def shards():
    apply, params, state = sharded(ours.adamw(lr=0.1), P("x"))
    if "all-gather" not in apply.lower(GRADS[0], state, params).compile().as_text():
        check("shard_map steps the shards of each device, without gathering", train(apply, params, state), expected())
    apply, params, state = sharded(ours.adamw(lr=0.1, clip_norm=1.0), P("x"))
    try:
        apply(GRADS[0], state, params)
    except ValueError as error:
        if "the gradients differ along the mesh axes ['x'], and clip_norm needs sums over all of them" in str(error):
            print("shard_map and clip_norm are refused")


def replicated():
    transformation = ours.adamw(lr=0.1, clip_norm=0.5)

    def step(grads, state, params):
        return transformation.apply(jax.tree.map(lambda grad: jax.lax.pmean(grad, "x"), grads), state, params)

    made = sharded(transformation, P(), step)
    check("replicated parameters may be clipped in shard_map", train(*made), expected(clip_norm=0.5))


def partitioned():
    transformation = ours.adamw(lr=0.1, clip_norm=0.5)
    params = jax.device_put(PARAMS, NamedSharding(MESH, P("x")))
    state, apply = transformation.init(params), jax.jit(transformation.apply)
    if "all-gather" in apply.lower(GRADS[0], state, params).compile().as_text():
        right = expected(clip_norm=0.5)
        check("jit over sharded arrays gathers, and has the right bits", train(apply, params, state), right)


def mapped():
    transformation = ours.adamw(lr=0.1)

    def both(tree):
        return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)

    params, state, step = both(PARAMS), both(transformation.init(PARAMS)), jax.pmap(transformation.apply)
    for grad in GRADS:
        params, state = step(both(grad), state, params)
    check("pmap steps on each device", [param[1] for param in params], expected())


def at_the_same_time():
    transformation = ours.adamw(lr=0.1)
    step, found = jax.jit(transformation.apply), [None, None]

    def run(index):
        params = jax.device_put(PARAMS, jax.devices()[index])
        found[index] = train(step, params, jax.device_put(transformation.init(params), jax.devices()[index]))

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if all(array.devices() == {jax.devices()[i]} for i in (0, 1) for array in found[i]):
        check("two devices at the same time", [*found[0], *found[1]], expected() * 2)


if __name__ == "__main__":
    for find in (shards, replicated, partitioned, mapped, at_the_same_time):
        find()

"""Gradient transformations over our launch: the state is a tree of arrays, and nothing else is remembered."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from .arrays import CPU
from .formats import FORMATS
from .jax_buffers import address_of, device_of
from .jax_plan import Leaf, Plan
from .jax_state import State, leaves_of, new_state, numbers_in_force, read_state
from .optimizer import Optimizer

REFUSED = {"zero_grads": False, "backend": "auto", "lr_scale": 1.0, "per_tensor_step": False}


class GradientTransformation(NamedTuple):
    """What optax calls so: a pair of functions."""

    init: Callable[..., Any]
    update: Callable[..., Any]


class Transformation(GradientTransformation):
    """`init(params)`, `update(grads, state, params)` as in optax, and `apply(grads, state, params)`, which is faster.

    Attributes:
        apply: (grads, state, params) -> (params, state): in place where they are donated to the jitted function.
    """

    apply: Callable[[Any, State, Any], tuple[Any, State]]


def transformation(core_class: type[Optimizer], *arguments: Any, **keywords: Any) -> Transformation:
    """A gradient transformation that takes the steps of one of our optimizers.

    Args:
        core_class: `gpuadam.AdamW`, ...
        arguments, keywords: Its own, but for the parameters.
    """
    for name, allowed in REFUSED.items():
        if keywords.get(name, allowed) != allowed:
            raise ValueError(f"{name} is {keywords[name]!r}; with JAX, allowed is {allowed!r}")
    if keywords.get("state_dtype") == "int8":
        raise ValueError("state_dtype is 'int8'; with JAX, allowed are 'float32' and 'bfloat16'")
    core = core_class([{"params": []}], *arguments, **keywords)
    if core.rule.mixing:
        raise ValueError(
            f"{core_class.__name__} shows other weights than it trains, by eval() and train(), which JAX has no place "
            "for; allowed are the functions of gpuadam.jax"
        )
    stepper = Stepper(core)
    found = Transformation(stepper.init, stepper.update)
    found.apply = stepper.apply
    return found


class Stepper:
    """The functions of a transformation, and the plans that they have made.

    Args:
        core: An optimizer without parameters, which has read and checked the settings.
    """

    def __init__(self, core: Optimizer) -> None:
        self._defaults = core._engine.defaults
        self._plans: dict[tuple[Leaf, ...], Plan] = {}

    def _plan(self, params: Any, grads: Any) -> tuple[Plan, list[Any], list[Any], Any]:
        """A plan, and what it is for: parameters, gradients, their tree."""
        leaves, arrays, slopes, tree = read_leaves(params, grads)
        if leaves not in self._plans:
            self._plans[leaves] = Plan(self._defaults, leaves)
        return self._plans[leaves], arrays, slopes, tree

    def init(self, params: Any) -> State:
        """The state before the first step."""
        plan, arrays, _, tree = self._plan(params, params)
        return new_state(plan, arrays, tree)

    def update(self, grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
        """The differences that lead to the new parameters: p + (p' - p) is p' but for its last bits."""
        if params is None:
            raise ValueError("params is None: give update(grads, state, params); the rule reads them")
        new, state = self.apply(grads, state, params)
        return jax.tree.map(lambda after, before: after - jnp.asarray(before), new, params), state

    def apply(self, grads: Any, state: State, params: Any) -> tuple[Any, State]:
        """One step: the new parameters and the new state."""
        plan, arrays, slopes, tree = self._plan(params, grads)
        check_shards(plan, slopes)
        state, columns = read_state(plan, state, tree)
        state = numbers_in_force(plan, state)
        places = [(slot.name, index) for index, own in enumerate(plan.slots) for slot in own]
        slots = [columns[name][index] for name, index in places]
        found = _launch(
            plan, len(arrays), [*arrays, *slots, state.clock, state.row, state.progress], [state.values, *slopes]
        )
        for (name, index), slot in zip(places, found[len(arrays) : -3], strict=True):
            columns[name][index] = slot
        clock, row, progress = found[-3:]
        trees = {name: jax.tree.unflatten(tree, column) for name, column in columns.items()}
        new = state._replace(slots=trees, clock=clock, row=row, progress=progress)
        return jax.tree.unflatten(tree, found[: len(arrays)]), new


def read_leaves(params: Any, grads: Any) -> tuple[tuple[Leaf, ...], list[Any], list[Any], Any]:
    """Parameters and gradients, paired and checked, and their tree."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    own = leaves_of(tree, grads, "grads")
    leaves, arrays, slopes = [], [], []
    for (path, given), slope in zip(paths, own, strict=True):
        title = f"params{jax.tree_util.keystr(path)}"
        param, grad = _read_array(given, title), _read_array(slope, f"the gradient of {title}")
        if grad.shape != param.shape:
            raise ValueError(f"the gradient of {title} has shape {grad.shape}, its parameter has {param.shape}")
        leaves.append(Leaf(title, tuple(param.shape), np.dtype(param.dtype), np.dtype(grad.dtype)))
        arrays.append(param)
        slopes.append(grad)
    return tuple(leaves), arrays, slopes, tree


def _read_array(value: Any, title: str) -> Any:
    """An array of JAX; one of NumPy becomes one, of float32 where JAX has no doubles."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{title} is a {type(value).__name__}; allowed are arrays of {', '.join(FORMATS)}")
    if value.dtype.name not in FORMATS:
        raise TypeError(f"{title} has dtype {value.dtype}; allowed are arrays of {', '.join(FORMATS)}")
    return jnp.asarray(value)


def check_shards(plan: Plan, grads: Sequence[Any]) -> None:
    """Refuse sums over gradients of which each device has a part of its own: each would clip by its own norm."""
    axes = sorted({axis for grad in grads for axis in varying_axes(grad)})
    if axes and plan.sums:
        raise ValueError(
            f"the gradients differ along the mesh axes {axes}, and {plan.sums[0]} needs sums over all of them: within "
            "shard_map, a step sees its own shards alone. Clip before it, with psum; or step outside of shard_map"
        )


def varying_axes(array: Any) -> frozenset[str]:
    """The axes of the mesh along which shard_map knows that values differ; none with check_vma=False."""
    kind = jax.typeof(array)
    own = getattr(kind, "mat", None)
    return frozenset(getattr(kind, "vma", ()) if own is None else own.varying)


def _launch(plan: Plan, count: int, written: Sequence[Any], read: Sequence[Any]) -> list[Any]:
    """The step over the buffers of these arrays; what is written comes back."""
    tables = len(written) - 3

    def callback(context: Any, out: Any, *given: Any) -> None:
        device = device_of(out[-1])
        at = [address_of(buffer) for buffer in out]
        values, *grads = (address_of(buffer) for buffer in given[len(out) :])
        state = dict(zip(("clocks", "rows", "progress"), at[tables:], strict=True))
        stream = 0 if device == CPU else context.stream
        plan.run(device, stream, [*at[:count], *grads, *at[count:tables]], {**state, "values": values})

    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in written]
    aliases = {i: i for i in range(len(written))}
    launch = jax.custom_batching.custom_vmap(buffer_callback(callback, shapes, input_output_aliases=aliases))
    launch.def_vmap(_refuse_vmap)
    step = jax.custom_jvp(launch)
    step.defjvp(_refuse_jvp)
    return list(step(*written, *read))


def _refuse_vmap(axis_size: int, in_batched: Any, *arguments: Any) -> Any:
    raise NotImplementedError(
        "a step cannot be mapped by vmap: it is one launch over all arrays as they are. Step once over the stacked "
        "parameters, which gives the same for every rule but LAMB and clip_norm"
    )


def _refuse_jvp(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("a step cannot be differentiated: take gradients of the loss, outside of it")

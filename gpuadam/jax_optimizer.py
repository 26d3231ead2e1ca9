"""Gradient transformations over our launch: the state is a tree of arrays, and nothing else is remembered."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from .arrays import CPU, Device
from .compiler import ROW
from .formats import FORMATS
from .jax_numbers import widened, words_of
from .jax_plan import Leaf, Plan
from .optimizer import Optimizer
from .tables import new_progress

REFUSED = {"zero_grads": False, "backend": "auto", "lr_scale": 1.0, "per_tensor_step": False}


class State(NamedTuple):
    """All that a step goes on from. To go back, take an older one.

    Attributes:
        hyperparameters: The numbers by name; another one in place of one of them is in force from the next step on.
        slots: States, masters and averages by name: trees like that of the parameters, None where there is none.
        values: The numbers as the step reads them.
        clock: Its counters and accumulators.
        row: The coefficients of the next step.
        progress: What has become of the steps: skipped, held.
    """

    hyperparameters: dict[str, Any]
    slots: dict[str, Any]
    values: Any
    clock: Any
    row: Any
    progress: Any


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
    stepper = Stepper(core_class([{"params": []}], *arguments, **keywords))
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

    def _plan(self, params: Any, grads: Any) -> Plan:
        leaves = tuple(read_leaves(params, grads))
        if leaves not in self._plans:
            self._plans[leaves] = Plan(self._defaults, leaves)
        return self._plans[leaves]

    def init(self, params: Any) -> State:
        """The state before the first step."""
        plan = self._plan(params, params)
        arrays, tree = jax.tree.flatten(params)
        slots: dict[str, list[Any]] = {}
        for index, own in enumerate(plan.slots):
            for slot in own:
                column = slots.setdefault(slot.name, [None] * len(arrays))
                dtype = slot.host_dtype()
                column[index] = (
                    arrays[index].astype(dtype)
                    if slot.name in ("master", "ema")
                    else jnp.full_like(arrays[index], slot.initial, dtype=dtype)
                )
        return State(
            {name: _plain(plan.values[slot]) for name, slot in plan.numbers.items()},
            {name: jax.tree.unflatten(tree, column) for name, column in slots.items()},
            jnp.asarray(words_of(plan.values)),
            _as_words(plan.new_clock()),
            jnp.zeros(2 * ROW, jnp.uint32),
            _as_words(new_progress()),
        )

    def update(self, grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
        """The differences that lead to the new parameters: p + (p' - p) is p' but for its last bits."""
        if params is None:
            raise ValueError("params is None: give update(grads, state, params); the rule reads them")
        new, state = self.apply(grads, state, params)
        return jax.tree.map(lambda after, before: after - before, new, params), state

    def apply(self, grads: Any, state: State, params: Any) -> tuple[Any, State]:
        """One step: the new parameters and the new state."""
        plan = self._plan(params, grads)
        arrays, tree = jax.tree.flatten(params)
        columns = {name: _leaves_of(tree, column, name) for name, column in state.slots.items()}
        slots = [columns[slot.name][index] for index, own in enumerate(plan.slots) for slot in own]
        values, progress = _numbers_in_force(plan, state)
        written = [*arrays, *slots, state.clock, state.row, progress]
        found = _launch(plan, len(arrays), written, [values, *jax.tree.leaves(grads)])
        for place, (index, slot) in enumerate((i, slot) for i, own in enumerate(plan.slots) for slot in own):
            columns[slot.name][index] = found[len(arrays) + place]
        new = State(
            state.hyperparameters,
            {name: jax.tree.unflatten(tree, column) for name, column in columns.items()},
            values,
            *found[-3:],
        )
        return jax.tree.unflatten(tree, found[: len(arrays)]), new


def read_leaves(params: Any, grads: Any) -> list[Leaf]:
    """Parameters and gradients, paired and checked."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    own = _leaves_of(tree, grads, "grads")
    found = []
    for (path, param), grad in zip(paths, own, strict=True):
        title = f"params{jax.tree_util.keystr(path)}"
        for kind, array in ((title, param), (f"the gradient of {title}", grad)):
            if not hasattr(array, "dtype") or np.dtype(array.dtype).name not in FORMATS:
                what = f"dtype {array.dtype}" if hasattr(array, "dtype") else f"is a {type(array).__name__}"
                raise TypeError(f"{kind}: {what}; allowed are arrays of {', '.join(FORMATS)}")
        if grad.shape != param.shape:
            raise ValueError(f"the gradient of {title} has shape {grad.shape}, its parameter has {param.shape}")
        found.append(Leaf(title, tuple(param.shape), np.dtype(param.dtype), np.dtype(grad.dtype)))
    return found


def _leaves_of(tree: Any, value: Any, name: str) -> list[Any]:
    try:
        return list(tree.flatten_up_to(value))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is not a tree like that of the parameters: {error}") from None


def _plain(number: float) -> Any:
    """A number as JAX keeps numbers, never of weak type: a step compiled for it serves those put in its place."""
    return jnp.asarray(np.float64(number) if jax.config.jax_enable_x64 else np.float32(number))


def _as_words(record: Any) -> Any:
    return jnp.asarray(record.view(np.uint32).ravel())


def _numbers_in_force(plan: Plan, state: State) -> tuple[Any, Any]:
    """The pool of numbers and the progress: with another number than before, the coefficients must be made anew.

    A number that is the constructor's, as far as an array of JAX can tell, is the constructor's to its last bit.
    """
    missing = sorted(set(plan.numbers) ^ set(state.hyperparameters))
    if missing:
        raise ValueError(f"state.hyperparameters lacks or adds {missing[0]!r}; allowed are {sorted(plan.numbers)}")
    names = list(plan.numbers)
    if not names:
        return state.values, state.progress
    slots = np.array([plan.numbers[name] for name in names])
    given = jnp.stack([jnp.asarray(state.hyperparameters[name], _plain(0.0).dtype) for name in names])
    own = plan.values[slots]
    is_own = given == jnp.stack([_plain(number) for number in own])
    words = jnp.where(is_own[:, None], words_of(own), widened(given))
    values = jnp.asarray(words_of(plan.values)).at[slots].set(words)
    is_stale = jnp.any(values != state.values)
    return values, state.progress.at[:2].multiply(jnp.where(is_stale, 0, 1).astype(jnp.uint32))


def _launch(plan: Plan, count: int, written: Sequence[Any], read: Sequence[Any]) -> list[Any]:
    """The step over the buffers of these arrays; what is written comes back."""
    tables = len(written) - 3

    def callback(context: Any, out: Any, *given: Any) -> None:
        device = _device_of(out[-1])
        at = [_address(buffer, device) for buffer in out]
        values, *grads = (_address(buffer, device) for buffer in given[len(out) :])
        state = dict(zip(("clocks", "rows", "progress"), at[tables:], strict=True))
        stream = 0 if device == CPU else context.stream
        plan.run(device, stream, [*at[:count], *grads, *at[count:tables]], {**state, "values": values})

    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in written]
    aliases = {i: i for i in range(len(written))}
    launch = jax.custom_batching.custom_vmap(buffer_callback(callback, shapes, input_output_aliases=aliases))
    launch.def_vmap(_refuse_vmap)
    return list(launch(*written, *read))


def _refuse_vmap(axis_size: int, in_batched: Any, *arguments: Any) -> Any:
    raise NotImplementedError(
        "a step cannot be mapped by vmap: it is one launch over all arrays as they are. Step once over the stacked "
        "parameters, which gives the same for every rule but LAMB and clip_norm"
    )


def _device_of(buffer: Any) -> Device:
    kind, number = buffer.__dlpack_device__()
    return CPU if kind == 1 else ("cuda", number)


def _address(buffer: Any, device: Any) -> int:
    if device == CPU:
        array = np.asarray(buffer)
        if buffer.writeable and array.size:  # five times as fast, of which a step has a few hundred
            return ctypes.addressof(ctypes.c_char.from_buffer(array))
        return int(array.__array_interface__["data"][0])
    return int(buffer.__cuda_array_interface__["data"][0])

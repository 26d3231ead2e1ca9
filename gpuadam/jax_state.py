"""The state of a transformation: made, checked against the parameters, and the numbers in it put in force."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .compiler import CLOCK, ROW
from .jax_numbers import widened, words_of
from .jax_plan import Plan
from .program import VALID
from .tables import PROGRESS, new_progress

WORD = np.dtype(np.uint32)
STEPS = CLOCK.fields["step"][1] // WORD.itemsize  # type: ignore[index]
SKIPPED = PROGRESS.fields["skipped"][1] // WORD.itemsize  # type: ignore[index]
FAULT = PROGRESS.fields["fault_cohort"][1] // WORD.itemsize  # type: ignore[index]


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

    @property
    def steps(self) -> Any:
        """How many steps there have been."""
        return self.clock[STEPS]

    @property
    def skipped_steps(self) -> Any:
        """How many were skipped, with `nonfinite="skip"` or `"raise"`."""
        return self.progress[SKIPPED]

    @property
    def is_held(self) -> Any:
        """Whether a hyperparameter is out of its range in the next step, which then changes nothing."""
        return self.progress[FAULT] != np.uint32(VALID % 2**32)


def new_state(plan: Plan, arrays: list[Any], tree: Any) -> State:
    """The state before the first step; none of its arrays is a parameter, so that both can be donated."""
    columns: dict[str, list[Any]] = {}
    for index, (array, own) in enumerate(zip(arrays, plan.slots, strict=True)):
        for slot in own:
            is_copy = slot.name in ("master", "ema")
            dtype = slot.host_dtype()
            made = jnp.array(array, dtype, copy=True) if is_copy else jnp.full_like(array, slot.initial, dtype=dtype)
            columns.setdefault(slot.name, [None] * len(arrays))[index] = made
    return State(
        {name: plain(plan.values[slots[0]]) for name, slots in plan.numbers.items()},
        {name: jax.tree.unflatten(tree, column) for name, column in columns.items()},
        jnp.array(pool_words(plan)),
        as_words(plan.new_clock()),
        jnp.zeros(2 * ROW, jnp.uint32),
        as_words(new_progress()),
    )


def pool_words(plan: Plan) -> Any:
    """The pool of a plan; behind it, what tells its program from others."""
    return np.concatenate([words_of(plan.values), np.array([[plan.code, 0]], np.uint32)])


def plain(number: float) -> Any:
    """A number as JAX keeps numbers, never of weak type: a step compiled for it serves those put in its place."""
    return jnp.array(np.float64(number) if jax.config.jax_enable_x64 else np.float32(number))


def as_words(record: Any) -> Any:
    return jnp.array(record.view(np.uint32).ravel())


def leaves_of(tree: Any, value: Any, name: str) -> list[Any]:
    """The leaves of a tree that is to be like that of the parameters."""
    try:
        return list(tree.flatten_up_to(value))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name} is not a tree like that of the parameters: {error}") from None


def read_state(plan: Plan, state: Any, tree: Any) -> tuple[State, dict[str, list[Any]]]:
    """A state and the columns of its slots, checked: the step writes them by their addresses."""
    if not isinstance(state, State):
        raise TypeError(f"state is a {type(state).__name__}; allowed is what init or apply gave, a gpuadam.jax.State")
    expected = {slot.name for own in plan.slots for slot in own}
    if set(state.slots) != expected:
        raise ValueError(
            f"state.slots has {sorted(state.slots)}; these parameters and settings need {sorted(expected)}"
        )
    columns = {name: leaves_of(tree, column, f"state.slots[{name!r}]") for name, column in state.slots.items()}
    for index, own in enumerate(plan.slots):
        for slot in own:
            leaf, title = plan.leaves[index], f"state.slots[{slot.name!r}] of {plan.leaves[index].title}"
            columns[slot.name][index] = _array(columns[slot.name][index], leaf.shape, slot.host_dtype(), title)
    sizes = {"clock": CLOCK.itemsize, "row": ROW * 8, "progress": PROGRESS.itemsize}
    words = {
        name: _array(getattr(state, name), (size // WORD.itemsize,), WORD, f"state.{name}")
        for name, size in sizes.items()
    }
    return state._replace(**words), columns


def _array(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], title: str) -> Any:
    if not hasattr(value, "dtype"):
        raise TypeError(f"{title} is a {type(value).__name__}; allowed is an array of {dtype} of shape {shape}")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{title} is {value.dtype} of shape {value.shape}; allowed is {dtype} of shape {shape}")
    return jnp.asarray(value)


def numbers_in_force(plan: Plan, state: State) -> State:
    """With another number than before, or another program, the coefficients of the next step must be made anew.

    A number that is the constructor's, as far as an array of JAX can tell, is the constructor's to its last bit.
    """
    strange = sorted(set(plan.numbers) ^ set(state.hyperparameters))
    if strange:
        raise ValueError(
            f"state.hyperparameters {'lacks' if strange[0] in plan.numbers else 'adds'} {strange[0]!r}; the numbers "
            f"of this transformation are {sorted(plan.numbers)}"
        )
    words = jnp.array(pool_words(plan))
    given = {name: _number(name, state.hyperparameters[name]) for name in plan.numbers}
    if given:
        places = np.concatenate(list(plan.numbers.values()))
        numbers = jnp.stack([given[name] for name, slots in plan.numbers.items() for _ in slots])
        own = plan.values[places]
        is_own = numbers == jnp.stack([plain(number) for number in own])
        words = words.at[places].set(jnp.where(is_own[:, None], words_of(own), widened(numbers)))
    before = jnp.asarray(state.values)
    is_stale = jnp.any(words != before) if before.shape == words.shape else True
    progress = state.progress.at[:2].multiply(jnp.where(is_stale, 0, 1).astype(jnp.uint32))  # nothing is prepared
    return state._replace(hyperparameters=given, values=words, progress=progress)


def _number(name: str, value: Any) -> Any:
    kind = plain(0.0).dtype
    try:
        number = jnp.asarray(value, kind)
    except (TypeError, ValueError):
        raise TypeError(f"state.hyperparameters[{name!r}] is {value!r}; allowed is a number") from None
    if number.shape:
        raise ValueError(f"state.hyperparameters[{name!r}] has shape {number.shape}; allowed is a number")
    return number

"""States of tensors on their way from one optimizer to another, and from a saved run to the keys of this one."""

from collections.abc import Mapping
from typing import Any

from .optimizer import Optimizer

Key = tuple[int, str]
Place = tuple[Key, bool]  # PyTorch layers count their keys for themselves, so a key alone may name two parameters
State = Mapping[str, Any]


def title(place: Place) -> str:
    """How errors call a parameter."""
    (number, name), is_foreign = place
    return f"{name} of {'PyTorch layer' if is_foreign else 'node'} {number}"


def install(optimizer: Optimizer, states: Mapping[str, State], launches: int) -> None:
    """Give tensors their states, and all of them the clock of so many launches; those without a state are new."""
    content = optimizer.state_dict()
    for name, own in content["state"].items():
        content["state"][name] = {**own, **states.get(name, {}), "step": launches}
    for group in content["groups"]:
        first = next(iter(content["state"].values()))
        group.update({name: first[name] for name in ("step", "updates", "accumulators")})
    optimizer.load_state_dict(content)


class Claims:
    """The states of a saved run, claimed one by one as parameters come.

    thinc counts the nodes of a process, so the same model may have other numbers in another process. Its sweep has the
    same order; so the next parameter is the next that was saved, with the same name and shape, and as one number stood
    for one node it must stand for one still.

    Args:
        saved: For each parameter `number`, `name`, `is_foreign`, `shape` and `state`, in the order of a sweep.
    """

    def __init__(self, saved: list[dict[str, Any]]) -> None:
        self.left = {place_of(own): own for own in saved}
        self._numbers: dict[tuple[int, bool], int] = {}

    def take(self, place: Place, shape: tuple[int, ...]) -> State | None:
        """The state of a parameter; None if nothing is left of the saved run.

        Raises:
            ValueError: This is not the parameter that was saved there.
        """
        if not self.left:
            return None
        chosen = self._chosen(place)
        own = self.left[chosen]
        (old, name), is_foreign = chosen
        number = place[0][0]
        known = self._numbers.get((old, is_foreign), number)
        taken = [key for key, value in self._numbers.items() if value == number and key[1] == is_foreign]
        is_same_node = known == number and taken in ([], [(old, is_foreign)])
        if (name, is_foreign, list(own["shape"])) != (place[0][1], place[1], list(shape)) or not is_same_node:
            raise ValueError(
                f"the saved run goes on with {title(chosen)}, of shape {tuple(own['shape'])}, but {title(place)} of "
                f"shape {tuple(shape)} comes: it was saved with another model, or its parameters came in another order"
            )
        self._numbers[old, is_foreign] = number
        state: State = self.left.pop(chosen)["state"]
        return state

    def _chosen(self, place: Place) -> Place:
        """The one of the same key, while all keys have been the same; else the next."""
        are_same = bool(self._numbers) and all(old == new for (old, _), new in self._numbers.items())
        return place if are_same and place in self.left else next(iter(self.left))


def place_of(saved: Mapping[str, Any]) -> Place:
    return (int(saved["number"]), str(saved["name"])), bool(saved["is_foreign"])


def as_saved(place: Place, shape: tuple[int, ...], state: State) -> dict[str, Any]:
    """What a file holds of a parameter."""
    (number, name), is_foreign = place
    return {
        "number": int(number),
        "name": str(name),
        "is_foreign": is_foreign,
        "shape": list(shape),
        "state": dict(state),
    }

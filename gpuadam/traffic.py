"""Bytes an element: what a specialisation holds, and what its step must move to and from memory.

Both follow from the specialisation and its slots, which the constructor makes, so there is no second list of states.
Tables and sums are left out: 24 bytes for every 1,024 elements.
"""

from typing import NamedTuple

from .formats import BLOCK8, FORMATS, Specialisation
from .slots import slots_of


class Held(NamedTuple):
    """Bytes an element of the arrays of a tensor; 8-bit states with their scales."""

    param: float
    grad: float
    states: float
    companion: float
    ema: float


def held(kind: Specialisation) -> Held:
    """What lies in memory for each element; its sum is all of it."""
    own = dict.fromkeys(Held._fields, 0.0)
    for slot in slots_of(kind, kind.rule.options()):
        place = {"master": "companion", "remainder": "companion", "ema": "ema"}.get(slot.name, "states")
        own[place] += slot.nbytes(BLOCK8) / BLOCK8
    own["param"], own["grad"] = (float(FORMATS[form].storage.itemsize) for form in (kind.param, kind.grad))
    return Held(**own)


def traffic(kind: Specialisation, sums: bool) -> float:
    """What a step reads and writes for each element, if every array is taken from memory once a launch.

    Args:
        kind: What the step is made for.
        sums: Whether a launch reads the gradients ahead of it: for `clip_norm`, or for `nonfinite` other than
            "propagate".
    """
    own = held(kind)
    kept = own.param + own.states + own.companion
    gradients = own.grad * (1 + kind.zero_grads + sums)
    measured = kept + own.grad if kind.rule.measure else 0.0
    return 2 * (kept + own.ema) + gradients + measured

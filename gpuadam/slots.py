"""Slots: the optimizer's own memory beside each parameter: states, what a 16-bit parameter leaves out, the average."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, bfloat16, shaped_like
from .codes import SIGNED_CODES, UNSIGNED_CODES
from .formats import BLOCK8, FORMATS, HALF, Specialisation, is_8_bit

ALIGNMENT = 64  # bytes: each slot starts on a cache line of its own
SCALE_ALIGNMENT = 64  # bytes: where the scales begin behind 8-bit codes (also in formats.cuh)
POOLED_ELEMENTS = 65_536  # slots up to this size share a block of memory


@dataclass(frozen=True)
class Slot:
    """What one array of a tensor is to be.

    Attributes:
        name: What a state dict calls it.
        form: "float32", "float64", "bfloat16", "int8", "uint8" or "remainder".
        initial: The value of every element at first.
    """

    name: str
    form: str
    initial: float = 0.0

    @property
    def storage(self) -> np.dtype[Any]:
        """The dtype of its elements in memory."""
        if is_8_bit(self.form):
            return np.dtype(np.uint8)
        return HALF if self.form == "remainder" else FORMATS[self.form].storage

    def code(self) -> Any:
        """How `initial` is stored."""
        if is_8_bit(self.form):
            codes = UNSIGNED_CODES if self.form == "uint8" else SIGNED_CODES
            return int(np.abs(codes - np.sign(self.initial)).argmin())
        if self.form == "bfloat16":
            return int(FORMATS[self.form].nearest(np.float32(self.initial), np.uint32(0)))
        return self.initial

    def host_dtype(self) -> np.dtype[Any]:
        """The dtype under which a state dict shows it."""
        return bfloat16() if self.form == "bfloat16" else self.storage

    def parts(self, numel: int) -> list[tuple[str, int, int, np.dtype[Any], Any]]:
        """Its arrays: name, first byte, elements, dtype and first value. 8-bit codes have a scale for each block."""
        own = [(self.name, 0, numel, self.storage, self.code())]
        if is_8_bit(self.form):
            first = rounded_up(numel, SCALE_ALIGNMENT)
            own.append((f"{self.name}_scale", first, -(-numel // BLOCK8), np.dtype(np.float32), abs(self.initial)))
        return own

    def nbytes(self, numel: int) -> int:
        _, first, count, dtype, _ = self.parts(numel)[-1]
        return first + count * dtype.itemsize


def slots_of(specialisation: Specialisation, options: Any) -> list[Slot]:
    """All slots of a tensor, in the order of a state dict."""
    rule = specialisation.rule
    own = [
        Slot(name, form, rule.initial(name, options))
        for name, form in zip(rule.states, specialisation.states, strict=True)
        if form
    ]
    if specialisation.companion:
        is_master = specialisation.companion == "float32"
        own.append(Slot("master", "float32") if is_master else Slot("remainder", "remainder"))
    if specialisation.ema:
        own.append(Slot("ema", specialisation.compute))
    return own


def make_arrays(params: Sequence[Array], slots: Sequence[list[Slot]], backend: Any) -> list[dict[str, Any]]:
    """The arrays of all slots by name, in the parameter's order of elements; scales are flat.

    Small ones of one kind lie in one block of memory, one after another: thousands of them then cost neither as many
    allocations nor as many cache and page misses. Codes and their scales are neighbours, so one address finds both.
    """
    found: list[dict[str, Any]] = [{} for _ in params]
    blocks: dict[tuple[Any, ...], list[tuple[int, Slot]]] = {}
    for index, (param, own) in enumerate(zip(params, slots, strict=True)):
        alone = index if param.numel > POOLED_ELEMENTS else None
        for slot in own:
            blocks.setdefault((slot, alone), []).append((index, slot))
    for members in blocks.values():
        _fill_block(params, members, found, backend)
    for param, arrays in zip(params, found, strict=True):
        for name in {"master", "ema"} & set(arrays):
            backend.copy_values(arrays[name], param)
    return found


def _fill_block(
    params: Sequence[Array], members: list[tuple[int, Slot]], found: list[dict[str, Any]], backend: Any
) -> None:
    """Allocate one block for slots of one kind, and hand out its pieces."""
    room = [rounded_up(slot.nbytes(params[index].numel), ALIGNMENT) for index, slot in members]
    block = backend.empty_bytes(sum(room), params[members[0][0]].device[1])
    slot = members[0][1]
    if not is_8_bit(slot.form):
        whole = block.size // slot.storage.itemsize * slot.storage.itemsize
        backend.fill(block[:whole].view(slot.storage), slot.code())
    begin = 0
    for (index, slot), size in zip(members, room, strict=True):
        for name, first, count, dtype, value in slot.parts(params[index].numel):
            piece = block[begin + first : begin + first + count * dtype.itemsize].view(dtype)
            if is_8_bit(slot.form):
                backend.fill(piece, value)
            found[index][name] = shaped_like(piece, params[index]) if name == slot.name else piece
        begin += size


def rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step

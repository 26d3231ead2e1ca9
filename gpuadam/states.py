"""How the walk reads and writes the states of a rule (twin of State and BlockState in granules.cuh)."""

from typing import Any

import numpy as np

from .access import array_at, table_at
from .formats import BLOCK8, FORMATS, Specialisation, as_it_is, is_8_bit, unrounded
from .jit import inlined
from .rounding import SIGNED_CODES, UNSIGNED_CODES, draw, quantise, slot_key
from .slots import SCALE_ALIGNMENT
from .tables import CHUNK

LARGEST = np.finfo(np.float32).max
NAN = np.float32(np.nan)
ZERO = np.float32(0)
SLOTS = tuple(map(np.uint32, range(4)))  # whose random numbers they are: the parameter's, and its states'


def make_state(form: str | None) -> tuple[Any, ...]:
    """How a state is opened for a run of elements, an element read and written, and the state closed again.

    A state of 8 bits is decoded into a buffer, which stands for it until it is closed; no other has anything to do.
    """
    if is_8_bit(form):
        codes = UNSIGNED_CODES if form == "uint8" else SIGNED_CODES

        @inlined
        def open_codes(address: Any, numel: Any, first: Any, count: Any, buffer: Any) -> Any:
            stored, scales = code_arrays(address, numel, first, count)
            for begin in range(0, count, BLOCK8):
                own, values, scale = stored[begin:], buffer[begin:], scales[begin // BLOCK8]
                for i in range(min(BLOCK8, count - begin)):
                    values[i] = codes[own[i]] * scale
            return buffer

        @inlined
        def close_codes(address: Any, numel: Any, first: Any, count: Any, buffer: Any, stream: Any) -> None:
            stored, scales = code_arrays(address, numel, first, count)
            for begin in range(0, count, BLOCK8):
                own, values = stored[begin:], buffer[begin : min(begin + BLOCK8, count)]
                scale = block_scale(values)
                scales[begin // BLOCK8] = scale
                for i in range(len(values)):
                    scaled = values[i] / scale if scale > ZERO else ZERO
                    own[i] = quantise(scaled, codes, draw(stream, np.uint32(begin + i)))

        return open_codes, as_it_is, unrounded, close_codes

    plain = FORMATS[form or "float32"]
    dtype = plain.storage if form else None
    code = plain.stochastic

    @inlined
    def open_plain(address: Any, numel: Any, first: Any, count: Any, buffer: Any) -> Any:
        return array_at(address, first, count, dtype)

    @inlined
    def close_plain(address: Any, numel: Any, first: Any, count: Any, buffer: Any, stream: Any) -> None:
        pass

    return open_plain, plain.value, code, close_plain


def make_states(kind: Specialisation) -> tuple[Any, ...]:
    """The same for all states of a rule: opening them, reading and writing an element of each, closing them."""
    open0, value0, code0, close0 = make_state(kind.all_states[0])
    open1, value1, code1, close1 = make_state(kind.all_states[1])
    open2, value2, code2, close2 = make_state(kind.all_states[2])

    @inlined
    def open_states(tensor: Any, first: Any, count: Any, buffers: Any) -> Any:
        return (
            open0(np.int64(tensor.states[0]), tensor.numel, first, count, buffers[0]),
            open1(np.int64(tensor.states[1]), tensor.numel, first, count, buffers[1]),
            open2(np.int64(tensor.states[2]), tensor.numel, first, count, buffers[2]),
        )

    @inlined
    def close_states(tensor: Any, first: Any, count: Any, buffers: Any, streams: Any) -> None:
        close0(np.int64(tensor.states[0]), tensor.numel, first, count, buffers[0], streams[0])
        close1(np.int64(tensor.states[1]), tensor.numel, first, count, buffers[1], streams[1])
        close2(np.int64(tensor.states[2]), tensor.numel, first, count, buffers[2], streams[2])

    return open_states, (value0, value1, value2), (code0, code1, code2), close_states


@inlined
def code_arrays(address: Any, numel: Any, first: Any, count: Any) -> Any:
    """The codes of elements [first, first + count), and the scales of their blocks, which follow all the codes."""
    scales = address + (numel + SCALE_ALIGNMENT - 1) // SCALE_ALIGNMENT * SCALE_ALIGNMENT
    own = table_at(scales + first // BLOCK8 * 4, (count + BLOCK8 - 1) // BLOCK8, np.float32)
    return table_at(address + first, count, np.uint8), own


@inlined
def block_scale(values: Any) -> Any:
    """The largest magnitude of a block; NaN if one of them is not finite."""
    largest = ZERO
    is_finite = True
    for i in range(len(values)):
        magnitude = abs(values[i])
        is_finite &= magnitude <= LARGEST
        largest = magnitude if magnitude > largest else largest
    return largest if is_finite else NAN


def make_draws(kind: Specialisation) -> tuple[Any, Any]:
    """The streams of random numbers of a chunk, for the parameter and its states, and a draw from one of them."""
    if not kind.draws:
        return inlined(lambda key: (None, None, None, None)), inlined(lambda stream, index: None)

    @inlined
    def streams(key: Any) -> Any:
        return slot_key(key, SLOTS[0]), slot_key(key, SLOTS[1]), slot_key(key, SLOTS[2]), slot_key(key, SLOTS[3])

    @inlined
    def bits(stream: Any, index: Any) -> Any:
        return draw(stream, np.uint32(index))

    return streams, bits


def make_buffer(kind: Specialisation) -> Any:
    """Where a state of 8 bits is decoded to."""
    if any(map(is_8_bit, kind.states)):
        return inlined(lambda: np.empty(CHUNK, np.float32))
    return inlined(lambda: None)

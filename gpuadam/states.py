"""How the walk reads and writes the states of a rule (twin of State and BlockState in granules.cuh)."""

from typing import Any

import numpy as np

from .access import array_at, table_at
from .codes import SIGNED_CODES, UNSIGNED_CODES
from .formats import BLOCK8, FORMATS, Specialisation, as_it_is, is_8_bit, unrounded
from .jit import inlined
from .rounding import (
    INFINITY_BITS,
    MAGNITUDE,
    bits_float,
    draw,
    float_bits,
    larger,
    signed_code,
    slot_key,
    unsigned_code,
)
from .slots import SCALE_ALIGNMENT
from .tables import CHUNK

NAN = np.float32(np.nan)
ZERO = np.float32(0)
SLOTS = tuple(map(np.uint32, range(4)))  # whose random numbers they are: the parameter's, and its states'


def make_coded_state(codes: Any, code_of: Any) -> tuple[Any, ...]:
    """A state of 8 bits, which is decoded into a buffer.

    Codes pass through the buffer, as bits: a loop that looks up values vectorises only if the compiler knows that it
    writes to no table, and of an address it does not know that.
    """

    @inlined
    def open_codes(address: Any, numel: Any, first: Any, count: Any, buffer: Any) -> Any:
        stored, scales = code_arrays(address, numel, first, count)
        for begin in range(0, count, BLOCK8):
            own, values, scale = stored[begin:], buffer[begin:], scales[begin // BLOCK8]
            size = min(BLOCK8, count - begin)
            for i in range(size):
                values[i] = bits_float(np.uint32(own[i]))
            for i in range(size):
                values[i] = codes[float_bits(values[i])] * scale
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
                values[i] = bits_float(np.uint32(code_of(scaled, codes, draw(stream, np.uint32(begin + i)))))
            for i in range(len(values)):
                own[i] = np.uint8(float_bits(values[i]))

    return open_codes, as_it_is, unrounded, close_codes


def make_state(form: str | None) -> tuple[Any, ...]:
    """How a state is opened for a run of elements, an element read and written, and the state closed again.

    The buffer of a state of 8 bits stands for it until it is closed; no other has anything to do.
    """
    if is_8_bit(form):
        table = (UNSIGNED_CODES, unsigned_code) if form == "uint8" else (SIGNED_CODES, signed_code)
        return make_coded_state(*table)

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
    # as whole numbers magnitudes have the same order, and a loop for their largest vectorises
    largest = np.uint32(0)
    for i in range(len(values)):
        largest = larger(largest, np.uint32(float_bits(values[i]) & MAGNITUDE))
    return bits_float(largest) if largest < INFINITY_BITS else NAN


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

"""A schedule as plain data, and back: its program, which is what a kernel runs, and the formula regained from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from .compiler import Output, Program
from .expressions import Accumulator, Expr, Parameter
from .program import Op

Code = Sequence[Sequence[Any]]


def to_data(schedule: Expr) -> dict[str, Any]:
    """The program of a schedule alone; schedules of the same formula give the same data.

    Opcodes go by name, since their numbers may change. The value of a named parameter is not part of the formula: its
    slot of the pool holds 0.
    """
    program = Program()
    section = program.add([Output("value", schedule)])
    pool, slots = program.values(), program.pool.parameters
    pool[list(slots.values())] = 0.0
    code = [[Op(op).name, argument] for op, argument in program.code]
    return {
        "code": code[: section.end],
        "advance": code[section.end :],
        "pool": pool,
        "parameters": {slot: parameter.name for parameter, slot in slots.items()},
        "accumulators": [{"name": own.name, "initial": own.initial} for own in section.accumulators],
    }


def from_data(data: Mapping[str, Any], accumulators: dict[str, Accumulator]) -> Expr:
    """The schedule of which `to_data` gave the data.

    Args:
        data: What `to_data` gave.
        accumulators: Those of the group's other schedules, by name, as they share them; those of this one are added.
    """
    fresh = [own for own in data["accumulators"] if own["name"] not in accumulators]
    accumulators |= {own["name"]: Accumulator(own["name"], own["initial"], lambda value: value) for own in fresh}
    own = [accumulators[known["name"]] for known in data["accumulators"]]
    reader = Reader(data["pool"].tolist(), data["parameters"], own)
    for accumulator, update in zip(own, reader.read(data["advance"]), strict=True):
        accumulator.update = update
    (schedule,) = reader.read(data["code"])
    return schedule


class Reader:
    """Runs a program on expressions instead of numbers: what it puts out are the formulas."""

    def __init__(
        self, pool: Sequence[float], parameters: Mapping[int, str], accumulators: Sequence[Accumulator]
    ) -> None:
        self._pool = pool
        self._parameters = {slot: Parameter(name, 0.0) for slot, name in parameters.items()}
        self._accumulators = accumulators

    def read(self, code: Code) -> list[Expr]:
        """The expression of each OUTPUT; what was stored and loaded is shared again."""
        stack: list[Expr] = []
        shared: dict[int, Expr] = {}
        found = []
        for name, argument in code:
            op = Op[name]
            if op is Op.OUTPUT:
                found.append(stack.pop())
            elif op is Op.STORE:
                shared[argument] = stack[-1]
            elif op is Op.LOAD:
                stack.append(shared[argument])
            else:
                first = len(stack) - operand_count(op)
                stack[first:] = [Expr(op, stack[first:], self._payload(op, argument))]
        return found

    def _payload(self, op: Op, argument: int) -> Any:
        if op is Op.VALUE:
            return self._parameters.get(argument, self._pool[argument])
        if op is Op.ACCUMULATOR:
            return self._accumulators[argument]
        length = int(self._pool[argument])
        return tuple(self._pool[argument + 1 : argument + 1 + length]) if op is Op.TABLE else None


def operand_count(op: Op) -> int:
    """How many values an operation takes from the stack."""
    if op <= Op.LOAD:
        return 0
    if op <= Op.ACOS or op is Op.TABLE:
        return 1
    return 2 if op <= Op.EQUAL else 3

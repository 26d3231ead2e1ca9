"""Expressions -> programs: postfix code, a pool of doubles, and the slots that the host may rewrite.

Results that are used more than once are stored and loaded, so nothing is evaluated twice: with the step size and the
decay of a group both built from its lr, the schedule of lr runs once.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .expressions import Accumulator, Expr, Parameter
from .jit import compiled
from .program import INSTRUCTION, STACK_SIZE, VALID, Op, evaluate

MAX_ACCUMULATORS = 4
ROW = 32  # doubles that one program may put out
CLOCK = np.dtype(
    [
        ("step", np.int64),
        ("updates", np.int64),
        ("lr_scale", np.float64),
        ("accumulators", np.float64, (MAX_ACCUMULATORS,)),
    ]
)
assert CLOCK.itemsize == 56


@dataclass
class Output:
    """One value that a program puts out, and the closed range in which it must lie for a step to be applied.

    Attributes:
        place: Where in the row it goes; guards are checked in the order in which outputs are given.
        allowed: How an error message puts the range.
    """

    name: str
    expression: Expr
    place: int = 0
    low: float = -math.inf
    high: float = math.inf
    allowed: str = ""

    @property
    def is_guarded(self) -> bool:
        return self.low > -math.inf


@dataclass
class Section:
    """Where one group's code lies: [begin, end) puts out its row, [end, advance_end) advances its accumulators."""

    begin: int
    end: int
    advance_end: int
    accumulators: list[Accumulator]
    guards: dict[int, Output] = field(default_factory=dict)  # instruction -> what it guards
    mixing: int = 0  # slot of the number with which its weights are mixed, if they are

    def new_clock(self) -> npt.NDArray[Any]:
        """The clock of a tensor that has had no update, as a one-row table."""
        clock = np.zeros(1, CLOCK)
        clock["lr_scale"] = 1.0
        for i, accumulator in enumerate(self.accumulators):
            clock["accumulators"][0, i] = accumulator.initial
        return clock


class Pool:
    """The doubles that programs read; equal constants share a slot, a parameter has its own."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.parameters: dict[Parameter, int] = {}  # to their slots
        self._constants: dict[bytes, int] = {}

    def place(self, values: Sequence[float]) -> int:
        key = np.array(values, np.float64).tobytes()
        if key not in self._constants:
            self._constants[key] = len(self.values)
            self.values.extend(values)
        return self._constants[key]

    def place_parameter(self, parameter: Parameter) -> int:
        if parameter not in self.parameters:
            self.parameters[parameter] = len(self.values)
            self.values.append(parameter.value)
        return self.parameters[parameter]


class Emitter:
    """Postfix code of one section."""

    def __init__(self, pool: Pool, roots: Sequence[Expr], accumulators: Sequence[Accumulator]) -> None:
        self.pool = pool
        self.accumulators = list(accumulators)
        self.code: list[tuple[int, int]] = []
        self.depth = self.peak = 0
        self._uses = Counter(id(child) for node in walk(roots) for child in node.operands)
        self._uses.update(map(id, roots))
        self._slots: dict[int, int] = {}

    def emit(self, op: Op, argument: int, growth: int) -> None:
        self.code.append((int(op), argument))
        self.depth += growth
        self.peak = max(self.peak, self.depth)
        if self.peak + len(self._slots) > STACK_SIZE:
            raise ValueError(
                f"the expression is too large: it needs more than {STACK_SIZE} intermediate values at once"
            )

    def push(self, root: Expr) -> None:
        """Code that leaves the value of a node on the stack; without recursion, as an expression may be very deep."""
        waiting = [(root, False)]
        while waiting:
            node, operands_pushed = waiting.pop()
            if operands_pushed:
                self._apply(node)
            elif id(node) in self._slots:
                self.emit(Op.LOAD, self._slots[id(node)], +1)
            else:
                waiting.append((node, True))
                waiting.extend((operand, False) for operand in reversed(node.operands))

    def _apply(self, node: Expr) -> None:
        """Code that replaces the operands on the stack by the value of the node, and keeps it if it is shared."""
        self.emit(node.op, self._argument(node), 1 - len(node.operands))
        if node.operands and self._uses[id(node)] > 1:
            self._slots[id(node)] = STACK_SIZE - 1 - len(self._slots)
            self.emit(Op.STORE, self._slots[id(node)], 0)

    def _argument(self, node: Expr) -> int:
        payload = node.payload
        if isinstance(payload, Parameter):
            return self.pool.place_parameter(payload)
        if isinstance(payload, Accumulator):
            return self.accumulators.index(payload)
        if node.op is Op.VALUE:
            return self.pool.place([payload])
        return self.pool.place([float(len(payload)), *payload]) if node.op is Op.TABLE else 0


def walk(roots: Sequence[Expr]) -> Iterator[Expr]:
    """Every node below the roots, once each."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node.operands)
            yield node


def find_accumulators(roots: Sequence[Expr]) -> list[Accumulator]:
    """The accumulators below the roots and below their own updates, in a fixed order."""
    found: list[Accumulator] = []
    waiting = list(roots)
    while waiting:
        fresh = {id(n.payload): n.payload for n in walk(waiting) if n.op is Op.ACCUMULATOR and n.payload not in found}
        found.extend(fresh.values())
        waiting = [accumulator.update for accumulator in fresh.values()]
    if len({accumulator.name for accumulator in found}) < len(found):
        doubled = sorted(accumulator.name for accumulator in found)
        raise ValueError(f"the accumulators of one group need names of their own, got {doubled}")
    if len(found) > MAX_ACCUMULATORS:
        names = ", ".join(repr(accumulator.name) for accumulator in found)
        raise ValueError(f"one group may hold {MAX_ACCUMULATORS} accumulators, got {len(found)}: {names}")
    return sorted(found, key=lambda accumulator: accumulator.name)


class Program:
    """The code of all groups over one pool."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.code: list[tuple[int, int]] = []
        self.sections: list[Section] = []

    def add(self, outputs: Sequence[Output]) -> Section:
        """Compile one group's outputs."""
        if len(outputs) > ROW:
            raise ValueError(f"a program may put out {ROW} values, got {len(outputs)}")
        roots = [output.expression for output in outputs]
        accumulators = find_accumulators(roots)
        begin = len(self.code)
        emitter = Emitter(self.pool, roots, accumulators)
        guards = {}
        for output in outputs:
            emitter.push(output.expression)
            if output.is_guarded:
                guards[begin + len(emitter.code)] = output
                emitter.emit(Op.REQUIRE, self.pool.place([output.low, output.high]), 0)
            emitter.emit(Op.OUTPUT, output.place, -1)
        self.code.extend(emitter.code)
        end = len(self.code)
        advance = Emitter(self.pool, [a.update for a in accumulators], accumulators)
        for index, accumulator in enumerate(accumulators):
            advance.push(accumulator.update)
            advance.emit(Op.OUTPUT, index, -1)
        self.code.extend(advance.code)
        self.sections.append(Section(begin, end, len(self.code), accumulators, guards))
        return self.sections[-1]

    def instructions(self) -> npt.NDArray[Any]:
        return np.array(self.code, INSTRUCTION)

    def values(self) -> npt.NDArray[np.float64]:
        """The pool, with the parameters as they stand now."""
        return np.array(self.pool.values, np.float64)

    def keep_values(self, old: "Program") -> None:
        """Give parameters the values that they have in an older program; a name stands for one number, however made."""
        named = old.named_parameters()
        for parameter, slot in self.pool.parameters.items():
            if parameter in old.pool.parameters:
                self.pool.values[slot] = old.pool.values[old.pool.parameters[parameter]]
            elif parameter.is_named and parameter.name in named:
                self.pool.values[slot] = named[parameter.name]

    def named_parameters(self) -> dict[str, float]:
        """Values of the parameters that the user has named."""
        return {p.name: self.pool.values[slot] for p, slot in self.pool.parameters.items() if p.is_named}

    def set_parameter(self, name: str, value: float) -> list[int]:
        """Rewrite a named parameter; the slots that have changed."""
        slots = [slot for p, slot in self.pool.parameters.items() if p.is_named and p.name == name]
        for slot in slots:
            self.pool.values[slot] = value
        return slots


@compiled()
def evaluate_clocks(program: Any, begin: int, end: int, values: Any, clocks: Any, outputs: Any, faults: Any) -> None:
    """Run one section for every clock; row i of the outputs and entry i of the faults belong to clock i."""
    stack = np.empty(STACK_SIZE)
    for i in range(len(clocks)):
        faults[i] = evaluate(program, begin, end, values, clocks[i], stack, outputs[i])


def run_section(program: Program, section: Section, clocks: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Any]:
    """The rows that one group's program puts out for some clocks, and the instruction at fault of each, or VALID."""
    outputs = np.full((len(clocks), ROW), np.nan)
    faults = np.full(len(clocks), VALID, np.int64)
    code, values = program.instructions(), program.values()
    evaluate_clocks(code, section.begin, section.end, values, clocks, outputs, faults)
    return outputs, faults


def advance(program: Program, section: Section, clock: npt.NDArray[Any]) -> None:
    """Tick one clock, as the last block of a step does."""
    outputs, faults = np.zeros((1, ROW)), np.zeros(1, np.int64)
    code, values = program.instructions(), program.values()
    evaluate_clocks(code, section.end, section.advance_end, values, clock, outputs, faults)
    clock["accumulators"][0, : len(section.accumulators)] = outputs[0, : len(section.accumulators)]
    clock["step"] += 1
    clock["updates"] += 1


def _counts(value: Any, name: str, least: int) -> npt.NDArray[Any]:
    """A whole number or an array of them, as an array that an int64 holds."""
    counts = np.asarray(value)
    if counts.dtype.kind not in "iuf" or not np.all(
        (counts >= least) & (counts < 2**63) & (counts == np.floor(counts))
    ):
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return counts


def sample(expression: Expr, step: Any, updates: Any = None) -> Any:
    """Evaluate an expression at one step or an array of steps (see `Expr.__call__`)."""
    steps = _counts(step, "a step", 0)
    program = Program()
    section = program.add([Output("sample", expression)])
    clocks = np.zeros(steps.size, CLOCK)
    clocks["lr_scale"] = 1.0
    clocks["step"] = steps.ravel()
    clocks["updates"] = clocks["step"] if updates is None else _counts(updates, "updates", 1).ravel() - 1
    if section.accumulators:
        _replay(program, section, clocks)
    outputs, _ = run_section(program, section, clocks)
    return outputs[:, 0].reshape(steps.shape) if steps.ndim else float(outputs[0, 0])


def _replay(program: Program, section: Section, clocks: npt.NDArray[Any]) -> None:
    """Give each clock the accumulators that it would hold after its updates: these depend on the whole past."""
    past = section.new_clock()
    order = np.argsort(clocks["updates"], kind="stable")
    for i in order:
        while past["updates"][0] < clocks["updates"][i]:
            advance(program, section, past)
        clocks["accumulators"][i] = past["accumulators"][0]

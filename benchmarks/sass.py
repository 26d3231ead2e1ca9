"""Machine code of a GPU as text: blocks, loops, and what the instructions of a loop are.

What nvdisasm prints is a list of instructions with labels. Of these come blocks and the edges between them, of the
edges the loops, and of a loop the way through it that lanes take together where nothing is out of the ordinary.
"""

import re
import struct
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
LABEL = re.compile(r"^([.$\w]+):")
TARGET = re.compile(r"`\(([^)]+)\)")
LEAVES = ("BRA", "EXIT", "RET", "BRX", "JMP", "JMX")
ASKS = ("BRA.DIV", "BRA.CONV", "BRA.U")  # whether the lanes go apart, are together, or a uniform predicate

# Class of an instruction: that of the longest of these with which its name begins.
CLASSES = {
    "global load": "LDG",
    "global store": "STG",
    "generic memory": "LD ST ATOM RED",
    "spill": "LDL STL",
    "shared memory": "LDS STS ATOMS",
    "constant memory": "LDC ULDC",
    "float": "FADD FMUL FFMA",
    "float compare": "FSETP FSEL FMNMX FSET FCHK",
    "half": "HADD HMUL HFMA HSETP HMNMX",
    "special function": "MUFU",
    "double": "DADD DMUL DFMA DSETP DMNMX",
    "conversion": "F2 I2 FRND",
    "64-bit conversion": "F2F.F64 F2F.F32.F64 I2F.F64 F2I.F64 F2I.U32.F64 F2I.S64.F64",
    "integer": (
        "IADD IMAD IMUL LOP SHF SHL SHR LEA ISETP SEL IMNMX PRMT IABS BMSK VIADD VIMNMX POPC FLO BREV SGXT PLOP P2R "
        "R2P UIADD ULOP USHF ULEA UISETP USEL UIMAD UPRMT UPLOP UVIADD UIMNMX UVIMNMX"
    ),
    "move": "MOV UMOV CS2 S2 R2UR IMAD.MOV HFMA2.MMA",
    "shuffle": "SHFL VOTE REDUX MATCH UREDUX",
    "control": "BRA BSSY BSYNC BMOV BREAK NOP WARPSYNC ENDCOLLECTIVE EXIT CALL RET YIELD BRX BAR NANOSLEEP JMP",
}
CLASS_OF = {prefix: name for name, prefixes in CLASSES.items() for prefix in prefixes.split()}


@dataclass(frozen=True)
class Instruction:
    """One line: the predicate that guards it or "", its name, and the rest."""

    guard: str
    name: str
    operands: str

    @property
    def kind(self) -> str:
        """Its class."""
        for end in range(len(self.name), 0, -1):
            if self.name[:end] in CLASS_OF:
                return CLASS_OF[self.name[:end]]
        raise ValueError(f"{self.name} is an instruction of no class; CLASSES lists those that are known")

    @property
    def target(self) -> str | None:
        """The label that it jumps to; some jumps are written as calls."""
        found = TARGET.search(self.operands)
        is_jump = self.name.startswith(("BRA", "JMP")) or (self.name.startswith("CALL") and ".L_" in self.operands)
        return found[1] if found and is_jump else None

    @property
    def calls(self) -> bool:
        """Whether it calls a function."""
        return self.name.startswith("CALL") and not self.target

    @property
    def leaves(self) -> bool:
        """Whether the instruction that follows is certainly not the next one."""
        is_conditional = self.guard or re.match(r"!?U?P\d", self.operands) or self.name.startswith(ASKS)
        return (self.name.startswith(LEAVES) or self.target is not None) and not is_conditional

    @property
    def width(self) -> int:
        """Bytes that a lane loads or stores."""
        sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "16": 2, "U8": 1, "S8": 1, "8": 1}
        return next((sizes[part] for part in self.name.split(".") if part in sizes), 4)


@dataclass
class Block:
    """Instructions without a way in or out between them, the blocks that may come next, and those that mostly do."""

    code: list[Instruction] = field(default_factory=list)
    after: set[int] = field(default_factory=set)
    usual: set[int] = field(default_factory=set)

    @property
    def is_rare(self) -> bool:
        """Whether it is the slow path of a division or a root, which is called, or of elements that may not exist."""
        return any(i.calls or (i.guard and i.name.startswith("LDG")) for i in self.code)


def find_nvdisasm() -> Path | None:
    """The disassembler that NVIDIA's package puts somewhere below site-packages."""
    found = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin/nvdisasm*"))
    return found[0] if found else None


def disassemble(cubin: bytes) -> str:
    """The text of a cubin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(find_nvdisasm()), "-c", "-ndf", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def blocks_of(text: str) -> list[Block]:
    """The blocks in their order, the first the one where the kernel begins."""
    blocks, labels = [Block()], {}
    for line in text.splitlines():
        if label := LABEL.match(line):
            if blocks[-1].code:
                blocks.append(Block())
            labels[label[1]] = len(blocks) - 1
        elif found := INSTRUCTION.match(line):
            blocks[-1].code.append(Instruction(found[1] or "", found[2], found[3]))
            if blocks[-1].code[-1].name.startswith(LEAVES) or blocks[-1].code[-1].target:
                blocks.append(Block())
    for number, block in enumerate(blocks):
        last = block.code[-1] if block.code else None
        below = set() if (last and last.leaves) or number + 1 == len(blocks) else {number + 1}
        jumps = {labels[last.target]} if last and last.target else set()
        block.after = below | jumps
        are_together = {"BRA.DIV": below, "BRA.CONV": jumps}
        block.usual = are_together.get(last.name, block.after) if last else block.after
    return blocks


def walk(start: int, after: Callable[[int], Iterable[int]]) -> set[int]:
    """All that can be come to from one block."""
    found, waiting = set(), [start]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += after(number)
    return found


def edges_before(blocks: list[Block], numbers: set[int]) -> dict[int, set[int]]:
    """Of each of these blocks, which of them it may come after."""
    return {number: {other for other in numbers if number in blocks[other].after} for number in numbers}


def dominators(blocks: list[Block]) -> dict[int, set[int]]:
    """Of each block that can be come to, those that every way to it goes through."""
    everything = walk(0, lambda number: blocks[number].after)
    before = edges_before(blocks, everything)
    found = {number: set(everything) for number in everything} | {0: {0}}
    changed = True
    while changed:
        changed = False
        for number in sorted(everything - {0}):
            new = set.intersection(*(found[other] for other in before[number])) | {number}
            changed |= new != found[number]
            found[number] = new
    return found


def loops_of(blocks: list[Block]) -> dict[int, set[int]]:
    """Natural loops: the block that each begins with, and all of its blocks."""
    above = dominators(blocks)
    before = edges_before(blocks, set(above))
    loops: dict[int, set[int]] = {}
    for end in above:
        for begin in blocks[end].after & above[end]:
            body = walk(end, lambda number, begin=begin: before[number] if number != begin else ())
            loops.setdefault(begin, {begin}).update(body)
    return loops


@dataclass(frozen=True)
class Loop:
    """A loop as it is mostly walked through."""

    code: list[Instruction]
    slow_paths: int  # calls that it may make besides
    nested: int  # loops on this way, whose instructions are counted once

    def bytes_of(self, kind: str) -> int:
        """Bytes that a lane loads or stores in one round."""
        return sum(instruction.width for instruction in self.code if instruction.kind == kind)

    def counts(self) -> Counter[str]:
        """Instructions by class; both sides of a branch are counted."""
        return Counter(instruction.kind for instruction in self.code)


def loops_over_granules(text: str) -> list[Loop]:
    """The innermost loops in which a lane loads 16 bytes at once, knowing that they are global or not."""
    blocks = blocks_of(text)
    loops = loops_of(blocks)
    wide = {begin: body for begin, body in loops.items() if loads_16_bytes(blocks, body)}
    innermost = {begin: body for begin, body in wide.items() if not any(other < body for other in wide.values())}
    return [usual_way(blocks, begin, body, loops) for begin, body in innermost.items()]


def usual_way(blocks: list[Block], begin: int, body: set[int], loops: dict[int, set[int]]) -> Loop:
    """The way through a loop that has no rare block in it."""
    usual = {number for number in body if not blocks[number].is_rare}
    passed = walk(begin, lambda number: blocks[number].usual & usual)
    code = [instruction for number in sorted(passed) for instruction in blocks[number].code]
    calls = [i for number in body for i in blocks[number].code if i.calls]
    inside = [
        other for other in loops.values() if other < body and other & usual <= passed and not waits(blocks, other)
    ]
    return Loop(code, len(calls), len(inside))


def waits(blocks: list[Block], body: set[int]) -> bool:
    """Whether a loop only waits for the other lanes, of which it finds all there."""
    return any(i.name == "YIELD" for number in body for i in blocks[number].code)


def loads_16_bytes(blocks: list[Block], body: set[int]) -> bool:
    return any(i.name.startswith(("LDG", "LD.")) and i.width == 16 for number in body for i in blocks[number].code)


def registers(text: str) -> int:
    """Registers of a thread, as the highest number among them says."""
    return 1 + max(int(register) for register in re.findall(r"\bR(\d+)\b", text))


def spills(text: str) -> int:
    """Loads and stores of registers for which there was no room, wherever they are."""
    return len(re.findall(r"\b(?:STL|LDL)\b", text))


def shared_bytes(cubin: bytes) -> int:
    """Shared memory of a block: the sizes of the sections of an ELF file whose names begin with .nv.shared."""
    at, (size, count, names) = struct.unpack_from("<Q", cubin, 40)[0], struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, at + size * i) for i in range(count)]
    name_of = {header[0]: cubin[headers[names][4] + header[0] :].split(b"\0", 1)[0] for header in headers}
    return sum(header[5] for header in headers if name_of[header[0]].startswith(b".nv.shared."))

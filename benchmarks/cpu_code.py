"""Instructions an element in the loops that Numba makes of a step, from their assembly; of x86 alone.

The loop over the elements of a run is compiled several times: with the widest vectors, with narrower ones for what
is left, and for one element at a time. Told is the widest; how many elements a round of it takes follows from the bytes
that it stores. Where `perf` may read the counters of the processor, there are the instructions that were executed, too.
"""

import platform
import re
import shutil
import subprocess
import sys
from typing import Any
from unittest.mock import patch

from gpuadam import sweeps
from gpuadam.formats import Specialisation, is_8_bit

LABEL = re.compile(r"^(\.?L\w+|\w+):")
WIDTHS = {"zmm": 64, "ymm": 32, "xmm": 16}
SCALARS = {"vmovss": 4, "vmovsd": 8, "vmovd": 4, "vmovq": 8, "movss": 4, "movsd": 8, "movd": 4, "movq": 8}
SCALARS |= {"movw": 2, "movb": 1, "movl": 4, "vpextrw": 2, "vpextrb": 1, "vextractps": 4}
STEPS = """
import sys, numba, numpy, gpuadam
numba.set_num_threads(1)
params, grads = numpy.ones({elements}, numpy.float32), numpy.ones({elements}, numpy.float32)
optimizer = gpuadam.AdamW([params])
optimizer.bind([grads])
for _ in range(int(sys.argv[1])):
    optimizer.step()
"""


def loops_of(assembly: str) -> list[list[str]]:
    """Innermost loops: what stands between a label and the jump back to it, with no label between them."""
    loops, label, body = [], "", list[str]()
    for line in map(str.strip, assembly.splitlines()):
        if found := LABEL.match(line):
            label, body = found[1], []
        elif line and not line.startswith((".", "#")):
            body.append(line)
            if re.match(rf"j\w+\s+{re.escape(label)}$", line):
                loops.append(body.copy())
    return loops


def stored_bytes(line: str) -> int:
    """Bytes that an instruction writes to memory."""
    name, _, operands = line.partition("\t")
    if not name.startswith(("vmov", "mov", "vpmov", "vextract", "vpextr")) or not operands.endswith(")"):
        return 0
    vector = re.search(r"%([xyz]mm)\d+", operands)
    narrowed = {"vpmovdw": 2, "vpmovdb": 4, "vpmovqd": 2}.get(name.split()[0], 1)
    return SCALARS.get(name) or (WIDTHS[vector[1]] // narrowed if vector else 0)


def widest_loop(assembly: str, stored_an_element: int) -> dict[str, Any] | None:
    """The loop over elements that takes most at once: what it stores is a multiple of what an element stores."""
    found = []
    for body in loops_of(assembly):
        stored = sum(map(stored_bytes, body))
        if stored >= stored_an_element and stored % stored_an_element == 0:
            elements = stored // stored_an_element
            registers = {name for line in body for name in WIDTHS if f"%{name}" in line}
            found.append((elements, len(body), max(registers, key=lambda name: WIDTHS[name], default="")))
    if not found:
        return None
    elements, count, register = max(found)
    return {
        "elements": elements,
        "vector": f"{8 * WIDTHS[register]} bits" if elements > 1 else "none",
        "instructions": count,
        "per_element": round(count / elements, 2),
    }


def assembly_of(kind: Specialisation) -> str:
    """The step as Numba compiles it, outside of the cache, whose code has no assembly to show."""
    with patch.object(sweeps, "kept", lambda make, function: make(cache=False)(function)):
        return sweeps.make_sweep.__wrapped__(kind)._library.get_asm_str()


def count_sweep(kind: Specialisation, stored_an_element: int) -> dict[str, Any] | None:
    """The main loop of a step; None where it is not found, or there are several, as with states of 8 bits."""
    if platform.machine() not in ("x86_64", "AMD64") or any(map(is_8_bit, kind.states)):
        return None
    return widest_loop(assembly_of(kind), stored_an_element)


def count_executed(elements: int = 1_000_000, steps: int = 100) -> float | None:
    """Instructions an element of AdamW in float32 that `perf stat` counts; None where it cannot."""
    if shutil.which("perf") is None:
        return None
    counts = []
    for number in (1, 1 + steps):  # what Python does before is in both
        command = ["perf", "stat", "-x,", "-e", "instructions:u", sys.executable, "-c", STEPS.format(elements=elements)]
        done = subprocess.run([*command, str(number)], capture_output=True, text=True, check=True)
        found = re.search(r"^(\d+),,instructions:u", done.stderr, re.MULTILINE)
        if found is None:
            return None
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / (steps * elements)

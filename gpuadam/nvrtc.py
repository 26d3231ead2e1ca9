"""CUDA sources -> machine code: NVRTC, one function for product and tests, and a cache on disk.

CuPy's own compile calls would force `-ftz=true`, and ask the driver; its low-level binding does neither, so the same
code compiles where there is no GPU.
"""

import functools
import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .formats import FORMATS, Specialisation, is_8_bit

BLOCK = 256  # threads of a block: eight warps, each on a chunk of its own
OPTIONS = ("--std=c++17", "-default-device", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")


class KernelCompileError(RuntimeError):
    """NVRTC refused a kernel, or is not to be had."""


def source_folder() -> Path:
    """Where the CUDA sources lie: in the package once installed, beside it in a checkout."""
    inside = Path(__file__).parent / "kernels"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "kernels"


@functools.cache
def sources() -> dict[str, str]:
    """The text of every kernel file by its name."""
    return {path.name: path.read_text() for path in sorted(source_folder().glob("*.cu*"))}


@dataclass(frozen=True)
class Kernel:
    """One kernel: its name, its file, and the names that this wants from the compiler's options."""

    name: str
    source: str
    macros: tuple[tuple[str, str], ...] = ()


REDUCE = Kernel("reduce", "reduce.cu")


def step_kernel(kind: Specialisation) -> Kernel:
    macros = {**kind.macros(), "RESIDENT": str(resident_blocks(kind))}
    return Kernel(kind.name, "step.cu", tuple(macros.items()))


def measure_kernel(kind: Specialisation) -> Kernel:
    """The norms of weights and updates, of which trust ratios come."""
    kind = kind.measured()
    macros = {**kind.macros(), "KERNEL": f"measure_{kind.name}", "RESIDENT": str(measure_blocks(kind))}
    return Kernel(macros["KERNEL"], "measure.cu", tuple(macros.items()))


def swap_kernel(kind: Specialisation) -> Kernel:
    """How weights show what is evaluated; it knows no rule."""
    verb, element = ("mix", "Mix") if kind.rule.mixing else ("swap", "Exchange")
    name = "_".join([verb, kind.param, *([f"master_{kind.companion}"] if kind.companion else [])])
    macros = {**kind.macros(), "KERNEL": name, "ELEMENT": element}
    return Kernel(name, "swap.cu", tuple((key, macros[key]) for key in ("KERNEL", "PARAM", "COMPANION", "ELEMENT")))


def forms_of(kind: Specialisation) -> list[str]:
    return [kind.param, kind.grad, *(form for form in kind.states if form)]


def granule_of(kind: Specialisation) -> int:
    """Elements that a lane takes at once, as granules.cuh has it; a master, which halves it, left out."""
    forms = forms_of(kind)
    return 8 if any(map(is_8_bit, forms)) else min(16 // FORMATS[form].storage.itemsize for form in forms)


def resident_blocks(kind: Specialisation) -> int:
    """Blocks that an SM is to hold at once, by what a thread must hold: it then has 64, 80, 128 or 255 registers."""
    forms, granule = forms_of(kind), granule_of(kind)
    arrays = len(forms) + bool(kind.companion) + kind.ema
    held_twice = kind.rule.mixing is not None  # z, which the weight moves by while it moves itself
    values = granule * arrays + len(kind.rule.row._fields) + held_twice  # type: ignore[attr-defined]
    if values > 68:
        return 1
    if kind.param == "float64" or granule == 8 or values + kind.draws > 34:
        return 2
    computes_more = kind.draws or "float16" in forms  # random bits and conversions have registers of their own
    return 4 if arrays <= 4 and values <= 26 and not computes_more else 3


def measure_blocks(kind: Specialisation) -> int:
    """The same of measuring, where a thread holds 16 sums in double, too."""
    takes_8 = any(map(is_8_bit, kind.states)) or (granule_of(kind) == 8 and kind.companion != "float32")
    return 1 if takes_8 and kind.companion else 2


def options(kernel: Kernel, architecture: int) -> tuple[str, ...]:
    """What NVRTC is told: no contraction and no flush to zero, so that every operation is the IEEE one."""
    macros = {**dict(kernel.macros), "BLOCK": BLOCK}
    return (f"-arch=sm_{architecture}", *OPTIONS, *(f"-D{name}={value}" for name, value in macros.items()))


def compile_kernel(kernel: Kernel, architecture: int) -> tuple[bytes, str]:
    """Compile one kernel for one architecture (90: sm_90), without a device.

    Returns:
        The cubin and the PTX.

    Raises:
        KernelCompileError: With options and log.
    """
    nvrtc = load_nvrtc()
    texts = sources()
    headers = [name for name in texts if name.endswith(".cuh")]
    given = options(kernel, architecture)
    program = nvrtc.createProgram(
        texts[kernel.source],
        kernel.source,
        [texts[name].encode() for name in headers],
        [name.encode() for name in headers],
    )
    try:
        nvrtc.compileProgram(program, given)
        # CuPy drops the last byte as if it ended a string; in an ELF file it is part of the last header, and is 0.
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getPTX(program).decode()
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise KernelCompileError(f"{source_folder() / kernel.source} with {' '.join(given)}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


@functools.cache
def load_nvrtc() -> Any:
    """CuPy's binding of NVRTC."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # CuPy raises what its platform's loader raises
        raise KernelCompileError(
            f"NVRTC is not to be had ({type(error).__name__}: {error}): "
            "pip install 'gpuadam[cuda13]' or 'gpuadam[cuda12]'"
        ) from error
    return nvrtc


def cache_folder() -> Path:
    """GPUADAM_CACHE_DIR, or gpuadam in the user's folder of caches."""
    named = os.environ.get("GPUADAM_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "gpuadam"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gpuadam"


def cubin_path(kernel: Kernel, architecture: int) -> Path:
    """The kernel as a file, compiled unless there is one of this very source, these options and this NVRTC."""
    digest = hashlib.sha256()
    for part in (*sources().items(), options(kernel, architecture), load_nvrtc().getVersion()):
        digest.update(repr(part).encode())
    path = cache_folder() / f"{kernel.name}-sm_{architecture}-{digest.hexdigest()[:32]}.cubin"
    try:
        if not path.exists():
            keep(path, compile_kernel(kernel, architecture)[0])
    except OSError as error:
        raise KernelCompileError(
            f"the compiled kernel cannot be kept as {path} ({error}): set GPUADAM_CACHE_DIR to a folder to write to"
        ) from error
    return path


def keep(path: Path, content: bytes) -> None:
    """Write a file so that nobody sees it unfinished, whoever else may be making the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        unfinished.write_bytes(content)
        os.replace(unfinished, path)

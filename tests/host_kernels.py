"""THE launch without a GPU: its CUDA source compiled by g++ against `host/cuda_host.hpp`.

    library = build(macros(rule="adam", states=("float", "float", "Absent")))
    run(library, launch, grid=2)  # launch: one record with the layout of Launch in tables.cuh

Libraries lie in a cache under a digest of everything they depend on, so they outlive the session; the folder is
GPUADAM_HOST_CACHE or one of the user's own among the temporary files.
"""

import ctypes
import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpuadam.nvrtc import Kernel

HOST = Path(__file__).parent / "host"
KERNELS = Path(__file__).parents[1] / "kernels"
COMPILER = shutil.which("g++")
THREADS = 64  # threads a block: two warps are the fewest that can be out of step
CONFLICT = 66  # exit status of a driver in which ThreadSanitizer found a race
UNEXPECTED = 2  # exit status of a driver whose outcome is not the expected one

Sanitize = Literal["address", "thread"] | None
Patch = Callable[[str, str], str]  # (file name, its text) -> its text with a fault planted

OPTIONS = (
    *("-std=c++20", "-O1", "-g1", "-pthread", "-Wall", "-Wextra"),
    "-Wno-unknown-pragmas",  # unroll
    "-ffp-contract=off",  # as NVRTC's --fmad=false
    "-fno-strict-aliasing",  # kernels read the fields of a rule as an array
)
LIBRARY = ("-shared", "-fPIC", "-fno-gnu-unique", "-Wl,-Bsymbolic")  # two copies must share nothing
SANITIZE: dict[Sanitize, tuple[str, ...]] = {
    None: ("-Werror",),  # alone: instrumented code draws false warnings from one g++ or another
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    "thread": ("-fsanitize=thread",),
}


def macros(
    rule: str = "adam",
    param: str = "float",
    grad: str = "float",
    states: Sequence[str] = ("float", "float", "Absent"),
    **recipe: str,
) -> dict[str, str]:
    """The options of step.cu for one specialisation; of the recipe those that are not the plain ones."""
    named = {f"STATE{i}": state for i, state in enumerate(states)}
    plain = {"COMPANION": "Absent", "EMA": "Absent", "STOCHASTIC": "0", "ZERO_GRADS": "0"}
    name = "_".join((rule, param, grad, *states, *itertools.chain(*recipe.items())))
    return {"KERNEL": name, "RULE": rule, "PARAM": param, "GRAD": grad, **named, **plain, **recipe}


def planted(file: str, old: str, new: str) -> Patch:
    """A patch that replaces the only `old` in a kernel file. It fails when the kernel no longer has that text."""

    def patch(name: str, text: str) -> str:
        if name == file and text.count(old) != 1:
            raise ValueError(f"{file} has {text.count(old)} times: {old}")
        return text.replace(old, new) if name == file else text

    return patch


def build(
    macros: Mapping[str, str],
    *,
    source: str = "step.cu",
    block: int = THREADS,
    sanitize: Sanitize = None,
    patch: Patch | None = None,
) -> Path:
    """Compile one kernel to a shared library, unless the cache has it.

    Args:
        macros: Options of its file (and HOST_TIMEOUT, in seconds).
        source: The file.
        block: Threads a block.
        sanitize: "address" (with undefined behaviour) or "thread". Such a library runs in a driver only (`drive`).
        patch: Called with each kernel file's name and text; what it returns is compiled. It must change something.

    Returns:
        Path of the library.
    """
    defines = [
        f"-D{name}={value}"
        for name, value in {"KERNEL": Path(source).stem, **macros, "BLOCK": str(block), "SOURCE": f'"{source}"'}.items()
    ]
    tolerant = ["-Wno-error"] if patch else []  # a planted fault leaves unused names behind
    return compile_text("entry.cpp", "lib.so", (*LIBRARY, *SANITIZE[sanitize], *tolerant, *defines), patch)


def build_many(cases: Iterable[Mapping[str, Any]]) -> list[Path]:
    """`build(**case)` of each case, two compilers at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda case: build(**case), cases))


def build_kernel(kernel: Kernel, **options: Any) -> Path:
    """`build` of what the product compiles."""
    return build(dict(kernel.macros), source=kernel.source, **options)


def run(library: Path, launch: np.ndarray | np.void | bytes, grid: int, block: int = THREADS) -> None:
    """Run all blocks of one launch, one after another, in this process.

    Whatever the addresses in `launch` point to must stay alive. A barrier that some thread never reaches ends the
    whole process, after HOST_TIMEOUT seconds.
    """
    record = launch if isinstance(launch, bytes) else launch.tobytes()
    loaded = _load(library)
    expected = ctypes.c_uint.in_dll(loaded, "launch_bytes").value
    if len(record) != expected:
        raise ValueError(f"launch has {len(record)} bytes, sizeof(Launch) is {expected}")
    loaded.run(record, grid, 0, grid, block)


def drive(
    library: Path, sanitize: Sanitize = None, *, source: str = "step.cu", copies: int = 1, timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run several launches of a library under the driver of its source, such as `host/step_driver.cpp`.

    A driver makes its own tables and checks the outcome.

    Args:
        library: What `build` returned for the same `source` and `sanitize`.
        source: As for `build`.
        sanitize: As for `build`.
        copies: 1: three blocks, one after another. 2: two blocks at the same time, each in a copy of the library.
        timeout: Seconds after which TimeoutExpired is raised.

    Returns:
        The ended process: status 0 is a clean run with the expected outcome; see CONFLICT, UNEXPECTED.
    """
    text = f"{Path(source).stem}_driver.cpp"
    driver = compile_text(text, "driver", (f"-DBLOCK={THREADS}", *SANITIZE[sanitize]), None)
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=0 redzone=1024",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"halt_on_error=1 exitcode={CONFLICT}",
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(shutil.copy(library, Path(folder) / f"copy{i}.so")) for i in range(copies)]
        command = [str(driver), *paths]
        start = functools.partial(subprocess.run, capture_output=True, text=True, timeout=timeout, env=environment)
        done = start(command)
        if "unexpected memory mapping" in done.stderr:  # ThreadSanitizer of g++ 12 on kernels with more randomness
            done = start(["setarch", "--addr-no-randomize", *command])
    return done


@functools.cache
def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    loaded.run.argtypes = [ctypes.c_char_p, *[ctypes.c_uint] * 4]
    loaded.run.restype = None
    return loaded


def compile_text(source: str, name: str, options: Sequence[str], patch: Patch | None) -> Path:
    """Path of the compiled file in the cache."""
    if COMPILER is None:
        raise FileNotFoundError("g++ is needed to run kernels on the host")
    texts = _texts(patch)
    parts = [_compiler_version(), *OPTIONS, *options, source, *itertools.chain(*texts.items())]
    target = _cache() / f"{_digest(parts)}-{name}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            output = Path(folder) / name
            _compile_texts(texts, Path(folder), [source, *options, "-o", str(output), "-ldl"])
            os.replace(output, target)  # another process may be making the same file: either one is whole
    return target


def _compile_texts(texts: Mapping[str, str], folder: Path, options: Sequence[str]) -> None:
    """Compile the very texts that were digested: the files may be edited meanwhile."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    if set(LIBRARY) <= set(options) and not any(option.startswith("-DHOST_") for option in options):
        (folder / "cuda_host.hpp.gch").symlink_to(_precompiled_header(texts, options))
    _run_compiler(folder, ["-include", "cuda_host.hpp", *options])


def _run_compiler(folder: Path, options: Sequence[str]) -> None:
    command = [str(COMPILER), *OPTIONS, f"-ffile-prefix-map={folder}=.", "-I.", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def _precompiled_header(texts: Mapping[str, str], options: Sequence[str]) -> Path:
    """Path of the stand-in of CUDA, compiled once for these options: to read it takes longer than a small kernel."""
    code = [option for option in options if option.startswith("-f")]
    parts = [_compiler_version(), *OPTIONS, *code, texts["cuda_host.hpp"]]
    target = _cache() / f"{_digest(parts)}-cuda_host.hpp.gch"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as name:
            folder = Path(name)
            (folder / "cuda_host.hpp").write_text(texts["cuda_host.hpp"])
            _run_compiler(folder, ["-w", *code, "-x", "c++-header", "cuda_host.hpp", "-o", "header.gch"])
            os.replace(folder / "header.gch", target)
    return target


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]


def _texts(patch: Patch | None) -> dict[str, str]:
    """Names and texts of the stand-in and of the kernels, with the fault planted."""
    kernels = {path.name: path.read_text() for path in sorted(KERNELS.glob("*.cu*"))}
    patched = {name: patch(name, text) for name, text in kernels.items()} if patch else kernels
    if patch and patched == kernels:
        raise ValueError("the patch changes no kernel file, so it plants no fault")
    return {**{path.name: path.read_text() for path in sorted(HOST.glob("*.?pp"))}, **patched}


@functools.cache
def _compiler_version() -> str:
    return subprocess.run([str(COMPILER), "--version"], capture_output=True, text=True, check=True).stdout


def _cache() -> Path:
    """The folder of compiled files; nobody else may write to it, since what lies there is run."""
    folder = os.environ.get("GPUADAM_HOST_CACHE")
    path = Path(folder) if folder else Path(tempfile.gettempdir()) / f"gpuadam-host-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder and path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else: set GPUADAM_HOST_CACHE")
    return path

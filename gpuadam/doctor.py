"""The doctor: what is installed, which backend there is, and whether a step is right. NumPy and Numba suffice."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from . import AdamW, __version__, cpu, nvrtc, schedules
from .adam_rules import ADAM
from .arrays import flushes_subnormals
from .cuda import unavailable_reason
from .formats import Specialisation

ELEMENTS = 100_000  # enough for every thread to take part
TOLERANCE = 4 * 2.0**-23  # of |parameter| + lr: eight roundings of float32
DEFAULT_ARCHITECTURE = 90  # what is compiled for where there is no device
ADAMW = Specialisation(ADAM, "float32", "float32", ("float32", "float32", None))

Row = tuple[str, str]


@dataclass
class Check:
    """One check, and how it went."""

    name: str
    passed: bool
    detail: str


def run() -> int:
    """Look, check and print. Returns 0, or 1 if a check failed."""
    print(f"gpuadam {__version__} doctor", flush=True)
    checks = run_checks()  # before versions: only then has Numba chosen its threading layer
    for title, rows in (
        ("versions", versions()),
        ("devices", devices()),
        ("kernels", kernels()),
        ("backend", backend()),
        ("checks", [(check.name, f"{'ok' if check.passed else 'FAILED'}: {check.detail}") for check in checks]),
    ):
        print(f"\n{title}")
        for name, text in rows:
            print(f"  {name:<18}{text}")
    failed = [check.name for check in checks if not check.passed]
    print(f"\nFAILED: {', '.join(failed)}" if failed else "\nall is well")
    return 1 if failed else 0


# ---- what there is


def versions() -> list[Row]:
    return [
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        ("Numba", f"{numba.__version__}, {numba.get_num_threads()} threads, {threading_layer()}"),
        *cuda_versions(),
    ]


def threading_layer() -> str:
    """Numba chooses one when the first parallel loop runs, which one of the checks has done."""
    try:
        return f"threading layer {numba.threading_layer()}"
    except ValueError:
        return "no threading layer in use"


def cuda_versions() -> list[Row]:
    try:
        import cupy
    except ImportError as error:
        return [("CuPy", f"none ({one_line(error)})")]
    runtime = cupy.cuda.runtime
    return [
        ("CuPy", cupy.__version__),
        ("CUDA driver", answer(lambda: cuda_version(runtime.driverGetVersion()))),
        ("CUDA runtime", answer(lambda: cuda_version(runtime.runtimeGetVersion()))),
        ("NVRTC", answer(lambda: ".".join(map(str, nvrtc.load_nvrtc().getVersion())))),
    ]


def cuda_version(number: int) -> str:
    """13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:  # CuPy raises what the platform's loader raises
        return f"none ({one_line(error)})"


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def devices() -> list[Row]:
    flushed = "FLUSHED to zero: CPU and GPU would differ in them" if flushes_subnormals() else "kept"
    rows = [("CPU", f"{platform.machine()}, {os.cpu_count()} cores; subnormal numbers are {flushed}")]
    if unavailable_reason():
        return [*rows, ("GPU", "none")]
    import cupy

    for number in range(cupy.cuda.runtime.getDeviceCount()):
        found = cupy.cuda.runtime.getDeviceProperties(number)
        memory = found["totalGlobalMem"] / 2**30
        rows.append((f"GPU {number}", f"{found['name'].decode()}, sm_{architecture(number)}, {memory:.1f} GiB"))
    return rows


def architecture(device: int) -> int:
    """90 for compute capability 9.0."""
    import cupy

    return int(cupy.cuda.Device(device).compute_capability)


def kernels() -> list[Row]:
    cache = nvrtc.cache_folder()
    return [
        ("CUDA sources", f"{nvrtc.source_folder()} ({len(nvrtc.sources())} files)"),
        ("CUDA cache", f"{cache} ({len(list(cache.glob('*.cubin')))} kernels)"),
        ("CPU cache", str(cpu.sweep_serial.stats.cache_path)),  # type: ignore[attr-defined]
    ]


def backend() -> list[Row]:
    reason = unavailable_reason()
    if reason:
        return [("auto", f"cpu: {one_line(reason)}")]
    return [("auto", "where the parameters lie: cuda for CuPy arrays, cpu for NumPy arrays")]


# ---- whether it is right


def run_checks() -> list[Check]:
    results: dict[str, Any] = {}
    checks = [check("AdamW on the CPU", lambda: check_step(np, results))]
    if not unavailable_reason():
        import cupy

        checks.append(check("AdamW on the GPU", lambda: check_step(cupy, results)))
    if len(results) == 2:
        checks.append(check("same bits on both", lambda: compare_bits(results)))
    if has_nvrtc():
        checks.append(check("NVRTC compiles", check_compiler))
    return checks


def check(name: str, ask: Callable[[], tuple[bool, str]]) -> Check:
    try:
        return Check(name, *ask())
    except Exception as error:  # whatever it is: the doctor reports it, and goes on
        return Check(name, False, one_line(f"{type(error).__name__}: {error}"))


def check_step(xp: ModuleType, results: dict[str, Any]) -> tuple[bool, str]:
    """One step under a schedule, in float32, against the formulas in float64."""
    rng = np.random.default_rng(0)
    params, grads = rng.standard_normal((2, ELEMENTS)).astype(np.float32)
    lr, weight_decay = 0.5, 0.1
    given = xp.asarray(params.copy())
    warmup = schedules.linear_warmup(lr, warmup_steps=4, first=1)
    AdamW([given], lr=warmup, weight_decay=weight_decay).step([xp.asarray(grads)])
    result = np.array(given.tolist(), np.float32)
    results[xp.__name__] = result
    expected = adamw_in_float64(params.astype(np.float64), grads.astype(np.float64), lr / 4, weight_decay)
    error = float(np.max(np.abs(result - expected) / (np.abs(expected) + lr / 4)))
    text = f"{ELEMENTS:,} elements within {error:.1e} of float64; allowed is {TOLERANCE:.1e} of |parameter| + lr"
    return error <= TOLERANCE, text


def adamw_in_float64(
    param: npt.NDArray[np.float64], grad: npt.NDArray[np.float64], lr: float, weight_decay: float
) -> npt.NDArray[np.float64]:
    """The first step of AdamW, as the paper has it (Loshchilov & Hutter 2019, Algorithm 2)."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    exp_avg = (1 - beta1) * grad / (1 - beta1)
    exp_avg_sq = (1 - beta2) * grad**2 / (1 - beta2)
    return param - lr * weight_decay * param - lr * exp_avg / (np.sqrt(exp_avg_sq) + eps)


def compare_bits(results: dict[str, Any]) -> tuple[bool, str]:
    here, there = results["numpy"], results["cupy"]
    different = int(np.count_nonzero(here.view(np.uint32) != there.view(np.uint32)))
    return not different, f"{different} of {ELEMENTS:,} elements differ"


def has_nvrtc() -> bool:
    """Whether NVRTC is there, or must be: a GPU is of no use without it."""
    try:
        nvrtc.load_nvrtc()
    except nvrtc.KernelCompileError:
        return unavailable_reason() is None
    return True


def check_compiler() -> tuple[bool, str]:
    target = DEFAULT_ARCHITECTURE if unavailable_reason() else architecture(0)
    cubin, _ = nvrtc.compile_kernel(nvrtc.step_kernel(ADAMW), target)
    return True, f"{ADAMW.name} for sm_{target}: {len(cubin):,} bytes"

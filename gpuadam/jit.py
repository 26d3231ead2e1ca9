"""How Python text becomes machine code: two decorators, one set of flags.

No fast-math and NumPy's error model, so that every operation is the IEEE one: this is the CPU's half of the bit-for-bit
promise (the other half are the NVRTC options in `nvrtc.py`).
"""

import functools
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, TypeVar

import numba
from numba import types
from numba.core import cgutils
from numba.core.serialize import dumps
from numba.extending import intrinsic, register_jitable

F = TypeVar("F", bound=Callable[..., Any])
COMPILED = (
    *("jit", "exact_math", "rounding", "codes", "program", "compiler", "rules", "adam_rules", "momentum_rules"),
    *("adam_variant_rules", "adaptive_rules", "sign_rules", "l1_rules", "layerwise_rules", "schedule_free_rules"),
    *("steps", "measures", "torch_layouts", "bandwidth"),
    *("formats", "tables", "access", "states", "sweeps", "reduction", "swaps", "cpu"),
)  # what holds text for Numba
OPTIONS = {"nogil": True, "error_model": "numpy"}


def inlined(function: F) -> F:
    """Let compiled code call a plain function; it is compiled into its caller."""
    return register_jitable(error_model="numpy")(named(function))  # type: ignore[no-any-return]


def named(function: F) -> F:
    """Name a closure after what it is bound to.

    Numba numbers its symbols by process: two closures of one function, compiled by two processes, may come back from
    the cache with one and the same symbol, and the first would be called for both. Names of their own keep them apart.
    """
    if function.__closure__:
        cells = tuple(cell.cell_contents for cell in function.__closure__)
        name = f"{function.__name__.strip('<>')}_{hashlib.sha256(dumps(cells)).hexdigest()[:16]}"
        function.__name__ = function.__qualname__ = name
    return function


@functools.cache
def source_digest() -> str:
    """A digest of all text that is compiled: part of the key under which machine code is kept on disk."""
    digest = hashlib.sha256()
    for name in COMPILED:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def keyed(function: F) -> F:
    """Bind the source digest to a function as a closure cell.

    Numba's cache looks at the file of the cached function alone, but closure cells are part of its key: with the digest
    among them, code compiled from an older rule or evaluator in another file can never be found again.
    """
    code = function.__code__.replace(co_freevars=(*function.__code__.co_freevars, "source_digest"))
    cells = (*(function.__closure__ or ()), CellType(source_digest()))
    bound = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, cells)
    return named(bound)  # type: ignore[return-value]


def kept(make: Callable[..., Any], function: F) -> Any:
    """Compile with `make`, and keep the result on disk if there is a folder for it."""
    try:
        return make(cache=True)(keyed(function))
    except RuntimeError:  # Numba found neither the package's folder nor the user's writable
        warn_that_nothing_is_kept()
        return make(cache=False)(keyed(function))


@functools.cache  # once is enough
def warn_that_nothing_is_kept() -> None:
    text = "no folder to keep compiled code in, so every process compiles anew: set NUMBA_CACHE_DIR to one"
    warnings.warn(text, stacklevel=2)


def compiled(**options: Any) -> Callable[[F], F]:
    """Compile a function on its first call, and keep the result on disk."""
    return lambda function: kept(functools.partial(numba.njit, **OPTIONS, **options), function)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing_context: Any, address: Any, dtype: Any) -> Any:
    """The address (int64) as a pointer to elements of `dtype`, for `numba.carray`."""
    element = getattr(dtype, "dtype", dtype)
    signature = types.CPointer(element)(address, dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address (int64), which need not be one of ours: it is never waited for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = cgutils.voidptr_t
        number = context.get_value_type(types.int32)
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(arguments[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate

"""The choice of a backend: where the parameters lie, there the steps run."""

from collections.abc import Sequence
from types import ModuleType

from . import cpu
from .arrays import Array, Device, flushes_subnormals


def choose_backend(backend: str, arrays: Sequence[Array]) -> ModuleType:
    """The module that runs the steps, by where the parameters lie."""
    if backend not in ("auto", "cpu", "cuda"):
        raise ValueError(f"backend is {backend!r}; allowed are 'auto', 'cpu', 'cuda'")
    devices = sorted({array.device for array in arrays})
    if len(devices) > 1:
        raise ValueError(
            f"the parameters lie on several devices, {devices}; an optimizer serves one: make one for each"
        )
    kind = devices[0][0] if devices else "cpu" if backend == "auto" else backend
    if backend not in ("auto", kind):
        raise ValueError(
            f"backend is {backend!r}, but the parameters lie on {devices[0]}; nothing is copied in silence"
        )
    return backend_at((kind, 0))


def backend_at(device: Device) -> ModuleType:
    """The module for arrays that lie there.

    Raises:
        RuntimeError: It is a GPU, and there is no CUDA here.
    """
    if device[0] == "cpu":
        return cpu
    from . import cuda

    cuda.require()
    return cuda


def require_subnormals(backend: ModuleType, allow_flush: bool) -> None:
    """Refuse to begin where subnormal numbers are flushed, unless the user goes on all the same."""
    if backend is cpu and flushes_subnormals() and not allow_flush:
        raise RuntimeError(
            "this thread flushes subnormal numbers to zero (torch.set_flush_denormal?), so results would differ "
            "from a GPU's; turn that off, or go on with allow_flush=True"
        )

"""What an optional library is called when it is not there."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around the imports of a framework's module: where one fails, the error names the extra that brings it.

    Raises:
        ModuleNotFoundError: The framework, or something beside it, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"gpuadam.{extra} needs {extra} ({error}): pip install 'gpuadam[{extra}]'", name=error.name
        ) from error

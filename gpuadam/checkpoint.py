"""One file for nested dicts and lists of arrays, numbers and text: written whole or not at all, verified when read.

The file is a safetensors file. Arrays are its tensors, named after their place; all else is canonical JSON in its
metadata, beside the format version and a SHA-256 over everything. The same content gives the same bytes. The library
reads and checks it; it is not asked to write, since it puts metadata in random order, and leaves a file of a new name
behind at each save that is killed.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

FORMAT_VERSION = "1"
FORMATS = {  # NumPy's names of them, and those of safetensors
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
ALIGNMENT = 8  # bytes: the data begin at a multiple of it, the widest elements first, so each tensor is aligned
HEADER_LIMIT = 100_000_000  # bytes that safetensors reads
PLAIN = " !\"&'()*+,:;<=>?@[\\]^`{|}"  # what a name keeps beside letters, digits and "_.-~"
TENSOR, FLOAT = "$tensor", "$float"  # keys of what JSON has not; `encode_key` never gives them

Arrays = dict[str, npt.NDArray[Any]]
Path = str | os.PathLike[str]


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or taken up; the message names the file and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"checkpoint {os.fspath(path)!r}: {reason}")


def write(path: Path, content: Any) -> None:
    """Write a file that holds the content; a file that was there stays untouched until the new one is complete.

    Args:
        path: Where; of a symbolic link the target is replaced, and the link stays.
        content: Dicts with keys of str or int, lists, str, int, float, bool, None and NumPy arrays of the dtypes of
            `FORMATS`, nested as you like.

    Raises:
        CheckpointError: The content holds something else, or the file cannot be written; then nothing is left behind.
    """
    _library()
    arrays: Arrays = {}
    try:
        text = _to_text(_to_json(content, "", arrays))
        header = _header(text, arrays)
        _replace(os.path.realpath(path), header, arrays)
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be written: {error}") from error


def read(path: Path) -> Any:
    """The content of a file, verified; its arrays are writable.

    Raises:
        CheckpointError: There is no such file, or it is not whole, not ours, or of a newer version.
    """
    if not os.path.isfile(path):
        raise CheckpointError(path, "it is not a file" if os.path.lexists(path) else "there is no such file")
    library = _library()
    with contextlib.suppress(ImportError):
        import ml_dtypes  # noqa: F401 (with it NumPy knows bfloat16)
    try:
        with library.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_version(path, metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except TypeError as error:
        raise CheckpointError(
            path, f"NumPy does not know one of its dtypes ({error}): pip install ml_dtypes"
        ) from error
    except (library.SafetensorError, OSError) as error:
        raise CheckpointError(path, f"it is damaged, or no checkpoint at all: {error}") from error
    if _digest(metadata["content"], arrays) != metadata["sha256"]:
        raise CheckpointError(path, "it is damaged: its content does not have the SHA-256 that stands in it")
    try:
        return _from_json(json.loads(metadata["content"]), arrays)
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"its content cannot be read: {error!r}") from error


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(f"checkpoints need safetensors ({error}): pip install 'gpuadam[files]'") from error
    return safetensors


def _check_version(path: Path, metadata: Mapping[str, str]) -> None:
    if not {"format_version", "sha256", "content"} <= set(metadata):
        raise CheckpointError(path, "it is a safetensors file, but not one that gpuadam wrote")
    if metadata["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            path, f"its format version is {metadata['format_version']!r}; this gpuadam reads {FORMAT_VERSION!r}"
        )


# ---- content as JSON and arrays


def encode_key(key: Any) -> str:
    """A key as a part of a tensor's name: "weight" as it is, 3 as "#3"; no two keys give the same."""
    if isinstance(key, int) and not isinstance(key, bool):
        return f"#{key}"
    if not isinstance(key, str):
        raise ValueError(f"{key!r} is a key of type {type(key).__name__}; allowed are str and int")
    reserved = "__metadata__"  # safetensors allows no tensor of this name
    return quote(key, safe=PLAIN, errors="surrogatepass").replace(reserved, "%5F" + reserved[1:])


def decode_key(text: str) -> str | int:
    """The key of which `encode_key` made this text."""
    return int(text[1:]) if text.startswith("#") else unquote(text, errors="surrogatepass")


def _to_json(value: Any, place: str, arrays: Arrays) -> Any:
    """A value as JSON has it; its arrays are put among the others, under the name of their place."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {FLOAT: repr(float(value))}
    if isinstance(value, np.ndarray) and value.dtype.name in FORMATS:
        arrays[place] = value
        return {TENSOR: place}
    inner = f"{place}/" if place else ""
    if isinstance(value, dict):
        keys = {encode_key(key): own for key, own in value.items()}
        return {key: _to_json(own, inner + key, arrays) for key, own in keys.items()}
    if isinstance(value, list):
        return [_to_json(own, f"{inner}#{i}", arrays) for i, own in enumerate(value)]
    what = f"a {type(value).__name__}"
    if isinstance(value, np.ndarray | np.generic):
        what = f"{'an array' if isinstance(value, np.ndarray) else 'a NumPy scalar'} of {value.dtype}"
    raise ValueError(
        f"{place or 'the content'} is {what}; allowed are dicts, lists, str, int, float, bool, None and arrays of "
        + ", ".join(FORMATS)
    )


def _from_json(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return [_from_json(own, arrays) for own in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return arrays[value[TENSOR]]
    if FLOAT in value:
        return float(value[FLOAT])
    return {decode_key(key): _from_json(own, arrays) for key, own in value.items()}


def _to_text(value: Any) -> str:
    """Canonical JSON: the same text for the same value; ASCII, and a float reads back as the same double."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# ---- the file


def _bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The elements in C order and native byte order, as bytes; only what lies otherwise is copied."""
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(native).reshape(-1).view(np.uint8)


def _digest(text: str, arrays: Arrays) -> str:
    """SHA-256 over the version, the JSON, and the name, dtype, shape and bytes of every tensor."""
    names = sorted(arrays)
    kinds = [[name, FORMATS.get(arrays[name].dtype.name), list(arrays[name].shape)] for name in names]
    found = hashlib.sha256(_to_text([FORMAT_VERSION, text, kinds]).encode())
    for name in names:
        found.update(_bytes(arrays[name]))
    return found.hexdigest()


def _in_order(arrays: Arrays) -> list[str]:
    """Names in the order in which the data lie in the file."""
    return sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))


def _header(text: str, arrays: Arrays) -> bytes:
    """What stands before the data: https://github.com/huggingface/safetensors#format."""
    metadata = {"content": text, "format_version": FORMAT_VERSION, "sha256": _digest(text, arrays)}
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in _in_order(arrays):
        array, begin = arrays[name], end
        end += array.nbytes
        entries[name] = {
            "dtype": FORMATS[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    listed = _to_text(entries).encode()
    if len(listed) > HEADER_LIMIT - ALIGNMENT:
        raise ValueError(
            f"its header, which holds all that is no array, would take {len(listed):,} bytes, and safetensors "
            f"reads {HEADER_LIMIT:,}"
        )
    padded = listed + b" " * (-len(listed) % ALIGNMENT)
    return len(padded).to_bytes(8, "little") + padded


def _replace(target: str, header: bytes, arrays: Arrays) -> None:
    """Put a new file in the place of the target, in one step that a crash can only leave undone."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.tmp")
    if os.path.isdir(target):
        raise IsADirectoryError("it is a folder")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left by a save that was killed
    file = open(temporary, "xb")  # noqa: SIM115 (closed by _fill)
    own = os.fstat(file.fileno())
    try:
        _fill(file, header, arrays)
        if not _is(temporary, own):
            raise FileExistsError("another save to it has begun")
        os.replace(temporary, target)
    except BaseException:
        if _is(temporary, own):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def _is(path: str, own: os.stat_result) -> bool:
    """Whether what lies there is the file of this save, not one of another process that writes to the same place."""
    try:
        return os.path.samestat(os.stat(path), own)
    except FileNotFoundError:
        return False


def _fill(file: BinaryIO, header: bytes, arrays: Arrays) -> None:
    with file:
        file.write(header)
        for name in _in_order(arrays):
            file.write(_bytes(arrays[name]))
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: str) -> None:
    """Let the new name survive a loss of power; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

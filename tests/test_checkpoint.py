"""One file for nested content: exact, deterministic, whole or absent, and refused when anything in it has changed."""

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bad_input import frozen
from bfloat16 import ml_dtypes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpuadam import checkpoint
from gpuadam.checkpoint import CheckpointError

safe_open = pytest.importorskip("safetensors", reason="safetensors is not installed").safe_open

ROOT = Path(__file__).parents[1]
BF16 = ml_dtypes.bfloat16
KINDS = [*"?bBhHiIqQefd", BF16]
ODD_KEYS = [
    "",
    "/",
    "a/b",
    "#1",
    "1",
    1,
    -1,
    10**30,
    "%2F",
    "__metadata__",
    "x__metadata__",
    "$tensor",
    "$float",
    "é\ud800",
]
CONTENT = {
    "state": {"weight": {"exp_avg": np.arange(6, dtype="f4").reshape(2, 3), "step": 3}, 0: {"exp_avg": np.ones(2)}},
    "half": np.arange(4).astype(BF16),
    "numbers": [1.5, float("inf"), float("nan"), None, True],
}  # fmt: skip


def written(folder, content, name="file"):
    checkpoint.write(folder / name, content)
    return (folder / name).read_bytes()


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- what comes back


def sorted_by_key(value):
    """The same content with its dicts in another order, in which no order of insertion is left."""
    if isinstance(value, dict):
        return {key: sorted_by_key(value[key]) for key in sorted(value, key=repr)}
    return [sorted_by_key(own) for own in value] if isinstance(value, list) else value


def reverse(value):
    if isinstance(value, dict):
        return {key: reverse(value[key]) for key in reversed(value)}
    return [reverse(own) for own in value] if isinstance(value, list) else value


keys = st.sampled_from(ODD_KEYS) | st.text(max_size=4) | st.integers()
arrays = st.sampled_from(KINDS[:-1]).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | arrays
contents = st.recursive(
    leaves, lambda own: st.lists(own, max_size=3) | st.dictionaries(keys, own, max_size=4), max_leaves=12
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(content=contents)
def test_what_is_written_comes_back(content, tmp_path):
    first = written(tmp_path, content)
    assert frozen(sorted_by_key(checkpoint.read(tmp_path / "file"))) == frozen(sorted_by_key(content))
    assert written(tmp_path, reverse(content), "other") == first, "the bytes depend on the order of the dicts"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: np.dtype(kind).name)
def test_every_dtype_comes_back(kind, tmp_path):
    values = np.array([0, 1, 1, 0, 1, 1]).reshape(2, 3).astype(kind)
    for array in (values, values.T, values[:, ::-1], values[:0], values[:1, :1].reshape(()), np.asfortranarray(values)):
        checkpoint.write(tmp_path / "file", {"x": array})
        found = checkpoint.read(tmp_path / "file")["x"]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable
        assert found.flags.aligned


def test_the_byte_order_of_another_machine_becomes_the_native_one(tmp_path):
    checkpoint.write(tmp_path / "file", [np.array([1, 2], ">i4")])
    (found,) = checkpoint.read(tmp_path / "file")
    assert found.dtype.isnative
    assert found.tolist() == [1, 2]


def test_odd_keys_do_not_collide(tmp_path):
    content = {key: {"x": np.array([i])} for i, key in enumerate(ODD_KEYS)}
    content |= {"a": {"b": {"x": np.array(-1)}}, "x": [np.array(-2)], "y": {0: np.array(-3), "0": np.array(-4)}}
    content["__metadata__"] = np.array(-5)
    checkpoint.write(tmp_path / "file", content)
    assert frozen(sorted_by_key(checkpoint.read(tmp_path / "file"))) == frozen(sorted_by_key(content))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(keys, keys)
def test_keys_have_names_of_their_own(a, b):
    names = [checkpoint.encode_key(key) for key in (a, b)]
    assert [checkpoint.decode_key(name) for name in names] == [a, b]
    assert (names[0] == names[1]) == (type(a) is type(b) and a == b)
    assert not any("/" in name or name.startswith("$") for name in names)


# ---- what others find in it


def test_the_file_is_one_of_safetensors(tmp_path):
    checkpoint.write(tmp_path / "file", CONTENT)
    with safe_open(tmp_path / "file", framework="np") as file:
        names, metadata = set(file.keys()), file.metadata()
        assert names == {"state/weight/exp_avg", "state/#0/exp_avg", "half"}
        assert file.get_slice("half").get_dtype() == "BF16"
        assert file.get_tensor("state/weight/exp_avg").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert metadata["format_version"] == "1"
    assert json.loads(metadata["content"])["numbers"] == [1.5, {"$float": "inf"}, {"$float": "nan"}, None, True]


def test_the_sha256_is_over_everything_that_matters(tmp_path):
    """Worked out anew, from the bytes of the file."""
    raw = written(tmp_path, CONTENT)
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    metadata = header.pop("__metadata__")
    tensors = sorted(header.items())
    kinds = [[name, own["dtype"], own["shape"]] for name, own in tensors]
    text = json.dumps(["1", metadata["content"], kinds], separators=(",", ":")).encode()
    body = b"".join(data[slice(*own["data_offsets"])] for _, own in tensors)
    assert metadata["sha256"] == hashlib.sha256(text + body).hexdigest()
    assert len(data) == sum(len(data[slice(*own["data_offsets"])]) for _, own in tensors)


# ---- what is refused


def patched(raw, **changes):
    """The file with other metadata."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"].update(changes)
    text = json.dumps({name: own for name, own in header.items() if own is not None}).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


WRONG = {
    "empty": (lambda raw: b"", "damaged, or no checkpoint"),
    "text": (lambda raw: b"a file of something else altogether", "damaged, or no checkpoint"),
    "npz": (lambda raw: b"PK\x03\x04" + raw, "damaged, or no checkpoint"),
    "length of the header": (lambda raw: b"\xff" * 8 + raw[8:], "damaged, or no checkpoint"),
    "longer": (lambda raw: raw + b"\0", "damaged, or no checkpoint"),
    "newer": (lambda raw: patched(raw, format_version="2"), "format version is '2'; this gpuadam reads '1'"),
    "other SHA-256": (lambda raw: patched(raw, sha256="0" * 64), "does not have the SHA-256"),
    "other content": (lambda raw: patched(raw, content="{}"), "does not have the SHA-256"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_ours_or_not_whole(name, tmp_path):
    change, text = WRONG[name]
    raw = written(tmp_path, CONTENT)
    assert frozen(checkpoint.read(tmp_path / "file"))
    (tmp_path / "file").write_bytes(change(raw))
    with pytest.raises(CheckpointError, match=text) as caught:
        checkpoint.read(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_safetensors_file_of_somebody_else(tmp_path):
    from safetensors.numpy import save_file

    for metadata in (None, {"format": "pt"}, {"format_version": "1"}):
        save_file({"x": np.ones(3)}, tmp_path / "file", metadata)
        with pytest.raises(CheckpointError, match="not one that gpuadam wrote"):
            checkpoint.read(tmp_path / "file")


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, text in (
        ("absent", "there is no such file"),
        (".", "not a file"),
        ("pipe", "not a file"),
        ("dangling", "not a file"),
    ):
        with pytest.raises(CheckpointError, match=text):
            checkpoint.read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": [1, {2}]}, "a/#1 is a set; allowed are dicts, lists"),
        ({"a": (1, 2)}, "a is a tuple"),
        ({"a": b"x"}, "a is a bytes"),
        ({"a": np.float32(1)}, "a is a NumPy scalar of float32"),
        ({(1, 2): 3}, r"\(1, 2\) is a key of type tuple; allowed are str and int"),
        ({True: 3}, "True is a key of type bool"),
        ({"a": np.array([None])}, "a is an array of object"),
        ({"a": np.ones(1, complex)}, "a is an array of complex128"),
        ({"a": np.array(["text"])}, "a is an array of <U4"),
        ({"a": np.array([(1, 2)], "i4,i4")}, "a is an array of"),
        (object(), "the content is a object"),
    ],
)  # fmt: skip
def test_content_that_cannot_be_stored(content, text, tmp_path):
    before = written(tmp_path, CONTENT)
    with pytest.raises(CheckpointError, match=text) as caught:
        checkpoint.write(tmp_path / "file", content)
    assert str(tmp_path / "file") in str(caught.value)
    assert (tmp_path / "file").read_bytes() == before
    assert listing(tmp_path) == ["file"]


def test_a_header_that_safetensors_would_not_read(tmp_path, monkeypatch):
    limit = checkpoint.HEADER_LIMIT
    for length, text in ((limit, "(?i)invalid ?header ?length"), (limit + 1, "(?i)header ?too ?large")):
        (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + b"{}" * 8)
        with pytest.raises(CheckpointError, match=text):
            checkpoint.read(tmp_path / "file")
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT", 1000)
    checkpoint.write(tmp_path / "file", "x" * 700)
    with pytest.raises(CheckpointError, match=r"would take 1,1\d\d bytes, and safetensors reads 1,000"):
        checkpoint.write(tmp_path / "file", "x" * 1000)
    assert checkpoint.read(tmp_path / "file") == "x" * 700


# ---- whole or not at all


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("x")
    (tmp_path / ".blocked.tmp").mkdir()
    for name in ("absent/file", "plain/file", "folder", "blocked", "x" * 300):
        with pytest.raises(CheckpointError, match="cannot be written") as caught:
            checkpoint.write(tmp_path / name, CONTENT)
        assert name in str(caught.value)
    assert listing(tmp_path) == [".blocked.tmp", "folder", "plain"]
    assert listing(tmp_path / "folder") == []
    with pytest.raises(CheckpointError, match="it is a folder"):
        checkpoint.write(tmp_path / "folder", CONTENT)
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.write("/proc/file", CONTENT)


NO_SPACE = """
import resource, signal, sys
import numpy as np
from gpuadam import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.write(sys.argv[1], {"x": np.zeros(1 << 16)})
except checkpoint.CheckpointError as error:
    print(error)
"""


def python(code, *arguments, **changes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_no_space(tmp_path):
    before = written(tmp_path, CONTENT)
    said, _ = python(NO_SPACE, tmp_path / "file").communicate(timeout=60)
    assert f"checkpoint '{tmp_path / 'file'}': it cannot be written: [Errno 27]" in said
    assert (tmp_path / "file").read_bytes() == before
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError("broken"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(call, error, tmp_path, monkeypatch):
    before = written(tmp_path, CONTENT)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else type(error)):
        checkpoint.write(tmp_path / "file", {"x": np.ones(100)})
    assert (tmp_path / "file").read_bytes() == before
    assert listing(tmp_path) == ["file"]


def test_the_data_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def note_replace(source, target):
        events.append((source, target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    checkpoint.write(tmp_path / "file", CONTENT)
    temporary = str(tmp_path / ".file.tmp")
    assert events == [temporary, (temporary, str(tmp_path / "file")), str(tmp_path)]


def test_what_a_killed_save_left_is_replaced(tmp_path):
    (tmp_path / ".file.tmp").write_bytes(b"left" * 10_000)
    written(tmp_path, CONTENT)
    assert listing(tmp_path) == ["file"]
    assert frozen(sorted_by_key(checkpoint.read(tmp_path / "file"))) == frozen(sorted_by_key(CONTENT))
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "precious")
    written(tmp_path, CONTENT)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_of_a_link_the_target_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder", {"old": 1})
    (tmp_path / "link").symlink_to("folder/file")
    checkpoint.write(tmp_path / "link", {"new": 2})
    assert (tmp_path / "link").is_symlink()
    assert checkpoint.read(tmp_path / "folder" / "file") == checkpoint.read(tmp_path / "link") == {"new": 2}
    monkeypatch.chdir(tmp_path)
    checkpoint.write("relative", {"here": 3})
    assert checkpoint.read(tmp_path / "relative") == {"here": 3}
    assert listing(tmp_path) == ["folder", "link", "relative"]


def test_two_saves_to_one_file_at_a_time(tmp_path, monkeypatch):
    """The later one wins, and the earlier one says so; what lies there is one of them, whole."""
    fill = checkpoint._fill

    def meanwhile(file, header, arrays):
        fill(file, header, arrays)
        monkeypatch.setattr(checkpoint, "_fill", fill)
        checkpoint.write(tmp_path / "file", {"later": np.zeros(1000)})
        (tmp_path / ".file.tmp").write_bytes(b"a third one that is under way")

    monkeypatch.setattr(checkpoint, "_fill", meanwhile)
    with pytest.raises(CheckpointError, match="another save to it has begun"):
        checkpoint.write(tmp_path / "file", {"earlier": np.zeros(10)})
    assert list(checkpoint.read(tmp_path / "file")) == ["later"]
    assert listing(tmp_path) == [".file.tmp", "file"], "the file of another save was taken away"


SAVING = """
import os, sys, time
import numpy as np
from gpuadam import checkpoint
in_bytes = checkpoint._bytes
number = int(sys.argv[2])
temporary = os.path.join(os.path.dirname(sys.argv[1]), ".file.tmp")
def slow(array):
    if os.path.exists(temporary):
        time.sleep(0.005)
    return in_bytes(array)
checkpoint._bytes = slow
while True:
    number += 1
    print(number, flush=True)
    checkpoint.write(sys.argv[1], {"number": number, "x": [np.full(20_000, number) for _ in range(6)]})
"""


def test_saves_that_are_killed(tmp_path):
    """Whenever it happens, the file is a whole one: of the last save that was begun, or of the one before."""
    checkpoint.write(tmp_path / "file", {"number": 0, "x": []})
    random = np.random.default_rng(0)
    last, halves = 0, 0
    for _ in range(40):
        with python(SAVING, tmp_path / "file", last) as process:
            first = process.stdout.readline()
            time.sleep(random.uniform(0.02, 0.12))
            process.send_signal(signal.SIGKILL)
            begun = int((first + process.stdout.read()).split()[-1])
        halves += (tmp_path / ".file.tmp").exists()
        assert set(listing(tmp_path)) <= {"file", ".file.tmp"}
        found = checkpoint.read(tmp_path / "file")
        last = found["number"]
        assert begun - 1 <= last <= begun
        assert all(np.all(array == last) for array in found["x"])
    assert halves >= 10, "few of the kills fell into the middle of a save"


# ---- memory, pickle, and what is not installed


def test_no_second_copy_is_made(tmp_path):
    content = {"x": [np.ones(1 << 20) for _ in range(8)]}
    size = 8 * (8 << 20)
    tracemalloc.start()
    checkpoint.write(tmp_path / "file", content)
    _, writing = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    found = checkpoint.read(tmp_path / "file")
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found["x"]) == 8
    assert writing < 0.05 * size
    assert reading < 1.3 * size


def test_nothing_is_pickled(tmp_path, monkeypatch):
    """No import, and nothing of what is imported already."""

    class Refusing:
        def find_spec(self, name, path=None, target=None):
            assert name.partition(".")[0] not in FORBIDDEN, f"{name} was imported"

    for name in FORBIDDEN & set(sys.modules):
        for attribute in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
            monkeypatch.setattr(sys.modules[name], attribute, None, raising=False)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    checkpoint.write(tmp_path / "file", CONTENT)
    assert checkpoint.read(tmp_path / "file")["state"]["weight"]["step"] == 3
    with pytest.raises(AssertionError, match="pickle was imported"):
        __import__("pickle")
    for module in ("checkpoint", "resume", "schedule_data"):
        tree = ast.parse((ROOT / "gpuadam" / f"{module}.py").read_text())
        assert not FORBIDDEN & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


FORBIDDEN = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "copyreg"}


def test_without_safetensors(tmp_path, monkeypatch):
    before = written(tmp_path, CONTENT)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: checkpoint.write(tmp_path / "file", {}), lambda: checkpoint.read(tmp_path / "file")):
        with pytest.raises(ImportError, match=r"pip install 'gpuadam\[files\]'"):
            call()
    assert (tmp_path / "file").read_bytes() == before


def test_bfloat16_without_ml_dtypes(tmp_path):
    written(tmp_path, CONTENT)
    code = """
import sys
sys.modules["ml_dtypes"] = None
from gpuadam import checkpoint
try:
    checkpoint.read(sys.argv[1])
except checkpoint.CheckpointError as error:
    print(error)
"""
    said, _ = python(code, tmp_path / "file").communicate(timeout=60)
    assert "bfloat16" in said
    assert "pip install ml_dtypes" in said

"""What a user gets: the wheel, the sdist, a folder where nothing can be written, and the tests without PyTorch."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOBODY = 65534
KERNELS = {path.name for path in (ROOT / "kernels").glob("*.cu*")}
MODULES = {path.name for path in (ROOT / "gpuadam").glob("*.py")}
STEP = """
import json, os, sys, warnings
if sys.argv[1] == "as nobody":
    os.setgroups([])
    os.setgid({nobody})
    os.setuid({nobody})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    import gpuadam
    from gpuadam import nvrtc
    param = np.ones(3, np.float32)
    gpuadam.Adam([param], lr=0.5).step([np.ones(3, np.float32)])
print(json.dumps({{
    "param": param.tolist(),
    "folder": os.path.dirname(gpuadam.__file__),
    "kernels": {{name: len(text) for name, text in nvrtc.sources().items()}},
    "warnings": [[type(found.message).__name__, str(found.message)] for found in caught],
}}))
""".format(nobody=NOBODY)


def run(command, cwd, limit=200, **changes):
    """A process of its own; variables whose value is None are not there."""
    environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def step_of(package, cwd, who="as myself", **changes):
    """What a process found that imported the package from a folder and did one step."""
    changes = {"NUMBA_CACHE_DIR": None, **changes, "PYTHONPATH": str(package)}
    found = json.loads(run(["-c", STEP, who], cwd, **changes).splitlines()[-1])
    assert found["folder"] == str(package / "gpuadam")
    assert found["param"] == pytest.approx([0.5] * 3)
    assert set(found["kernels"]) == KERNELS
    assert all(found["kernels"].values())
    return found


# ---- wheel and sdist


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what git tracks, or would if it were added, and nothing else."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so nobody can say what belongs to it")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    copy = tmp_path_factory.mktemp("tree")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # it may be deleted, yet still be in the index
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


def build(kind, tree, folder):
    """Let the build backend make a wheel or an sdist."""
    code = f"import sys, hatchling.build as backend; print(backend.build_{kind}(sys.argv[1]))"
    name = run(["-c", code, str(folder)], tree).splitlines()[-1]
    return folder / name


@pytest.fixture(scope="module", params=["tree -> wheel", "tree -> sdist -> wheel"])
def wheel(request, tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    if "sdist" in request.param:
        with tarfile.open(build("sdist", tree, folder)) as archive:
            archive.extractall(folder, filter="data")
        (tree,) = [path for path in folder.iterdir() if path.is_dir()]
        for name in ("tests/test_packaging.py", "README.md", "LICENSE", "pyproject.toml", "scripts/gpu_check"):
            assert (tree / name).is_file(), f"the sdist has no {name}"
    return build("wheel", tree, folder)


def test_the_wheel_holds_every_module_and_kernel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = {f"gpuadam/{name}" for name in MODULES}
    kernels = {f"gpuadam/kernels/{name}" for name in KERNELS}
    assert set(names) - {"gpuadam/py.typed"} == modules | kernels
    assert len(names) == len(set(names))


def test_a_step_of_the_unpacked_wheel(wheel, tmp_path):
    installed, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    found = step_of(installed, elsewhere)
    assert found["warnings"] == []
    assert found["kernels"] == {path.name: len(path.read_text()) for path in (ROOT / "kernels").glob("*.cu*")}


# ---- where nothing can be written


@pytest.fixture
def read_only(tmp_path):
    """A copy of the package, its parents open to everybody, that nobody may write to."""
    package = tmp_path / "read-only"
    shutil.copytree(ROOT / "gpuadam", package / "gpuadam", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "kernels", package / "kernels")
    for path in (*package.rglob("*"), package):
        path.chmod(0o555 if path.is_dir() else 0o444)
    parents = [parent for parent in package.parents if parent.is_relative_to(tmp_path.parents[2])]
    modes = {parent: parent.stat().st_mode for parent in parents}
    for parent, mode in modes.items():
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(mode | 0o011)
    yield package
    for parent, mode in modes.items():
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(mode)
    for path in (package, *package.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_step_where_nothing_can_be_written(read_only):
    """Nothing can be kept on disk: the step is compiled each time, and a warning says how to change that."""
    who = "as nobody" if os.geteuid() == 0 else "as myself"  # root may write anywhere
    changes = dict.fromkeys(("XDG_CACHE_HOME", "GPUADAM_CACHE_DIR", "TMPDIR"))
    found = step_of(read_only, "/", who, HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", **changes)
    ours = [text for kind, text in found["warnings"] if kind == "UserWarning" and "NUMBA_CACHE_DIR" in text]
    assert len(ours) == 1, found["warnings"]
    assert not [*read_only.rglob("*.nbi"), *read_only.rglob("__pycache__")]


# ---- the tests without what is optional


@pytest.mark.parametrize("names", [("torch",), ("torch", "cupy", "cupy_backends", "mpmath")], ids=" ".join)
def test_the_suite_is_collected_without(names, tmp_path):
    (tmp_path / "blocked.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")
    paths = os.pathsep.join(map(str, (tmp_path, ROOT)))
    options = ["-m", "pytest", "--collect-only", "-q", "-rs", "-o", "addopts=", "-p", "no:cacheprovider"]
    output = run([*options, "-p", "blocked", "tests"], ROOT, PYTHONPATH=paths)
    assert " tests collected" in output
    assert "tests/test_bad_input_arrays.py::" in output
    assert "tests/test_bad_input_torch.py: PyTorch is not installed" in output.replace("\\", "/")
    if "cupy" in names:
        for text in ("test_fake_cupy.py: CuPy", "test_nvrtc.py: CuPy", "test_exact_math.py: mpmath is not installed"):
            assert f"tests/{text}" in output

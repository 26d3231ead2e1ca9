"""What a user gets: the wheel, the sdist, a folder where nothing can be written, and the tests without PyTorch."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from optional import missing

ROOT = Path(__file__).parents[1]
KERNELS = {path.name for path in (ROOT / "kernels").glob("*.cu*")}
MODULES = {path.name for path in (ROOT / "gpuadam").glob("*.py")}
STEP = """
import json, os, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    import gpuadam
    from gpuadam import nvrtc
    param = np.ones(3, np.float32)
    gpuadam.Adam([param], lr=0.5).step([np.ones(3, np.float32)])
folder = os.path.dirname(gpuadam.__file__)
try:
    with open(os.path.join(folder, "written"), "w"):
        is_writable = True
except OSError:
    is_writable = False
print(json.dumps({
    "param": param.tolist(),
    "folder": folder,
    "is_writable": is_writable,
    "kernels": {name: len(text) for name, text in nvrtc.sources().items()},
    "warnings": [[type(found.message).__name__, str(found.message)] for found in caught],
}))
"""
# Root writes whatever the rights say, by a capability; without it, it is one user among others. Its uid must stay: the
# interpreter may lie in its home, which others cannot read.
AS_OTHERS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
if os.geteuid() == 0:
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run(command, cwd, limit=200, **changes):
    """A process of its own; variables whose value is None are not there."""
    environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def step_of(package, cwd, **changes):
    """What a process found that imported the package from a folder and did one step."""
    changes = {"NUMBA_CACHE_DIR": None, **changes, "PYTHONPATH": str(package)}
    found = json.loads(run(["-c", AS_OTHERS, "-c", STEP], cwd, **changes).splitlines()[-1])
    assert found["folder"] == str(package / "gpuadam")
    assert found["param"] == pytest.approx([0.5] * 3)
    assert set(found["kernels"]) == KERNELS
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
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python 3.11.2 lacks
            archive.extractall(folder)
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


def test_the_unpacked_wheel_is_found_by_thinc(wheel, tmp_path):
    pytest.importorskip("thinc", reason="thinc is not installed")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "from thinc.api import registry; print([registry.optimizers.get('gpuadam.AdamW.v1').__module__, "
        "registry.schedules.get('gpuadam.wsd.v1').__module__])"
    )
    assert (
        run(["-c", code], tmp_path, PYTHONPATH=str(installed)).strip() == "['gpuadam.thinc', 'gpuadam.stable_phases']"
    )


# ---- where nothing can be written


@pytest.fixture
def package(tmp_path):
    """A copy of the package, as in a checkout."""
    folder = tmp_path / "package"
    shutil.copytree(ROOT / "gpuadam", folder / "gpuadam", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "kernels", folder / "kernels")
    return folder


def check_step_without_cache(package, home):
    """Nothing can be kept on disk: the step is compiled each time, and warnings say how to change that."""
    changes = dict.fromkeys(("XDG_CACHE_HOME", "GPUADAM_CACHE_DIR"))
    found = step_of(package, package.parent, HOME=str(home), PYTHONDONTWRITEBYTECODE="1", **changes)
    ours = [text for kind, text in found["warnings"] if kind == "UserWarning" and "NUMBA_CACHE_DIR" in text]
    assert ours
    assert len(ours) == len(found["warnings"]), found["warnings"]
    assert not [*package.rglob("*.nbi"), *package.rglob("*.pyc")]
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_step_in_a_package_that_is_read_only(package):
    everything = [package, *package.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        found = check_step_without_cache(package, package / "home")
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    if found["is_writable"]:
        missing("root cannot lay down its right to write anywhere")


def test_a_step_where_files_are_in_the_way_of_folders(package):
    """Nobody can make a folder below a file, root included."""
    (package / "gpuadam" / "__pycache__").touch()
    (package / "home").touch()
    check_step_without_cache(package, package / "home")


# ---- the tests without what is optional


NO_TORCH = dict.fromkeys(
    ("test_bad_input_torch", "test_conversions_torch", "test_conversions_keras", "test_defects_of_peers_torch"),
    "PyTorch is not installed",
)
THINC = (
    "test_conversions_thinc", "test_cuda_thinc", "test_thinc", "test_thinc_config", "test_thinc_saving",
    "test_thinc_sweeps",
)  # fmt: skip
LEFT_OUT = {  # without these: the files that are skipped, and why
    ("torch",): NO_TORCH,
    ("torch", "cupy", "cupy_backends", "mpmath"): {
        **NO_TORCH,
        "test_fake_cupy": "CuPy is not installed",
        "test_nvrtc": "CuPy, which has the binding of NVRTC, is not installed",
        **dict.fromkeys(("test_exact_math", "test_decays", "test_warmups"), "mpmath is not installed"),
    },
    ("ml_dtypes", "safetensors", "cupy", "cupy_backends"): {  # CuPy stumbles over an ml_dtypes that is None
        "bfloat16": "ml_dtypes is not installed",  # which every test that needs it imports
    },
    ("jax", "optax", "keras", "transformers", "thinc", "spacy"): {
        "test_conversions_keras": "Keras is not installed",
        **dict.fromkeys(THINC, "thinc is not installed"),
        **dict.fromkeys(("test_cuda_jax", "test_jax", "test_jax_optax", "test_jax_state"), "JAX is not installed"),
        "test_thinc_spacy": "spaCy is not installed",
    },
    ("safetensors",): dict.fromkeys(("test_checkpoint", "test_thinc_saving"), "safetensors is not installed"),
}


@pytest.mark.parametrize("names", LEFT_OUT, ids=" ".join)
def test_the_suite_is_collected_without(names, tmp_path):
    (tmp_path / "blocked.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")
    paths = os.pathsep.join(map(str, (tmp_path, ROOT)))
    options = ["-m", "pytest", "--collect-only", "-q", "-rs", "-o", "addopts=", "-p", "no:cacheprovider"]
    output = run([*options, "-p", "blocked", "tests"], ROOT, PYTHONPATH=paths)
    assert " tests collected" in output
    assert "tests/test_bad_input_arrays.py::" in output
    skipped = dict(re.findall(r"^SKIPPED \[\d+\] tests.(\w+)\.py:\d+: (.*)", output, re.MULTILINE))
    assert skipped == {**skipped, **LEFT_OUT[names]}
    assert all(reason.endswith("is not installed") for reason in skipped.values())

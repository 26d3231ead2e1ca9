"""The examples: each command of their page runs, at a reduced size, and learns; the adapter gives PyDyNet's numbers."""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpuadam import schedules

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ROWS = re.findall(r"^\| `python (examples/\w+\.py)`(.*)\|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
REDUCED = {  # steps, the loss that they reach, and what must be there
    "digits.py": (100, 0.5, {"sklearn": "scikit-learn"}),
    "pydynet_mlp.py": (100, 0.5, {"sklearn": "scikit-learn", "pydynet": "PyDyNet"}),
    "char_transformer_torch.py": (30, 3.2, {"torch": "PyTorch"}),
    "char_transformer_jax.py": (30, 3.2, {"jax": "JAX"}),
}


def need(libraries):
    """Skip where one is missing. PyDyNet warns where CuPy is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cupy is not installed", UserWarning)
        for name, title in libraries.items():
            pytest.importorskip(name, reason=f"{title} is not installed")


def test_every_example_has_one_row_and_is_run():
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert sorted(Path(path).name for path, _ in ROWS) == scripts == sorted(REDUCED)
    assert all("?" not in rest for _, rest in ROWS), "a figure is still to be measured"


@pytest.mark.parametrize("path", [path for path, _ in ROWS], ids=lambda path: Path(path).stem)
def test_an_example_learns(path):
    steps, reached, libraries = REDUCED[Path(path).name]
    need(libraries)
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", path, "--steps", str(steps)],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", done.stdout)]
    assert len(losses) == 10
    assert losses[-1] < min(reached, 0.9 * losses[0])


# ---- PyDyNet


def adapter():
    """`GpuAdam` as it stands in the example."""
    need(REDUCED["pydynet_mlp.py"][2])
    spec = importlib.util.spec_from_file_location("pydynet_mlp", EXAMPLES / "pydynet_mlp.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GpuAdam


def pydynet_params(dtype):
    from pydynet import Tensor

    rng = np.random.default_rng(3)
    return [Tensor(rng.normal(size=shape), dtype, requires_grad=True) for shape in ((7, 5), (5,), (1, 33))]


def put(params, grads):
    """What `backward` leaves behind, after `zero_grad`."""
    for param, grad in zip(params, grads, strict=True):
        param.zero_grad()
        param.grad += grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("size", [1.0, 1e-6])  # of the gradients: at the smaller, it counts where eps is added
def test_the_adapter_gives_the_numbers_of_pydynet(dtype, tolerance, weight_decay, size):
    make = adapter()
    from pydynet.optim import Adam

    ours, theirs = pydynet_params(dtype), pydynet_params(dtype)
    settings = {"lr": 1e-2, "weight_decay": weight_decay}
    optimizer, peer = make(ours, **settings), Adam(theirs, **settings)
    rng = np.random.default_rng(4)
    for _ in range(50):
        grads = [(size * rng.normal(size=param.shape)).astype(dtype) for param in ours]
        for params, trainer in ((ours, optimizer), (theirs, peer)):
            put(params, grads)
            trainer.step()
    states = optimizer.adam.state_dict()["state"].values()
    for own, param, other, m, v in zip(states, ours, theirs, peer.m, peer.v, strict=True):
        for a, b in ((param.data, other.data), (own["exp_avg"], m), (own["exp_avg_sq"], v)):
            assert a.dtype == dtype
            assert np.max(np.abs(a - b) / (np.abs(b) + np.mean(np.abs(b)))) < tolerance


def test_a_schedule_in_the_launch_and_one_of_pydynet_give_the_same_numbers():
    make = adapter()
    from pydynet.optim.lr_scheduler import ExponentialLR

    inside, outside = pydynet_params(np.float64), pydynet_params(np.float64)
    step = schedules.step
    lr = 0.1 * 0.9 ** (step * (step + 1) / 2)  # PyDyNet multiplies the rate as it stands, so that exponents add up
    ours, theirs = make(inside, lr=lr), make(outside, lr=0.1)
    scheduler = ExponentialLR(theirs, gamma=0.9)
    rng = np.random.default_rng(5)
    for t in range(20):
        grads = [rng.normal(size=param.shape) for param in inside]
        put(inside, grads)
        put(outside, grads)
        assert [ours.lr, theirs.lr] == pytest.approx([0.1 * 0.9 ** (t * (t + 1) / 2)] * 2, rel=1e-12)
        ours.step()
        theirs.step()
        scheduler.step()
    for a, b in zip(inside, outside, strict=True):
        assert np.allclose(a.data, b.data, rtol=1e-12, atol=0)

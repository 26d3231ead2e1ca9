"""Sweeps of fixed gradients through optimizers of thinc, its own and ours."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

from gpuadam import cpu

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IS_9 = importlib.metadata.version("thinc").startswith("9.")


class Sweeper:
    """Parameters and gradients as thinc's ParamServer keeps them: gradients are added to what the optimizer left.

    Args:
        shapes: Of the parameters, whose keys are (0, "W"), (1, "W"), ...
    """

    def __init__(self, optimizer, shapes, seed=0):
        self.optimizer, self._random = optimizer, np.random.default_rng(seed)
        self.weights = {(i, "W"): self._normal(shape) for i, shape in enumerate(shapes)}
        self.gradients = {}

    def _normal(self, shape):
        return self._random.standard_normal(shape).astype(np.float32)

    def backprop(self, keys=None, scale=1.0):
        for key in self.weights if keys is None else keys:
            gradient = np.float32(scale) * self._normal(self.weights[key].shape)
            if key in self.gradients:
                self.gradients[key] += gradient
            else:
                self.gradients[key] = gradient

    def finish(self, keys=None, **options):
        """What Model.finish_update does."""
        for key in self.weights if keys is None else keys:
            given = self.weights[key], self.gradients[key]
            self.weights[key], self.gradients[key] = self.optimizer(key, *given, **options)

    def sweep(self, keys=None, scale=1.0, **options):
        self.backprop(keys, scale)
        self.finish(keys, **options)

    def step(self, keys=None, scale=1.0, **options):
        self.sweep(keys, scale, **options)
        self.optimizer.step_schedules()


def distance(a, b):
    """The largest difference of two dicts of arrays, relative to the largest element of each array, or to 1."""
    assert set(a) == set(b)
    return max((np.abs(a[k] - b[k]).max() / max(1.0, np.abs(b[k]).max()) for k in a), default=0.0)


def count_launches(monkeypatch):
    """A list that grows by one with each launch."""
    launches = []
    run = cpu.Tables.run
    monkeypatch.setattr(cpu.Tables, "run", lambda tables: (launches.append(1), run(tables))[1])
    return launches


def run_with_entry_points(folder, command, limit=100):
    """A Python process in a folder that finds the package of this tree as an installed one; what it prints."""
    about = folder / f"gpuadam-{os.getpid()}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gpuadam\nVersion: 0\n")
    groups = PROJECT["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in own.items()) for group, own in groups]
    (about / "entry_points.txt").write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, cwd=folder, env=environment, timeout=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout

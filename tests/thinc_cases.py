"""Sweeps of fixed gradients through optimizers of thinc, its own and ours."""

import importlib.metadata

import numpy as np

from gpuadam import cpu

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

"""The benchmarks, as far as it needs no quiet machine: they run, and what they measure is the work that they name."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SHAPES = [(40, 30), (7,), ()]


@pytest.fixture
def recipe(monkeypatch):
    """benchmarks/recipe.py as a module; `recipe.made` has the arrays that it makes: parameters, then gradients."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("recipe")
    made = []

    def random_arrays(shapes, seed):
        made.append([np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32) for shape in shapes])
        return made[-1]

    monkeypatch.setattr(module, "random_arrays", random_arrays)
    monkeypatch.setattr(module, "made", made, raising=False)
    yield module
    for name in ("recipe", "step", "measure"):
        sys.modules.pop(name, None)


def clipped_adamw(params, grads, steps, lr, threshold, decay, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8):
    """Parameters and averages of them after some steps, in float64."""
    params, averages = np.float64(params), np.float64(params)
    grads = np.float64(grads) * min(1.0, threshold / np.linalg.norm(grads))
    m = v = 0.0
    for k in range(1, steps + 1):
        m, v = betas[0] * m + (1 - betas[0]) * grads, betas[1] * v + (1 - betas[1]) * grads**2
        update = (m / (1 - betas[0] ** k)) / (np.sqrt(v / (1 - betas[1] ** k)) + eps)
        params = params - lr * weight_decay * params - lr * update
        averages = decay * averages + (1 - decay) * params
    return params, averages


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize("make", ["make_torch", "make_ours"])
def test_the_recipe_clips_updates_and_averages(recipe, make):
    """Gradients of other lengths in each step are clipped to the same ones, or the moments would differ."""
    if make == "make_torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    step = getattr(recipe, make)(SHAPES)
    params, grads = recipe.made
    refill = [grad.copy() for grad in grads]
    expected, averages = clipped_adamw(flat(params), flat(grads), 3, recipe.LR, recipe.CLIP_NORM, recipe.EMA_DECAY)
    for scale in (1.0, 20.0, 0.1):
        for grad, values in zip(grads, refill, strict=True):
            grad[...] = scale * values
        step()
    np.testing.assert_allclose(flat(params), expected, rtol=1e-5, atol=1e-6)
    if make == "make_torch":
        found = inspect.getclosurevars(step).nonlocals["averages"]
        np.testing.assert_allclose(flat([average.numpy() for average in found]), averages, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("only", ["torch", None], ids=str)
def test_the_recipe_runs_and_prints_its_table(only, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path, environment = tmp_path / "folder" / "recipe.json", {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "recipe.py")]
    options = ["--cases", "1000x1000", "--repeats", "3", "--seconds", "0", "--json", str(path)]
    options += ["--only", only] if only else []
    subprocess.run([*command, *options], env=environment, check=True, capture_output=True, timeout=120)
    (case,) = json.loads(path.read_text())["cases"]
    assert (case["tensors"], case["elements"]) == (1000, 1_000_000)
    assert list(case["seconds"]) == ([only] if only else ["gpuadam", "torch"])
    assert all(found["count"] == 3 and found["min"] > 0 for found in case["seconds"].values())
    printed = subprocess.run(
        [*command, "--markdown", str(path)], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    cells = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    assert cells[0][0] == "case"
    assert cells[2][0] == "1,000 tensors of 1,000"
    assert {len(row) for row in cells} == {2 if only else 4}


@pytest.mark.parametrize("case", ["still", "scheduled", "moving"])
@pytest.mark.parametrize("name", ["gpuadam", "flat", "fused", "foreach"])
def test_the_steps_whose_host_time_is_told_are_steps(name, case, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("torch_host_cost")
    made, backward_of = [], module.backward_of
    monkeypatch.setattr(module, "backward_of", lambda params: (made.extend(params), backward_of(params))[1])
    step = module.make(name, case, 3)
    before = [param.detach().clone() for param in made]
    for _ in range(2):
        step()
    assert len(made) == 3
    assert all(not torch.equal(param, old) for param, old in zip(made[1:], before[1:], strict=True))
    for used in ("torch_host_cost", "step", "measure"):
        sys.modules.pop(used, None)

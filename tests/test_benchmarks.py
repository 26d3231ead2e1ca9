"""Contenders of the benchmarks do the work that the benchmarks name: steps by the formula, in float64."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from bfloat16 import ml_dtypes  # noqa: F401 (a dtype's name)

from gpuadam.workloads import Workload

ROOT = Path(__file__).parents[1]
OWN = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
SHAPES = ((40, 30), (7,), (3, 5), (11,))
DECAY_STEPS = 4
SCALES = (1.0, 20.0, 0.1)  # of the gradients, step by step
LR = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}  # steps that the format can show
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 3e-3}


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
    """Modules of benchmarks/, for one test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield
    for name in OWN & set(sys.modules):
        del sys.modules[name]


def contender(name):
    """The class of that name, if what it needs is there."""
    registry = importlib.import_module("cpu_registry")
    found = registry.CONTENDERS[name]
    pytest.importorskip(found.package, reason=f"{found.package} is not installed")
    return found


def case_of(groups=1, name="few", **settings):
    cases = importlib.import_module("cpu_cases")
    return cases.Case(Workload(name, "few", SHAPES, groups), decay_steps=DECAY_STEPS, **settings)


def expected(case, params, sequence, rule):
    """Weights and averages of them after steps with these gradients, by the formulas; arrays in float64."""
    lr = LR[case.dtype]
    lrs = [lr] * len(SHAPES) if case.workload.groups == 1 else [lr, lr, 0.75 * lr, 0.75 * lr]
    params = [np.float64(param) for param in params]
    averages, m, v = ([*params], [0.0] * len(params), [0.0] * len(params))
    for k, grads in enumerate(sequence, 1):
        grads = clipped(case, [np.float64(grad) for grad in grads])
        decay = (1 + math.cos(math.pi * (k - 1) / DECAY_STEPS)) / 2 if case.does("schedule") else 1.0
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            params[i], m[i], v[i] = rule(p, g, m[i], v[i], k, decay * lrs[i])
        averages = [0.999 * a + (1 - 0.999) * p for a, p in zip(averages, params, strict=True)]
    return params, averages


def clipped(case, grads):
    if case.does("clip"):
        norm = math.sqrt(sum(float(np.sum(grad**2)) for grad in grads))
        return [grad * min(1.0, 1.0 / norm) for grad in grads]
    return [grad * min(1.0, 1.0 / np.linalg.norm(grad)) for grad in grads] if case.does("clip each") else grads


def adamw(p, g, m, v, k, lr):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    update = (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    return p - lr * 0.01 * p - lr * update, m, v


def adamw_of_thinc(p, g, m, v, k, lr):
    """eps is added to what is not corrected (Kingma & Ba, the end of section 2), and weights decay after the update."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    p = p - lr * math.sqrt(1 - 0.999**k) / (1 - 0.9**k) * m / (np.sqrt(v) + 1e-8)
    return p - lr * 0.01 * p, m, v


def rmsprop(p, g, m, v, k, lr):
    v = 0.99 * v + 0.01 * g**2
    return p - lr * g / (np.sqrt(v) + 1e-8), m, v


def sgd(p, g, m, v, k, lr):
    m = 0.9 * m + g
    return p - lr * m, m, v


RULES = {"adamw": adamw, "rmsprop": rmsprop, "sgd": sgd}
PARTS = [
    *({"rule": rule, "recipe": recipe} for rule in RULES for recipe in ("plain", "all")),
    *({"recipe": recipe} for recipe in ("schedule", "clip", "ema")),
    {"recipe": "spacy"},
    {"name": "spacy-small"},
    {"name": "spacy-small", "recipe": "spacy"},
    {"groups": 2},
    {"dtype": "bfloat16", "master": "float32", "recipe": "all"},
    {"dtype": "bfloat16", "master": "remainder"},
    {"dtype": "bfloat16"},
    {"dtype": "float16"},
]
NAMES = ("gpuadam", "torch-fused", "torch-foreach", "torch-loop", "bitsandbytes", "deepspeed", "optax", "thinc")


@pytest.mark.parametrize("settings", PARTS, ids=lambda found: "-".join(map(str, found.values())))
@pytest.mark.parametrize("name", [*NAMES, "gpuadam-thinc"])
def test_a_contender_does_what_the_case_says(name, settings, monkeypatch):
    """Gradients of other lengths in each step are clipped to the same ones, or the moments would differ."""
    kind, case = contender(name), case_of(**settings)
    if kind.refuses(case):
        pytest.skip(kind.refuses(case))
    monkeypatch.setitem(importlib.import_module("cpu_cases").HYPERPARAMETERS[case.rule], "lr", LR[case.dtype])
    made = kind(case)
    weights, grads = made.weights(), [np.array(grad) for grad in made.grads]
    sequence = [[(scale * grad).astype(grad.dtype) for grad in grads] for scale in SCALES]
    for own in sequence:
        made.feed(own)
        made.step()
    rule = adamw_of_thinc if name == "thinc" else RULES[case.rule]
    params, averages = expected(case, weights, sequence, rule)
    assert max(np.abs(p - w).max() for p, w in zip(params, weights, strict=True)) > LR[case.dtype] / 5
    assert_close(made.weights(), params, case.dtype)
    if case.does("ema"):
        assert_close(made.averages(), averages, case.dtype)


def assert_close(found, expected, dtype):
    """In float32 everywhere; states of 16 bits, as PyTorch's fused form has them, are off where they are small."""
    distances = np.concatenate([np.abs(a - b).ravel() for a, b in zip(found, expected, strict=True)])
    assert np.mean(distances <= TOLERANCE[dtype]) >= (1.0 if dtype == "float32" else 0.995)


@pytest.mark.parametrize("case", ["still", "scheduled", "moving"])
@pytest.mark.parametrize("name", ["gpuadam", "flat", "fused", "foreach"])
def test_the_steps_whose_host_time_is_told_are_steps(name, case, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    module = importlib.import_module("torch_host_cost")
    made, backward_of = [], module.backward_of
    monkeypatch.setattr(module, "backward_of", lambda params: (made.extend(params), backward_of(params))[1])
    step = module.make(name, case, 3)
    before = [param.detach().clone() for param in made]
    for _ in range(2):
        step()
    assert len(made) == 3
    assert all(not torch.equal(param, old) for param, old in zip(made[1:], before[1:], strict=True))

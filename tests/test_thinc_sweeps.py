"""Sweeps with one norm for all gradients are never split; what does not fit, or lies otherwise, harms none of them."""

import numpy as np
import pytest

pytest.importorskip("thinc.optimizers", reason="thinc is not installed")

from thinc_cases import IS_9, Sweeper, count_launches, distance

import gpuadam.thinc as ours

SHAPES = [(5, 4), (7,), (3, 2, 2), (16, 3)]


def with_one_norm():
    return ours.SGD(0.1, grad_clip=0.5, clip_scope="global", use_averages=False)


def test_one_norm_is_of_all_that_came_whatever_came_before(monkeypatch):
    """In the first sweep too, with keys that are new or rest, with other arrays and factors, in any order."""
    launches = count_launches(monkeypatch)
    sweeper = Sweeper(with_one_norm(), SHAPES)
    a, b, c, d = sweeper.weights
    for step, keys in enumerate([[a, b, c], [a, b, c], [a, d, b, c], [b, a], [c, d, a, b], [a, b, c, d]]):
        if step == 3:
            sweeper.weights[a] = sweeper.weights[a].copy()
        sweeper.backprop(keys)
        norm = np.sqrt(sum(np.square(sweeper.gradients[key], dtype=np.float64).sum() for key in keys))
        assert norm > 1
        factor = 0.5 if step == 4 else 1.0
        rates = dict.fromkeys(keys, 0.1 * 0.5 / norm * factor)
        expected = {
            key: sweeper.weights[key] - rates.get(key, 0.0) * sweeper.gradients.get(key, 0.0) for key in sweeper.weights
        }
        launches.clear()
        sweeper.finish(keys, lr_scale=factor)
        assert not launches
        sweeper.optimizer.step_schedules()
        assert len(launches) == 1
        assert distance(sweeper.weights, expected) <= 1e-6


def test_one_norm_needs_the_end_of_each_sweep():
    sweeper = Sweeper(with_one_norm(), SHAPES)
    sweeper.sweep()
    message = r"wait for its end, as clip_scope is 'global'; .*: call step_schedules\(\) after each sweep"
    with pytest.raises(RuntimeError, match=message):
        sweeper.finish()
    sweeper = Sweeper(ours.SGD(0.1, grad_clip=0.0, clip_scope="global"), SHAPES)
    sweeper.sweep()
    sweeper.sweep()  # no norm, and so as ever


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(5, np.float32), ValueError, r"gradient 'W of node 1' has shape \(5,\), its parameter has \(7,\)"),
        (np.ones(7), TypeError, r"gradient 'W of node 1' has dtype float64, its parameter has float32"),
        (np.ones((7, 2))[:, 0], TypeError, r"gradient 'W of node 1' has dtype float64"),
    ],
)
def test_a_gradient_that_is_refused_leaves_its_sweep_whole(bad, error, message):
    sweeper, other = (Sweeper(ours.Adam(), SHAPES) for _ in range(2))
    keys = list(sweeper.weights)
    for one in (sweeper, other):
        one.step()
        one.backprop()
    sweeper.finish(keys[:1])
    with pytest.raises(error, match=message):
        sweeper.optimizer(keys[1], sweeper.weights[keys[1]], bad)
    sweeper.finish(keys[1:])
    other.finish()
    for one in (sweeper, other):
        one.optimizer.step_schedules()
    assert distance(sweeper.weights, other.weights) == 0


def test_a_parameter_that_comes_to_lie_otherwise_than_its_gradient():
    sweeper, other = (Sweeper(ours.Adam(), SHAPES) for _ in range(2))
    for step in range(4):
        if step == 2:
            sweeper.weights = {key: np.asfortranarray(array) for key, array in sweeper.weights.items()}
        sweeper.step()
        other.step()
    assert distance(sweeper.weights, other.weights) == 0


def test_a_copied_gradient_keeps_its_precision():
    """Float16 first, as a layer under mixed precision gives, and then float32."""
    optimizers = [ours.SGD(0.1, grad_clip=0.0, use_averages=False) for _ in range(2)]
    key, found = (0, "W"), []
    for optimizer, order in zip(optimizers, "CF", strict=True):
        weights = np.ones((3, 4), np.float32)
        for dtype in (np.float16, np.float32, np.float32):
            optimizer(key, weights, np.full((3, 4), 1 / 3, dtype, order=order))
            optimizer.step_schedules()
        found.append(weights)
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("make", [lambda: ours.Adam(beta1=0.8, beta2=0.7), lambda: ours.SGD(0.1)])
def test_betas_under_the_names_that_thinc_gives_them(make):
    """`nlp.rehearse` of spaCy reads them."""
    optimizer = make()
    shown = [beta(0) if IS_9 else beta for beta in (optimizer.b1, optimizer.b2)]
    assert shown == [0.8, 0.7] if "Adam" in repr(optimizer._algorithm) else [0.0, 0.0]

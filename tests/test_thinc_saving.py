"""Optimizers for thinc, saved and restored: a run goes on to the same bits, or says why it cannot."""

import copy
import pickle

import numpy as np
import pytest

theirs = pytest.importorskip("thinc.optimizers", reason="thinc is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from thinc import schedules  # noqa: E402
from thinc_cases import IS_9, Sweeper  # noqa: E402

import gpuadam.thinc as ours  # noqa: E402
from gpuadam import CheckpointError  # noqa: E402

SHAPES = [(5, 4), (7,), (5, 4)]
MAKERS = {
    "Adam": lambda: ours.Adam(schedules.decaying(0.01, 0.1), L2=0.1),
    "generator": lambda: ours.AdamW(0.01 / (1 + step) for step in range(30)),
    "numerics of thinc": lambda: ours.Adam(numerics="thinc", L2=0.1),
    "accumulators": lambda: ours.NAdam(),
    "8 bits": lambda: ours.Lion(state_dtype="int8", int8_from=1),
    "no state": lambda: ours.SGD(0.1, use_averages=False),
    "one norm": lambda: ours.AdamW(0.01, grad_clip=0.1, clip_scope="global"),
}


def resumed(sweeper, optimizer, renumber=0):
    """The same parameters in arrays of their own, under other numbers, with another optimizer."""
    other = copy.copy(sweeper)
    other._random = copy.deepcopy(sweeper._random)
    other.weights, other.gradients = (
        {(number + renumber, name): array.copy() for (number, name), array in arrays.items()}
        for arrays in (sweeper.weights, sweeper.gradients)
    )
    other.optimizer = optimizer
    return other


def steps(sweeper, count):
    keys = list(sweeper.weights)
    for step in range(count):
        sweeper.step(keys if step % 3 else keys[:2] + keys[3:])
    return sweeper


def bits(sweeper):
    averages = sweeper.optimizer.averages or {}
    return [a.tobytes() for arrays in (sweeper.weights, averages) for _, a in sorted(arrays.items())]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("renumber", [0, 1, 100])
def test_a_run_goes_on_to_the_same_bits(name, renumber, tmp_path):
    """With nodes that have other numbers, which overlap with those of before, or do not."""
    make = MAKERS[name]
    run = steps(Sweeper(make(), SHAPES), 5)
    data = run.optimizer.to_bytes()
    run.optimizer.to_disk(tmp_path / "optimizer")
    assert (tmp_path / "optimizer").read_bytes() == data
    other = resumed(run, make().from_bytes(data), renumber)
    third = resumed(run, make().from_disk(tmp_path / "optimizer"), renumber)
    before = bits(run)
    for sweeper in (run, other, third):
        steps(sweeper, 7)
    assert bits(run) != before
    assert bits(other) == bits(third) == bits(run)
    assert other.optimizer.step == 12


def test_what_waits_is_applied_before_it_is_saved():
    run = steps(Sweeper(ours.Adam(), SHAPES), 2)
    other = resumed(run, ours.Adam().from_bytes(run.optimizer.to_bytes()))
    steps(other, 1)
    keys = list(run.weights)
    run.backprop(keys)
    run.finish(keys[:2])  # the third waits no more: the sweep is over
    before = run.weights[keys[0]].copy()
    run.optimizer.to_bytes()
    assert (run.weights[keys[0]] != before).all()


def test_a_sweep_in_another_order_than_the_first():
    """What is saved is in the order of the last sweep, which is that of the next."""
    run = steps(Sweeper(ours.Adam(), [(5, 4), (7,), (2, 2)]), 2)
    order = [(2, "W"), (0, "W"), (1, "W")]
    run.step(order)
    run.step(order)
    other = resumed(run, ours.Adam().from_bytes(run.optimizer.to_bytes()), 50)
    run.step(order)
    other.step([(number + 50, name) for number, name in order])
    assert bits(other) == bits(run)


def test_a_parameter_that_rests_at_first_after_loading():
    run = steps(Sweeper(ours.Adam(), [(5, 4), (7,), (2, 2)]), 3)
    other = resumed(run, ours.Adam().from_bytes(run.optimizer.to_bytes()))
    for sweeper in (run, other):
        sweeper.step([(0, "W"), (2, "W")])
        sweeper.step()
    assert bits(other) == bits(run)


def test_what_was_loaded_may_be_saved_again_at_once():
    run = steps(Sweeper(ours.Adam(), SHAPES), 3)
    again = ours.Adam().from_bytes(run.optimizer.to_bytes()).to_bytes()
    other = resumed(run, ours.Adam().from_bytes(again))
    assert bits(steps(other, 3)) == bits(steps(run, 3))


@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_pickle_and_copy(way):
    run = steps(Sweeper(ours.AdamW(schedules.warmup_linear(0.01, 3, 30) if IS_9 else 0.01), SHAPES), 5)
    made = pickle.loads(pickle.dumps(run.optimizer)) if way == "pickle" else copy.deepcopy(run.optimizer)
    other = resumed(run, made)
    assert bits(steps(other, 5)) == bits(steps(run, 5))


@pytest.mark.parametrize("rate", [0.5, schedules.decaying(0.5, 0.1)])
def test_a_rate_that_was_set_is_copied(rate):
    run = steps(Sweeper(ours.AdamW(rate), SHAPES), 2)
    run.optimizer.learn_rate = 0.01
    other = resumed(run, copy.deepcopy(run.optimizer))
    assert bits(steps(other, 3)) == bits(steps(run, 3))


def test_a_generator_cannot_be_pickled():
    with pytest.raises(TypeError, match="generator"):
        pickle.dumps(ours.Adam(0.1 for _ in range(9)))


@pytest.mark.skipif(not IS_9, reason="a schedule that follows a score, which thinc 9 has, is not installed")
def test_plateau_remembers_its_scores():
    def make():
        return ours.Adam(schedules.constant_then(0.02, 2, schedules.plateau(2, 0.5, schedules.constant(0.01))))

    def go(sweeper, begin, end):
        for step in range(begin, end):
            sweeper.optimizer.last_score = min(step, 4)
            sweeper.step()
        return sweeper

    run = go(Sweeper(make(), SHAPES), 0, 6)
    other = resumed(run, make().from_bytes(run.optimizer.to_bytes()))
    assert bits(go(other, 6, 14)) == bits(go(run, 6, 14))


def test_parameters_in_another_order_are_refused():
    run = steps(Sweeper(ours.Adam(), SHAPES), 3)
    data = run.optimizer.to_bytes()
    message = r"goes on with W of node 0, of shape \(5, 4\), but W of node 11 of shape \(7,\) comes"
    other = resumed(run, ours.Adam().from_bytes(data), 10)
    other.backprop()
    with pytest.raises(ValueError, match=message):
        other.finish([(11, "W")])
    optimizer = ours.Adam().from_bytes(data)
    optimizer((10, "W"), np.ones((5, 4), np.float32), np.ones((5, 4), np.float32))
    with pytest.raises(ValueError, match="goes on with W of node 1, of shape"):
        optimizer((10, "b"), np.ones(7, np.float32), np.ones(7, np.float32))


def test_one_node_does_not_become_two():
    """Names and shapes agree, but what was one node is two now."""
    optimizer = ours.Adam()
    arrays = {key: np.ones(3, np.float32) for key in [(4, "W"), (4, "b"), (5, "W"), (5, "b")]}
    for key, array in arrays.items():
        optimizer(key, array, np.ones(3, np.float32))
    optimizer.step_schedules()
    other = ours.Adam().from_bytes(optimizer.to_bytes())
    other((7, "W"), arrays[4, "W"], np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"goes on with b of node 4, .* but b of node 8"):
        other((8, "b"), arrays[5, "b"], np.ones(3, np.float32))


def test_what_cannot_be_taken_up_changes_nothing(tmp_path):
    run = steps(Sweeper(ours.Adam(0.1 for _ in range(90)), SHAPES), 3)
    data = run.optimizer.to_bytes()
    refused = [
        (ours.AdamW(), data[:-1], "it is damaged"),
        (ours.AdamW(), b"", "it is damaged"),
        (ours.Lion(), data, r"its rule is 'adam', that of this optimizer is 'lion'"),
        (ours.Adam(use_averages=False), data, r"its settings is .*'use_averages': True.*'use_averages': False"),
        (ours.Adam(numerics="thinc"), data, r"'numerics': 'thinc'"),
    ]
    for optimizer, given, message in refused:
        with pytest.raises(CheckpointError, match=message):
            optimizer.from_bytes(given)
        assert optimizer.step == 0
    steps(run, 2)
    before = bits(run)
    with pytest.raises(CheckpointError, match="learn_rate is a generator at step 5, and cannot go back to step 3"):
        run.optimizer.from_bytes(data)
    assert bits(run) == before
    assert run.optimizer.step == 5

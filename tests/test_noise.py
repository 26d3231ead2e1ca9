"""Random numbers in schedules: known answers, moments, distributions, independence, the same bits in CUDA's text."""

import itertools
import math
import statistics
from typing import Any

import host_evaluator
import host_kernels
import numba
import numpy as np
import pytest
from cases import assert_same_bits

from gpuadam import rounding, schedules
from gpuadam.schedule_data import from_data, to_data
from gpuadam.schedules import normal, step, uniform

COUNT = 200_000
SPLITMIX64 = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
GOLDEN = 0x9E3779B97F4A7C15


def normal_cdf(x: Any) -> Any:
    return np.vectorize(statistics.NormalDist().cdf)(x)


def distance(sample: Any, cdf: Any) -> float:
    """Kolmogorov and Smirnov's: in units in which 2.5 is passed once in 130,000 samples."""
    place = np.sort(cdf(sample))
    count = len(place)
    above, below = np.arange(1, count + 1) / count - place, place - np.arange(count) / count
    return float(max(above.max(), below.max()) * math.sqrt(count))


def test_the_hash_gives_the_published_numbers_of_splitmix64() -> None:
    """Outputs for seed 1234567, as on rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64; each is `mixed` of a state
    that grows by the golden ratio, which is what a key absorbs into 0."""
    absorbed = numba.vectorize(["uint64(uint64, uint64)"])(lambda key, word: rounding.absorbed(key, word))
    states = [(1234567 + i * GOLDEN) % 2**64 for i in range(5)]
    assert absorbed(np.zeros(5, np.uint64), np.array(states, np.uint64)).tolist() == SPLITMIX64


def test_uniform_is_uniform() -> None:
    found = uniform(3, step)(np.arange(COUNT))
    assert 0 <= found.min() < 1e-4
    assert 1 - 1e-4 < found.max() < 1
    assert distance(found, lambda x: x) < 2.5
    assert (found * 2**53 % 1 == 0).all(), "multiples of 2^-53"
    bits = np.unpackbits((found * 2**53).astype(np.uint64).view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    assert np.abs(bits[:, :53].mean(axis=0) - 0.5).max() < 5 / 2 / math.sqrt(COUNT)


@pytest.mark.parametrize("seed", [0, 7, -1.5, 2**53, 1e300])
def test_normal_is_normal(seed: float) -> None:
    found = normal(seed, step)(np.arange(COUNT))
    root = 5 / math.sqrt(COUNT)  # five standard errors, times the standard deviation of what is averaged
    assert abs(found.mean()) < root
    assert abs((found**2).mean() - 1) < root * math.sqrt(2)
    assert abs((found**3).mean()) < root * math.sqrt(15)
    assert abs((found**4).mean() - 3) < root * math.sqrt(96)
    assert distance(found, normal_cdf) < 2.5
    beyond = (np.abs(found) > 3).sum()
    expected = COUNT * math.erfc(3 / math.sqrt(2))
    assert abs(beyond - expected) < 5 * math.sqrt(expected)
    assert 4 < np.abs(found).max() < 8.6


def test_the_test_of_normality_sees_one_that_is_not_quite() -> None:
    found = normal(0, step)(np.arange(COUNT))
    assert distance(found * 1.05, normal_cdf) > 2.5
    assert distance(found + 0.02, normal_cdf) > 2.5
    assert distance(np.round(found, 1), normal_cdf) > 2.5


def test_neighbours_are_independent() -> None:
    """In time, and under neighbouring seeds."""
    steps = np.arange(COUNT)
    here = normal(5, step)(steps)
    others = [normal(5, step)(steps + lag) for lag in (1, 2, 3, 1024)] + [normal(seed, step)(steps) for seed in (4, 6)]
    for other, power in itertools.product(others, (1, 2)):
        assert abs(np.corrcoef(here**power, other**power)[0, 1]) < 5 / math.sqrt(COUNT)
    assert np.corrcoef(here, here)[0, 1] > 0.99


def test_one_number_for_one_seed_and_index() -> None:
    many = [normal(seed, index)(0) for seed in (0, 1, 0.5, -1) for index in (0, 1, 0.5, -1, 2**52)]
    assert len(set(many)) == len(many)
    assert normal(3, 4)(9) == normal(3, step)(4) == normal(3, step)([4, 5])[0]
    assert normal(0.0, -0.0)(0) == normal(-0.0, 0.0)(0) == normal(0, 0)(0)
    assert normal(1, schedules.floor(step / 10))([0, 9]).tolist() == [normal(1, 0)(0)] * 2
    assert math.isnan(normal(1, step / 0 * 0)(1))
    assert math.isnan(uniform(math.nan, 1)(1))


def test_what_is_no_number_is_refused() -> None:
    for bad in ("1", None, True):
        with pytest.raises(TypeError, match="operand must be a number, got"):
            normal(bad, step)
        with pytest.raises(TypeError, match="operand must be a number, got"):
            normal(1, bad)


def test_noise_survives_a_round_trip_as_data() -> None:
    schedule = 0.1 * (1 + 0.01 * normal(7, step) + uniform(8, step))
    data = to_data(schedule)
    assert ["UNIFORM", 0] in data["code"]
    again = from_data(data, {})
    assert again(np.arange(99)).tolist() == schedule(np.arange(99)).tolist()


@pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")
def test_the_same_bits_in_the_text_of_cuda() -> None:
    steps = np.concatenate([np.arange(COUNT), 2**31 + np.arange(10), 2**40 + np.arange(10)])
    for schedule in (uniform(7, step), normal(-1.5, step), normal(step, 1e300 * step)):
        assert_same_bits(schedule(steps), host_evaluator.sample(schedule, steps))
    assert np.isnan(host_evaluator.sample(uniform(step / 0 * 0, 1), np.array([1]))).all()

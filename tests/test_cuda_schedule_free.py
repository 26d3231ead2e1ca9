"""Schedule-free optimizers on the stand-in for CuPy: a change of mode is one launch, and no part of a graph."""

import fake_cupy
import numpy as np
import pytest
from cases import LR, assert_same_bits
from fake_device import machine
from fake_twins import (
    NEEDS_COMPILER,
    Twins,
    arrays,
    numbers,
    stand_in,  # noqa: F401 (a fixture)
)

from gpuadam import AdamWScheduleFree, SGDScheduleFree
from gpuadam.tables import LAUNCH

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("stand_in")]


def two_groups(params):
    return [{"params": params[:3], "betas": (0.8, 0.99)}, {"params": params[3:], "lr": 0.02}]


def shown(twins):
    for i, (param, mirror) in enumerate(zip(twins.params, twins.mirrors, strict=True)):
        assert_same_bits(param, mirror.get(), f"x of {i}")


def launches(action):
    """What an action launches."""
    before = len(machine.launches)
    action()
    return machine.launches[before:]


@pytest.mark.parametrize("dtypes", [(np.float32,), (np.float32, np.float64)], ids=["one format", "two"])
def test_a_change_of_mode_is_one_launch_for_each_set_of_formats(dtypes):
    twins = Twins(AdamWScheduleFree, arrays(0, dtypes), two_groups, lr=LR)
    for k in range(3):
        twins.step([None if i == 4 and k == 0 else grad for i, grad in enumerate(arrays(10 + k, dtypes))])
        before = [param.copy() for param in twins.params]
        twins.host.eval()
        made = launches(twins.device.eval)
        assert [launch.name for launch in made] == [f"mix_{np.dtype(dtype).name}" for dtype in dtypes]
        assert [np.frombuffer(launch.argument, LAUNCH)["evaluates"][0] for launch in made] == [1] * len(dtypes)
        assert k == 0 or any((param != old).any() for param, old in zip(twins.params, before, strict=True))
        shown(twins)
        assert not launches(twins.device.eval)
        twins.host.train()
        made = launches(twins.device.train)
        assert [np.frombuffer(launch.argument, LAUNCH)["evaluates"][0] for launch in made] == [0] * len(dtypes)
        assert not launches(twins.device.train)
    twins.check()


@pytest.mark.parametrize("master", [None, "float32"])
def test_weights_of_16_bits(master):
    params = [numbers(i, size, np.float16) for i, size in enumerate((1500, 7))]
    twins = Twins(SGDScheduleFree, params, lr=0.1, master=master)
    for k in range(3):
        twins.step([numbers(10 * k + i, param.shape, np.float16) for i, param in enumerate(params)])
        twins.both("eval")
        shown(twins)
        twins.both("train")
        twins.check()


def test_a_mode_is_not_changed_within_a_graph():
    twins = Twins(AdamWScheduleFree, [numbers(0, 100, np.float32)], lr=0.1)
    twins.step([numbers(1, 100, np.float32)])
    twins.check()
    with fake_cupy.cuda.Stream() as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="the stream is being captured"):
            twins.device.eval()
        stream.end_capture()
    twins.both("eval")
    shown(twins)

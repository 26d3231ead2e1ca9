"""An interrupt at any point leaves no half of a change: what follows is refused, or as if nothing had happened."""

import host_backend
import host_kernels
import numpy as np
import pytest
from cases import LR, assert_same_bits, gradients, parameters
from host_backend import optimizer_on

import gpuadam
from gpuadam import schedules

CALLS = ("copy_clock", "upload", "sort_chunks", "reset", "swap")


class Interrupting:
    """Tables whose n-th change is interrupted, before or after it was made."""

    def __init__(self, tables, number, is_done):
        self.__dict__.update(_tables=tables, _left=number, _is_done=is_done)

    def __getattr__(self, name):
        found = getattr(self._tables, name)
        return self._wrap(found) if name in CALLS else found

    def __setattr__(self, name, value):
        setattr(self._tables, name, value)

    def _wrap(self, call):
        def change(*arguments):
            self.__dict__["_left"] -= 1
            if self._left == 0 and not self._is_done:
                raise KeyboardInterrupt
            call(*arguments)
            if self._left == 0:
                raise KeyboardInterrupt

        return change


def make():
    params = [parameters(40, np.float32, seed=i) for i in range(3)]
    optimizer = gpuadam.AdamW(params, lr=LR)
    for step in range(3):
        optimizer.step(grads_of(step))
    return optimizer, params


def grads_of(step):
    return [gradients(1, 40, np.float32, seed=10 * step + i)[0] for i in range(3)]


def interrupted(optimizer, number, is_done, action):
    """Whether the action was interrupted; it is over when it makes fewer changes than that."""
    whole = optimizer._engine.tables
    optimizer._engine.tables = Interrupting(whole, number, is_done)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        optimizer._engine.tables = whole
    return False


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_bind_that_was_interrupted(is_done):
    number = 0
    partial = [grads_of(7)[0], None, grads_of(7)[2]]
    while True:
        number += 1
        (optimizer, params), (twin, expected) = make(), make()
        was = interrupted(optimizer, number, is_done, lambda optimizer=optimizer: optimizer.bind(partial))
        if was:
            with pytest.raises(ValueError, match="there are no gradients"):
                optimizer.step()
        for grads in (partial, grads_of(8), partial):
            optimizer.step(grads)
            twin.step(grads)
        for ours, theirs in zip(params, expected, strict=True):
            assert_same_bits(ours, theirs)
        assert optimizer.state_dict()["groups"] == twin.state_dict()["groups"]
        if not was:
            break
    assert number >= 4


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_setting_that_was_interrupted(is_done):
    number = 0
    while True:
        number += 1
        (optimizer, params), (twin, expected) = make(), make()
        new = {"lr": schedules.cosine_decay(0.1, 20), "weight_decay": 0.5}
        was = interrupted(
            optimizer, number, is_done, lambda optimizer=optimizer, new=new: optimizer.set_hyperparameters(**new)
        )
        if was:
            before = params[0].copy()
            for refused, arguments in ((optimizer.step, [grads_of(5)]), (optimizer.state_dict, [])):
                with pytest.raises(RuntimeError, match="set_hyperparameters was interrupted: repeat it first"):
                    refused(*arguments)
            assert_same_bits(params[0], before)
            optimizer.set_hyperparameters(**new)
        twin.set_hyperparameters(**new)
        for step in (5, 6):
            optimizer.step(grads_of(step))
            twin.step(grads_of(step))
        for ours, theirs in zip(params, expected, strict=True):
            assert_same_bits(ours, theirs)
        if not was:
            break
    assert number >= 5


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_named_parameter_that_was_interrupted(number, is_done):
    param, expected = parameters(40, np.float32), parameters(40, np.float32)
    lr = 0.1 * schedules.parameter("scale", 1.0)
    optimizer, twin = gpuadam.AdamW([param], lr=lr), gpuadam.AdamW([expected], lr=lr)
    grads = grads_of(1)[:1]
    optimizer.step(grads)
    twin.step(grads)
    assert interrupted(optimizer, number, is_done, lambda: optimizer.set_parameter("scale", 0.5))
    with pytest.raises(RuntimeError, match="set_parameter was interrupted: repeat it first"):
        optimizer.step()
    optimizer.set_parameter("scale", 0.5)
    twin.set_parameter("scale", 0.5)
    optimizer.step()
    twin.step()
    assert_same_bits(param, expected)


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_load_that_was_interrupted(is_done):
    number = 0
    while True:
        number += 1
        (optimizer, _), (twin, _) = make(), make()
        saved = twin.state_dict()
        optimizer.step([grads_of(4)[0], None, None])
        was = interrupted(
            optimizer, number, is_done, lambda optimizer=optimizer, saved=saved: optimizer.load_state_dict(saved)
        )
        if was:
            with pytest.raises(RuntimeError, match="load_state_dict was interrupted: repeat it first"):
                optimizer.step(grads_of(5))
            with pytest.raises(RuntimeError, match="load_state_dict was interrupted: repeat it first"):
                optimizer.set_hyperparameters(lr=0.1)
            optimizer.load_state_dict(saved)
        assert optimizer.state_dict()["groups"] == saved["groups"]
        if not was:
            break
    assert number >= 6


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_change_of_formats_that_was_interrupted(is_done):
    """Chunks are sorted by the format of their gradients."""
    number = 0
    narrow = [grad.astype(np.float16) if i == 1 else grad for i, grad in enumerate(grads_of(7))]
    while True:
        number += 1
        (optimizer, params), (twin, expected) = make(), make()
        was = interrupted(optimizer, number, is_done, lambda optimizer=optimizer: optimizer.bind(narrow))
        if was:
            with pytest.raises(ValueError, match="there are no gradients"):
                optimizer.step()
        for grads in (grads_of(8), narrow, narrow):
            optimizer.step(grads)
            twin.step(grads)
        for ours, theirs in zip(params, expected, strict=True):
            assert_same_bits(ours, theirs)
        if not was:
            break
    assert number >= 3


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", ["there", "back"])
def test_an_exchange_with_the_averages_that_was_interrupted(way, is_done):
    """Some parameters may be averages: what follows is refused until a state is loaded, the parameters beside it."""
    params = [parameters(40, np.float32, seed=i) for i in range(2)]
    optimizer = gpuadam.AdamW(params, lr=LR, ema_decay=0.5)
    optimizer.step(grads_of(1)[:2])
    saved, kept = optimizer.state_dict(), [param.copy() for param in params]
    if way == "back":
        optimizer.swap_ema()
    assert interrupted(optimizer, 1, is_done, optimizer.swap_ema)
    for refused in (optimizer.step, optimizer.state_dict, optimizer.swap_ema):
        with pytest.raises(RuntimeError, match="was interrupted"):
            refused()
    optimizer.load_state_dict(saved)
    for param, before in zip(params, kept, strict=True):
        param[:] = before
    optimizer.step()
    twin = gpuadam.AdamW(kept, lr=LR, ema_decay=0.5)
    twin.load_state_dict(saved)
    twin.step(grads_of(1)[:2])
    for ours, theirs in zip(params, kept, strict=True):
        assert_same_bits(ours, theirs)
    assert_same_bits(optimizer.state_dict()["state"][0]["ema"], twin.state_dict()["state"][0]["ema"])


@pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")
def test_a_step_that_was_interrupted_between_its_launches(monkeypatch):
    """Otherwise the ticket would stay half drawn, and every later step tick in its first launch."""
    params = [parameters(2000, np.float32), parameters(700, np.float64)]
    optimizer = optimizer_on(host_backend, monkeypatch, gpuadam.AdamW, params, lr=LR)
    grads = [gradients(1, p.size, p.dtype)[0] for p in params]
    optimizer.step(grads)
    saved, kept = optimizer.state_dict(), [param.copy() for param in params]
    run = host_kernels.run
    calls = iter([run, None])

    def interrupt(*arguments):
        call = next(calls)
        if call is None:
            raise KeyboardInterrupt
        call(*arguments)

    monkeypatch.setattr(host_kernels, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    monkeypatch.setattr(host_kernels, "run", run)
    for refused in (optimizer.step, optimizer.state_dict):
        with pytest.raises(RuntimeError, match="a step was interrupted"):
            refused()
    optimizer.load_state_dict(saved)
    for param, before in zip(params, kept, strict=True):
        param[:] = before
    twins = [param.copy() for param in params]
    twin = optimizer_on(gpuadam.cpu, monkeypatch, gpuadam.AdamW, twins, lr=LR)
    twin.load_state_dict(saved)
    for _ in range(3):
        optimizer.step()
        twin.step(grads)
    for ours, theirs in zip(params, twins, strict=True):
        assert_same_bits(ours, theirs)


def test_a_mere_change_of_arrays_makes_nothing_stale():
    """New gradients of the same tensors: one table goes over, and the rows that the last step made stay in force."""
    optimizer, _ = make()
    before = optimizer._engine.tables.download("revision")
    uploads = []
    upload = optimizer._engine.tables.upload
    optimizer._engine.tables.upload = lambda name, first, rows: (uploads.append(name), upload(name, first, rows))
    optimizer.step(grads_of(9))
    assert uploads == ["tensors"]
    assert optimizer._engine.tables.download("revision") == before

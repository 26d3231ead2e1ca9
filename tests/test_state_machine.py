"""Any sequence of calls: the optimizer is at every moment what a new one becomes by the steps that were applied.

Beside it stands a list of what was applied, in order; skipped steps, refused calls, exchanges with the averages, saves
and loads have no place in it (a load goes back to the list of the save). Played again, it gives the same bits.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bad_input import frozen
from cases import assert_same_bits
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import gpuadam
from gpuadam import cpu, schedules

F32, F16 = np.float32, np.float16
LAYOUT = {"w": ((3, 4), F32), "b": ((5,), F32), "h": ((2, 3), F16)}
RECIPE = {"clip_norm": 2.0, "ema_decay": 0.5, "nonfinite": "skip", "master": "float32", "weight_decay": 0.1}
SEEDS = st.integers(0, 1000)


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def new_optimizer():
    """An optimizer and its parameters, as every history begins."""
    params = {name: numbers(shape, dtype, i) for i, (name, (shape, dtype)) in enumerate(LAYOUT.items())}
    lr = 0.1 * schedules.parameter("scale", 1.0) / (1 + schedules.step)
    return gpuadam.AdamW(params, lr=lr, **RECIPE), params


def apply(optimizer, params, event):
    """One entry of a history."""
    kind, *rest = event
    if kind == "step":
        grads, scalars = rest
        optimizer.step(copy.deepcopy(grads), **scalars)
    elif kind == "set":
        optimizer.set_hyperparameters(**rest[0])
    elif kind == "scale":
        optimizer.set_parameter("scale", rest[0])
    else:
        name, values, own = rest
        params[name] = values.copy()
        optimizer.add_group({"params": {name: params[name]}, **own})


def replayed(history):
    optimizer, params = new_optimizer()
    for event in history:
        apply(optimizer, params, event)
    return optimizer, params


REFUSED = {
    "shape": (ValueError, lambda o: o.step({"w": np.ones((4, 3), F32)})),
    "dtype": (TypeError, lambda o: o.step({"w": np.ones((3, 4))})),
    "name": (ValueError, lambda o: o.step({"x": np.ones(3, F32)})),
    "scale": (ValueError, lambda o: o.step({"w": np.ones((3, 4), F32)}, grad_scale=0.0)),
    "found": (TypeError, lambda o: o.bind({"w": np.ones((3, 4), F32)}, found_inf=np.ones(2, F32))),
    "rate": (ValueError, lambda o: o.set_hyperparameters(weight_decay=0.3, lr=-1.0)),
    "range": (ValueError, lambda o: o.set_hyperparameters(clip_norm=0.0)),
    "parameter": (KeyError, lambda o: o.set_parameter("x", 1.0)),
    "group": (ValueError, lambda o: o.add_group({"params": {"w": np.ones(3, F32)}})),
    "setting": (ValueError, lambda o: o.add_group({"params": {"n": np.ones(3, F32)}, "lr": -1.0})),
    "state": (ValueError, lambda o: o.load_state_dict({**o.state_dict(), "rule": "sgd"})),
    "file": (ValueError, lambda o: o.load("nowhere")),
}


class Training(RuleBasedStateMachine):
    """An optimizer, and beside it the history that it must be equal to."""

    def __init__(self):
        super().__init__()
        self.optimizer, self.params = new_optimizer()
        self.history, self.skipped = [], 0
        self.grads, self.scalars = None, {}  # as they are bound
        self.saved = None

    def note_step(self):
        """Whether the step that comes will be applied, by the model alone."""
        is_finite = all(np.all(np.isfinite(grad)) for grad in self.grads.values() if grad is not None)
        if is_finite and not self.scalars.get("found_inf"):
            self.history.append(("step", copy.deepcopy(self.grads), dict(self.scalars)))
        else:
            self.skipped += 1

    @rule(
        seed=SEEDS,
        rests=st.sets(st.sampled_from(["w", "b", "h", "n0"]), max_size=2),
        narrow=st.booleans(),
        bad=st.sampled_from([None, None, None, np.inf, np.nan]),
        scalars=st.sampled_from([{}, {}, {"grad_scale": 4.0}, {"found_inf": 1.0}, {"found_inf": False}]),
    )
    def step(self, seed, rests, narrow, bad, scalars):
        self.grads, self.scalars = {}, scalars
        for i, (name, param) in enumerate(self.params.items()):
            dtype = F16 if narrow and i % 2 == 0 else param.dtype
            self.grads[name] = None if name in rests else numbers(param.shape, dtype, [seed, i])
        given = [grad for grad in self.grads.values() if grad is not None]
        if bad is not None and given:
            given[-1].flat[-1] = bad
        self.note_step()
        self.optimizer.step(self.grads, **scalars)

    @precondition(lambda self: self.grads is not None)
    @rule(seed=SEEDS, writes=st.booleans())
    def step_with_what_is_bound(self, seed, writes):
        for i, grad in enumerate(self.grads.values()):
            if writes and grad is not None:
                grad[...] = numbers(grad.shape, grad.dtype, [seed, i])
        self.note_step()
        self.optimizer.step()

    @precondition(lambda self: self.grads is not None)
    @rule(name=st.sampled_from(sorted(LAYOUT)), seed=SEEDS)
    def bind_another_gradient(self, name, seed):
        self.grads = {**self.grads, name: numbers(*LAYOUT[name], seed)}
        self.scalars = {}
        self.optimizer.bind(self.grads)

    @precondition(lambda self: self.grads is None)
    @rule()
    def step_without_gradients(self):
        with pytest.raises(ValueError, match="there are no gradients"):
            self.optimizer.step()

    @rule(decay=st.sampled_from([0.0, 0.01, 0.5]), beta=st.sampled_from([0.5, 0.9]), clip=st.sampled_from([0.1, 3.0]))
    def set_hyperparameters(self, decay, beta, clip):
        self.history.append(("set", {"weight_decay": decay, "betas": (beta, 0.95), "clip_norm": clip}))
        apply(self.optimizer, self.params, self.history[-1])

    @rule(scale=st.sampled_from([0.0, 0.5, 2.0]))
    def set_parameter(self, scale):
        self.history.append(("scale", scale))
        apply(self.optimizer, self.params, self.history[-1])

    @precondition(lambda self: len(self.params) < 5)
    @rule(seed=SEEDS, own=st.sampled_from([{}, {"lr": 0.01}, {"lr_scale": 0.5, "weight_decay": 0.0}]))
    def add_group(self, seed, own):
        name = f"n{len(self.params) - len(LAYOUT)}"
        self.history.append(("add", name, numbers((4,), F32, seed), own))
        apply(self.optimizer, self.params, self.history[-1])
        self.grads, self.scalars = None, {}

    @rule(to_file=st.booleans())
    def save(self, to_file):
        state = copy.deepcopy(self.optimizer.state_dict())
        values = {name: param.copy() for name, param in self.params.items()}
        if to_file:
            with tempfile.TemporaryDirectory() as folder:
                self.optimizer.save(Path(folder) / "run.gpuadam")
                state = (Path(folder) / "run.gpuadam").read_bytes()
        self.saved = state, values, list(self.history), self.skipped

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self):
        state, values, history, skipped = self.saved
        if len(values) != len(self.params):
            with pytest.raises(ValueError, match="group"):
                self.load_any(state)
            return
        self.load_any(state)
        if not isinstance(state, bytes):
            for name, value in values.items():
                self.params[name][...] = value
        self.history, self.skipped = list(history), skipped

    def load_any(self, state):
        if not isinstance(state, bytes):
            self.optimizer.load_state_dict(state, hyperparameters=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "run.gpuadam").write_bytes(state)
            self.optimizer.load(Path(folder) / "run.gpuadam", hyperparameters=True)

    @rule()
    def look_at_the_averages(self):
        twin, twins = replayed(self.history)
        with twin.ema(), self.optimizer.ema():
            for name, param in self.params.items():
                assert_same_bits(param, twins[name], f"the average of {name}")
            with pytest.raises(RuntimeError, match="the parameters hold their averages"):
                self.optimizer.step({})
        self.optimizer.bind({})
        self.grads, self.scalars = {}, {}

    @rule(name=st.sampled_from(sorted(REFUSED)))
    def refused_call(self, name):
        error, call = REFUSED[name]
        before = frozen([self.params, self.optimizer.state_dict(), self.optimizer.hyperparameters()])
        with pytest.raises(error):
            call(self.optimizer)
        assert frozen([self.params, self.optimizer.state_dict(), self.optimizer.hyperparameters()]) == before

    @invariant()
    def it_is_what_was_applied(self):
        twin, twins = replayed(self.history)
        for name, param in self.params.items():
            assert_same_bits(param, twins[name], f"parameter {name}")
        ours, theirs = self.optimizer.state_dict(), twin.state_dict()
        assert ours.pop("skipped_steps") == self.skipped == self.optimizer.skipped_steps
        theirs.pop("skipped_steps")
        assert frozen(ours) == frozen(theirs)
        assert self.optimizer.hyperparameters() == twin.hyperparameters()
        steps = sum(event[0] == "step" for event in self.history)
        assert ours["groups"][0]["step"] == steps


CALM = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_any_sequence_of_calls():
    run_state_machine_as_test(Training, settings=settings(max_examples=60, stateful_step_count=25, **CALM))


def skips_but_counts(tables):
    verdict = RUN(tables)
    if verdict is cpu.Verdict.SKIPPED:
        cpu.finish(tables._address)
    return verdict


def reset_nothing(tables, progress):
    tables.is_half_done = False


RUN = cpu.Tables.run
FAULTS = {
    "a skipped step that counts": ("Tables.run", skips_but_counts),
    "a load that leaves the count of skipped steps": ("Tables.reset", reset_nothing),
    "a load that leaves the states": ("overwrite", lambda array, values: None),
    "a new cohort with a clock of its own": ("Tables.copy_clock", lambda tables, source, target: None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, monkeypatch):
    where, fault = FAULTS[name]
    monkeypatch.setattr(f"gpuadam.cpu.{where}", fault)
    quick = settings(max_examples=200, stateful_step_count=25, phases=[Phase.generate], derandomize=True, **CALM)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(Training, settings=quick)

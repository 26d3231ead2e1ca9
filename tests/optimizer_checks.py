"""What the tests of the optimizer share: gradients that come and go, and the comparison with the oracle."""

import numpy as np
from cases import assert_same_bits, gradients

F32, F64 = np.float32, np.float64
# float64, relative to 1 + |value|: what another order of the same operations may do in these few steps.
TOLERANCE = 1e-13


def error(ours, theirs):
    return float(np.max(np.abs(np.asarray(ours, F64) - theirs) / (1 + np.abs(theirs)), initial=0.0))


def assert_like(optimizer, param, name, expected):
    """A tensor, all its states and its count are the oracle's."""
    own = optimizer.state_dict()["state"][name]
    assert own["updates"] == expected.updates
    assert error(param, expected.param) < TOLERANCE
    states = {state for state, value in own.items() if isinstance(value, np.ndarray)}
    assert states == set(expected.states)
    for state in states:
        assert error(own[state], expected.states[state]) < TOLERANCE, state


def follow(pattern, numel=7, seed=0):
    """Gradients of each step, None where the pattern has a dot."""
    grads = gradients(len(pattern), numel, F64, seed)
    return [grad if mark == "x" else None for mark, grad in zip(pattern, grads, strict=True)]


def same_states(a, b):
    assert set(a["state"]) == set(b["state"])
    for name, own in a["state"].items():
        for key, value in own.items():
            if isinstance(value, np.ndarray):
                assert_same_bits(value, b["state"][name][key], f"{key} of {name}")
            else:
                assert value == b["state"][name][key], f"{key} of {name}"
    for key in ("parameters", "groups"):
        assert a[key] == b[key], key

"""A state that does not fit is refused whole, and the optimizer goes on as if nothing had happened.

The message names every difference, each with its place, its value and what is allowed.
"""

import math

import numpy as np
import pytest
from bad_input import DELETE, F32, Pair, change, check_refused_state, saved, stateful

from gpuadam import Adam, RMSprop, schedules

# ---- row 8, 9: the same memory twice


def test_state_dict_gives_copies():
    pair = Pair()
    state = pair.optimizer.state_dict()
    for array in (array for own in state["state"].values() for array in own.values() if isinstance(array, np.ndarray)):
        array[...] = np.nan
    state["groups"][0]["step"] = -1
    pair.go_on()


# ---- row 20: counters


@pytest.mark.parametrize("count", [2**24, 2**31, 2**32, 2**53 - 1])
def test_counters_go_on_beyond_what_a_float32_or_int32_counts(count):
    param = np.ones(3, F32)
    optimizer = Adam([param], lr=schedules.exponential_decay(0.1, 2**52, 0.5))
    state = optimizer.state_dict()
    for own in (state["groups"][0], state["state"][0]):
        own["step"] = own["updates"] = count
    optimizer.load_state_dict(state)
    optimizer.step([np.ones(3, F32)])
    own = optimizer.state_dict()["state"][0]
    assert (own["step"], own["updates"]) == (count + 1, count + 1)
    assert np.all(np.isfinite(param))
    assert np.all(param < 1)


# ---- row 34: states that do not fit


COUNTS = "allowed are whole numbers from 0 to 2**53"
DIFFERENCES = {
    "other rule": (change(["rule"], "rmsprop"), ["of the rule 'rmsprop'", "this optimizer is 'adam'"]),
    "rule no name": (change(["rule"], 5), ["'rule' is a int"]),
    "older version": (change(["format_version"], 0), ["format version is 0", "allowed is 1"]),
    "newer version": (change(["format_version"], 2), ["format version is 2", "allowed is 1"]),
    "version no number": (change(["format_version"], "1"), ["'format_version' is a str"]),
    "group too many": (lambda s: s["groups"].append(s["groups"][0]), ["it has 3 groups, this optimizer has 2"]),
    "group too few": (lambda s: s["groups"].pop(), ["it has 1 groups, this optimizer has 2"]),
    "groups no list": (change(["groups"], 5), ["'groups' is a int"]),
    "group no dict": (change(["groups", 1], None), ["group 1 is a NoneType"]),
    "tensor too many": (change(["state", "x"], {}), ["the tensor 'x', which this optimizer has not"]),
    "tensor missing": (change(["state", 1], DELETE), ["it has no tensor 1"]),
    "tensor no dict": (change(["state", 1], 5), ["tensor 1 is a int"]),
    "states no dict": (change(["state"], []), ["'state' is a list"]),
    "shape": (change(["state", 0, "exp_avg"], np.ones((3, 2))), ["exp_avg of tensor 0", "float64 (3, 2)", "(2, 3)"]),
    "dtype": (change(["state", 0, "exp_avg"], np.ones((2, 3), F32)), ["exp_avg of tensor 0", "float32", "float64"]),
    "byte order": (change(["state", 1, "exp_avg"], np.ones(4, ">f4")), ["exp_avg of tensor 1", ">f4", "float32"]),
    "state missing": (change(["state", 0, "max_exp_avg_sq"], DELETE), ["states of tensor 0", "'max_exp_avg_sq'"]),
    "state too many": (change(["state", 0, "momentum"], np.ones(2)), ["states of tensor 0", "'momentum'"]),
    "state of another type of key": (change(["state", 0, 5], np.ones(2)), ["states of tensor 0", "5"]),
    "state garbage": (change(["state", 0, "exp_avg"], "abc"), ["exp_avg of tensor 0", "float64 (2, 3)"]),
    "state ragged": (change(["state", 0, "exp_avg"], [[1.0], [2.0, 3.0]]), ["exp_avg of tensor 0", "(2, 3)"]),
    "state None": (change(["state", 0, "exp_avg"], None), ["exp_avg of tensor 0", "object", "(2, 3)"]),
    "accumulator missing": (
        change(["state", 0, "accumulators"], {}), ["accumulators of tensor 0 are []", "['product']"]),
    "accumulator other": (change(["groups", 0, "accumulators"], {"x": 1.0}), ["accumulators of group 0", "['x']"]),
    "accumulator too many": (change(["groups", 1, "accumulators"], {3: 1.0, "x": 1.0}), ["accumulators of group 1"]),
    "accumulators no dict": (change(["state", 0, "accumulators"], None), ["accumulators of tensor 0 are None"]),
    "accumulator garbage": (
        change(["state", 0, "accumulators", "product"], "x"), ["tensor 0", "accumulator 'product'", "got 'x'"]),
    "parameter missing": (change(["parameters"], {}), ["named parameters are []", "['scale']"]),
    "parameter other": (change(["parameters"], {"x": 1.0}), ["named parameters are ['x']", "['scale']"]),
    "parameter too many": (change(["parameters", 5], 1.0), ["named parameters are [5, 'scale']"]),
    "parameter garbage": (change(["parameters", "scale"], "big"), ["the parameter 'scale'", "got 'big'"]),
    "parameter bool": (change(["parameters", "scale"], True), ["the parameter 'scale'", "got True"]),
    "parameters no dict": (change(["parameters"], [1.0]), ["'parameters' is a list"]),
}  # fmt: skip
for _where, _path in (("group 1", ["groups", 1]), ("tensor 1", ["state", 1])):
    for _count in ("step", "updates"):
        for _bad in (-1, 2**53 + 1, 10**400, 1.0, math.nan, True, "3", None, [1]):
            _name = f"{_count} of {_where} {str(_bad)[:20]}"
            DIFFERENCES[_name] = (change([*_path, _count], _bad), [f"{_count} of {_where} is {_bad!r}", COUNTS])
        DIFFERENCES[f"no {_count} of {_where}"] = (change([*_path, _count], DELETE), [f"{_count} of {_where} is None"])
for _key in ("format_version", "rule", "groups", "state", "parameters"):
    DIFFERENCES[f"no entry {_key}"] = (change([_key], DELETE), [f"no entry '{_key}'"])


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_state_that_does_not_fit(name):
    apply, texts = DIFFERENCES[name]
    state = saved().state_dict()
    apply(state)
    check_refused_state(saved(), saved(), state, texts)
    fresh = stateful()
    check_refused_state(fresh, stateful(), state, texts)
    fresh.load_state_dict(saved().state_dict())


@pytest.mark.parametrize("state", [None, [], "abc", 5, np.ones(3)], ids=repr)
def test_a_state_that_is_no_dict(state):
    check_refused_state(saved(), saved(), state, [f"it is a {type(state).__name__}", "allowed is the dict"])


def test_every_difference_is_named():
    state = saved().state_dict()
    names = ["other rule", "group too many", "tensor too many", "tensor missing", "shape", "state missing"]
    names += ["accumulator missing", "parameter other", "step of group 1 -1", "updates of group 1 True"]
    for name in names:
        DIFFERENCES[name][0](state)
    check_refused_state(saved(), saved(), state, [text for name in names for text in DIFFERENCES[name][1]])
    state = saved().state_dict()
    for name in ("no entry rule", "newer version", "groups no list", "states no dict"):
        DIFFERENCES[name][0](state)
    texts = ["no entry 'rule'", "format version is 2", "'groups' is a int", "'state' is a list"]
    check_refused_state(saved(), saved(), state, texts)


def test_the_state_of_another_optimizer():
    state = stateful(RMSprop, momentum=0.9).state_dict()
    texts = ["of the rule 'rmsprop'", "states of tensor 0 are ['momentum_buffer', 'square_avg']", "states of tensor 1"]
    check_refused_state(saved(), saved(), state, texts)
    state = saved(amsgrad=False).state_dict()
    check_refused_state(saved(), saved(), state, ["states of tensor 0", "states of tensor 1", "'max_exp_avg_sq'"])


@pytest.mark.parametrize(
    ("name", "value", "texts"),
    [
        ("lr", math.nan, ["lr of group 1", "is nan", "allowed is a number from 0 to 3.4e38"]),
        ("lr", -1, ["lr of group 1", "is -1.0", "allowed is a number from 0 to 3.4e38"]),
        ("lr", DELETE, ["lr of group 1", "must be a number", "got None"]),
        ("beta1", 1.0, ["beta1 of group 1", "is 1.0", "allowed is a number >= 0 and < 1"]),
        ("beta2", "0.9", ["beta2 of group 1", "must be a number", "got '0.9'"]),
        ("eps", 1e-46, ["eps of group 1", "is 1e-46", "allowed is 0 or >= 1.4e-45"]),
        ("weight_decay", True, ["weight_decay of group 1", "got True"]),
    ],
)
def test_saved_hyperparameters_that_are_not_allowed(name, value, texts):
    state = saved().state_dict()
    change(["groups", 1, name], value)(state)
    check_refused_state(saved(), saved(), state, texts, hyperparameters=True)
    saved().load_state_dict(state)  # nobody asked for them


def test_all_saved_hyperparameters_are_named():
    state = saved().state_dict()
    for group, name, value in ((0, "eps", -1.0), (1, "lr", math.nan), (1, "beta1", 2.0)):
        state["groups"][group][name] = value
    texts = ["eps of group 0", "lr of group 1", "beta1 of group 1"]
    check_refused_state(saved(), saved(), state, texts, hyperparameters=True)

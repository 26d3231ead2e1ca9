"""`group_by_name`: which tensor goes where, what is refused, and that the groups do in a step what they say."""

import re

import numpy as np
import pytest

import gpuadam
from gpuadam import group_by_name, schedules

NAMES = [
    "embed.weight",
    "block.0.linear.weight",
    "block.0.linear.bias",
    "block.0.norm.weight",
    "head.weight",
    "head.bias",
]


def named(names=NAMES, dtype=np.float64):
    return {name: np.random.default_rng(i).uniform(1, 2, 3).astype(dtype) for i, name in enumerate(names)}


def sorted_names(rules, names=NAMES):
    """The names in each group; and the arrays must be the very ones that were given."""
    params = named(names)
    groups = group_by_name(params, rules)
    assert all(array is params[name] for group in groups for name, array in group["params"].items())
    return [list(group["params"]) for group in groups]


# ---- which tensor goes where


def test_no_decay_on_biases_and_norms():
    params = named()
    first, second = group_by_name(params, {r"bias|norm": {"weight_decay": 0.0}})
    assert list(first) == ["params"]
    assert list(first["params"]) == ["embed.weight", "block.0.linear.weight", "head.weight"]
    assert list(second["params"]) == ["block.0.linear.bias", "block.0.norm.weight", "head.bias"]
    assert {**second, "params": None} == {"params": None, "weight_decay": 0.0}
    assert list(params) == NAMES


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, [NAMES]),
        ({r"bias": {}}, [[n for n in NAMES if "bias" not in n], ["block.0.linear.bias", "head.bias"]]),
        ({r"^head": {}, r"bias": {}}, [NAMES[:2] + NAMES[3:4], ["head.weight", "head.bias"], ["block.0.linear.bias"]]),
        ({r"bias": {}, r"^head": {}}, [NAMES[:2] + NAMES[3:4], ["block.0.linear.bias", "head.bias"], ["head.weight"]]),
        ({("head.bias", "embed.weight"): {}}, [NAMES[1:5], ["embed.weight", "head.bias"]]),
        (
            {r"weight$": {}, ("head.weight", "head.bias"): {}},
            [[NAMES[2]], [NAMES[i] for i in (0, 1, 3, 4)], [NAMES[5]]],
        ),
        ({re.compile("BIAS", re.IGNORECASE): {}}, [[n for n in NAMES if "bias" not in n], [NAMES[2], NAMES[5]]]),
        ({r"": {}}, [NAMES]),
        ({("head.weight",): {}}, [[n for n in NAMES if n != "head.weight"], ["head.weight"]]),
    ],
    ids=str,
)
def test_the_first_rule_that_matches_takes_the_tensor(rules, expected):
    assert sorted_names(rules) == expected


def test_a_name_in_a_tuple_is_no_expression():
    names = ["a.b", "aXb", "w[0]"]
    assert sorted_names({("a.b", "w[0]"): {}}, names) == [["aXb"], ["a.b", "w[0]"]]
    assert sorted_names({r"a.b": {}}, names) == [["w[0]"], ["a.b", "aXb"]]


def test_no_tensor_is_left_for_the_first_group():
    groups = group_by_name(named(), {r"weight": {"lr": 0.1}, r"bias": {"lr": 0.2}})
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    assert group_by_name({}, {}) == []
    gpuadam.AdamW(group_by_name({}, {}))


def test_settings_are_passed_through_untouched():
    lr = schedules.cosine_decay(0.1, 10)
    settings = {"lr": lr, "betas": (0.5, 0.9), "no such setting": None}
    _, group = group_by_name(named(), {r"bias": settings})
    assert group["lr"] is lr
    assert {name: group[name] for name in settings} == settings
    assert list(settings) == ["lr", "betas", "no such setting"]
    with pytest.raises(ValueError, match="group 1 has the unknown setting 'no such setting'"):
        gpuadam.AdamW(group_by_name(named(), {r"bias": settings}))


# ---- end to end


def adamw(param, grad, lr, weight_decay, eps=1e-8):
    """The first step: the corrected moments are the gradient and its square."""
    return param - lr * weight_decay * param - lr * grad / (np.sqrt(grad * grad) + eps)


def test_decay_is_absent_on_biases_and_norms_alone():
    params, start = named(), named()
    grads = {name: np.full(3, 0.5 * (-1) ** i) * (i + 1) for i, name in enumerate(NAMES)}
    optimizer = gpuadam.AdamW(group_by_name(params, {r"bias|norm": {"weight_decay": 0.0}}), lr=0.1, weight_decay=0.3)
    optimizer.step(grads)
    for name in NAMES:
        decay = 0.0 if "bias" in name or "norm" in name else 0.3
        np.testing.assert_allclose(params[name], adamw(start[name], grads[name], 0.1, decay), rtol=1e-13)


def test_decay_alone():
    """Without gradients to speak of, decay is all that moves a parameter."""
    params, start = named(), named()
    optimizer = gpuadam.AdamW(group_by_name(params, {r"bias|norm": {"weight_decay": 0.0}}), lr=0.1, weight_decay=0.3)
    for _ in range(2):
        optimizer.step({name: np.zeros(3) for name in reversed(NAMES)})
    for name in NAMES:
        factor = 1.0 if "bias" in name or "norm" in name else (1 - 0.03) ** 2
        np.testing.assert_allclose(params[name], start[name] * factor, rtol=1e-14 if factor != 1 else 0)


def test_gradients_in_a_dict_find_their_parameters_in_a_list_they_follow_the_groups():
    grads = {name: np.full(3, float(i + 1)) for i, name in enumerate(NAMES)}
    rules = {r"bias|norm": {"weight_decay": 0.0}}
    by_name, by_place = named(), named()
    gpuadam.RMSprop(group_by_name(by_name, rules), alpha=0.0, eps=1.0).step(grads)
    groups = group_by_name(by_place, rules)
    gpuadam.RMSprop(groups, alpha=0.0, eps=1.0).step([grads[name] for group in groups for name in group["params"]])
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(by_name[name], named()[name] - 0.01 * (i + 1) / (i + 2), rtol=1e-13)
        assert np.array_equal(by_name[name], by_place[name])


def test_a_state_is_found_by_name_whatever_the_groups():
    params, twin = named(), named()
    rules = {r"bias|norm": {"weight_decay": 0.0}}
    saved = gpuadam.AdamW(group_by_name(params, rules))
    saved.step({name: np.ones(3) for name in NAMES})
    resumed = gpuadam.AdamW(group_by_name(dict(reversed(twin.items())), rules))
    resumed.load_state_dict(saved.state_dict())
    assert list(saved.state_dict()["state"]) == [n for group in sorted_names(rules) for n in group]
    np.testing.assert_allclose(resumed.state_dict()["state"]["head.bias"]["exp_avg"], np.full(3, 0.1), rtol=1e-15)


# ---- what is refused


@pytest.mark.parametrize(
    ("params", "rules", "error", "texts"),
    [
        (list(named().values()), {}, TypeError, ["params must be a dict", "list"]),
        ({0: np.ones(1), "a": np.ones(1)}, {}, TypeError, ["key 0", "int", "str"]),
        (named(), [("bias", {})], TypeError, ["rules must be a dict", "list"]),
        (named(), {r"bais": {}}, ValueError, ["'bais' takes no tensor", "head.bias"]),
        (named(), {re.compile("bais"): {}}, ValueError, ["'bais' takes no tensor"]),
        (named(), {(): {}}, ValueError, ["() takes no tensor"]),
        ({}, {r"bias": {}}, ValueError, ["'bias' takes no tensor"]),
        (named(), {r"bias": {}, r"d.bias": {}}, ValueError, ["'d.bias' takes no tensor", "earlier", "['head.bias']"]),
        (named(), {("head.bias", "head.bais"): {}}, ValueError, ["unknown name 'head.bais'", "head.bias"]),
        (named(), {("head.bias", 3): {}}, ValueError, ["unknown name 3"]),
        (named(), {r"bias(": {}}, ValueError, ["'bias('", "unterminated subpattern"]),
        (named(), {re.compile(b"bias"): {}}, TypeError, ["re.compile(b'bias')", "regular expression", "tuple"]),
        (named(), {b"bias": {}}, TypeError, ["b'bias'", "bytes"]),
        (named(), {3: {}}, TypeError, ["3", "int", "regular expression"]),
        (named(), {r"bias": 0.0}, TypeError, ["'bias'", "must be a dict", "0.0"]),
        (named(), {r"bias": None}, TypeError, ["'bias'", "must be a dict", "None"]),
        (named(), {r"bias": {"params": []}}, ValueError, ["'bias'", "entry 'params'"]),
    ],
)
def test_what_is_refused(params, rules, error, texts):
    with pytest.raises(error) as raised:
        group_by_name(params, rules)
    assert all(text in str(raised.value) for text in texts), raised.value

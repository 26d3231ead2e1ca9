"""Bad arguments of the recipe are refused before anything is written, and the message says what is allowed."""

import math

import numpy as np
import pytest
from bad_input import F32, Pair, check_message, filled, frozen, refused

from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, schedules

MAKES = (AdamW, NAdam, RMSprop, SGD)
POSITIVE, SHARE, CHOICE = "a number > 0 up to 3.4e38", "a number from 0 to 1", "allowed are"
OF_A_GROUP = [  # argument, bad values, what is allowed
    ("clip_norm", [-1.0, 0.0, math.nan, math.inf, 1e39], POSITIVE),
    ("clip_value", [-1.0, 0.0, -0.0, math.nan, math.inf], POSITIVE),
    ("ema_decay", [2.0, -0.1, math.nan, np.nextafter(1.0, 2.0)], SHARE),
    ("lr_scale", [0.0, -1.0, math.nan, math.inf, {0: 0.0}, [0.0], {0: math.nan}], POSITIVE),
    ("master", ["bfloat16", True, 1, "Remainder"], "(None, 'float32', 'remainder')"),
    ("rounding", ["up", None, 0, ["nearest"]], "('nearest', 'stochastic')"),
    ("state_dtype", ["x", "float16", None, np.float32], "('float32', 'bfloat16', 'int8')"),
    ("int8_from", [-1, 1.5, True, "4096", None, 2**64], "whole numbers from 0"),
]
OF_ALL = [
    ("clip_scope", ["x", None, 0, True], "('global', 'group', 'tensor')"),
    ("nonfinite", ["ignore", None, True, 0], "('propagate', 'skip', 'raise')"),
    ("per_tensor_step", [None, 1, "yes"], "(False, True)"),
    ("zero_grads", [None, 1, "yes"], "(False, True)"),
    ("allow_flush", [None, 1, "yes"], "(False, True)"),
    ("seed", [-1, 1.5, True, 2**64, None, "0"], "whole numbers from 0"),
]
TYPES = [("clip_norm", "1"), ("clip_value", [1.0]), ("ema_decay", np.ones(2)), ("lr_scale", "1"), ("lr_scale", None)]


def listed(rows):
    return [(name, value, allowed) for name, values, allowed in rows for value in values]


def shown(value):
    """How a message shows a value: that of the entry where it is a list or dict of one."""
    if isinstance(value, dict | list) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
    return repr(float(value)) if isinstance(value, float) else repr(value)


@pytest.mark.parametrize(("name", "value", "allowed"), listed(OF_A_GROUP), ids=str)
@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_an_argument_of_a_group(make, name, value, allowed):
    param = np.ones(5)
    texts = [name, shown(value), allowed]
    refused(make, [param], ValueError, texts, watched=[param], **{name: value})
    value = {1: value[0]} if isinstance(value, dict) and 0 in value else value
    groups = [{"params": [np.ones(3)]}, {"params": [param], name: value}]
    refused(make, groups, ValueError, [f"{name} of group 1", *texts], watched=[param])


@pytest.mark.parametrize(("name", "value", "allowed"), listed(OF_ALL), ids=str)
@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_an_argument_of_the_whole_optimizer(make, name, value, allowed):
    param = np.ones(5)
    refused(make, [param], ValueError, [name, shown(value), allowed], watched=[param], **{name: value})
    refused(make, [{"params": [param], name: value}], ValueError, ["group 0", "unknown setting", repr(name), "allowed"])


@pytest.mark.parametrize(("name", "value"), TYPES, ids=str)
def test_values_that_are_no_numbers(name, value):
    param = np.ones(5)
    refused(
        Adam, [param], TypeError, [f"{name} of group 0", "a number", f"got {value!r}"], watched=[param], **{name: value}
    )


@pytest.mark.parametrize("make", [Adam, *MAKES], ids=lambda make: make.__name__)
def test_an_unknown_keyword(make):
    refused(make, [np.ones(5)], TypeError, ["'clip_nrom'", "clip_norm", "ema_decay", "zero_grads"], clip_nrom=1.0)


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        ([1.0], ["lr_scale of group 0", "1 entries for 2 tensors"]),
        ([1.0, 1.0, 1.0], ["lr_scale of group 0", "3 entries for 2 tensors"]),
        ({"c": 1.0}, ["lr_scale of group 0", "'c'", "['a', 'b']"]),
        ({"a": 1.0, 0: 2.0}, ["lr_scale of group 0", "0", "['a', 'b']"]),
    ],
    ids=str,
)
def test_factors_of_the_rate_that_do_not_fit_the_tensors(scale, texts):
    params = {"a": np.ones(3), "b": np.ones(4)}
    refused(AdamW, params, ValueError, texts, watched=params.values(), lr_scale=scale)


# ---- modes that contradict each other


def test_a_remainder_of_float16():
    param = np.ones(5, np.float16)
    texts = ["master of group 0", "'remainder'", "parameter 'w'", "float16", "bfloat16", "master='float32'"]
    refused(AdamW, {"w": param}, ValueError, texts, watched=[param], master="remainder")
    groups = [{"params": {"v": np.ones(5)}}, {"params": {"w": param}, "master": "remainder"}]
    refused(AdamW, groups, ValueError, ["master of group 1", "parameter 'w'"], watched=[param])


@pytest.mark.parametrize("master", ["float32", "remainder"])
def test_a_master_and_stochastic_rounding(master):
    param = np.ones(5)
    texts = ["rounding of group 0", "'stochastic'", f"master is {master!r}", "one of them"]
    refused(AdamW, [param], ValueError, texts, watched=[param], master=master, rounding="stochastic")
    groups = [{"params": [param], "rounding": "stochastic"}]
    refused(AdamW, groups, ValueError, texts, watched=[param], master=master)


# ---- later changes


@pytest.mark.parametrize(
    ("settings", "change", "error", "texts"),
    [
        ({}, {"clip_norm": 1.0}, ValueError, ["clip_norm of group 0", "1.0", "not begun or ended"]),
        ({"clip_norm": 1.0}, {"clip_norm": None}, ValueError, ["clip_norm of group 0", "None", "not begun or ended"]),
        ({"clip_norm": 1.0}, {"clip_norm": 0.0}, ValueError, ["clip_norm of group 0", "0.0", POSITIVE]),
        ({"ema_decay": 0.9}, {"ema_decay": 2.0}, ValueError, ["ema_decay of group 0", "2.0", SHARE]),
        ({"ema_decay": 0.9}, {"ema_decay": None}, ValueError, ["ema_decay of group 0", "None", "not begun or ended"]),
        ({}, {"clip_value": 1.0}, ValueError, ["clip_value of group 0", "1.0", "not begun or ended"]),
        ({}, {"master": "float32"}, ValueError, ["'master'", "allowed"]),
        ({}, {"lr_scale": 2.0}, ValueError, ["'lr_scale'", "allowed"]),
    ],
    ids=str,
)
def test_a_change_that_is_refused(settings, change, error, texts):
    pair = Pair(**settings)
    with pair.refuses(error, *texts):
        pair.optimizer.set_hyperparameters(**change)
    with pair.refuses(error, *texts):
        pair.optimizer.set_hyperparameters(**{"lr": 0.5, **change})


def test_a_schedule_that_leaves_its_range_holds_the_step():
    pair = Pair(clip_norm=2.0 - schedules.step)  # 0 at step 2
    for optimizer, grads in ((pair.optimizer, pair.grads), (pair.twin, pair.twin_grads)):
        optimizer.step(grads)
    before = frozen([pair.params, pair.optimizer.state_dict()])
    with pytest.raises(ValueError, match=r"clip_norm of group 0 would be 0\.0 at step 2; allowed is a number > 0"):
        pair.optimizer.step(filled(2.0, 2))
    assert frozen([pair.params, pair.optimizer.state_dict()]) == before


# ---- calls


def test_a_gradient_that_cannot_be_left_zero():
    pair = Pair(zero_grads=True)
    pair.grads["w"][...], pair.twin_grads["w"][...] = 1, 1
    bad = filled()
    bad["b"].flags.writeable = False
    with pair.refuses(ValueError, "gradient 'b'", "read-only", "zero_grads=True"):
        pair.optimizer.step(bad)


@pytest.mark.parametrize(
    ("scalars", "error", "texts"),
    [
        ({"grad_scale": 0.0}, ValueError, ["grad_scale is 0.0", "a finite number > 0"]),
        ({"grad_scale": -1.0}, ValueError, ["grad_scale is -1.0", "a finite number > 0"]),
        ({"grad_scale": math.nan}, ValueError, ["grad_scale", "nan"]),
        ({"grad_scale": math.inf}, ValueError, ["grad_scale is inf", "a finite number > 0"]),
        ({"grad_scale": "2"}, TypeError, ["grad_scale", "str"]),
        ({"grad_scale": np.ones(2, F32)}, TypeError, ["grad_scale", "float32", "(2,)", "one float32 or float64"]),
        ({"grad_scale": np.ones(1, np.float16)}, TypeError, ["grad_scale", "float16", "one float32 or float64"]),
        ({"found_inf": np.ones(1, np.int32)}, TypeError, ["found_inf", "int32", "one float32 or float64"]),
        ({"found_inf": "yes"}, TypeError, ["found_inf", "str"]),
        ({"found_inf": [1.0]}, TypeError, ["found_inf", "list"]),
    ],
    ids=str,
)
def test_scalars_of_a_step(scalars, error, texts):
    pair = Pair(clip_norm=1.0)
    with pair.refuses(error, *texts):
        pair.optimizer.step(**scalars)
    with pair.refuses(error, *texts):
        pair.optimizer.bind(pair.grads, **scalars)


def test_an_average_that_is_not_there():
    pair = Pair()
    with pair.refuses(ValueError, "no average", "ema_decay"):
        pair.optimizer.swap_ema()
    with pair.refuses(ValueError, "no average", "ema_decay"), pair.optimizer.ema():
        raise AssertionError("the block must not begin")


def test_norms_that_nobody_asked_for():
    pair = Pair()
    with pair.refuses(ValueError, "clip_norm", "nonfinite='skip'"):
        pair.optimizer.gradient_norms()


@pytest.mark.parametrize(
    "call",
    [
        lambda optimizer: optimizer.step(),
        lambda optimizer: optimizer.state_dict(),
        lambda optimizer: optimizer.save("nowhere"),
        lambda optimizer: optimizer.load_state_dict(SAVED),
        lambda optimizer: optimizer.set_hyperparameters(lr=0.5),
        lambda optimizer: optimizer.add_group([np.ones(3)]),
    ],
    ids=["step", "state_dict", "save", "load_state_dict", "set_hyperparameters", "add_group"],
)
def test_while_the_parameters_hold_their_averages(call):
    pair = Pair(ema_decay=0.5)
    SAVED.update(pair.optimizer.state_dict())
    with pair.refuses(RuntimeError, "the parameters hold their averages now", "swap_ema() once more"):
        pair.optimizer.swap_ema()
        try:
            call(pair.optimizer)
        finally:
            pair.optimizer.swap_ema()


SAVED = {}


# ---- groups that are added


@pytest.mark.parametrize(
    ("group", "error", "texts"),
    [
        ({"params": [np.ones(3)], "lr": -1.0}, ValueError, ["lr of group 1", "-1.0"]),
        ({"params": [np.ones(3)], "seed": 1}, ValueError, ["group 1", "'seed'", "allowed"]),
        ({"params": {"w": np.ones(3)}}, ValueError, ["parameter 'w'", "group 0", "group 1"]),
        ({"params": [np.ones(3, np.int32)]}, TypeError, ["parameter 2", "int32", "allowed"]),
        ([1.0], TypeError, ["parameter 2", "float"]),
        (3, TypeError, ["int"]),
        ({"params": [np.ones(6)[::2]]}, ValueError, ["parameter 2", "one dense run"]),
    ],
    ids=str,
)
def test_a_group_that_cannot_be_added(group, error, texts):
    pair = Pair()
    with pair.refuses(error, *texts):
        pair.optimizer.add_group(group)


def test_a_group_that_shares_memory_cannot_be_added():
    pair = Pair()
    with pair.refuses(ValueError, "shares memory", "parameter 'w'"):
        pair.optimizer.add_group([pair.params["w"]])


def test_that_a_refusal_is_seen():
    """The checks above would notice a message without its value, and a call that is not refused."""
    with pytest.raises(AssertionError):
        check_message(ValueError("clip_norm is wrong"), ValueError, ["clip_norm", "-1.0"])
    with pytest.raises(pytest.fail.Exception):
        refused(AdamW, [np.ones(5)], ValueError, [], clip_norm=1.0)

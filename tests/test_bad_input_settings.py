"""Bad hyperparameters, options, schedules and backends are refused before anything is written.

By the right exception, with a message that names what is wrong, its value and what is allowed; and the optimizer then
goes on as if nothing had happened. The rows are those of the fault table.
"""

import decimal
import math
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from bad_input import F32, NAMES, Pair, frozen, refused, refused_everywhere, setting

import gpuadam
from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, ScheduleError, schedules

# ---- row 5: devices. No GPU is needed to refuse one: these classes only claim to lie there.


@pytest.mark.parametrize("backend", ["gpu", "CUDA", "", None, 0, ["cpu"]], ids=repr)
def test_unknown_backend(backend):
    param = np.ones(5)
    texts = ["backend", repr(backend), "'auto', 'cpu', 'cuda'"]
    refused(Adam, [param], ValueError, texts, watched=[param], backend=backend)


# ---- rows 21 to 24: hyperparameters


OUT_OF_RANGE = [math.nan, math.inf, -math.inf, -1.0, -1e-300, F32("nan"), 1e39]
NO_NUMBERS = ["0.1", None, True, np.True_, [0.1], np.array([0.1]), np.array(0.1), 0.1j, {}]
NO_NUMBERS += [decimal.Decimal("0.1"), b"1"]


@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_numbers_out_of_range(make, name, value):
    fraction = "a number >= 0 and < 1"
    ranges = {"beta1": fraction, "beta2": fraction, "alpha": fraction, "dampening": "a number from 0 to 1"}
    allowed = ranges.get(name, "a number from 0 to 3.4e38")
    texts = [f"is {float(value)!r}", f"allowed is {allowed}, or a schedule"]
    refused_everywhere(make, name, value, ValueError, texts)


@pytest.mark.parametrize("value", [1.0, 1, 2, np.float64(1)], ids=repr)
@pytest.mark.parametrize(("make", "name"), [(AdamW, "beta1"), (AdamW, "beta2"), (RMSprop, "alpha")])
def test_a_beta_of_one_or_more(make, name, value):
    refused_everywhere(make, name, value, ValueError, [f"is {float(value)!r}", "allowed is a number >= 0 and < 1"])


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_no_numbers(make, name, value):
    refused_everywhere(make, name, value, TypeError, ["must be a number", f"got {value!r}"])


@pytest.mark.parametrize("value", [lambda step: 0.1, float, np.sqrt], ids=["lambda", "class", "ufunc"])
@pytest.mark.parametrize(("make", "name"), NAMES)
def test_plain_callables(make, name, value):
    refused_everywhere(make, name, value, TypeError, ["plain callable", "schedules.sampled", "schedules.step"])


@pytest.mark.parametrize("value", [0.9, (), (0.9,), (0.9, 0.9, 0.9), "ab", {0.8, 0.9}, None, np.array(0.9)], ids=repr)
def test_betas_that_are_not_two(value):
    param, texts = np.ones(5), ["betas of group 0", "two, beta1 and beta2", f"got {value!r}"]
    refused(Adam, [param], ValueError, texts, watched=[param], betas=value)
    pair = Pair()
    with pair.refuses(ValueError, *texts):
        pair.optimizer.set_hyperparameters(lr=0.5, betas=value)


@pytest.mark.parametrize("name", ["beta3", "betas2", "params", "amsgrad", "momentum", "LR"])
def test_hyperparameters_that_there_are_not(name):
    pair = Pair()
    with pair.refuses(ValueError, "adam", repr(name), "allowed are", "'weight_decay'"):
        pair.optimizer.set_hyperparameters(lr=0.5, **{name: 0.1})


@pytest.mark.parametrize("group", [1, -2, "0", 0.0, True, [0]], ids=repr)
def test_groups_that_there_are_not(group):
    pair = Pair()
    with pair.refuses(ValueError, f"group is {group!r}", "allowed are 0 to 0"):
        pair.optimizer.set_hyperparameters(group, lr=0.5)


@pytest.mark.parametrize("make", [RMSprop, SGD])
def test_momentum_cannot_come_later_without_a_buffer(make):
    pair = Pair(make)
    for value in (0.9, schedules.constant(0.9)):
        with pair.refuses(ValueError, "group 0", "momentum_buffer", "momentum", "constructor"):
            pair.optimizer.set_hyperparameters(momentum=value)
    pair.optimizer.set_hyperparameters(momentum=0)
    pair.go_on()


NO_NESTEROV = {
    "no momentum": ({}, ["momentum of group 1 is 0", "allowed is one > 0, or a schedule"]),
    "dampening": ({"momentum": 0.9, "dampening": 0.5}, ["dampening of group 1 is 0.5", "allowed is 0, or a schedule"]),
}


@pytest.mark.parametrize("name", NO_NESTEROV)
def test_nesterov_wants_momentum_and_no_dampening(name):
    settings, texts = NO_NESTEROV[name]
    param = np.ones(5)
    groups = [{"params": []}, {"params": [param], "nesterov": True}]
    refused(SGD, groups, ValueError, ["nesterov is True", *texts], watched=[param], **settings)
    texts = [text.replace("group 1", "group 0") for text in texts]
    refused(SGD, [param], ValueError, ["nesterov is True", *texts], watched=[param], nesterov=True, **settings)


def test_a_later_change_cannot_take_what_nesterov_wants():
    pair = Pair(SGD, momentum=0.9, nesterov=True)
    with pair.refuses(ValueError, "nesterov is True", "momentum of group 0 is 0"):
        pair.optimizer.set_hyperparameters(momentum=0.0, lr=0.5)
    with pair.refuses(ValueError, "nesterov is True", "dampening of group 0 is 0.5"):
        pair.optimizer.set_hyperparameters(dampening=0.5, lr=0.5)
    state = SGD([{"params": [np.ones(5)]}], momentum=0.0).state_dict()
    optimizer = SGD([np.ones(5)], momentum=0.9, nesterov=True)
    before = frozen(optimizer.state_dict())
    state["state"][0]["momentum_buffer"] = np.ones(5)
    with pytest.raises(ValueError, match="momentum of group 0 is 0"):
        optimizer.load_state_dict(state, hyperparameters=True)
    assert frozen(optimizer.state_dict()) == before


def test_nesterov_leaves_schedules_alone():
    param = np.ones(5)
    momentum, dampening = schedules.linear_warmup(0.9, 5), schedules.constant(0.0)
    SGD([param], momentum=momentum, dampening=dampening, nesterov=True).step([np.ones(5)])
    assert np.all(param < 1)


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_an_eps_that_is_0_in_float32(make):
    param, wide = np.ones(5, F32), np.ones(5)
    texts = ["eps of group 0", "is 1e-46", "0 in float32", "allowed is 0 or >= 1.4e-45"]
    refused(make, [param], ValueError, texts, watched=[param], eps=1e-46)
    make([wide], eps=1e-46).step([np.ones(5)])
    assert np.all(wide != 1)
    make([param], eps=1.5e-45).step([np.ones(5, F32)])
    assert np.all(param != 1)
    pair = Pair(make)
    with pair.refuses(ValueError, *texts):
        pair.optimizer.set_hyperparameters(eps=1e-46)


@pytest.mark.parametrize("make", [Adam, RMSprop])
def test_eps_0_is_allowed_and_divides_0_by_0(make):
    """Row 26 too: no ZeroDivisionError out of Numba."""
    param = np.ones(3, F32)
    make([param], eps=0, lr=0.5).step([np.array([1, 0, -1], F32)])
    assert np.isnan(param).tolist() == [False, True, False]


def test_a_rate_that_flips_signs_warns_once():
    param = np.ones(5)
    with pytest.warns(UserWarning, match="weight decay takes 1.2 times the parameters of group 0 a step") as caught:
        optimizer = AdamW([param], lr=2.0, weight_decay=0.6)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.step([np.ones(5)])
        AdamW([param], lr=2.0, weight_decay=0.5)
        Adam([param], lr=2.0, weight_decay=0.6)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        *[(Adam, name, bad) for name in ("maximize", "amsgrad") for bad in (None, 1, "yes", 0.0, np.array([1, 2]))],
        *[(Adam, name, bad) for name in ("eps_placement", "decay") for bad in (None, True, "Inside", 1, ["inside"])],
        *[(RMSprop, name, bad) for name in ("centered", "bias_correction") for bad in (None, 1, "yes", "raw")],
        *[(SGD, name, bad) for name in ("nesterov", "maximize") for bad in (None, 1, "yes")],
        *[(SGD, name, bad) for name in ("lr_placement", "decay") for bad in (None, True, "hat")],
        *[(NAdam, "decoupled_weight_decay", bad) for bad in (None, 1, "decoupled")],
        *[(NAdam, name, bad) for name in ("eps_placement", "decay") for bad in (None, True, "corrected")],
        *[(RMSprop, name, bad) for name in ("eps_placement", "lr_placement") for bad in (None, "hat", "corrected")],
    ],
    ids=repr,
)  # fmt: skip
def test_options_with_unknown_values(make, name, bad):
    param = np.ones(5)
    texts = [f"{name} of group 0", f"is {bad!r}", "allowed are ("]
    refused(make, [param], ValueError, texts, watched=[param], **{name: bad})
    groups = [{"params": []}, {"params": [param], name: bad}]
    refused(make, groups, ValueError, [f"{name} of group 1", *texts[1:]], watched=[param])


def test_the_initial_square_average_is_a_number_in_range():
    param = np.ones(5)
    for bad in (math.nan, math.inf, -1e-9):
        texts = ["initial_square_avg of group 0", f"is {bad!r}", "allowed is a number from 0 to 3.4e38"]
        refused(RMSprop, [param], ValueError, texts, watched=[param], initial_square_avg=bad)
    for bad in ("1", None, True, [1.0]):
        texts = ["initial_square_avg of group 0", "must be a number", f"got {bad!r}"]
        refused(RMSprop, [param], TypeError, texts, watched=[param], initial_square_avg=bad)


# ---- rows 22, 26, 28: schedules


BAD_SCHEDULES = {
    "negative": ("lr", schedules.step - 1.0, "-1.0", "a number from 0 to 3.4e38"),
    "0/0": ("lr", schedules.step / schedules.step, "nan", "a number from 0 to 3.4e38"),
    "1/0": ("lr", 1.0 / schedules.step, "inf", "a number from 0 to 3.4e38"),
    "log 0": ("eps", schedules.log(schedules.step), "-inf", "a number from 0 to 3.4e38"),
    "overflow": ("weight_decay", schedules.exp(schedules.step + 1000.0), "inf", "a number from 0 to 3.4e38"),
    "beta of one": ("beta1", schedules.constant(1.0), "1.0", "a number >= 0 and < 1"),
    "beta of NaN": ("beta2", schedules.parameter("beta", math.nan), "nan", "a number >= 0 and < 1"),
}


@pytest.mark.parametrize("name", BAD_SCHEDULES)
def test_schedules_out_of_range_at_the_first_step(name):
    which, schedule, value, allowed = BAD_SCHEDULES[name]
    param = np.ones(5)
    texts = [f"{which} of group 1", value, "step 0", f"allowed is {allowed}", "nothing was written"]
    groups = [{"params": []}, {"params": [param], **setting(which, schedule)}]
    refused(Adam, groups, ScheduleError, texts, watched=[param])


def test_schedules_that_are_too_much_for_the_tables():
    """A program may grow into the room that it has; beyond that it is refused before anything has changed."""
    grown = Pair()
    grown.optimizer.set_hyperparameters(lr=schedules.sampled(lambda k: 0.1, 4000))
    for _ in range(2):
        grown.optimizer.step()
        grown.twin.step()
        assert frozen(grown.params) == frozen(grown.twins)
    long = schedules.sampled(lambda k: 0.1, 5000)
    deep = schedules.step
    for k in range(5000):
        deep = deep + k
    many = sum((schedules.accumulator(f"a{i}", 1.0, lambda x: x) for i in range(5)), schedules.constant(0.0))
    wide = schedules.step
    for k in range(70):  # each is needed twice, so 70 results are kept
        part = schedules.step * k
        wide = schedules.where(part > 1, wide, part + 1) + part
    pair = Pair()
    for schedule, texts in (
        (long, ["5", "'values'", "room for 4096", "new optimizer"]),
        (deep, ["'program'", "room for 4096", "new optimizer"]),
        (many, ["4 accumulators", "got 5", "'a0'"]),
        (wide, ["too large", "64"]),
    ):
        with pair.refuses(ValueError, *texts):
            pair.optimizer.set_hyperparameters(lr=schedule, eps=0.5)
    with pair.refuses(ValueError, "too large"):
        pair.optimizer.set_hyperparameters(weight_decay=wide)


def test_names_that_stand_for_two_things():
    param = np.ones(5)
    one, two = (schedules.parameter("scale", value) for value in (1.0, 2.0))
    texts = ["'scale'", "two values", "1.0", "2.0", "one number"]
    refused(Adam, [{"params": [param], "lr": one}, {"params": [], "lr": two}], ValueError, texts, watched=[param])
    lr, decay = (schedules.accumulator("sum", value, lambda x: x / 2) for value in (1.0, 2.0))
    refused(Adam, [param], ValueError, ["accumulators", "'sum'"], watched=[param], lr=lr, weight_decay=decay)


def test_a_name_that_comes_again_keeps_the_number_it_has():
    """So a schedule may be replaced by one that is made anew with the same parameter."""
    optimizer = Adam([np.ones(5)], lr=0.1 * schedules.parameter("scale", 1.0))
    optimizer.set_parameter("scale", 0.5)
    optimizer.set_hyperparameters(lr=0.2 * schedules.parameter("scale", 1.0))
    assert optimizer.parameters() == {"scale": 0.5}
    assert optimizer.hyperparameters()[0]["lr"] == 0.1


@pytest.mark.parametrize(("make", "settings"), [(AdamW, {"lr": 2.0, "weight_decay": 0.6}), (Adam, {"lr": 9.0})])
def test_signs_that_a_later_setting_flips_are_named_too(make, settings):
    optimizer = make([np.ones(5)], decay="decoupled", weight_decay=0.2)
    with pytest.warns(UserWarning, match="flips their signs"):
        optimizer.set_hyperparameters(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"lr": 1e38}, "step_size of group 0 would be"),
        ({"lr": 1e25, "weight_decay": 1e25}, "decay of group 0 would be"),
    ],
)
def test_coefficients_that_are_infinite_in_float32_are_refused(settings, text):
    param = np.ones(5, np.float32)
    with pytest.raises(gpuadam.ScheduleError, match=text):
        AdamW([param], **settings)
    Adam([np.ones(5)], lr=1e38)


PARAMETER_ERRORS = [("other", 1.0, KeyError, ["'other'", "'scale'"]), (5, 1.0, KeyError, ["5", "'scale'"])]
PARAMETER_ERRORS += [
    ("scale", bad, TypeError, ["parameter 'scale'", "must be a number", f"got {bad!r}"])
    for bad in ("1", None, True, [1.0], 1j, schedules.step)
]


@pytest.mark.parametrize(("name", "value", "error", "texts"), PARAMETER_ERRORS)
def test_bad_values_of_a_named_parameter(name, value, error, texts):
    pair = Pair(lr=0.1 * schedules.parameter("scale", 1.0))
    with pair.refuses(error, *texts):
        pair.optimizer.set_parameter(name, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_named_parameter_that_takes_the_rate_out_of_range_holds_the_step(value):
    pair = Pair(lr=0.1 * schedules.parameter("scale", 1.0))
    pair.optimizer.set_parameter("scale", value)
    before = frozen([pair.params, pair.optimizer.state_dict()])
    for _ in range(2):
        with pytest.raises(
            ScheduleError, match=r"lr of group 0 would be .* at step 1; allowed is a number from 0 to 3.4e38"
        ):
            pair.optimizer.step()
        assert frozen([pair.params, pair.optimizer.state_dict()]) == before
    pair.optimizer.set_parameter("scale", 1.0)
    pair.go_on()


# ---- malformed groups


def test_unknown_keywords():
    for name in ("foreach", "fused", "capturable", "momentum"):
        with pytest.raises(TypeError, match=name):
            Adam([np.ones(3)], **{name: True})


# ---- row 34: states that do not fit


def test_the_public_errors_are_what_they_say():
    assert issubclass(gpuadam.ScheduleError, ValueError)


class Stranger:
    """Stands for a scheduler of a library that is not there."""


@pytest.mark.parametrize(
    ("lr", "texts"),
    [
        (Stranger(), ["lr of group 0 is a Stranger of torch", "gpuadam.torch.as_schedule"]),
        (schedules.cosine_decay, ["cosine_decay, a schedule without its arguments", "write cosine_decay(...)"]),
        (lambda step: 0.1, ["lr of group 0 is a plain callable", "schedules.sampled"]),
    ],
)
def test_what_is_handed_over_in_the_place_of_a_schedule(lr, texts, monkeypatch):
    monkeypatch.setattr(Stranger, "__module__", "torch.optim.lr_scheduler")
    with pytest.raises(TypeError) as caught:
        gpuadam.AdamW([np.ones(3, np.float32)], lr=lr)
    assert all(text in str(caught.value) for text in texts)


def test_an_argument_that_is_not_there_is_told_what_there_is():
    with pytest.raises(TypeError, match=r"there is no argument .foreach.; there are .*amsgrad, .*maximize"):
        gpuadam.AdamW([np.ones(3, np.float32)], foreach=True)


@pytest.mark.parametrize("name", ["jax", "keras", "thinc", "torch"])
@pytest.mark.parametrize("how", ["import gpuadam.{0}", "import gpuadam; gpuadam.{0}"])
def test_a_framework_that_is_not_there_is_named(name, how):
    """In a process of its own: what was imported once stays."""
    code = f"import sys; sys.modules[{name!r}] = None; {how.format(name)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"gpuadam\.{name} needs {name} .*pip install 'gpuadam\[{name}\]'", last), last


def test_there_is_no_module_for_what_is_no_framework_of_ours():
    with pytest.raises(AttributeError, match="has no attribute 'tensorflow'"):
        gpuadam.tensorflow  # noqa: B018

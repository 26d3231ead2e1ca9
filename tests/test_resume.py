"""A run that was saved goes on to the same bits, from any place; a file that does not fit changes nothing."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from bad_input import change, filled, frozen
from cases import CASES, IDS, assert_same_bits, gradients, parameters
from fake_twins import NEEDS_COMPILER, Twins, adamw, arrays, stand_in  # noqa: F401 (a fixture)
from golden import make as golden
from test_interrupts import interrupted

import gpuadam
from gpuadam import AdamW, RMSprop, checkpoint, cpu, resume, schedule_data, schedules
from gpuadam.checkpoint import CheckpointError
from gpuadam.expressions import Expr, accumulator, maximum, parameter, step, updates

F32, F64 = np.float32, np.float64


class Run:
    """Two tensors in both formats, one in Fortran's order, and gradients of which some are missing."""

    def __init__(self, make, rests=(), **settings):
        flat = parameters(12, F32), parameters(20, F64, seed=2)
        self.params = {"a/b": np.asfortranarray(flat[0].reshape(3, 4)), 0: flat[1]}
        self.optimizer = make(self.params, **settings)
        self.grads = [gradients(20, 12, F32), gradients(20, 20, F64, seed=3)]
        self.rests = set(rests)

    def steps(self, begin, end):
        for k in range(begin, end):
            first = np.asfortranarray(self.grads[0][k].reshape(3, 4))
            self.optimizer.step({"a/b": None if k in self.rests else first, 0: self.grads[1][k]})

    def picture(self):
        return frozen([self.params, self.optimizer.state_dict(), self.optimizer.hyperparameters()])


def assert_goes_on(path, make, at, rests=(), **settings):
    straight, first, second = (Run(make, rests, **settings) for _ in range(3))
    straight.steps(0, at)
    first.steps(0, at)
    first.optimizer.save(path)
    for param in second.params.values():
        param[...] = 77.0  # the file's values replace these
    assert second.optimizer.load(path) == []
    assert second.picture() == first.picture()
    straight.steps(at, 20)
    second.steps(at, 20)
    assert second.picture() == straight.picture()
    return straight


# ---- save, load, go on


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_resumed_run_is_the_run_that_went_straight_on(case, tmp_path):
    run = assert_goes_on(tmp_path / "file", case.optimizer, 10, rests=(3, 12))
    assert not np.array_equal(run.params[0], parameters(20, F64, seed=2))


def summing():
    return accumulator("sum", 0.0, lambda value: value * 0.5 + 1e-3 * updates)


SCHEDULES = {
    "warmup_cosine_decay": lambda: schedules.warmup_cosine_decay(0.0, 0.05, 3, 12),
    "piecewise": lambda: schedules.piecewise_constant([3, 11], [0.05, 0.01, 0.002]),
    "restarts": lambda: schedules.cosine_decay_restarts(0.05, 4, 1.5, 0.5),
    "cyclic": lambda: schedules.cyclic(0.01, 0.05, 3),
    "one_cycle": lambda: schedules.one_cycle(0.05, 20),
    "join": lambda: schedules.join([schedules.linear_warmup(0.05, 5), schedules.exponential_decay(0.05, 3, 0.5)], [5]),
    "sampled": lambda: schedules.sampled(lambda k: 0.05 / (k + 1), 15),
    "accumulator": lambda: 0.01 + summing(),
    "parameter": lambda: 0.05 * parameter("scale", 0.5) * (step + 1) ** -0.5,
    "two accumulators": lambda: coupled(),
}


def coupled():
    """Two values with a memory, one of which moves by the other."""
    first = accumulator("first", 1.0, lambda value: value * 0.75)
    second = accumulator("second", 0.5, lambda value: value * 0.5 + first * 0.01 * parameter("scale", 0.25))
    return 0.01 * maximum(first, second)


@pytest.mark.parametrize("at", [0, 1, 3, 5, 11, 19])
@pytest.mark.parametrize("name", SCHEDULES)
def test_at_every_position_of_a_schedule(name, at, tmp_path):
    assert_goes_on(tmp_path / "file", AdamW, at, rests=(2, 4, 11), lr=SCHEDULES[name]())


def test_named_parameters_are_taken_up(tmp_path):
    first, second = (Run(AdamW, lr=SCHEDULES["parameter"]()) for _ in range(2))
    first.steps(0, 2)
    first.optimizer.set_parameter("scale", 0.125)
    first.optimizer.save(tmp_path / "file")
    assert second.optimizer.load(tmp_path / "file") == []
    assert second.optimizer.parameters() == {"scale": 0.125}
    assert second.picture() == first.picture()


def test_without_parameters_theirs_stay(tmp_path):
    first, second = Run(AdamW), Run(AdamW)
    first.steps(0, 5)
    first.optimizer.save(tmp_path / "file", params=False)
    assert "params" not in checkpoint.read(tmp_path / "file")
    before = frozen(second.params)
    assert second.optimizer.load(tmp_path / "file") == []
    assert frozen(second.params) == before
    assert frozen(second.optimizer.state_dict()) == frozen(first.optimizer.state_dict())


def test_every_order_of_elements(tmp_path):
    """What is saved is the array, element for element, not its memory."""
    values = np.arange(24.0).reshape(2, 3, 4)
    orders = [
        values.copy(),
        np.asfortranarray(values),
        np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, 0)), 0, 1),
    ]
    orders = {"c": orders[0], "f": orders[1], "permuted": orders[2], "point": np.array(5.0), "none": np.ones((0, 3))}
    AdamW(orders).save(tmp_path / "file")
    assert frozen(checkpoint.read(tmp_path / "file")["params"]) == frozen({**orders, "f": values, "permuted": values})
    other = {"c": orders["f"].copy("K"), "f": orders["permuted"].copy("K"), "permuted": orders["c"].copy()}
    other |= {"point": np.array(0.0), "none": np.ones((0, 3))}
    for array in other.values():
        array[...] = -1
    AdamW(other).load(tmp_path / "file")
    assert all(np.array_equal(array, orders[name]) for name, array in other.items())


def test_values_of_every_kind(tmp_path):
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.8e308, -1e-310])
    param = special.copy()
    optimizer = AdamW([param])
    optimizer.save(tmp_path / "file")
    param[...] = 0
    optimizer.load(tmp_path / "file")
    assert param.tobytes() == special.tobytes()


# ---- what is reported, and what is taken


def test_other_settings_are_reported_and_stay(tmp_path):
    first, second = Run(AdamW, lr=SCHEDULES["cyclic"](), weight_decay=0.5), Run(AdamW, lr=0.25, maximize=True)
    first.steps(0, 3)
    first.optimizer.save(tmp_path / "file")
    assert second.optimizer.load(tmp_path / "file") == [
        "lr of group 0 is a schedule in the file, 0.25 here",
        "weight_decay of group 0 is 0.5 in the file, 0.01 here",
        "maximize of group 0 is False in the file, True here",
    ]
    assert second.optimizer.hyperparameters()[0]["lr"] == 0.25
    assert second.optimizer.state_dict()["groups"][0]["step"] == 3


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (SCHEDULES["cyclic"](), schedules.cyclic(0.01, 0.05, 4)),
        (0.5 * (step + 0.25), 0.5 * maximum(step, 0.25)),  # the same numbers in another formula
        (parameter("a", 0.5) + 0.0 * parameter("b", 0.5), parameter("b", 0.5) + 0.0 * parameter("a", 0.5)),
        (accumulator("a", 0.5, lambda value: value * 0.5), accumulator("a", 0.25, lambda value: value * 0.5)),
        (accumulator("a", 0.5, lambda value: value * 0.5), accumulator("a", 0.5, lambda value: value - 0.5)),
    ],
    ids=["numbers", "formula", "parameters", "start", "update"],
)
def test_another_schedule_is_reported(own, other, tmp_path):
    Run(RMSprop, eps=own).optimizer.save(tmp_path / "file")
    assert Run(RMSprop, eps=own).optimizer.load(tmp_path / "file") == []
    found = Run(RMSprop, eps=other).optimizer.load(tmp_path / "file")
    assert found == ["eps of group 0 is a schedule in the file, another here"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_hyperparameters_of_the_file_are_taken_if_asked_for(name, tmp_path):
    """Schedules too: the run goes on as if the constructor had been given them."""
    made = SCHEDULES[name]()
    keys = {"sum": summing(), "scale": parameter("scale", 1.5)}
    own = {"accumulator": keys["sum"] * 3.0, "parameter": keys["scale"] * 0.5, "two accumulators": coupled() * 2.0}
    straight, first = Run(AdamW, lr=made), Run(AdamW, lr=made)
    second = Run(AdamW, lr=own.get(name, 0.125), betas=(0.5, 0.75), weight_decay=0.25)
    straight.steps(0, 20)
    first.steps(0, 7)
    first.optimizer.save(tmp_path / "file")
    assert len(second.optimizer.load(tmp_path / "file", hyperparameters=True)) == 4
    second.steps(7, 20)
    assert frozen([second.params, second.optimizer.state_dict()]) == frozen(
        [straight.params, straight.optimizer.state_dict()]
    )
    assert second.optimizer.load(tmp_path / "file") == [], "they are not those of the file"


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_as_data_is_the_same_schedule(name):
    schedule = SCHEDULES[name]()
    data = schedule_data.to_data(schedule)
    again = schedule_data.from_data(data, {})
    assert frozen(schedule_data.to_data(again)) == frozen(data)
    if "parameter" not in name and name != "two accumulators":  # the value of a parameter is none of the formula's
        assert_same_bits(again(np.arange(40)), schedule(np.arange(40)))


def test_accumulators_that_two_schedules_share(tmp_path):
    def make(params, factor=1.0):
        shared = summing()
        return AdamW(params, lr=factor * (shared + 0.01), weight_decay=shared * factor)

    straight, first, second = Run(make), Run(make), Run(make, factor=2.0)
    straight.steps(0, 20)
    first.steps(0, 7)
    first.optimizer.save(tmp_path / "file")
    assert len(second.optimizer.load(tmp_path / "file", hyperparameters=True)) == 2
    second.steps(7, 20)
    assert second.picture() == straight.picture()


def test_options_are_not_taken(tmp_path):
    first, second = Run(AdamW), Run(AdamW, maximize=True, lr=0.5)
    first.optimizer.save(tmp_path / "file")
    refuses(second, tmp_path / "file", ["maximize of group 0 is False in the file, True here"], hyperparameters=True)


# ---- what does not fit


def refuses(run, path, texts, **settings):
    """The file is refused, with all these differences, and the run has not changed a bit."""
    before = run.picture()
    with pytest.raises(CheckpointError) as caught:
        run.optimizer.load(path, **settings)
    assert run.picture() == before
    assert str(path) in str(caught.value)
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in {str(caught.value)!r}"


class Small:
    """Two groups of tensors of a layout."""

    def __init__(self, make=AdamW, layout=None, groups=(("w",), ("b",)), **settings):
        self.params = filled(layout=layout) if layout else filled()
        members = [{"params": {name: self.params[name] for name in names}} for names in groups]
        self.optimizer = make(members, **settings)
        self.optimizer.step(filled(0.1, 1, layout) if layout else filled(0.1, 1))

    picture = Run.picture


def test_every_difference_is_listed(tmp_path):
    layout = {"w": ((4, 3), F32), "c": ((5,), F64), "b": ((5,), F32)}
    other = Small(RMSprop, layout, [("w",), ("c", "b"), ()], momentum=0.5)
    other.optimizer.save(tmp_path / "file")
    texts = [
        "of the rule 'rmsprop', this optimizer is 'adam'",
        "it has 3 groups, this optimizer has 2",
        "it has the tensor 'c', which this optimizer has not",
        "the states of tensor 'w' are ['momentum_buffer', 'square_avg'], here they are ['exp_avg', 'exp_avg_sq']",
        "tensor 'w' is float32 of shape [4, 3] in the file, float32 of shape [3, 4] here",
        "tensor 'b' is float32 of shape [5] in the file, float64 of shape [5] here",
        "it has values of the parameter 'c', which this optimizer has not",
        "parameter 'w' is float32 of shape [4, 3] in the file, float32 of shape [3, 4] here",
    ]
    for settings in ({}, {"hyperparameters": True}):
        refuses(Small(), tmp_path / "file", texts, **settings)


def test_other_states_accumulators_parameters_and_groups(tmp_path):
    Small(amsgrad=True, lr=coupled()).optimizer.save(tmp_path / "file")
    texts = [
        "the states of tensor 'w' are ['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'], here they are",
        "the accumulators of group 0 are ['first', 'second'], here they are []",
        "its named parameters are ['scale'], this optimizer's []",
    ]
    refuses(Small(), tmp_path / "file", texts)
    refuses(Small(), tmp_path / "file", texts, hyperparameters=True)
    Small(groups=[("b",), ("w",)]).optimizer.save(tmp_path / "file")
    refuses(
        Small(), tmp_path / "file", ["'w' is in group 1 of the file", "'b' is in group 0 of the file, here in group 1"]
    )


EDITS = {
    "no settings": (lambda s: s.pop("settings"), "something else than what Optimizer.save wrote"),
    "settings no list": (change(["settings"], {}), "something else than what Optimizer.save wrote"),
    "settings too few": (lambda s: s["settings"].pop(), "something else than what Optimizer.save wrote"),
    "no tensors": (lambda s: s["settings"][0].pop("tensors"), "something else than what Optimizer.save wrote"),
    "tensor no dict": (change(["settings", 0, "tensors", "w"], 5), "something else than what Optimizer.save wrote"),
    "parameters no dict": (change(["params"], [1]), "something else than what Optimizer.save wrote"),
    "parameter no array": (change(["params", "w"], [1.0]), "something else than what Optimizer.save wrote"),
    "parameter missing": (lambda s: s["params"].pop("w"), "it has no values of parameter 'w'"),
    "newer state": (change(["format_version"], 99), "its format version is 99"),
    "clock": (change(["groups", 0, "step"], -1), "step of group 0 is -1"),
    "state": (lambda s: s["state"]["w"].pop("exp_avg"), "the states of tensor 'w' are ['exp_avg_sq']"),
}


@pytest.mark.parametrize("name", EDITS)
def test_content_that_is_not_what_save_writes(name, tmp_path):
    edit, text = EDITS[name]
    Small().optimizer.save(tmp_path / "file")
    content = checkpoint.read(tmp_path / "file")
    edit(content)
    checkpoint.write(tmp_path / "file", content)
    refuses(Small(), tmp_path / "file", [text])
    for other in ([], 5, {"groups": 1}):
        checkpoint.write(tmp_path / "file", other)
        refuses(Small(), tmp_path / "file", ["something else than what Optimizer.save wrote"])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (-1.0, "lr of group 0 is -1.0; allowed is"),
        ("x", "must be a number"),
        (None, "must be a number"),
        ({}, "the hyperparameters of group 0 cannot be taken"),
        ({"code": [["NONE", 0]]}, "the hyperparameters of group 0 cannot be taken"),
        ({"code": [["ADD", 0]]}, "the hyperparameters of group 0 cannot be taken"),
        ({"code": [["VALUE", 99], ["OUTPUT", 0]]}, "the hyperparameters of group 0 cannot be taken"),
        ({"code": [["STEP", 0]]}, "the hyperparameters of group 0 cannot be taken"),
        ({"code": [["LOAD", 3], ["OUTPUT", 0]]}, "the hyperparameters of group 0 cannot be taken"),
    ],
    ids=repr,
)
def test_hyperparameters_that_cannot_be_taken(bad, text, tmp_path):
    Small(lr=SCHEDULES["cyclic"]()).optimizer.save(tmp_path / "file")
    content = checkpoint.read(tmp_path / "file")
    own = content["settings"][0]["hyperparameters"]
    own["lr"] = {**own["lr"], **bad} if isinstance(bad, dict) and bad else bad
    checkpoint.write(tmp_path / "file", content)
    refuses(Small(), tmp_path / "file", [text], hyperparameters=True)
    assert Small().optimizer.load(tmp_path / "file"), "nobody asked for them"


def test_names_that_a_file_cannot_keep(tmp_path):
    for name in ((1, 2), 1.5, True, None):
        with pytest.raises(CheckpointError, match=r"is a name of type \w+; allowed are str and int") as caught:
            AdamW({name: np.ones(2)}).save(tmp_path / "file")
        assert repr(name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_that_has_become_read_only(tmp_path):
    run = Small()
    run.optimizer.save(tmp_path / "file")
    run.params["b"].flags.writeable = False
    refuses(run, tmp_path / "file", ["parameter 'b' is read-only"])


def test_schedules_for_which_there_is_no_room(tmp_path):
    large = schedules.sampled(lambda k: 0.1, 20_000)
    Small(lr=large).optimizer.save(tmp_path / "file")
    refuses(Small(), tmp_path / "file", ["which has room for"], hyperparameters=True)


# ---- damage


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real file, and an optimizer of which it is not the state."""
    path = tmp_path_factory.mktemp("real") / "file"
    run = Run(AdamW, rests=(1,), lr=SCHEDULES["accumulator"](), amsgrad=True)
    run.steps(0, 4)
    run.optimizer.save(path)
    other = Run(AdamW, lr=SCHEDULES["accumulator"](), amsgrad=True)
    other.steps(5, 7)
    return path, path.read_bytes(), other


def check_refused(path, raw, run, before):
    """There is no byte in the file that does not matter, so none may be another."""
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        run.optimizer.load(path)
    assert run.picture() == before


def test_1000_bits_that_flip(real):
    path, raw, run = real
    random = np.random.default_rng(0)
    before = run.picture()
    for place in random.integers(0, 8 * len(raw), 1000):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        check_refused(path, bytes(flipped), run, before)


def test_1000_truncations(real):
    path, raw, run = real
    before = run.picture()
    for length in np.random.default_rng(1).integers(0, len(raw), 1000):
        check_refused(path, raw[:length], run, before)


def test_the_file_without_damage_is_loaded(real):
    path, raw, run = real
    path.write_bytes(raw)
    before = run.picture()
    assert run.optimizer.load(path) == []
    assert run.picture() != before


# ---- interrupts


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_load_that_is_interrupted_is_repeated(is_done, tmp_path, monkeypatch):
    straight, first = Run(AdamW), Run(AdamW)
    straight.steps(0, 20)
    first.steps(0, 5)
    first.optimizer.save(tmp_path / "file")
    number, overwrite = 0, cpu.overwrite
    while True:
        number += 1
        run, left = Run(AdamW), [number]
        run.steps(10, 12)

        def change(array, values, left=left):
            left[0] -= 1
            if left[0] == 0 and not is_done:
                raise KeyboardInterrupt
            overwrite(array, values)
            if left[0] == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(cpu, "overwrite", change)
        try:
            run.optimizer.load(tmp_path / "file")
            break
        except KeyboardInterrupt:
            with pytest.raises(RuntimeError, match="load_state_dict was interrupted: repeat it first"):
                run.steps(5, 6)
            with pytest.raises(RuntimeError, match="was interrupted"):
                run.optimizer.save(tmp_path / "other")
        run.optimizer.load(tmp_path / "file")
        run.steps(5, 20)
        assert run.picture() == straight.picture()
    assert number == 7, "two parameters and four states"
    number = 0
    while True:
        number += 1
        run = Run(AdamW)
        if not interrupted(run.optimizer, number, is_done, lambda run=run: run.optimizer.load(tmp_path / "file")):
            break
        run.optimizer.load(tmp_path / "file")
        run.steps(5, 20)
        assert run.picture() == straight.picture()
    assert number >= 5


def test_a_step_that_was_interrupted_is_made_good_by_a_load(tmp_path):
    straight, run = Run(AdamW), Run(AdamW)
    run.steps(0, 5)
    run.optimizer.save(tmp_path / "file")
    run.steps(10, 11)
    run.optimizer._engine.tables.is_half_done = True
    with pytest.raises(RuntimeError, match="a step was interrupted"):
        run.optimizer.save(tmp_path / "file")
    assert run.optimizer.load(tmp_path / "file") == []
    run.steps(5, 20)
    straight.steps(0, 20)
    assert run.picture() == straight.picture()


# ---- backends, PyTorch, memory


@NEEDS_COMPILER
@pytest.mark.usefixtures("stand_in")
def test_both_backends_write_the_same_bytes_and_read_each_others(tmp_path):
    def rate():
        return 0.01 + summing()

    twins = Twins(gpuadam.AdamW, arrays(0), lr=rate(), amsgrad=True)
    twins.step([grad if i % 4 else None for i, grad in enumerate(arrays(1))])
    twins.step(arrays(2))
    for name in ("host", "device"):
        getattr(twins, name).save(tmp_path / name)
    assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()
    crossed = Twins(gpuadam.AdamW, [np.full_like(param, 7) for param in twins.params], lr=rate(), amsgrad=True)
    assert crossed.host.load(tmp_path / "device") == crossed.device.load(tmp_path / "host") == []
    crossed.check()
    for k in range(3):
        twins.step(arrays(3 + k))
        crossed.step(arrays(3 + k))
    twins.check()
    crossed.check()
    for ours, theirs in zip(twins.params, crossed.params, strict=True):
        assert_same_bits(ours, theirs)


@NEEDS_COMPILER
@pytest.mark.usefixtures("stand_in")
def test_steps_that_a_device_has_not_ended_are_in_the_file(tmp_path):
    twins = adamw()
    for _ in range(5):
        twins.both("step")
    for name in ("device", "host"):
        getattr(twins, name).save(tmp_path / name)
    assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()


def test_tensors_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = np.arange(6.0).reshape(2, 3)
    weight = torch.nn.Parameter(torch.tensor(values.T).T)
    optimizer = AdamW([weight])
    weight.data = torch.tensor(values.T + 1).T  # it lies elsewhere now
    optimizer.save(tmp_path / "file")
    assert checkpoint.read(tmp_path / "file")["params"][0].tolist() == (values + 1).tolist()
    weight.data = torch.tensor(values.T * 0).T
    loss = (weight**3).sum()
    optimizer.load(tmp_path / "file")
    assert weight.tolist() == (values + 1).tolist()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    weight.data = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="its states no longer fit"):
        optimizer.load(tmp_path / "file")


def test_a_save_takes_one_copy_of_the_arrays(tmp_path):
    param = np.ones(1 << 21)
    optimizer = AdamW({"w": param})
    optimizer.save(tmp_path / "file")
    size = 3 * param.nbytes
    tracemalloc.start()
    optimizer.save(tmp_path / "file")
    _, saving = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    optimizer.load(tmp_path / "file")
    _, loading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert saving < 1.3 * size
    assert loading < 1.3 * size


# ---- the golden file of version 1

WEIGHT = {  # worked out by tests/oracle.py in float64
    "param": [-0.0382613664942, -0.697536775204, 1.27913477744, 2.60174288685, -0.418121774091, -0.34855016286],
    "exp_avg": [0.272247314453, -0.0873870849609, 0.580505371094, 0.888763427734, 0.0153656005859, 0.195182800293],
    "exp_avg_sq": [0.0574641823769, 0.0157072395086, 0.261201024055, 0.619964182377, 0.00610636174679, 0.0307528339326],
}
BIAS = {
    "param": [0.558247909386, -1.46748715994, -0.123681528532, 3.9879483434],
    "exp_avg": [0.411254882812, -0.411254882812, 0.411254882812, -0.411254882812],
    "exp_avg_sq": [0.14334154129] * 4,
}


def test_the_golden_file_is_still_read():
    optimizer, params = golden.optimizer()
    assert optimizer.load(golden.PATH) == []
    found = optimizer.state_dict()
    assert (found["rule"], found["groups"][0]["step"], found["groups"][0]["updates"]) == ("adam", 6, 6)
    for name, expected, count, tolerance in (("layer/weight", WEIGHT, 6, 1e-11), (7, BIAS, 5, 2e-6)):
        own = found["state"][name]
        assert (own["step"], own["updates"]) == (6, count)
        values = {"param": params[name], "exp_avg": own["exp_avg"], "exp_avg_sq": own["exp_avg_sq"]}
        for key, numbers in expected.items():
            assert np.allclose(values[key].ravel(), numbers, rtol=tolerance, atol=tolerance), f"{key} of {name}"
    numbers = optimizer.hyperparameters()[0]
    assert (numbers["beta1"], numbers["beta2"], numbers["eps"], numbers["weight_decay"]) == (0.75, 0.875, 1e-3, 0.25)
    assert abs(numbers["lr"] - 0.0625) < 1e-15  # half way from step 2 to step 10


def test_a_save_of_today_has_the_bytes_of_the_golden_file(tmp_path):
    golden.run().save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == golden.PATH.read_bytes()


def test_the_golden_files_schedule_is_taken():
    optimizer, _ = golden.optimizer(lr=0.5)
    assert optimizer.load(golden.PATH, hyperparameters=True) == ["lr of group 0 is a schedule in the file, 0.5 here"]
    assert abs(optimizer.hyperparameters()[0]["lr"] - 0.0625) < 1e-15


def test_the_text_of_the_golden_file_can_be_read_by_people():
    metadata = checkpoint.read(golden.PATH)["settings"][0]
    assert json.dumps(metadata["tensors"]) == (
        '{"7": {"dtype": "float32", "shape": [4]}, "layer/weight": {"dtype": "float64", "shape": [2, 3]}}'
    )
    assert metadata["options"]["decay"] == "decoupled"
    assert isinstance(schedule_data.from_data(metadata["hyperparameters"]["lr"], {}), Expr)
    assert resume.is_same(metadata["hyperparameters"]["lr"], metadata["hyperparameters"]["lr"])


def test_a_clipping_that_the_file_has_not_is_not_kept_in_silence(tmp_path):
    path = tmp_path / "run.safetensors"
    AdamW({"w": np.ones(4, np.float32)}).save(path)
    optimizer = AdamW({"w": np.ones(4, np.float32)}, clip_norm=1.0)
    with pytest.raises(CheckpointError, match="clip_norm of group 0 is None, but the constructor had one"):
        optimizer.load(path, hyperparameters=True)


def test_settings_may_be_scalars_of_numpy(tmp_path):
    path = tmp_path / "run.safetensors"
    optimizer = AdamW({"w": np.ones(4, np.float32)}, seed=np.uint64(3), zero_grads=np.bool_(True))
    optimizer.save(path)
    assert optimizer.load(path) == []

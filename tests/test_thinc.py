"""Optimizers for thinc: the numbers of its own, one launch a sweep, and nothing lost whatever order keys come in."""

import inspect

import numpy as np
import pytest

theirs = pytest.importorskip("thinc.optimizers", reason="thinc is not installed")

from thinc import schedules  # noqa: E402
from thinc.api import Relu, Softmax, chain, fix_random_seed  # noqa: E402
from thinc_cases import IS_9, Sweeper, count_launches, distance  # noqa: E402

import gpuadam  # noqa: E402
import gpuadam.thinc as ours  # noqa: E402

SHAPES = [(5, 4), (7,), (3, 2, 2), (1,), (16, 3)]
SETTINGS = {
    "defaults": {},
    "decay": {"L2": 0.1, "learn_rate": 0.01},
    "L2": {"L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.0},
    "no averages": {"use_averages": False, "grad_clip": 0.5, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3},
    "list": {"learn_rate": [0.01, 0.005, 0.002], "L2": 0.3},
    "schedules": {
        "learn_rate": lambda: schedules.warmup_linear(0.01, 5, 60),
        "L2": lambda: schedules.decaying(0.2, 0.1),
    },
}


def both(make="Adam", shapes=SHAPES, **settings):
    """The same parameters with an optimizer of thinc, and with ours that has its numbers."""

    def given():
        return {name: value() if callable(value) else value for name, value in settings.items()}

    return Sweeper(getattr(theirs, make)(**given()), shapes), Sweeper(
        getattr(ours, make)(numerics="thinc", **given()), shapes
    )


def assert_same(stock, own, limit):
    own.optimizer.step_schedules()
    stock.optimizer.step_schedules()
    assert distance(own.weights, stock.weights) <= limit
    assert (stock.optimizer.averages is None) == (own.optimizer.averages is None)
    assert distance(own.optimizer.averages or {}, stock.optimizer.averages or {}) <= limit


# ---- the numbers of thinc


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30.0])
def test_each_step_of_thinc(name, scale):
    """At gradients of 1e-6, epsilon-hat and epsilon are 32 % apart."""
    stock, own = both(**SETTINGS[name])
    for _ in range(4):
        before = {key: array.copy() for key, array in stock.weights.items()}
        for key, array in own.weights.items():
            array[...] = before[key]
        for sweeper in (stock, own):
            sweeper.step(scale=scale)
        assert distance(own.weights, stock.weights) <= 1e-6
        moved = {key: array - before[key] for key, array in stock.weights.items()}
        largest = max(np.abs(change).max() for change in moved.values())
        wrong = max(np.abs(own.weights[key] - before[key] - moved[key]).max() for key in moved)
        assert wrong <= 1e-5 * largest + 3e-7  # thinc makes 1 - beta2 in float32, which is 1.3e-5 off


@pytest.mark.parametrize("name", SETTINGS)
def test_fifty_steps_of_thinc(name):
    stock, own = both(**SETTINGS[name])
    for sweeper in (stock, own):
        for _ in range(50):
            sweeper.step()
    assert_same(stock, own, 1e-6)
    states = {(own["number"], own["name"]): own["state"] for own in own.optimizer._sweeps.collect()["parameters"]}
    for state, kept in (("exp_avg", stock.optimizer.mom1), ("exp_avg_sq", stock.optimizer.mom2)):
        assert distance({key: states[key][state].ravel() for key in states}, kept) <= 1e-6
    assert {key: state["updates"] for key, state in states.items()} == dict(stock.optimizer.nr_update)


@pytest.mark.parametrize("settings", [{}, {"L2": 0.1}, {"L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.0}])
def test_fifty_steps_of_sgd(settings):
    stock, own = both("SGD", learn_rate=0.1, **settings)
    for sweeper in (stock, own):
        for _ in range(50):
            sweeper.step()
    assert_same(stock, own, 1e-6)


def test_our_own_numbers_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    sweeper = Sweeper(ours.AdamW(0.01, L2=0.1, grad_clip=0.5, use_averages=False), SHAPES)
    twins = [torch.tensor(array.copy(), requires_grad=True) for array in sweeper.weights.values()]
    optimizer = torch.optim.AdamW(twins, lr=0.01, weight_decay=0.1)
    for _ in range(50):
        sweeper.backprop(scale=1e-3)
        for twin, gradient in zip(twins, sweeper.gradients.values(), strict=True):
            twin.grad = torch.tensor(gradient.copy())
            torch.nn.utils.clip_grad_norm_([twin], 0.5)
        sweeper.finish()
        sweeper.optimizer.step_schedules()
        optimizer.step()
    expected = {key: twin.detach().numpy() for key, twin in zip(sweeper.weights, twins, strict=True)}
    assert distance(sweeper.weights, expected) <= 1e-6


# ---- one launch


def test_one_launch_a_sweep_when_the_last_key_has_come(monkeypatch):
    launches = count_launches(monkeypatch)
    sweeper = Sweeper(ours.Adam(), SHAPES)
    sweeper.step()
    assert len(launches) == len(SHAPES)  # the first sweep shows what there is
    keys = list(sweeper.weights)
    for _ in range(3):
        launches.clear()
        before = {key: array.copy() for key, array in sweeper.weights.items()}
        sweeper.backprop()
        sweeper.finish(keys[:-1])
        assert not launches
        assert distance(sweeper.weights, before) == 0
        sweeper.finish(keys[-1:])
        assert len(launches) == 1
        assert all(np.abs(sweeper.weights[key] - before[key]).min() > 0 for key in keys)
        assert not any(gradient.any() for gradient in sweeper.gradients.values())
        sweeper.optimizer.step_schedules()
        assert len(launches) == 1


def test_a_sweep_whose_last_key_rests_is_launched_by_step_schedules(monkeypatch):
    launches = count_launches(monkeypatch)
    stock, own = both()
    for sweeper in (own, stock):
        sweeper.step()
        launches.clear()
        keys = list(sweeper.weights)[:-1]
        sweeper.sweep(keys)
        assert not launches
        sweeper.optimizer.step_schedules()
        assert len(launches) == (sweeper is own)
    assert_same(stock, own, 1e-6)


def test_a_key_that_comes_again_while_others_wait_is_refused():
    sweeper = Sweeper(ours.Adam(), SHAPES)
    sweeper.step()
    first = list(sweeper.weights)[:2]
    sweeper.sweep(first)
    before = sweeper.weights[first[0]].copy()
    sweeper.backprop()
    message = r"^W of node 0 comes again while 2 parameters .* wait for W of node 4, .*: call step_schedules\(\) after"
    with pytest.raises(RuntimeError, match=message):
        sweeper.finish(first)
    assert (sweeper.weights[first[0]] == before).all()


def test_without_step_schedules_schedules_stand_still():
    """As in a loop of nlp.update, which never calls it; every sweep is complete."""
    stock, own = both(learn_rate=lambda: schedules.decaying(0.01, 0.5))
    for sweeper in (stock, own):
        for round_ in range(9):
            sweeper.sweep()
            if round_ in (4, 6):
                sweeper.optimizer.step_schedules()
    assert_same(stock, own, 1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_in_whatever_order(seed):
    """Keys that are new, rest, come in another order, in other arrays, with other factors; averages read in between."""
    stock, own = both(learn_rate=lambda: schedules.decaying(0.01, 0.1), L2=0.1)
    for sweeper in (stock, own):
        random = np.random.default_rng(seed)
        read = sweeper.read = []
        keys = list(sweeper.weights)
        for _ in range(12):
            chosen = [key for key in keys if random.random() < 0.8] or keys[:1]
            if random.random() < 0.3:
                random.shuffle(chosen)
            if random.random() < 0.3:
                key = chosen[int(random.integers(len(chosen)))]
                sweeper.weights[key] = sweeper.weights[key].copy()
                sweeper.gradients.pop(key, None)
            scale = float(random.choice([1.0, 1.0, 0.5]))
            sweeper.backprop(chosen)
            reads_at = int(random.integers(len(chosen))) if random.random() < 0.3 else -1
            for place, key in enumerate(chosen):
                sweeper.finish([key], lr_scale=scale)
                if place == reads_at:
                    read.append({key: array.copy() for key, array in sweeper.optimizer.averages.items()})
            sweeper.optimizer.step_schedules()
    assert_same(stock, own, 1e-6)
    assert all(distance(*pair) <= 1e-6 for pair in zip(own.read, stock.read, strict=True))


def test_another_order_without_step_schedules():
    stock, own = both()
    for sweeper in (stock, own):
        keys = list(sweeper.weights)
        for order in (keys, keys[-1:] + keys[:-1], keys[-1:] + keys[:-1], keys[::-1]):
            sweeper.sweep(order)
    assert_same(stock, own, 1e-6)


def test_a_key_that_joins_in_the_middle_of_a_sweep(monkeypatch):
    launches = count_launches(monkeypatch)
    sweeper = Sweeper(ours.Adam(), SHAPES)
    first, new, last = list(sweeper.weights)[:3]
    counts = []
    for keys in ([first, last], [first, new, last], [first, new, last]):
        launches.clear()
        sweeper.step(keys)
        counts.append(len(launches))
    assert counts == [2, 2, 1]


def test_a_gradient_that_lies_otherwise_is_taken_and_left_zero():
    stock, own = both(shapes=[(4, 3), (6, 5)])
    for sweeper in (stock, own):
        for _ in range(4):
            sweeper.backprop()
            sweeper.gradients = {key: np.asfortranarray(array) for key, array in sweeper.gradients.items()}
            sweeper.finish()
            sweeper.optimizer.step_schedules()
            assert not any(gradient.any() for gradient in sweeper.gradients.values())
    assert_same(stock, own, 1e-6)


def test_a_gradient_of_another_shape_is_refused_by_its_key():
    optimizer = ours.Adam()
    weights = np.ones((3, 2), np.float32)
    message = r"gradient 'W of node 8' has shape \(2, 3\), its parameter has \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        optimizer((8, "W"), weights, np.ones((2, 3), np.float32))
    assert (weights == 1).all()
    empty = np.zeros((0, 2), np.float32)
    optimizer = ours.Adam()
    assert optimizer((9, "W"), empty, empty)[0] is empty
    assert optimizer.averages == {}


# ---- models


def classifier():
    fix_random_seed(0)
    random = np.random.default_rng(0)
    inputs = random.standard_normal((64, 6)).astype(np.float32)
    model = chain(Relu(8), Relu(8), Softmax(3))
    labels = np.eye(3, dtype=np.float32)[(inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0)]
    model.initialize(X=inputs, Y=labels)
    return model, inputs, labels


def train(model, inputs, labels, optimizer, steps, between=lambda step: None):
    losses = []
    for step in range(steps):
        outputs, backprop = model.begin_update(inputs)
        backprop((outputs - labels) / len(labels))
        model.finish_update(optimizer)
        optimizer.step_schedules()
        losses.append(float(((outputs - labels) ** 2).sum()))
        between(step)
    return losses


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_model_trains_as_with_thinc(interrupts):
    """Interrupted by what spaCy does: averages are put in the place of the weights, and models are loaded."""
    found = []
    for make in (theirs.Adam, lambda rate: ours.Adam(rate, numerics="thinc")):
        model, inputs, labels = classifier()
        optimizer = make(0.02)
        averaged = []

        def between(step, model=model, optimizer=optimizer, averaged=averaged, inputs=inputs):
            if interrupts and step % 5 == 2:
                with model.use_params(optimizer.averages):
                    averaged.append(model.predict(inputs))
            if interrupts and step == 7:
                model.from_bytes(model.to_bytes())

        found.append((train(model, inputs, labels, optimizer, 20, between), averaged))
    assert found[0][0][-1] < 0.7 * found[0][0][0]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert np.allclose(found[1][1], found[0][1], atol=1e-4)


def test_a_sweep_of_a_model_is_one_launch(monkeypatch):
    launches = count_launches(monkeypatch)
    model, inputs, labels = classifier()
    counts = []
    train(model, inputs, labels, ours.AdamW(), 5, lambda step: (counts.append(len(launches)), launches.clear()))
    assert counts == [6, 1, 1, 1, 1]


def train_with_pytorch(monkeypatch, optimizer, are_keys_the_same=False):
    """Losses, launches of each step, the weights of the layer of PyTorch, and those of one of thinc beside it."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from thinc.api import PyTorchWrapper

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.eye(6) + 0.1)

        def forward(self, inputs):
            return torch.relu(inputs @ self.W)

    _, inputs, labels = classifier()
    wrapped = PyTorchWrapper(Layer())
    model = chain(wrapped, Relu(8), Softmax(3))
    wrapped.shims[0].id = model.layers[1].id if are_keys_the_same else 10**6
    model.initialize(X=inputs, Y=labels)
    launches, counts = count_launches(monkeypatch), []
    losses = train(model, inputs, labels, optimizer, 20, lambda step: (counts.append(len(launches)), launches.clear()))
    layer = wrapped.shims[0]._model.W.detach().numpy().copy()
    return losses, counts, layer, model.layers[1].get_param("W"), (model.layers[1].id, "W")


@pytest.mark.filterwarnings("ignore:.torch.cuda.amp:FutureWarning")
def test_layers_of_pytorch_train(monkeypatch):
    stock = train_with_pytorch(monkeypatch, theirs.Adam(0.02))
    own = train_with_pytorch(monkeypatch, ours.Adam(0.02, numerics="thinc"))
    assert np.abs(stock[2] - np.eye(6) - 0.1).max() > 0.05
    assert own[0] == pytest.approx(stock[0], rel=1e-4)
    assert np.abs(own[2] - stock[2]).max() <= 1e-4
    assert own[1] == [5, *[1] * 19]


@pytest.mark.filterwarnings("ignore:.torch.cuda.amp:FutureWarning")
def test_a_layer_of_pytorch_and_a_node_may_have_the_same_key(monkeypatch):
    """thinc counts its nodes and the layers that it wraps separately."""
    apart, same = (ours.Adam(0.02), ours.Adam(0.02))
    expected = train_with_pytorch(monkeypatch, apart)
    found = train_with_pytorch(monkeypatch, same, are_keys_the_same=True)
    assert found[:2] == expected[:2]
    assert (found[2] == expected[2]).all()
    assert (found[3] == expected[3]).all()
    assert (same.averages[found[4]] == apart.averages[expected[4]]).all()


# ---- hyperparameters


class Rates:
    """A rate that nobody can see into; a generator in thinc 8, a schedule of one's own in thinc 9."""

    def __new__(cls):
        values = [0.1 / (1 + step**2) for step in range(60)]
        if IS_9:
            return schedules.Schedule("own", lambda schedule, step, **extra: values[step], attrs={})
        return iter(values)


GIVEN = {
    "number": lambda: 0.02,
    "whole number": lambda: 1,
    "NumPy's number": lambda: np.float64(0.02),
    "list": lambda: [0.1, 0.05, 0.02],
    "generator": lambda: (0.1 / (1 + step) for step in range(9)),
    "opaque": Rates,
    "warmup_linear": lambda: schedules.warmup_linear(0.05, 3, 30),
    "cyclic_triangular": lambda: schedules.cyclic_triangular(0.01, 0.1, 4),
    "compounding": lambda: schedules.compounding(0.1, 0.001, 0.9),
}


@pytest.mark.parametrize("name", GIVEN)
def test_learning_rates_of_every_kind(name):
    stock, own = both(learn_rate=GIVEN[name])
    for sweeper in (stock, own):
        shown = []
        for step in range(12):
            rate = sweeper.optimizer.learn_rate
            shown.append(float(rate(step) if IS_9 else rate))
            sweeper.step()
        sweeper.shown = shown
    assert own.shown == pytest.approx(stock.shown, rel=1e-12)
    assert_same(stock, own, 1e-6 + 1e-5 * sum(own.shown))


def test_a_schedule_of_ours_is_evaluated_in_the_kernel(monkeypatch):
    rate = gpuadam.schedules.warmup_cosine_decay(0.0, 0.1, 4, 20)
    own = Sweeper(ours.SGD(rate, grad_clip=0.0, use_averages=False), [(3,)])
    own.step()
    monkeypatch.setattr(gpuadam.Optimizer, "set_parameter", None)  # nothing is written from the host
    for step in range(1, 20):
        before = own.weights[0, "W"].copy()
        own.backprop()
        expected = before - np.float32(rate(step)) * own.gradients[0, "W"]
        own.finish()
        own.optimizer.step_schedules()
        assert np.allclose(own.weights[0, "W"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.skipif(not IS_9, reason="a schedule that follows a score, which thinc 9 has, is not installed")
def test_plateau_follows_the_scores_that_are_set():
    stock, own = both(learn_rate=lambda: schedules.plateau(2, 0.5, schedules.decaying(0.01, 0.01)))
    for sweeper in (stock, own):
        for step in range(30):
            if step % 3 == 0:
                sweeper.optimizer.last_score = min(step, 9)
            sweeper.step()
    assert own.optimizer.last_score == stock.optimizer.last_score == (27, 9)
    assert_same(stock, own, 1e-6)


def test_the_learning_rate_may_be_set():
    found = []
    for begin in (0.1, schedules.decaying(0.1, 0.5)):
        own = Sweeper(ours.Adam(begin), SHAPES)
        own.step()
        own.optimizer.learn_rate = 0.02
        own.step()
        own.optimizer.learn_rate = 0.004
        own.step()
        found.append(own.weights)
    third = Sweeper(ours.Adam([0.1, 0.02, 0.004]), SHAPES)
    for _ in range(3):
        third.step()
    assert distance(found[0], third.weights) == 0
    assert distance(found[1], third.weights) == 0


def test_a_rate_that_is_set_is_not_that_of_what_waits():
    own = Sweeper(ours.Adam(0.1), SHAPES)
    own.step()
    before = {key: array.copy() for key, array in own.weights.items()}
    keys = list(own.weights)
    own.backprop()
    own.finish(keys[:2])
    own.optimizer.learn_rate = 0.0
    own.finish(keys[2:])
    own.optimizer.step_schedules()
    assert [(own.weights[key] != before[key]).any() for key in keys] == [True, True, False, False, False]


REFUSED = [
    ({"learn_rate": -1.0}, ValueError, r"lr of group 0|learn_rate|'lr'"),
    ({"learn_rate": "fast"}, ValueError, r"learn_rate is 'fast'"),
    ({"learn_rate": "0.001"}, ValueError, r"learn_rate is '0.001'; allowed are a number"),
    ({"learn_rate": []}, ValueError, r"learn_rate is \[\]; allowed are a number"),
    ({"L2": print}, TypeError, r"L2 is <built-in function print>; allowed are a number"),
    ({"beta1": 1.5}, ValueError, r"beta1 of group 0 is 1.5"),
    ({"numerics": "torch"}, ValueError, r"numerics is 'torch'; allowed are \('gpuadam', 'thinc'\)"),
    (
        {"numerics": "thinc", "beta1": 0.0},
        ValueError,
        r"beta1 is 0, with which Adam\.v1 of thinc takes the step of SGD",
    ),
    ({"numerics": "thinc", "L2": 0.1, "L2_is_weight_decay": False}, ValueError, r"L2 is 0\.1 .* grad_clip is 1\.0"),
    ({"use_averages": False, "ema_decay": 0.9}, ValueError, r"ema_decay is 0\.9, but use_averages is False"),
    ({"use_averages": 3}, ValueError, r"use_averages is 3"),
    ({"beta3": 1.0}, TypeError, r"unexpected keyword argument 'beta3'"),
]


@pytest.mark.parametrize(("settings", "error", "message"), REFUSED)
def test_what_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        ours.Adam(**settings)


def test_an_attribute_that_would_change_nothing_is_refused():
    optimizer = ours.Adam()
    with pytest.raises(AttributeError, match=r"has no 'L2' to set; there are learn_rate, last_score"):
        optimizer.L2 = 0.1
    with pytest.raises(ValueError, match=r"lr_scale is 0.0; allowed is a number > 0"):
        optimizer((0, "W"), np.ones(3, np.float32), np.ones(3, np.float32), lr_scale=0.0)


def test_every_optimizer_takes_a_step_and_is_one_of_thinc():
    makers = {name: make for name, make in vars(ours).items() if inspect.isfunction(make) and name[0].isupper()}
    for name, make in makers.items():
        sweeper = Sweeper(make(), SHAPES)
        assert isinstance(sweeper.optimizer, theirs.Optimizer)
        assert sweeper.optimizer.averages == {}
        before = {key: array.copy() for key, array in sweeper.weights.items()}
        for _ in range(2):
            sweeper.step()
        assert all((sweeper.weights[key] != before[key]).any() for key in before), name
    schedule_free = {"AdamWScheduleFree", "SGDScheduleFree"}
    classes = {
        n
        for n in gpuadam.__all__
        if isinstance(getattr(gpuadam, n), type) and issubclass(getattr(gpuadam, n), gpuadam.Optimizer)
    }
    assert set(makers) == classes - schedule_free - {"Optimizer"}

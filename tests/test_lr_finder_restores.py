"""After a range test everything is as it was, to the bit: a twin that had none takes the same steps."""

import contextlib

import host_backend
import host_kernels
import numpy as np
import pytest
import recipe_cases
from cases import CASES, IDS, LR, assert_same_bits, gradients, parameters
from host_backend import optimizer_on

import gpuadam
from gpuadam import LRFinder, cpu, schedules, snapshot

SIZES = [1, 70, 2 * 700]
BACKENDS = {"cpu": cpu}
if host_kernels.COMPILER is not None:
    BACKENDS["cuda source"] = host_backend


def grads_of(params, step, dtype=None, rests=0):
    """Gradients of a step; in every third of them a tensor rests."""
    found = []
    for i, param in enumerate(params):
        grad = gradients(1, param.size, np.float64, seed=10 * step + i)[0].reshape(param.shape)
        found.append(None if step % 3 == 2 and i == rests else grad.astype(dtype or param.dtype))
    return found


def plain(value):
    """Arrays as their dtype, shape and bytes, so that == compares bits."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(own) for name, own in value.items()}
    return [plain(own) for own in value] if isinstance(value, list | tuple) else value


def picture(optimizer, params, grads=()):
    """All that can be seen of a run."""
    has_norms = optimizer._engine.tensors.scope_count
    return plain(
        {
            "parameters": params,
            "gradients": list(grads),
            "state": optimizer.state_dict(),
            "hyperparameters": optimizer.hyperparameters(),
            "norms": optimizer.gradient_norms() if has_norms else [],
            "named": optimizer.parameters(),
            "scalars": optimizer._engine.bound_scalars(),
        }
    )


class EndError(Exception):
    pass


def trainer(optimizer, params, dtype=None, ends=None, interferes=None):
    """A train step on gradients of its own, which raises at some call after it has stepped."""
    calls = []

    def train_step():
        calls.append(1)
        step_of(optimizer, grads_of(params, 50 + len(calls), dtype, rests=1))
        if interferes:
            interferes(len(calls))
        if ends and len(calls) == 5:
            raise ends
        return 1.0 + 1 / len(calls)

    return train_step


def check(make, params, dtype=None, ends=None, interferes=None, before=4, after=3):
    """Steps, a range test, steps; and the same without the test."""
    runs = []
    for has_test in (True, False):
        own = [param.copy() for param in params]
        optimizer = make(own)
        for step in range(before):
            bound = grads_of(own, step, dtype)
            step_of(optimizer, bound)
        before_test = picture(optimizer, own, bound)
        if has_test:
            train_step = trainer(optimizer, own, dtype, ends, interferes and (lambda n, o=optimizer: interferes(o, n)))
            with contextlib.nullcontext() if ends is None else pytest.raises(type(ends)):
                LRFinder(optimizer).range_test(train_step, start_lr=1e-4, end_lr=0.5, num_iter=8)
            assert picture(optimizer, own, bound) == before_test
        step_of(optimizer, None)  # on what is bound
        for step in range(before, before + after):
            step_of(optimizer, grads_of(own, step, dtype))
        runs.append(picture(optimizer, own, bound))
    assert runs[0] == runs[1]


def step_of(optimizer, grads):
    with contextlib.suppress(FloatingPointError):
        optimizer.step(grads)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_rule_and_option(case):
    params = [parameters(size, np.float32, size) for size in SIZES]
    check(lambda own: case.optimizer(own, lr=LR), params)


@pytest.mark.parametrize("case", recipe_cases.CASES, ids=recipe_cases.name_of)
def test_every_mode_of_the_recipe(case):
    check_recipe(case, cpu, None)


@pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")
@pytest.mark.parametrize("case", recipe_cases.SUBSET[::2], ids=recipe_cases.name_of)
def test_modes_of_the_recipe_by_the_cuda_source(case, monkeypatch):
    check_recipe(case, host_backend, monkeypatch)


def check_recipe(case, backend, monkeypatch):
    dtype = recipe_cases.DTYPES[case["weights"][0]]
    params = [parameters(size, np.float64, size).astype(dtype) for size in SIZES]
    params[2] = params[2].reshape(2, -1)

    def make(own):
        groups = [{"params": own[:1]}, {"params": own[1:], "lr": 0.03}]
        if monkeypatch is None:
            return recipe_cases.make(case, groups)
        return optimizer_on(backend, monkeypatch, recipe_cases.make, case, groups)

    check(make, params, recipe_cases.DTYPES[case["grad"]])


# ---- however it ends, and whatever the training step does


def rich(own):
    """An optimizer of which everything can change: a named parameter, an accumulator, averages, masters, norms."""
    memory = schedules.accumulator("memory", 1.0, lambda value: 0.9 * value)
    scale = schedules.parameter("scale", 0.5)
    groups = [{"params": own[:2], "lr": scale * LR * memory}, {"params": own[2:], "lr": 0.03, "weight_decay": scale}]
    return gpuadam.AdamW(groups, ema_decay=0.9, master="float32", clip_norm=1.0, nonfinite="skip", zero_grads=True)


HALVES = [parameters(size, np.float16, size) for size in SIZES]
ENDS = [KeyboardInterrupt(), RuntimeError("out of memory"), SystemExit(1)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ends", ENDS, ids=repr)
def test_however_the_training_step_ends(ends, backend, monkeypatch):
    check(lambda own: optimizer_on(BACKENDS[backend], monkeypatch, rich, own), HALVES, ends=ends)


INTERFERENCES = {
    "a named parameter": lambda optimizer, n: optimizer.set_parameter("scale", 3.0 + n),
    "hyperparameters": lambda optimizer, n: optimizer.set_hyperparameters(weight_decay=0.5, betas=(0.5, 0.6)),
    "a schedule": lambda optimizer, n: optimizer.set_hyperparameters(1, lr=schedules.cosine_decay(0.1, 10 + n)),
    "averages in place": lambda optimizer, n: optimizer.swap_ema(),
    "averages anew": lambda optimizer, n: optimizer.reset_ema(),
    "scales": lambda optimizer, n: optimizer.bind([None, None, np.ones((1400,), np.float32)], grad_scale=8.0),
    "a group": lambda optimizer, n: optimizer.add_group([np.ones(5, np.float32)]),
    "an older state": lambda optimizer, n: optimizer.load_state_dict(
        {**(state := optimizer.state_dict()), "skipped_steps": 7, "parameters": dict.fromkeys(state["parameters"], 9.0)}
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", INTERFERENCES)
def test_whatever_the_training_step_does(name, backend, monkeypatch):
    """The fifth call ends it; what cannot be trained with ends it before."""

    def interfere(optimizer, n):
        if n == 4:
            INTERFERENCES[name](optimizer, n)
            raise end

    end = EndError()
    make = lambda own: optimizer_on(BACKENDS[backend], monkeypatch, rich, own)  # noqa: E731
    check(make, HALVES, interferes=interfere, ends=end)


def test_steps_that_were_skipped_are_counted_as_before():
    def skip(optimizer, n):
        if n == 3:
            optimizer.step([np.full(size, np.inf, np.float16) for size in SIZES])
            raise end

    end = EndError()
    check(rich, HALVES, interferes=skip, ends=end)


@pytest.mark.parametrize("zero_grads", [False, True])
def test_bound_gradients_have_their_values_back(zero_grads):
    """The demo's way: they are bound once, and each step of the training writes them."""
    weight, grad = parameters(5, np.float32), parameters(5, np.float32, 7)
    optimizer = gpuadam.SGD([weight], lr=0.1, zero_grads=zero_grads)
    optimizer.bind([grad])
    expected, before = weight - np.float32(0.1) * grad, grad.copy()

    def train_step():
        grad[:] = 9
        optimizer.step()
        return 1.0

    LRFinder(optimizer).range_test(train_step, num_iter=3)
    assert_same_bits(grad, before)
    optimizer.step()
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_buffers_are_brought_back():
    weight, mean, count = np.ones(3), np.array([0.5, 2.0], np.float16), np.array(7)
    optimizer = gpuadam.SGD([weight], lr=0.1)

    def train_step():
        mean[:] *= 2
        count[...] += 1
        optimizer.step([weight.copy()])
        return 1.0

    LRFinder(optimizer, buffers=[mean, count]).range_test(train_step, num_iter=3)
    assert (mean.tolist(), count.item(), weight.tolist()) == ([0.5, 2.0], 7, [1.0] * 3)


def test_a_buffer_that_is_read_only():
    mean = np.ones(2)
    mean.flags.writeable = False
    finder = LRFinder(gpuadam.SGD([np.ones(3)], lr=0.1), buffers=[mean])
    with pytest.raises(ValueError, match="buffer 0 is read-only"):
        finder.range_test(lambda: 1.0)


def test_a_module_of_pytorch_with_its_running_statistics():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    optimizer = gpuadam.AdamW(dict(model.named_parameters()), lr=LR)
    inputs, after = torch.randn(32, 4), []

    def train_step():
        model.zero_grad()
        loss = (model(inputs) ** 2).mean()
        loss.backward()
        optimizer.step({name: p.grad for name, p in model.named_parameters()})
        after.append((model(inputs) ** 2).mean())
        return loss

    for _ in range(3):
        train_step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = plain(optimizer.state_dict())
    finder = LRFinder(optimizer, buffers=model.buffers())
    finder.range_test(train_step, num_iter=20)
    assert len(finder.history["lr"]) > 5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert plain(optimizer.state_dict()) == state
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        after[-1].backward()


# ---- interrupts of the restoring itself


@pytest.mark.parametrize("number", range(1, 12))
def test_a_restoring_that_was_interrupted_is_repeated(number, monkeypatch):
    params = [param.copy() for param in HALVES]
    optimizer = rich(params)
    for step in range(4):
        optimizer.step(grads_of(params, step))
    before = picture(optimizer, params)
    finder = LRFinder(optimizer)
    upload, count = optimizer._engine.tables.upload, 0

    def interrupting(*arguments):
        nonlocal count
        count += finder_restores
        if finder_restores and count == number:
            raise KeyboardInterrupt
        upload(*arguments)

    restore, finder_restores = snapshot.Snapshot.restore, False

    def restoring(self):
        nonlocal finder_restores
        finder_restores = True
        try:
            restore(self)
        finally:
            finder_restores = False

    monkeypatch.setattr(snapshot.Snapshot, "restore", restoring)
    optimizer._engine.tables.upload = interrupting
    train_step = trainer(optimizer, params)
    try:
        finder.range_test(train_step, num_iter=4)
        was_interrupted = False
    except KeyboardInterrupt:
        was_interrupted = True
    assert was_interrupted == (number <= count)
    if was_interrupted:
        for refused in (train_step, optimizer.state_dict, lambda: finder.range_test(train_step)):
            with pytest.raises(RuntimeError, match=r"LRFinder\.reset was interrupted: repeat it first"):
                refused()
        finder.reset()
    assert picture(optimizer, params) == before
    optimizer.step(grads_of(params, 9))
    after = picture(optimizer, params)
    finder.reset()
    assert picture(optimizer, params) == after, "there was nothing to bring back any more"
    assert was_interrupted or 6 <= count < 12


def test_without_gradients_of_before_there_are_none_afterwards():
    weight = parameters(5, np.float32)
    optimizer = gpuadam.SGD([weight], lr=0.1)
    LRFinder(optimizer).range_test(trainer(optimizer, [weight]), num_iter=3)
    with pytest.raises(ValueError, match="there are no gradients"):
        optimizer.step()


@pytest.mark.parametrize("state", ["averages", "interrupted"])
def test_an_optimizer_in_the_middle_of_something_is_refused(state):
    params = [param.copy() for param in HALVES]
    optimizer = rich(params)
    if state == "averages":
        optimizer.swap_ema()
    else:
        optimizer._engine.interrupted = "set_parameter"
    with pytest.raises(RuntimeError, match=r"averages now|set_parameter was interrupted"):
        LRFinder(optimizer).range_test(lambda: 1.0, start_lr=1e-3)


def test_the_pictures_tell_bits_apart():
    weight = np.array([0.0], np.float32)
    before = plain([weight])
    weight[0] = -0.0
    assert plain([weight]) != before
    assert_same_bits(weight, np.array([-0.0], np.float32))


def test_a_snapshot_brings_back_numbers_that_were_rewritten_in_their_slots():
    optimizer = gpuadam.AdamW([np.ones(3, np.float32)], lr=0.1, weight_decay=schedules.parameter("decay", 0.01))
    before = optimizer.hyperparameters()
    taken = snapshot.Snapshot(optimizer)
    optimizer.set_hyperparameters(lr=0.7, eps=0.5)
    optimizer.set_parameter("decay", 0.3)
    taken.restore()
    assert optimizer.hyperparameters() == before
    optimizer.set_hyperparameters(lr=schedules.constant(0.2))  # another program, of the same numbers
    assert optimizer.hyperparameters() == [{**before[0], "lr": 0.2}]

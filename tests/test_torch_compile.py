"""`torch.compile`, threads and processes around a step: it stands aside, and works wherever it is called."""

import importlib
import multiprocessing
import shutil
import threading

import pytest
from optional import missing

from gpuadam import schedules

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

ours = importlib.import_module("gpuadam.torch")
STEPS = 6
COSINE = schedules.cosine_decay(0.05, decay_steps=20)


def make_model():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def inputs(step):
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(step))


def make_step(model, optimizer):
    def step(batch):
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def trained(wrap, **keywords):
    """The weights after some steps of a function that is wrapped."""
    model = make_model()
    step = wrap(make_step(model, ours.AdamW(model.parameters(), lr=COSINE, clip_norm=1.0, **keywords)))
    losses = [float(step(inputs(number))) for number in range(STEPS)]
    return losses, [param.detach() for param in model.parameters()]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:The .grad attribute:UserWarning"
)  # PyTorch's own
@pytest.mark.parametrize(("backend", "flat_grads"), [("eager", False), ("aot_eager", True), ("inductor", False)])
def test_a_training_step_is_compiled(backend, flat_grads):
    """No error, no other numbers, and nothing is compiled anew at each step, though the schedule moves on."""
    if backend == "inductor" and shutil.which("g++") is None:
        missing("g++ is not installed")
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    seen = []

    def wrap(step):
        compiled = torch.compile(step, backend=backend)

        def run(batch):
            loss = compiled(batch)
            seen.append(counters["stats"]["unique_graphs"])
            return loss

        return run

    losses, weights = trained(wrap, flat_grads=flat_grads)
    assert seen[1] > 0
    assert seen[-1] == seen[2]
    expected_losses, expected = trained(lambda step: step)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for mine, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_a_compiled_model_trains():
    torch._dynamo.reset()
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), lr=COSINE, clip_norm=1.0)
    step = make_step(torch.compile(model, backend="eager", fullgraph=True), optimizer)
    losses = [float(step(inputs(number))) for number in range(STEPS)]
    assert losses == pytest.approx(trained(lambda step: step)[0], rel=1e-6)


def test_vmap_and_grad_see_the_weights_of_now():
    model = make_model()
    optimizer = ours.SGD(model.parameters(), lr=0.1)

    def loss(params, row):
        return torch.func.functional_call(model, params, row).square().sum()

    for step in range(3):
        params = {name: param.detach() for name, param in model.named_parameters()}
        grads = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, inputs(step))
        expected = [params[name] - 0.1 * grads[name].mean(0) for name in params]
        for name, param in model.named_parameters():
            param.grad = grads[name].mean(0)
        optimizer.step()
        for param, value in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(param.detach(), value)


def test_autograd_notices_a_step_between_forward_and_backward():
    model = make_model()
    optimizer = ours.AdamW(model.parameters(), lr=0.1)
    make_step(model, optimizer)(inputs(0))
    loss = model(inputs(1)).square().mean()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- threads and processes


def test_a_step_in_another_thread():
    """Where torch.no_grad, the rounding of subnormals and PyTorch's streams are that thread's own."""
    expected_losses, expected = trained(lambda step: step)
    faults = []

    def wrap(step):
        def run(batch):
            found = []

            def work():
                try:
                    found.append(step(batch))
                except BaseException as fault:
                    faults.append(fault)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            return found[0]

        return run

    losses, weights = trained(wrap)
    assert not faults
    assert losses == expected_losses
    assert all(map(torch.equal, weights, expected))


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return inputs(index)[0]


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX', which a test before may have imported
def test_workers_that_load_data_are_forked_beside_an_optimizer():
    """After steps on all threads, so that Numba's have been started: the workers never call it."""
    rows = torch.stack([Rows()[index] for index in range(40)])
    weights = []
    for workers in (0, 2):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(6, 60_000), torch.nn.Linear(60_000, 1))
        optimizer = ours.AdamW(model.parameters(), lr=1e-3)
        step = make_step(model, optimizer)
        step(rows)
        context = "fork" if workers else None
        loader = torch.utils.data.DataLoader(Rows(), 10, num_workers=workers, multiprocessing_context=context)
        for batch in loader:
            step(batch)
        weights.append([param.detach().clone() for param in model.parameters()])
    assert all(map(torch.equal, *weights))


def train_elsewhere(results):
    results.put([weight.tolist() for weight in trained(lambda step: step)[1]])


def test_a_process_that_is_spawned_trains_to_the_same_bits():
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=train_elsewhere, args=(results,))
    process.start()
    found = results.get()
    process.join()
    assert found == [weight.tolist() for weight in trained(lambda step: step)[1]]

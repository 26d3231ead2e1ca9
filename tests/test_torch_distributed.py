"""Training over two processes, on gloo: every check of the workers is a test here, and they are started once."""

import importlib
import inspect

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

worker = importlib.import_module("distributed_worker")
ours = importlib.import_module("gpuadam.torch")
dcp = importlib.import_module("torch.distributed.checkpoint")
checkpoints = importlib.import_module("distributed_checkpoints")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # here it is
CHECKS = [
    check
    for module in ("distributed_checks", "distributed_clipping", "distributed_checkpoints")
    for name, check in vars(importlib.import_module(module)).items()  # in their order
    if inspect.isfunction(check) and not name.startswith("_") and list(inspect.signature(check).parameters) == ["ranks"]
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where ranks and tests find one another's files: first the checkpoints of one process, for two to go on with."""
    folder = tmp_path_factory.mktemp("ranks")
    kinds = (("one", ours.AdamW, checkpoints.SETTINGS), ("one_of_pytorch", torch.optim.AdamW, checkpoints.PLAIN))
    for name, kind, settings in kinds:
        model = worker.make_model()
        optimizer = kind(model.parameters(), **settings)
        checkpoints.give_gradients(model, optimizer, checkpoints.BEFORE)
        dcp.save(checkpoints.read_state(model, optimizer), checkpoint_id=folder / name, no_dist=True)
        checkpoints.give_gradients(model, optimizer, checkpoints.AFTER)
        torch.save(checkpoints.snapshot(model, optimizer), folder / f"{name}.pt")
    return folder


@pytest.fixture(scope="module")
def outcome(folder):
    """What each check came to, by its name: nothing, or why it failed, on any rank."""
    torch.multiprocessing.spawn(worker.run, (folder, CHECKS), nprocs=worker.WORLD)
    found = [torch.load(folder / f"rank{rank}.pt") for rank in range(worker.WORLD)]
    return {
        check.__name__: "\n".join(own.get(check.__name__, "a check before it failed") for own in found).strip()
        for check in CHECKS
    }


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_on_two_ranks(outcome, name):
    assert not outcome[name], outcome[name]


@pytest.mark.parametrize("name", ["schedule", "flat", "plain"])
def test_one_process_goes_on_where_two_ranks_were(outcome, folder, name):
    assert not outcome["two_ranks_save_and_go_on"]
    model = worker.make_model(seed=1)
    optimizer = ours.AdamW(model.parameters(), **(checkpoints.PLAIN if name == "plain" else checkpoints.SETTINGS))
    checkpoints.load(model, optimizer, folder / name, flat=name == "flat", no_dist=True)
    checkpoints.give_gradients(model, optimizer, checkpoints.AFTER)
    checkpoints.assert_same_bits(checkpoints.snapshot(model, optimizer), torch.load(folder / f"{name}.pt"))


def test_pytorch_goes_on_in_one_process_where_two_ranks_of_ours_were(outcome, folder):
    assert not outcome["two_ranks_save_and_go_on"]
    model = worker.make_model(seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), **checkpoints.PLAIN)
    checkpoints.load(model, optimizer, folder / "plain", no_dist=True)
    checkpoints.give_gradients(model, optimizer, checkpoints.AFTER)
    went_on = torch.load(folder / "plain.pt")
    for name, param in model.named_parameters():
        torch.testing.assert_close(param, went_on[name], rtol=0, atol=1e-6)

"""Training over two processes, on gloo: every check of the workers is a test here, and they are started once."""

import importlib
import inspect

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

worker = importlib.import_module("distributed_worker")
CHECKS = [
    check
    for module in ("distributed_checks", "distributed_clipping")
    for name, check in inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    if not name.startswith("_") and list(inspect.signature(check).parameters) == ["ranks"]
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What each check came to, by its name: nothing, or why it failed, on any rank."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker.run, (folder, CHECKS), nprocs=worker.WORLD)
    found = [torch.load(folder / f"rank{rank}.pt") for rank in range(worker.WORLD)]
    return {
        check.__name__: "\n".join(own.get(check.__name__, "a check before it failed") for own in found).strip()
        for check in CHECKS
    }


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_on_two_ranks(outcome, name):
    assert not outcome[name], outcome[name]

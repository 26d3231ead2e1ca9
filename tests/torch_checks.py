"""What the tests of `gpuadam.torch` share: parameters, fixed gradients, and the comparison with torch.optim."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

SHAPES = [(7, 5), (5,), (), (0, 3), (2, 3, 4)]
F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 1e-6, F64: 1e-12}  # of the norm of an error, over that of what is right

# Classes that PyTorch has too, with options; every rate of theirs moves the weights visibly in 50 steps.
PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    ("NAdam", {"lr": 0.01, "momentum_decay": 0.1}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adamax", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.01, "maximize": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "centered": True, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "alpha": 0.9, "centered": True, "eps": 1e-2}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5}),
    ("SGD", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "lr_decay": 0.05}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1, "eps": 1e-3, "maximize": True}),
    ("Adadelta", {"lr": 1.0, "weight_decay": 0.1}),
    ("Adadelta", {"lr": 1.0, "rho": 0.8, "eps": 1e-3, "maximize": True}),
]
PAIR_IDS = ["-".join([name, *map(str, own)]) for name, own in PAIRS]


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Of tensors that are made of numbers, as PyTorch makes NAdam's mu_product."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def weights(dtype: Any = F32, shapes: Iterable[tuple[int, ...]] = SHAPES) -> list[Any]:
    """Parameters, every time the same."""
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=F64).to(dtype)) for shape in shapes]


def give_gradients(params: Iterable[Any], step: int) -> None:
    """The gradients of a step: the same for every optimizer that is followed side by side."""
    generator = torch.Generator().manual_seed(100 + step)
    for param in params:
        grad = torch.randn(param.shape, generator=generator, dtype=F64) + 0.2
        if param.grad is None:
            param.grad = grad.to(param.dtype)
        else:
            param.grad.copy_(grad)


def train(optimizer: Any, steps: Iterable[int], before: Callable[[Any, int], None] | None = None) -> None:
    """Steps on fixed gradients.

    Args:
        optimizer, steps: Which, and the numbers of the steps to take.
        before: Called with optimizer and step before each.
    """
    for step in steps:
        give_gradients([param for group in optimizer.param_groups for param in group["params"]], step)
        if before is not None:
            before(optimizer, step)
        optimizer.step()


def flat(optimizer: Any) -> list[Any]:
    """The parameters of all groups."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def error(ours: list[Any], theirs: list[Any]) -> float:
    """The norm of the difference of two lists of tensors, over the norm of the second."""
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in theirs]
    a, b = (torch.cat([tensor.detach().to(F64).flatten() for tensor in own]) for own in (ours, theirs))
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def assert_same_run(ours: Any, theirs: Any, factor: float = 1.0) -> None:
    """Parameters and all states that PyTorch has are the same as far as their format tells."""
    a, b = flat(ours), flat(theirs)
    found = {"parameters": error(a, b)}
    for name in theirs.state[b[0]]:
        pairs = [(ours.state[p][name], theirs.state[q][name]) for p, q in zip(a, b, strict=True)]
        if pairs[0][1] is not None:
            found[name] = error(*([torch.as_tensor(pair[i]) for pair in pairs] for i in range(2)))
    assert max(found.values()) <= factor * TOLERANCE[b[0].dtype], found


def assert_same_bits(ours: Any, theirs: Any) -> None:
    """Two lists of tensors hold the same bits."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == b.dtype
        assert torch.equal(a.detach(), b.detach()), f"tensor {index} differs"


def through_file(state_dict: Any) -> Any:
    """As another process would read it."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def copied(params: Iterable[Any]) -> list[Any]:
    """The same values in memory of their own."""
    return [torch.nn.Parameter(param.detach().clone()) for param in params]


def handed_over(optimizer: Any, module: Any, name: str, **options: Any) -> Any:
    """Another optimizer that goes on from this one's file."""
    other = getattr(module, name)(copied(flat(optimizer)), **options)
    other.load_state_dict(through_file(optimizer.state_dict()))
    return other

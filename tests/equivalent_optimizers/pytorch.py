"""Optimizers of torch.optim."""

import numpy as np
import pytest

from . import Row

HOME = "PyTorch"
ROWS = [
    Row("Adam(params, lr=0.01)", "Adam(params, lr=0.01)"),
    Row("Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True)",
        "Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True)"),
    Row("AdamW(params, lr=0.01, betas=(0.9, 0.95))", "AdamW(params, lr=0.01, betas=(0.9, 0.95))"),
    Row("NAdam(params, lr=0.01)", "NAdam(params, lr=0.01)", "PyTorch keeps its product in float32", tolerance=1e-7),
    Row("SGD(params, lr=0.01, momentum=0.9, nesterov=True)", "SGD(params, lr=0.01, momentum=0.9, nesterov=True)"),
    Row("AdamW(params, lr=0.01, weight_decay=0.1, maximize=True)",
        "AdamW(params, lr=0.01, weight_decay=0.1, maximize=True)"),
    Row("NAdam(params, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)",
        "NAdam(params, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)",
        "PyTorch keeps its product in float32", tolerance=1e-7),
    Row("SGD(params, lr=0.01, momentum=0.9, dampening=0.3, weight_decay=0.1)",
        "SGD(params, lr=0.01, momentum=0.9, dampening=0.3, weight_decay=0.1)"),
    Row("RMSprop(params, lr=0.01)", "RMSprop(params, lr=0.01)"),
    Row("RMSprop(params, lr=0.01, centered=True, momentum=0.9)",
        "RMSprop(params, lr=0.01, centered=True, momentum=0.9)"),
    Row("RAdam(params, lr=0.01)", "RAdam(params, lr=0.01)"),
    Row("RAdam(params, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, decoupled_weight_decay=True)",
        "RAdam(params, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, decoupled_weight_decay=True)"),
    Row("Adamax(params, lr=0.01)", "Adamax(params, lr=0.01)"),
    Row("Adagrad(params, lr=0.01, lr_decay=0.1, initial_accumulator_value=0.1)",
        "Adagrad(params, lr=0.01, lr_decay=0.1, initial_accumulator_value=0.1)"),
    Row("Adadelta(params, lr=1.0)", "Adadelta(params, lr=1.0)"),
]  # fmt: skip


def trajectory(there: str, param: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
    torch = pytest.importorskip("torch")
    own = torch.nn.Parameter(torch.tensor(param))
    optimizer = eval(there, vars(torch.optim), {"params": [own]})
    found = []
    for grad in grads:
        own.grad = torch.tensor(grad)
        optimizer.step()
        found.append(own.detach().numpy().copy())
    return found

"""Schedules of torch.optim.lr_scheduler and torch.optim.swa_utils."""

from collections.abc import Sequence

import numpy as np
import pytest

from . import BASE, Row

HOME = "PyTorch"
PIECES = "[CosineAnnealingLR(optimizer, T_max=100), SWALR(optimizer, swa_lr=0.05, anneal_strategy='linear')]"
ROWS = [
    Row("LambdaLR(optimizer, lambda t: 1 / (1 + 0.1 * t))", "0.1 / (1 + 0.1 * step)"),
    Row("LambdaLR(optimizer, lambda t: [1.0, 0.5, 0.1][t % 3])", "sampled(lambda t: 0.1 * [1.0, 0.5, 0.1][t % 3], 120)",
        remark="A Python function that is no arithmetic becomes a table of so many steps."),
    Row("MultiplicativeLR(optimizer, lambda t: 0.95)", "exponential_decay(0.1, 1, 0.95)"),
    Row("MultiplicativeLR(optimizer, lambda t: 1 - 0.5 / t)",
        "0.1 * accumulator('product', 1.0, lambda product: product * (1 - 0.5 / (step + 1)))",
        remark="An update multiplies by what the next step asks for; the function is first called at 1."),
    Row("StepLR(optimizer, step_size=30)", "step_decay(0.1, 30)"),
    Row("StepLR(optimizer, step_size=7, gamma=0.5)", "step_decay(0.1, 7, 0.5)"),
    Row("MultiStepLR(optimizer, milestones=[30, 80])", "multi_step_decay(0.1, [30, 80])"),
    Row("MultiStepLR(optimizer, milestones=[0, 30, 30, 80], gamma=0.5)", "multi_step_decay(0.1, [0, 30, 30, 80], 0.5)",
        remark="A milestone that stands twice counts twice."),
    Row("ConstantLR(optimizer, factor=0.25, total_iters=5)",
        "piecewise_constant([5], [0.025, 0.1], boundary='right')"),
    Row("ConstantLR(optimizer, factor=0.25, total_iters=0)", "constant(0.025)",
        remark="It never takes back the factor."),
    Row("LinearLR(optimizer, start_factor=0.25, total_iters=5)", "linear_warmup(0.1, 5, 0.025)"),
    Row("LinearLR(optimizer, start_factor=1.0, end_factor=0.2, total_iters=100)", "linear_decay(0.1, 100, 0.02)"),
    Row("LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=100)", "linear_decay(0.1, 100)"),
    Row("LinearLR(optimizer, start_factor=0.25, total_iters=0)", "constant(0.025)",
        remark="It never begins to rise."),
    Row("ExponentialLR(optimizer, gamma=0.95)", "exponential_decay(0.1, 1, 0.95)"),
    Row("PolynomialLR(optimizer, total_iters=100)", "linear_decay(0.1, 100)"),
    Row("PolynomialLR(optimizer, total_iters=100, power=2.0)", "polynomial_decay(0.1, 100, 0.0, 2.0)"),
    Row("PolynomialLR(optimizer, total_iters=0)", "constant(0.1)", remark="It never begins to fall."),
    Row("CosineAnnealingLR(optimizer, T_max=100)", "cosine_decay(0.1, 100)", range(101)),
    Row("CosineAnnealingLR(optimizer, T_max=30)", "cosine_decay(0.1, 30, beyond='continue')",
        remark="Past `T_max` it rises again."),
    Row("CosineAnnealingLR(optimizer, T_max=30, eta_min=0.01)", "cosine_decay(0.1, 30, 0.01 / 0.1, beyond='continue')"),
    Row("SequentialLR(optimizer, [LinearLR(optimizer, 0.1, total_iters=10), CosineAnnealingLR(optimizer, 90)], [10])",
        "join([linear_warmup(0.1, 10, 0.01), cosine_decay(0.1, 90, beyond='continue')], [10])"),
    Row("SequentialLR(optimizer, [ConstantLR(optimizer, 0.1, 99), ExponentialLR(optimizer, 0.9)], milestones=[20])",
        "join([0.01, exponential_decay(0.1, 1, 0.9)], [20])"),
    Row(f"SequentialLR(optimizer, {PIECES}, milestones=[80])",
        "join([cosine_decay(0.1, 100), linear_decay(cosine_decay(0.1, 100)(79), 10, 0.05)], [80])",
        remark="SWALR sets out from the last value before it."),
    Row("ChainedScheduler([LinearLR(optimizer, 0.1, total_iters=10), ExponentialLR(optimizer, 0.95)])",
        "linear_warmup(1.0, 10, 0.1) * exponential_decay(0.1, 1, 0.95)"),
    Row("ChainedScheduler([PolynomialLR(optimizer, 50), MultiStepLR(optimizer, [20, 40]), StepLR(optimizer, 9, 0.5)])",
        "polynomial_decay(1.0, 50, 0.0) * multi_step_decay(1.0, [20, 40]) * step_decay(0.1, 9, 0.5)"),
    Row("SWALR(optimizer, swa_lr=0.05)", "cosine_decay(0.1, 10, 0.05 / 0.1)"),
    Row("SWALR(optimizer, swa_lr=0.2, anneal_epochs=20, anneal_strategy='linear')", "linear_decay(0.1, 20, 0.2)"),
    Row("SWALR(optimizer, swa_lr=0.05, anneal_epochs=0)", "constant(0.05)"),
]  # fmt: skip


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    names = {**vars(torch.optim.lr_scheduler), "SWALR": torch.optim.swa_utils.SWALR}
    return stepped(eval(there, names, {"optimizer": optimizer}), steps)


def stepped(scheduler, steps: Sequence[int], of: str = "lr") -> np.ndarray:
    """What a scheduler gives its optimizer in some of its steps."""
    found = []
    for _ in range(max(steps) + 1):
        found.append(float(scheduler.optimizer.param_groups[0][of]))
        scheduler.optimizer.step()
        scheduler.step()
    return np.array(found)[list(steps)]

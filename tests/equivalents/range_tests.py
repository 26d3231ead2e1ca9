"""The ramps of learning rate range tests: numbers by repeated multiplication, as most of them work.

`gpuadam.LRFinder` has the ramp of torch-lr-finder, the end of the test and the suggestions.
"""

from . import Row

HOME = "Range tests"
START, END = 1e-5, 10.0


def multiplied(steps: float, count: int, first: int = 0) -> dict[int, float]:
    """From START by the factor that makes END of it in so many steps; `first` factors are in the first value."""
    factor, lr, found = (END / START) ** (1 / steps), START, {}
    for k in range(count + first):
        if k >= first:
            found[k - first] = lr
        lr *= factor
    return found


ROWS = [
    Row("torch-lr-finder, range_test(loader, start_lr=1e-5, end_lr=10, num_iter=100)",
        "exponential_decay(1e-5, 100 - 1, 10 / 1e-5, end_value=10)", numbers=multiplied(99, 100)),
    Row("torch-lr-finder, range_test(loader, start_lr=1e-5, end_lr=10, num_iter=100, step_mode='linear')",
        "linear_decay(1e-5, 100 - 1, 10)", numbers={k: START + (END - START) * k / 99 for k in range(100)}),
    Row("fastai 2, lr_find(start_lr=1e-5, end_lr=10, num_it=100)",
        "exponential_decay(1e-5, 100, 10 / 1e-5, end_value=10)", remark="the end is not reached",
        numbers=multiplied(100, 100)),
    Row("surmenok/keras_lr_finder, find(x, y, 1e-5, 10, batch_size=64, epochs=1) of 1,000 samples",
        "exponential_decay(1e-5, 1000 / 64, 10 / 1e-5, end_value=10)", remark="a broken number of steps",
        numbers=multiplied(1000 / 64, 16)),
    Row("nachiket273/One_Cycle_Policy, CLR(optim, 100, base_lr=1e-5, max_lr=10)",
        "shift(exponential_decay(1e-5, 100 - 1, 10 / 1e-5, end_value=10), -1)",
        remark="its first value is a factor up already", numbers=multiplied(99, 99, 1)),
]  # fmt: skip

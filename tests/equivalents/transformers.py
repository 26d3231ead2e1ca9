"""The schedules of transformers.optimization, the optimizer made with a learning rate of 0.1."""

from collections.abc import Sequence

import numpy as np
import pytest

from . import BASE, Row
from .pytorch import stepped

HOME = "transformers"
FROM_ONE = "`first=1`: there the first update is one step up already, and the end is at step T - 1"
ROWS = [
    Row("get_constant_schedule(optimizer)", "constant(0.1)"),
    Row("get_constant_schedule_with_warmup(optimizer, 10)", "linear_warmup(0.1, 10)"),
    Row("get_constant_schedule_with_warmup(optimizer, 0)", "linear_warmup(0.1, 0)"),
    Row(
        "get_linear_schedule_with_warmup(optimizer, 10, 100)",
        "warmup_linear_decay(0.0, 0.1, 10, 100)",
        remark="a warm-up as long as the whole, which there ends at 0 at once, is refused here",
    ),
    Row("get_linear_schedule_with_warmup(optimizer, 0, 100)", "warmup_linear_decay(0.0, 0.1, 0, 100)"),
    Row("get_linear_schedule_with_warmup(optimizer, 1, 2)", "warmup_linear_decay(0.0, 0.1, 1, 2)"),
    Row(
        "get_cosine_schedule_with_warmup(optimizer, 10, 100)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, beyond='continue')",
        range(400),
        "rises again past the end; `beyond='hold'`, the default, stays at 0",
    ),
    Row("get_cosine_schedule_with_warmup(optimizer, 0, 100)", "warmup_cosine_decay(0.0, 0.1, 0, 100)", range(101)),
    Row(
        "get_cosine_schedule_with_warmup(optimizer, 10, 100, num_cycles=1.5)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, num_cycles=1.5, beyond='continue')",
    ),
    Row(
        "get_cosine_schedule_with_warmup(optimizer, 10, 100, num_cycles=0.4)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, num_cycles=0.4, beyond='continue')",
        range(400),
    ),
    Row(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 10, 100)",
        "warmup_cosine_decay_restarts(0.0, 0.1, 10, 100)",
    ),
    Row(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 10, 110, num_cycles=4)",
        "warmup_cosine_decay_restarts(0.0, 0.1, 10, 110, num_cycles=4)",
        range(150),
    ),
    Row(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 0, 100, num_cycles=2.5)",
        "warmup_cosine_decay_restarts(0.0, 0.1, 0, 100, num_cycles=2.5)",
        range(150),
    ),
    Row(
        "get_polynomial_decay_schedule_with_warmup(optimizer, 10, 100)",
        "warmup_polynomial_decay(0.0, 0.1, 10, 100, 1e-7)",
        remark="ends at 1e-7 if nothing is said",
    ),
    Row(
        "get_polynomial_decay_schedule_with_warmup(optimizer, 0, 100, lr_end=0.01, power=2.0)",
        "warmup_polynomial_decay(0.0, 0.1, 0, 100, 0.01, power=2.0)",
    ),
    Row("get_inverse_sqrt_schedule(optimizer, 10)", "inverse_sqrt(0.1, 10)", range(400)),
    Row(
        "get_inverse_sqrt_schedule(optimizer, 0)",
        "inverse_sqrt(0.1, 0)",
        range(400),
        "with no warm-up the timescale is 10,000",
    ),
    Row("get_inverse_sqrt_schedule(optimizer, 10, timescale=50)", "inverse_sqrt(0.1, 10, timescale=50)", range(400)),
    Row("get_inverse_sqrt_schedule(optimizer, 50, timescale=10)", "inverse_sqrt(0.1, 50, timescale=10)", range(400)),
    Row(
        "get_cosine_with_min_lr_schedule_with_warmup(optimizer, 10, 100, min_lr=0.01)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, 0.01, beyond='continue')",
        range(400),
        "rises again past the end; `beyond='hold'`, the default, stays at the minimum",
    ),
    Row(
        "get_cosine_with_min_lr_schedule_with_warmup(optimizer, 0, 100, min_lr_rate=0.2)",
        "warmup_cosine_decay(0.0, 0.1, 0, 100, 0.02)",
        range(101),
    ),
    Row(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(optimizer, 10, 100, min_lr=0.01)",
        "warmup_cosine_decay(0.0, 0.1, 10, 100, 0.01, first=1, beyond='continue')",
        range(400),
        FROM_ONE,
    ),
    Row(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(optimizer, 0, 100, min_lr=0.01)",
        "warmup_cosine_decay(0.0, 0.1, 0, 100, 0.01, first=1)",
        range(100),
        FROM_ONE,
    ),
    Row(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(optimizer, 10, 100, min_lr=0.01, warmup_lr_rate=0.3)",
        "warmup_cosine_decay(0.03, 0.1, 9, 99, 0.01)",
        range(100),
        "there the peak is at step W - 1 and the end at T - 1; a warm-up of 1 there is 0.03 at step 0, then as here",
    ),
    Row("get_wsd_schedule(optimizer, 10, 20, num_stable_steps=30)", "wsd(0.1, 10, 30, 20, decay_shape='cosine')"),
    Row(
        "get_wsd_schedule(optimizer, 0, 20, num_training_steps=60)",
        "wsd(0.1, 0, 40, 20, decay_shape='cosine')",
    ),
]
ROWS += [
    Row(
        f"get_wsd_schedule(optimizer, 10, 20, num_stable_steps=30, warmup_type='{up}', decay_type='{down}', "
        "min_lr_ratio=0.1)",
        f"wsd(0.1, 10, 30, 20, init=0.01, end=0.01, warmup_shape='{up}', decay_shape='{down}')",
        remark="the warm-up begins at the minimum",
    )
    for up, down in (("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "1-sqrt"))
]


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    return stepped(eval(there, vars(transformers.optimization), {"optimizer": optimizer}), steps)

"""eta_t of OverLordGoldDragon/keras-adamw 1.38: numbers from a walk through its update rule.

An update uses eta_t, then moves t_cur and works eta_t out anew (utils.py, `_update_t_cur` and `_compute_eta_t`). The
library keeps it in float32.
"""

import math

from . import Row

HOME = "keras-adamw"


def walk(
    total: int, low: float = 0.0, high: float = 1.0, restart: bool = True, factor: float = 1.0
) -> dict[int, float]:
    found, t_cur, eta = {}, 0, 1.0
    for k in range(3 * total):
        found[k] = factor * eta
        t_cur = 0 if restart and t_cur == total - 1 else t_cur + 1
        eta = low + 0.5 * (high - low) * (1 + math.cos(math.pi * (t_cur / (total - 1))))
    return found


ROWS = [
    Row("AdamW(0.1, total_iterations=24, use_cosine_annealing=True): lr * eta_t", "0.1 * keras_adamw_eta(24)",
        numbers=walk(24, factor=0.1)),
    Row("AdamW(0.1, total_iterations=24, use_cosine_annealing=True, eta_min=0.1, eta_max=0.8): lr * eta_t",
        "0.1 * keras_adamw_eta(24, eta_min=0.1, eta_max=0.8)", remark="the first eta_t is 1",
        numbers=walk(24, 0.1, 0.8, factor=0.1)),
    Row("AdamW(0.1, total_iterations=24, use_cosine_annealing=True, autorestart=False): lr * eta_t",
        "0.1 * keras_adamw_eta(24, autorestart=False)", remark="comes up again after step 23",
        numbers=walk(24, restart=False, factor=0.1)),
    Row("AdamW(weight_decays={'w': (0, 0.01)}, total_iterations=24, use_cosine_annealing=True): of `w`",
        "keras_adamw_weight_decay(0.01, 24)", numbers=walk(24, factor=0.01 * (1 / 24) ** 0.5)),
    Row("AdamW(weight_decays={'w': (0, 0.01)}, total_iterations=24, total_iterations_wd=72, "
        "use_cosine_annealing=True, eta_min=0.1): of `w`",
        "keras_adamw_weight_decay(0.01, 24, total_iterations_wd=72, eta_min=0.1)",
        numbers=walk(24, 0.1, factor=0.01 * (1 / 72) ** 0.5)),
]  # fmt: skip

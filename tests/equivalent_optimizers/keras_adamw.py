"""keras-adamw, and with it the decay of loshchil's AdamW and SGDW, by oracles written from its source."""

import oracle_keras_adamw

from . import Row, each_step

HOME = "keras-adamw"
DECAY = {"penalties": (0.01, 0.1), "total_iterations": 100, "eta": 1.0, "learning_rate": 0.01}
ROWS = [
    Row("AdamW(0.01, weight_decays={'w': (0.01, 0.1)}, total_iterations=100)",
        "AdamW.keras_adamw(params, 0.01, l1=0.01, l2=0.1, total_iterations=100)",
        reference=each_step(oracle_keras_adamw.adamw, **DECAY)),
    Row("NadamW(0.01, weight_decays={'w': (0.01, 0.1)}, total_iterations=100)",
        "NadamW.keras_adamw(params, 0.01, l1=0.01, l2=0.1, total_iterations=100)",
        reference=each_step(oracle_keras_adamw.nadamw, **DECAY)),
    Row("SGDW(0.01, momentum=0.9, weight_decays={'w': (0.01, 0.1)}, total_iterations=100)",
        "SGDW.keras_adamw(params, 0.01, 0.9, l1=0.01, l2=0.1, total_iterations=100)",
        reference=each_step(oracle_keras_adamw.sgdw, momentum=0.9, **DECAY)),
]  # fmt: skip

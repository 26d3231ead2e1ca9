"""Modes of the training recipe: every format and every extra at least once, what may meet in one kernel by turns."""

import numpy as np
from bfloat16 import ml_dtypes

from gpuadam import ema_warmup, schedules

F16, BF16, F32, F64 = np.float16, ml_dtypes.bfloat16, np.float32, np.float64
AVERAGE = {"ema_decay": ema_warmup(0.9)}
# name: dtypes of parameters and gradients, settings
MODES = {
    "float32": (F32, F32, {**AVERAGE, "clip_norm": 1.0}),
    "float64": (F64, F64, {**AVERAGE, "clip_norm": 0.1, "clip_scope": "tensor", "zero_grads": True}),
    "float64, gradient bfloat16": (F64, BF16, {"clip_norm": 0.1}),
    "float16": (F16, F16, {"clip_value": 0.01}),
    "bfloat16": (BF16, BF16, {**AVERAGE, "clip_norm": 1.0, "clip_scope": "group", "zero_grads": True}),
    "float16, master": (F16, F16, {**AVERAGE, "master": "float32"}),
    "bfloat16, master, gradient float32": (BF16, F32, {"master": "float32", "clip_norm": 0.5}),
    "bfloat16, remainder": (BF16, BF16, {**AVERAGE, "master": "remainder", "zero_grads": True}),
    "float16, stochastic": (F16, F16, {**AVERAGE, "rounding": "stochastic", "seed": 7}),
    "bfloat16, stochastic, states bfloat16": (BF16, BF16, {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    "float32, states bfloat16": (F32, F32, {**AVERAGE, "state_dtype": "bfloat16", "zero_grads": True}),
    "float32, states int8": (F32, F32, {"state_dtype": "int8", "clip_norm": schedules.cosine_decay(2.0, 9)}),
    "bfloat16, remainder, states int8": (BF16, BF16, {**AVERAGE, "master": "remainder", "state_dtype": "int8"}),
}

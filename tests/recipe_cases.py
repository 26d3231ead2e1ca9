"""The recipe as a covering array: each pair of rule, format, mode and option occurs in some case."""

from typing import Any

import numpy as np
from bfloat16 import ml_dtypes
from cases import LR
from pairwise import Case, covering_array, smallest_subset

import gpuadam

DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
RULES = {
    "adam": (gpuadam.Adam, {"weight_decay": 0.05, "eps": 1e-3}),
    "amsgrad": (gpuadam.AdamW, {"amsgrad": True, "betas": (0.8, 0.95)}),
    "lamb": (gpuadam.LAMB, {"weight_decay": 0.05, "eps": 1e-3, "trust_clip": 3.0}),
    "nadam": (gpuadam.NAdam, {"momentum_decay": 0.5, "maximize": True}),
    "rmsprop": (gpuadam.RMSprop, {"centered": True, "momentum": 0.9, "eps": 1e-3}),
    "sgd": (gpuadam.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
}
MODES = {
    "plain": {},
    "master": {"master": "float32"},
    "remainder": {"master": "remainder"},
    "stochastic": {"rounding": "stochastic"},
}
STATES = {
    "own": {},
    "bfloat16": {"state_dtype": "bfloat16"},
    "int8": {"state_dtype": "int8", "int8_from": 0},
}
CLIPS = {
    "none": {},
    "global": {"clip_norm": 1.0},
    "group": {"clip_norm": 0.5, "clip_scope": "group"},
    "tensor": {"clip_norm": 0.1, "clip_scope": "tensor", "clip_value": 0.05},
    "value": {"clip_value": 0.01},
}
FACTORS = {
    "weights": [
        *((form, "plain") for form in DTYPES),
        *(("float16", mode) for mode in ("master", "stochastic")),
        *(("bfloat16", mode) for mode in ("master", "remainder", "stochastic")),
    ],
    "grad": list(DTYPES),
    "rule": list(RULES),
    "states": list(STATES),
    "ema": [False, True],
    "zero_grads": [False, True],
    "clip": list(CLIPS),
    "scalars": ["none", "scale", "scale array", "found", "found array"],
    "nonfinite": ["propagate", "skip", "raise"],
    "aligned": [False, True],
}


def allows(case: Case) -> bool:
    """float64 parameters keep their states in float64; gradients of float64 are theirs alone."""
    is_double = {case["weights"][0] == "float64"} if "weights" in case else {False, True}
    if case.get("grad") == "float64":
        is_double -= {False}
    if case.get("states", "own") != "own":
        is_double -= {True}
    return bool(is_double)


CASES = covering_array(FACTORS, allows)
SUBSET = smallest_subset(CASES)


def name_of(case: Case) -> str:
    flags = [name for name in ("ema", "zero_grads", "aligned") if case[name]]
    words = [*case["weights"], *(case[name] for name in ("grad", "rule", "states", "clip", "scalars", "nonfinite"))]
    ending = ["sanitized_subset"] if case in SUBSET else []
    return "-".join([*words, *flags, *ending]).replace(" ", "_")


def make(case: Case, groups: list[dict[str, Any]]) -> gpuadam.Optimizer:
    """The optimizer of a case."""
    optimizer, options = RULES[case["rule"]]
    recipe = {**MODES[case["weights"][1]], **STATES[case["states"]], **CLIPS[case["clip"]]}
    if case["ema"]:
        recipe["ema_decay"] = gpuadam.ema_warmup(0.9)
    switches = {name: case[name] for name in ("zero_grads", "nonfinite")}
    return optimizer(groups, lr=LR, seed=len(name_of(case)), **options, **recipe, **switches)

"""Optimizers that are best known by their authors' own code, by oracles written from the papers."""

from typing import Any

import numpy as np
import oracle_adaptive
import oracle_lamb
import oracle_schedule_free

from . import Row, each_step


def clipped_lamb(param: np.ndarray, grads: list[np.ndarray], **settings: Any) -> Any:
    """LAMB on gradients whose norm is at most 1."""
    short = [grad / max(1.0, float(np.linalg.norm(grad))) for grad in grads]
    return oracle_lamb.lamb(param, short, lr=0.01, weight_decay=0.0, **settings)


HOME = "Authors' packages"
ROWS = [
    Row("qhoptim: QHAdam(params, lr=0.01, betas=(0.995, 0.999), nus=(0.7, 1.0))",
        "QHAdam(params, lr=0.01, betas=(0.995, 0.999), nus=(0.7, 1.0))",
        reference=each_step(oracle_adaptive.qhadam, lr=0.01, betas=(0.995, 0.999), nus=(0.7, 1.0))),
    Row("lion-pytorch: Lion(params, lr=0.01, weight_decay=0.1)", "Lion(params, lr=0.01, weight_decay=0.1)",
        reference=each_step(oracle_adaptive.lion, lr=0.01, weight_decay=0.1)),
    Row("apex: FusedLAMB(params, lr=0.01, max_grad_norm=0.0, use_nvlamb=True)", "LAMB(params, lr=0.01)",
        reference=each_step(oracle_lamb.lamb, lr=0.01)),
    Row("apex: FusedLAMB(params, lr=0.01, weight_decay=0.0, max_grad_norm=1.0)",
        "LAMB(params, lr=0.01, weight_decay=0.0, clip_norm=1.0, always_adapt=False)",
        "timm's Lamb has the same defaults.", reference=each_step(clipped_lamb, always_adapt=False)),
    Row("timm: Lamb(params, lr=0.01, trust_clip=True, max_grad_norm=None)", "LAMB(params, lr=0.01, trust_clip=1.0)",
        reference=each_step(oracle_lamb.lamb, lr=0.01, trust_clip=1.0)),
    Row("fastai: Lamb(params, lr=0.01)",
        "LAMB(params, lr=0.01, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.0, trust_clip=10.0)",
        reference=each_step(oracle_lamb.lamb, lr=0.01, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.0, trust_clip=10.0)),
    Row("schedulefree: AdamWScheduleFree(params, lr=0.01, warmup_steps=5)",
        "AdamWScheduleFree(params, lr=0.01, warmup_steps=5)",
        reference=each_step(oracle_schedule_free.adamw_schedule_free, lr=0.01, warmup_steps=5)),
    Row("schedulefree: SGDScheduleFree(params, lr=0.01)", "SGDScheduleFree(params, lr=0.01)",
        reference=each_step(oracle_schedule_free.sgd_schedule_free, lr=0.01)),
]  # fmt: skip

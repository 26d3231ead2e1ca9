"""thinc's Adam, and gpuadam's for thinc: called for each parameter, as thinc's models do in `finish_update`.

Both set the gradients to zero, which backpropagation then adds to. Here they are put back before each sample, so that
moments do not fade away.
"""

import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
from cpu_cases import CLIP_NORM, HYPERPARAMETERS, Case, arrays_of
from cpu_contenders import Contender

from gpuadam import schedules


class Thinc(Contender):
    """`thinc.optimizers.Adam`."""

    name, title, package, extra = "thinc", "thinc", "thinc", 8

    @classmethod
    def refuses(cls, case: Case) -> str:
        if case.workload.name != "spacy-small":
            return "it is measured on the tensors of a spaCy pipeline"
        return "" if case.recipe in ("plain", "spacy") else "thinc clips each gradient by its own norm"

    def __init__(self, case: Case) -> None:
        self._params, self.grads = arrays_of(case)
        self._filled = [grad.copy() for grad in self.grads]
        own = HYPERPARAMETERS["adamw"]
        lr = self.cosine(own["lr"], case.decay_steps) if case.does("schedule") else own["lr"]
        self._optimizer = self.maker()(
            lr,
            beta1=own["betas"][0],
            beta2=own["betas"][1],
            eps=own["eps"],
            L2=own["weight_decay"],
            grad_clip=CLIP_NORM if case.does("clip each") else 0.0,
            use_averages=False,
        )
        self._keys = [(index, "W") for index in range(len(self._params))]
        self.step = self._step

    @staticmethod
    def maker() -> Callable[..., Any]:
        from thinc.optimizers import Adam

        return Adam  # type: ignore[no-any-return]

    @staticmethod
    def cosine(lr: float, steps: int) -> Any:
        """A generator: what both lines of thinc take."""

        def rates() -> Iterator[float]:
            for step in count():
                yield lr * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2

        return rates()

    def _step(self) -> None:
        optimizer = self._optimizer
        for key, param, grad in zip(self._keys, self._params, self.grads, strict=True):
            optimizer(key, param, grad)
        optimizer.step_schedules()

    def refresh(self) -> None:
        self.feed(self._filled)

    def weights(self) -> list[np.ndarray]:
        return [param.astype(np.float64) for param in self._params]


class GpuadamThinc(Thinc):
    """`gpuadam.thinc.Adam` in the place of thinc's."""

    name, title = "gpuadam-thinc", "gpuadam.thinc"

    @staticmethod
    def maker() -> Callable[..., Any]:
        from gpuadam.thinc import Adam

        return Adam

    @staticmethod
    def cosine(lr: float, steps: int) -> Any:
        return schedules.cosine_decay(lr, steps)

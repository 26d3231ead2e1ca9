"""optax under jit, with parameters and states donated; a step ends when its results are there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cpu_cases import CLIP_NORM, EMA_DECAY, HYPERPARAMETERS, Case, arrays_of
from cpu_contenders import Contender

MOST_TENSORS = 1000


class Optax(Contender):
    """The whole recipe in one jitted function."""

    name, title, package, extra = "optax", "optax, jit", "optax", 16

    @classmethod
    def refuses(cls, case: Case) -> str:
        if len(case.workload.shapes) > MOST_TENSORS:
            return f"XLA compiles a step of more than {MOST_TENSORS:,} arrays for minutes"
        if case.workload.groups > 1 or case.dtype != "float32" or case.does("clip each"):
            return "it is measured in float32 only, in one group, clipped by the common norm or not at all"
        return ""

    def __init__(self, case: Case) -> None:
        import jax
        import optax

        params, grads = arrays_of(case)
        self._params, self.grads = ([jax.device_put(array) for array in arrays] for arrays in (params, grads))
        self._averages = [jax.device_put(array.copy()) for array in params] if case.does("ema") else []
        transformation = make_transformation(case)
        self._state = transformation.init(self._params)

        def update(params: Any, state: Any, averages: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return params, state, optax.incremental_update(params, averages, 1 - EMA_DECAY) if averages else averages

        self._update = jax.jit(update, donate_argnums=(0, 1, 2))
        self._wait = jax.block_until_ready
        self.step = self._step

    def _step(self) -> None:
        self._params, self._state, self._averages = self._wait(
            self._update(self._params, self._state, self._averages, self.grads)
        )

    def feed(self, grads: Sequence[np.ndarray]) -> None:
        import jax

        self.grads = [jax.device_put(grad) for grad in grads]

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(param, np.float64) for param in self._params]

    def averages(self) -> list[np.ndarray]:
        return [np.asarray(average, np.float64) for average in self._averages]


def make_transformation(case: Case) -> Any:
    import optax

    own = HYPERPARAMETERS[case.rule]
    lr = optax.cosine_decay_schedule(own["lr"], case.decay_steps) if case.does("schedule") else own["lr"]
    if case.rule == "adamw":
        b1, b2 = own["betas"]
        found = optax.adamw(lr, b1, b2, own["eps"], weight_decay=own["weight_decay"])
    elif case.rule == "rmsprop":
        found = optax.rmsprop(lr, own["alpha"], own["eps"], eps_in_sqrt=False)
    else:
        found = optax.sgd(lr, own["momentum"])
    return optax.chain(optax.clip_by_global_norm(CLIP_NORM), found) if case.does("clip") else found

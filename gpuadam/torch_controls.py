"""What our optimizers have beyond PyTorch's: averages, hyperparameters as they are now, counts, norms."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .optimizer import Optimizer as Core


class Controls:
    """Calls of the optimizer inside, in the order of PyTorch's current stream; they mean what they mean there."""

    _core: Core
    _names: dict[Any, Any]
    _early_parameters: dict[str, float]  # set before there was anything to update
    _at_work: Callable[[], AbstractContextManager[None]]
    _follow_groups: Callable[[], None]
    __reduce_ex__ = Core.__reduce_ex__  # refuses: neither pickle nor copy

    def hyperparameters(self) -> list[dict[str, float]]:
        """The hyperparameters of each group as the next step will use them; waits for the device."""
        with self._at_work():
            self._follow_groups()
            return self._core.hyperparameters()

    def _swap(self, how: str) -> None:
        """Exchange what the parameters hold; before the first gradient both are the same."""
        with self._at_work():
            if self._names:
                getattr(self._core, how)()

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped, by a GradScaler or `nonfinite`; waits for the device."""
        with self._at_work():
            return self._core.skipped_steps

    def gradient_norms(self) -> list[float]:
        """See `gpuadam.Optimizer.gradient_norms`."""
        with self._at_work():
            return self._core.gradient_norms()

    def parameters(self) -> dict[str, float]:
        """The named parameters of all schedules, as they stand."""
        return self._core.parameters()

    def set_parameter(self, name: str, value: float) -> None:
        """See `gpuadam.Optimizer.set_parameter`."""
        with self._at_work():
            self._follow_groups()
            self._core.set_parameter(name, value)
            if not self._names:
                self._early_parameters[name] = value

    def swap_ema(self) -> None:
        """See `gpuadam.Optimizer.swap_ema`."""
        self._swap("swap_ema")

    def reset_ema(self) -> None:
        """See `gpuadam.Optimizer.reset_ema`."""
        self._swap("reset_ema")

    @contextmanager
    def ema(self) -> Iterator[None]:
        """The parameters hold their averages within the block."""
        self.swap_ema()
        try:
            yield
        finally:
            self.swap_ema()

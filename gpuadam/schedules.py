"""Schedules: a hyperparameter as its formula over `step`, the updates applied before the one in question (0 at first).

Each function returns an `Expr`. Call it to see what the kernel will use, combine it (`+ * minimum join`), or write your
own from `step` and the functions of `expressions`, which this module hands on:

>>> inverse_sqrt = 0.1 * minimum(step / 100, 1) / sqrt(maximum(step / 100, 1))
>>> inverse_sqrt(50), inverse_sqrt(400)
(0.05, 0.05)

Families of schedules stand in `composition`, `cycles`, `decay_cycles`, `decays`, `inverse_roots`, `one_cycles`,
`stable_phases`, `warmup_decays` and `warmups`.

Values (lr, peak, ...) are finite numbers >= 0 or expressions, such as a `parameter`; lengths and boundaries are numbers
of steps. An argument out of range is refused with a ValueError when the schedule is made, one that is no number at all
with a TypeError; both name the argument.
"""

from . import (
    composition,
    cycles,
    decay_cycles,
    decays,
    inverse_roots,
    one_cycles,
    stable_phases,
    warmup_decays,
    warmups,
)
from .composition import *  # noqa: F403
from .cycles import *  # noqa: F403
from .decay_cycles import *  # noqa: F403
from .decays import *  # noqa: F403

from .expressions import (  # isort: skip
    absolute, accumulator, acos, cospi, cycle, equal, exp, expm1, floor, log, log1p, maximum, minimum, normal,
    parameter, sinpi, sqrt, step, table, tanh, uniform, where,
)  # fmt: skip
from .inverse_roots import *  # noqa: F403
from .one_cycles import *  # noqa: F403
from .stable_phases import *  # noqa: F403
from .warmup_decays import *  # noqa: F403
from .warmups import *  # noqa: F403

FAMILIES = (composition, cycles, decay_cycles, decays, inverse_roots, one_cycles, stable_phases, warmup_decays, warmups)
__all__ = [
    "absolute", "accumulator", "acos", "cospi", "cycle", "equal", "exp", "expm1", "floor", "log", "log1p", "maximum",
    "minimum", "normal", "parameter", "sinpi", "sqrt", "step", "table", "tanh", "uniform", "where",
]  # fmt: skip
__all__ += composition.__all__
__all__ += cycles.__all__
__all__ += decay_cycles.__all__
__all__ += decays.__all__
__all__ += inverse_roots.__all__
__all__ += one_cycles.__all__
__all__ += stable_phases.__all__
__all__ += warmup_decays.__all__
__all__ += warmups.__all__

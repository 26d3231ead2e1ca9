"""Cases of the rules that scale the gradient by its past, as rows of `cases.Case`."""

from collections.abc import Iterator
from typing import Any

import oracle_adaptive as oracle

import gpuadam

Row = tuple[str, Any, Any, dict[str, Any], float]
DECAYS = ("coupled", "decoupled", "scheduled")


def rows(
    make: Any, reference: Any, every: dict[str, Any], own: list[dict[str, Any]], lr: float = 0.05
) -> Iterator[Row]:
    """A case for each dict of options, and each decay, once while it ascends."""
    decays = [{"weight_decay": 0.05, "decay": decay} for decay in DECAYS]
    for options in [*own, *decays, {"weight_decay": 0.05, "maximize": True}]:
        name = "-".join([make.__name__.lower(), *map(str, options.values())])
        yield name, make, reference, {**every, **options}, lr


MOMENTS = {"betas": (0.8, 0.95), "eps": 1e-3}
ROWS = [
    *rows(
        gpuadam.RAdam,
        oracle.radam,
        MOMENTS,
        [
            {"betas": (0.9, 0.999)},
            *({"eps_placement": place} for place in ("outside", "hat", "inside")),
            {"threshold": 4.0},
            {"weight_decay": 0.05, "decoupled_weight_decay": True},
        ],
    ),
    *rows(
        gpuadam.QHAdam,
        oracle.qhadam,
        {**MOMENTS, "nus": (0.7, 0.9)},
        [{"nus": nus} for nus in ((0.0, 0.4), (0.7, 1.0), (1.0, 1.0))]
        + [{"weight_decay": 0.05, "decouple_weight_decay": True}],
    ),
    *rows(gpuadam.Adamax, oracle.adamax, MOMENTS, [{"eps_placement": place} for place in ("outside", "inside")]),
    *rows(
        gpuadam.Adagrad,
        oracle.adagrad,
        {"eps": 1e-3},
        [
            {"lr_decay": 0.3},
            {"initial_accumulator_value": 0.1},
            {"eps_placement": "inside", "initial_accumulator_value": 0.1},
        ],
    ),
    *rows(gpuadam.Adadelta, oracle.adadelta, {"eps": 1e-3}, [{"rho": 0.95}], lr=0.5),
    *rows(gpuadam.Lion, oracle.lion, {}, [{}, {"betas": (0.8, 0.95)}]),
]

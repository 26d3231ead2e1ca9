"""What an optimizer for thinc is given, under the names of thinc, and what it is to our own classes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .algorithms import Adam
from .expressions import as_expr, lr_scale
from .hyperparameters import PAIRS, check_choice
from .momentum_algorithms import SGD
from .optimizer import Optimizer
from .recipe import ema_warmup

THEIR_NAMES = {"lr": "learn_rate", "weight_decay": "L2"}
SET_HERE = {"params", "maximize", "decay", "decoupled_weight_decay", "decouple_weight_decay", "recipe", "keywords"}
RECIPE: dict[str, Any] = {
    "clip_scope": "tensor",
    "clip_value": None,
    "ema_decay": None,
    "state_dtype": "float32",
    "int8_from": 4096,
    "seed": 0,
    "backend": "auto",
    "allow_flush": False,
}
HAVE_PRESET = (Adam, SGD)  # whose numbers can be those of thinc
LARGEST_DECAY = 0.9999  # of the averages, in thinc

Values = Mapping[str, Any]
Algorithm = Callable[..., Optimizer]


def defaults_of(algorithm: Algorithm) -> dict[str, Any]:
    """The arguments of an optimizer for thinc, and their defaults."""
    own = inspect.signature(algorithm).parameters
    found: dict[str, Any] = {}
    for name in [name for name in own if name not in SET_HERE]:
        if name in PAIRS:
            found |= dict(zip(PAIRS[name], own[name].default, strict=True))
        else:
            found[THEIR_NAMES.get(name, name)] = own[name].default
    if "decay" in own:
        found["L2_is_weight_decay"] = True
    found |= {"grad_clip": 1.0, "use_averages": True, **RECIPE}
    return found | ({"numerics": "gpuadam"} if algorithm in HAVE_PRESET else {})


def hyperparameters_of(algorithm: Algorithm) -> list[str]:
    """Those of the arguments that may be schedules."""
    names = {THEIR_NAMES.get(name, name) for name in algorithm({}).rule.hyperparameters}
    names |= {"l1_decay", "grad_clip", "clip_value", "ema_decay"}
    return [name for name in defaults_of(algorithm) if name in names]


def settings_of(algorithm: Algorithm, arguments: Values, h: Values) -> dict[str, Any]:
    """The keywords of our class.

    Args:
        arguments: As the user gave them.
        h: The hyperparameters among them, as numbers and expressions.
    """
    check_arguments(arguments)
    own = inspect.signature(algorithm).parameters
    given = {**arguments, **h}
    keywords = {name: given[name] for name in RECIPE}
    for name in [name for name in own if name not in SET_HERE]:
        if name in PAIRS:
            keywords[name] = tuple(given[part] for part in PAIRS[name])
        else:
            keywords[name] = given[THEIR_NAMES.get(name, name)]
    if "decay" in own:
        keywords["decay"] = "decoupled" if given["L2_is_weight_decay"] else "coupled"
    keywords["clip_norm"] = None if is_zero(given["grad_clip"]) else given["grad_clip"]
    if given["use_averages"] and given["ema_decay"] is None:
        keywords["ema_decay"] = ema_warmup(LARGEST_DECAY)
    if given.get("numerics") == "thinc":
        keywords |= preset(algorithm, given)
    return keywords


def check_arguments(arguments: Values) -> None:
    for name in ("use_averages", "L2_is_weight_decay"):
        if name in arguments:
            check_choice(arguments[name], (False, True), name)
    if "numerics" in arguments:
        check_choice(arguments["numerics"], ("gpuadam", "thinc"), "numerics")
    if arguments["ema_decay"] is not None and not arguments["use_averages"]:
        raise ValueError(f"ema_decay is {arguments['ema_decay']!r}, but use_averages is False; allowed is None")


def preset(algorithm: Algorithm, given: Values) -> dict[str, Any]:
    """What makes the numbers those of thinc: epsilon-hat, and a decay of the weights as they are after the update.

    (p - size * u) * (1 - d) = p - d * p - size * (1 - d) * u, which is a decay before the update of another size.
    """
    factor, learn_rate = given["L2"], given["learn_rate"]
    found: dict[str, Any] = {}
    if algorithm is Adam:
        found["eps_placement"] = "hat"
        for name in ("beta1", "beta2"):
            if is_zero(given[name]):
                raise ValueError(
                    f"{name} is 0, with which Adam.v1 of thinc takes the step of SGD.v1; allowed is a number > 0 and "
                    "< 1, or numerics='gpuadam'"
                )
    if is_zero(factor):
        return found
    if given["L2_is_weight_decay"]:
        decay = as_expr(learn_rate, "learn_rate") * lr_scale * factor
        return found | {"lr": learn_rate * (1.0 - decay), "weight_decay": decay, "decay": "scheduled"}
    if not is_zero(given["grad_clip"]):
        raise ValueError(
            f"L2 is {factor!r} and no weight decay, and grad_clip is {given['grad_clip']!r}: thinc clips the sum of "
            "both, which cannot be done; allowed are L2_is_weight_decay=True, grad_clip=0, or numerics='gpuadam'"
        )
    return found


def is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0

"""Parameter groups by the names of the tensors: no decay on biases and norms in one line."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Pattern = str | re.Pattern[str] | tuple[str, ...]


def group_by_name(params: Mapping[str, Any], rules: Mapping[Pattern, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sort named tensors into the groups that the optimizers take.

    Args:
        params: Name -> array.
        rules: Pattern -> settings, tried in this order: the first that matches takes the tensor. A pattern is a regular
            expression, found anywhere in the name (anchor it with ^ and $), or a tuple of whole names. The settings are
            those of a group (`{"weight_decay": 0.0}`); the optimizer checks them.

    Returns:
        First the group of all tensors that no rule takes, with no settings of its own (left out if there are none),
        then one for each rule. Tensors change their order by that, so give gradients as a dict.

    Raises:
        TypeError: A name, a pattern or settings of the wrong kind.
        ValueError: An invalid regular expression, an unknown name, or a rule that takes no tensor.

    >>> import numpy as np
    >>> from gpuadam import AdamW
    >>> params = {"linear.weight": np.ones((2, 3)), "linear.bias": np.ones(2), "norm.weight": np.ones(2)}
    >>> groups = group_by_name(params, {r"bias|norm": {"weight_decay": 0.0}})
    >>> [list(group["params"]) for group in groups]
    [['linear.weight'], ['linear.bias', 'norm.weight']]
    >>> optimizer = AdamW(groups, weight_decay=0.1)
    >>> [group["weight_decay"] for group in optimizer.hyperparameters()]
    [0.1, 0.0]
    """
    _check_names(params)
    if not isinstance(rules, Mapping):
        raise TypeError(f"rules must be a dict of pattern -> settings, got {type(rules).__name__}")
    left = dict(params)
    groups = []
    for pattern, settings in rules.items():
        _check_settings(pattern, settings)
        matched = list(_matches(pattern, params))
        taken = {name: left.pop(name) for name in matched if name in left}
        if not taken:
            why = f"earlier rules have taken {matched}" if matched else f"the names are {list(params)}"
            raise ValueError(f"the rule {_text(pattern)} takes no tensor: {why}")
        groups.append({"params": taken, **settings})
    return [{"params": left}, *groups] if left else groups


def _check_names(params: Any) -> None:
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a dict of name -> array, got {type(params).__name__}")
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"params has the key {name!r}, a {type(name).__name__}; allowed are names, which are str")


def _check_settings(pattern: Any, settings: Any) -> None:
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings of the rule {_text(pattern)} must be a dict, got {settings!r}")
    if "params" in settings:
        raise ValueError(f"settings of the rule {_text(pattern)} have the entry 'params'; it is made of what matches")


def _matches(pattern: Any, params: Mapping[str, Any]) -> Iterator[str]:
    """The names that a pattern matches, taken by an earlier one or not; in the order of `params`."""
    if isinstance(pattern, tuple):
        unknown = [name for name in pattern if name not in params]
        if unknown:
            raise ValueError(f"the rule {pattern!r} has the unknown name {unknown[0]!r}; the names are {list(params)}")
        yield from (name for name in params if name in pattern)
        return
    if not isinstance(getattr(pattern, "pattern", pattern), str):
        raise TypeError(
            f"the rule {pattern!r} is a {type(pattern).__name__}; allowed are a regular expression (str or compiled "
            "from one) and a tuple of names"
        )
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the rule {pattern!r} is no regular expression: {error}") from error
    yield from filter(expression.search, params)


def _text(pattern: Any) -> str:
    """How errors call a rule."""
    return repr(getattr(pattern, "pattern", pattern))

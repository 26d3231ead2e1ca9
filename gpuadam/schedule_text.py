"""Schedules from text, as on a command line: what may stand there is listed here, and nothing is ever executed.

The text is parsed, and its tree walked: names of `schedules`, numbers, text, lists, and arithmetic. Whatever else there
is, or grows too large, is refused in one line that says what and where.
"""

import ast
import math
import operator
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from . import schedules
from .expressions import Expr, as_expr

LONGEST = 4_000  # characters
DEEPEST = 100  # levels of brackets and operators
LARGEST_WHOLE = 2**53
CONSTANTS = (bool, int, float, str, type(None))
NEEDS_PYTHON = {"sampled", "sampled_epochs", "accumulator"}  # these take functions, which a text cannot hold
BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ALLOWED = "numbers, text, lists, + - * / **, < <= > >=, step, and the names of gpuadam.schedules"


class ScheduleTextError(ValueError):
    """A text that is no schedule; the message is one line, and names the place."""


def read_schedule(text: str) -> Expr:
    """The schedule that a text describes, without ever running the text.

    Args:
        text: A formula as in Python: the functions of `gpuadam.schedules`, `step`, numbers and arithmetic.

    Raises:
        ScheduleTextError: It holds anything else, is too large, or a schedule refuses its arguments.

    >>> read_schedule("minimum(step / 10, 1) * cosine_decay(2, decay_steps=100)")([5, 50])
    array([0.99384417, 1.        ])
    """
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}; allowed is a str")
    if len(text) > LONGEST:
        raise ScheduleTextError(f"the text has {len(text):,} characters; allowed are {LONGEST:,}")
    if not text.strip():
        raise ScheduleTextError("the text is empty; allowed is a formula, such as cosine_decay(0.1, 900)")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ScheduleTextError(f"this is no formula, {error.msg} at column {error.offset or 1}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise ScheduleTextError(f"this is no formula that can be read: {_one_line(error)}") from error
    return _as_schedule(_read(tree.body, 1))


def _as_schedule(value: Any) -> Expr:
    """A result that can be compiled, as only then is it a schedule."""
    if callable(value) and not isinstance(value, Expr):
        raise ScheduleTextError(f"{value.__name__} is a schedule without its arguments: write {value.__name__}(...)")
    try:
        schedule = as_expr(value, "the result")
        schedule(0)
    except (TypeError, ValueError) as error:
        raise ScheduleTextError(f"this is no schedule: {_one_line(error)}") from error
    return schedule


def _read(node: ast.expr, depth: int) -> Any:
    """The value of a part of the text."""
    reader = READERS.get(type(node))
    if reader is None:
        raise _refused(node, f"{_kind(node)} is not allowed; allowed are {ALLOWED}")
    if depth > DEEPEST:
        raise _refused(node, f"this is nested too deep; allowed are {DEEPEST} levels")
    return reader(node, depth + 1)


def _refused(node: ast.expr | ast.keyword, reason: str) -> ScheduleTextError:
    return ScheduleTextError(f"at column {node.col_offset + 1}: {reason}")


def _kind(node: ast.AST) -> str:
    """How an error calls a part of Python: "lambda", "list comp"."""
    name = type(node).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _constant(node: Any, depth: int) -> Any:
    value = node.value
    if not isinstance(value, CONSTANTS):
        raise _refused(node, f"{value!r} is not allowed; allowed are {ALLOWED}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(node, value)
    return value


def _number(node: ast.expr, value: int | float) -> int | float:
    """A number that a double holds, and counts exactly if it is whole."""
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        raise _refused(node, "this whole number is too large; allowed are those up to 2**53, or write 1e300")
    if not math.isfinite(value):
        raise _refused(node, f"this is {value!r}; allowed are finite numbers")
    return value


def _name(node: Any, depth: int) -> Any:
    """What a name of `schedules` stands for, also where the module is named before it."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id
    if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "schedules"):
        raise _refused(node, "attribute is not allowed; allowed are those of schedules")
    if name in NEEDS_PYTHON:
        raise _refused(node, f"{name} takes a function of Python, which a text cannot hold")
    if name not in schedules.__all__:
        names = sorted(set(schedules.__all__) - NEEDS_PYTHON)
        near = get_close_matches(name, names, 2, 0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/equivalents.md has the names of other libraries"
        raise _refused(node, f"{name!r} is no name of gpuadam.schedules; {hint}")
    return getattr(schedules, name)


def _call(node: Any, depth: int) -> Any:
    function = _read(node.func, depth)
    if not callable(function) or isinstance(function, Expr):
        raise _refused(node, "this is no schedule that can be called")
    names = [keyword.arg for keyword in node.keywords]
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is None:
            raise _refused(keyword, "** is not allowed: write the arguments out")
        if keyword.arg in names[:i]:
            raise _refused(keyword, f"the argument {keyword.arg} is given twice")
    arguments = [_argument(value, depth) for value in node.args]
    settings = {keyword.arg: _argument(keyword.value, depth) for keyword in node.keywords}
    try:
        return function(*arguments, **settings)
    except (TypeError, ValueError, ArithmeticError, IndexError, KeyError, AttributeError) as error:
        raise _refused(node, _one_line(error)) from error


def _argument(node: ast.expr, depth: int) -> Any:
    value = _read(node, depth)
    if callable(value) and not isinstance(value, Expr):
        raise _refused(node, "a schedule that is handed on must be called first: write its arguments")
    return value


def _items(node: Any, depth: int) -> list[Any]:
    return [_argument(item, depth) for item in node.elts]


def _dictionary(node: Any, depth: int) -> dict[Any, Any]:
    if not all(isinstance(key, ast.Constant) for key in node.keys):
        raise _refused(node, "the keys of a dict must be numbers or text")
    pairs = zip(node.keys, node.values, strict=True)
    return {_constant(key, depth): _argument(value, depth) for key, value in pairs}


def _entry(node: Any, depth: int) -> Any:
    """One of several results: `cycle(step, 10)[1]`."""
    values, place = _read(node.value, depth), _read(node.slice, depth)
    if not isinstance(values, tuple | list) or not isinstance(place, int) or not -len(values) <= place < len(values):
        raise _refused(node, "[...] takes a list or several results, and the number of one of them")
    return values[place]


def _operand(node: ast.expr, depth: int) -> Expr | int | float:
    value = _read(node, depth)
    if isinstance(value, bool) or not isinstance(value, Expr | int | float):
        raise _refused(node, f"a {type(value).__name__} is no operand; allowed are numbers and schedules")
    return value


def _operation(node: Any, depth: int) -> Any:
    if type(node.op) not in BINARY:
        raise _refused(node, f"the operator {_kind(node.op)!r} is not allowed; allowed are + - * / **")
    return _combine(node, BINARY[type(node.op)], _operand(node.left, depth), _operand(node.right, depth))


def _combine(node: ast.expr, operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """Arithmetic; that of plain numbers in double, so that 9**9**9 does not take for ever."""
    if isinstance(a, Expr) or isinstance(b, Expr):
        return operation(a, b)
    try:
        value = operation(float(a), float(b))
    except ArithmeticError as error:
        raise _refused(node, "this is no finite number") from error
    if isinstance(value, complex):
        raise _refused(node, "this is a complex number; allowed are real ones")
    is_whole = isinstance(a, int) and isinstance(b, int) and operation is not operator.truediv
    return int(value) if is_whole and value % 1 == 0 and abs(value) <= LARGEST_WHOLE else _number(node, value)


def _sign(node: Any, depth: int) -> Any:
    if not isinstance(node.op, ast.USub | ast.UAdd):
        raise _refused(node, f"the operator {_kind(node.op)!r} is not allowed; allowed are + and -")
    value = _operand(node.operand, depth)
    return -value if isinstance(node.op, ast.USub) else value


def _comparison(node: Any, depth: int) -> Any:
    if len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
        raise _refused(node, "this comparison is not allowed; allowed are <, <=, >, >= of two values, and equal(a, b)")
    a, b = _operand(node.left, depth), _operand(node.comparators[0], depth)
    return COMPARISONS[type(node.ops[0])](as_expr(a), b)


READERS: dict[type[ast.AST], Callable[[Any, int], Any]] = {
    ast.Attribute: _name,
    ast.BinOp: _operation,
    ast.Call: _call,
    ast.Compare: _comparison,
    ast.Constant: _constant,
    ast.Dict: _dictionary,
    ast.List: _items,
    ast.Name: _name,
    ast.Subscript: _entry,
    ast.Tuple: _items,
    ast.UnaryOp: _sign,
}

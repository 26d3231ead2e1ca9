"""Schedules from text: what is read, what is refused, how quickly, and how that is told."""

import ast
import contextlib
import re
import time

import numpy as np
import pytest

from gpuadam import gallery, schedules
from gpuadam.expressions import Expr, as_expr
from gpuadam.schedule_text import LONGEST, ScheduleTextError, read_schedule

STEPS = np.arange(0, 1000, 7)
QUICK = 5.0  # seconds: of a busy machine, and far less than what is refused would take
SAME = [  # what Python itself gives is the expectation
    "step",
    "0.1",
    "-step + 5",
    "0.1 * (step + 1) ** -0.5",
    "(1 - step / 1000) / (1 + step)",
    "2 ** -(step / 100)",
    "where(step < 100, 1e-3, 1e-4)",
    "where(100 >= step, step, 2 - 1)",
    "minimum(step / 10, 1) * cosine_decay(1, decay_steps=500, alpha=0.1)",
    "schedules.cosine_decay(0.1, 900)",
    "cyclic(0, 1, 100, mode='triangular2')",
    "one_cycle(0.1, 900, three_phase=True)",
    "exponential_decay(1, 100, 0.5, staircase=True, end_value=None)",
    "join([linear_warmup(0.1, 2 * 100), 0.1], (200,))",
    "linear_warmup(1.0, 10, first=1)",
    "cycle(step, 100, 2)[1]",
    "cycle(step, 100)[-2]",
    "table([1, 2, 3], step / 2 ** 6)",
    "parameter('scale', 0.5) * step",
    "sum_of_many",
]
SUM = " + ".join(["step"] * 60)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """The first evaluation in a process takes its time."""
    read_schedule("step")


@pytest.mark.parametrize("text", SAME)
def test_what_python_gives(text):
    text = SUM if text == "sum_of_many" else text
    names = {**{name: getattr(schedules, name) for name in schedules.__all__}, "schedules": schedules}
    expected = as_expr(eval(text, names))
    assert np.array_equal(read_schedule(text)(STEPS), expected(STEPS))


@pytest.mark.parametrize("text", ["2 ** 53", "2 ** 10", "3 * 4 - 2", "6 / 3", "1e300 ** 1", "2 ** -1", "7 - 7.5", "+4"])
def test_arithmetic_of_plain_numbers(text):
    assert read_schedule(text)(0) == float(eval(text))


@pytest.mark.parametrize("text", ["2 * 100", "2 ** 3", "10 - 3"])
def test_whole_numbers_stay_whole(text):
    """Some functions take whole numbers alone."""
    seen = []

    made = schedules.constant

    def constant(value):
        seen.append(value)
        return made(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules, "constant", constant)
        read_schedule(f"constant({text})")
        read_schedule("constant(4 / 2)")
    assert [type(value) for value in seen] == [int, float]
    assert seen[0] == eval(text)


REFUSED = {
    "__import__('os').system('true')": "column 1: attribute is not allowed",
    "open('/etc/passwd')": "column 1: 'open' is no name of gpuadam.schedules",
    "().__class__.__bases__": "attribute is not allowed",
    "schedules.math.pi": "attribute is not allowed",
    "schedules.math": "'math' is no name",
    "schedules.Expr": "'Expr' is no name",
    "schedules.__loader__": "'__loader__' is no name",
    "step.__class__": "attribute is not allowed",
    "StepLR(1, 2)": "'StepLR' is no name of gpuadam.schedules; docs/equivalents.md has the names of other libraries",
    "  ": "the text is empty",
    "cosin_decay(1, 2)": "'cosin_decay' is no name of gpuadam.schedules; did you mean cosine_decay",
    "1 + lambda x: x": "invalid syntax",
    "(lambda: 1)()": "column 2: lambda is not allowed; allowed are numbers, text, lists",
    "[step for _ in (1, 2)]": "column 1: list comp is not allowed",
    "table([k for k in [1]], step)": "column 7: list comp is not allowed",
    "step if step else 1": "if exp is not allowed",
    "step and 1": "bool op is not allowed",
    "not step": "'not' is not allowed; allowed are + and -",
    "~step": "'invert' is not allowed",
    "step // 2": "'floor div' is not allowed; allowed are + - * / **",
    "step % 2": "'mod' is not allowed",
    "step @ 2": "'mat mult' is not allowed",
    "step << 2": "'l shift' is not allowed",
    "step == 2": "this comparison is not allowed; allowed are <, <=, >, >= of two values, and equal(a, b)",
    "0 < step < 2": "this comparison is not allowed",
    "step in [1]": "this comparison is not allowed",
    "f'{step}'": "joined str is not allowed",
    "(x := 1)": "named expr is not allowed",
    "{1, 2}": "set is not allowed",
    "b'1'": "b'1' is not allowed",
    "1j": "1j is not allowed",
    "...": "Ellipsis is not allowed",
    "constant(*[1])": "column 10: starred is not allowed",
    "constant(**{'value': 1})": "** is not allowed",
    "constant(value=1, value=2)": "column 19: the argument value is given twice",
    "'text'": "this is no schedule: the result must be a number, got 'text'",
    "'a' * 5": "a str is no operand; allowed are numbers and schedules",
    "True + 1": "a bool is no operand",
    "[1] * 5": "a list is no operand",
    "True": "this is no schedule",
    "[1, 2]": "this is no schedule",
    "cycle(step, 10)": "this is no schedule",
    "cycle(step, 10)[2]": "[...] takes a list or several results",
    "step[0]": "[...] takes a list",
    "cosine_decay": "cosine_decay is a schedule without its arguments: write cosine_decay(...)",
    "cosine_decay + 1": "a function is no operand",
    "join([cosine_decay, 1], [3])": "column 7: a schedule that is handed on must be called first",
    "step(3)": "this is no schedule that can be called",
    "3(4)": "this is no schedule that can be called",
    "sampled(abs, 3)": "column 1: sampled takes a function of Python, which a text cannot hold",
    "accumulator('a', 1, lambda v: v)": "column 1: accumulator takes a function of Python",
    "1 + cosine_decay(1, -3)": "column 5: decay_steps must be finite and > 0, got -3",
    "cosine_decay(1)": "column 1: cosine_decay() missing 1 required positional argument",
    "constant(1, speed=2)": "unexpected keyword argument 'speed'",
    "constant('fast')": "value must be a number, got 'fast'",
    "1 / 0": "column 1: this is no finite number",
    "(-8) ** 0.5": "this is a complex number",
    "1e999": "this is inf; allowed are finite numbers",
    "1e300 * 1e300": "this is inf",
    "9007199254740993": "this whole number is too large; allowed are those up to 2**53",
    "": "the text is empty",
    "1 +": "this is no formula, invalid syntax at column",
    "cosine_decay(1": "this is no formula, '(' was never closed at column 13",
    "step; step": "this is no formula",
    "x = 1": "this is no formula",
    "step\x00": "this is no formula",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    message = refusal(text)
    assert REFUSED[text] in message


def refusal(text):
    """The one line in which a text is refused, and quickly."""
    begin = time.perf_counter()
    with pytest.raises(ScheduleTextError) as found:
        read_schedule(text)
    assert time.perf_counter() - begin < QUICK
    assert "\n" not in str(found.value)
    return str(found.value)


LARGE = {
    "9**9**9**9": "this is no finite number",
    "2**(2**(2**(2**20)))": "this is no finite number",
    "(" * 150 + "1" + ")" * 150 + "**" * 1: "this is no formula",
    "-" * 150 + "step": "nested too deep; allowed are 100 levels",
    "-" * 3900 + "1": "",
    "[" * 300 + "]" * 300: "this is no formula",
    "[" * 150 + "]" * 150: "nested too deep",
    "minimum(" * 120 + "1" + ", 1)" * 120: "nested too deep",
    "+".join(["step"] * 400): "nested too deep",
    "1" * 3999: "",
    "1" * (LONGEST + 1): "the text has 4,001 characters; allowed are 4,000",
    "table([" + "1," * 3000 + "], step)": "characters",
    "join([" + "join([" * 40 + "step" + ",1],[1])" * 40 + ",1],[1])": None,
    "*".join(["adamwr(1,1,4,1,1,epochs=1000000)"] * 90): "epochs must be a whole number up to 10,000",
    "*".join(["adamwr(1,1,4,1,1,epochs=10000)"] * 20): None,
    "cycle(step, 1, 1.0000001)[0]": "column 1: multiplier 1.0000001 makes more than 4096 cycles",
}


@pytest.mark.parametrize("text", LARGE, ids=lambda text: text[:20])
def test_what_is_too_large_is_refused_quickly(text):
    if LARGE[text] is None:  # allowed or not, it must not take long
        begin = time.perf_counter()
        with contextlib.suppress(ScheduleTextError):
            read_schedule(text)
        assert time.perf_counter() - begin < QUICK
    else:
        assert LARGE[text] in refusal(text)


@pytest.mark.parametrize("number", [1e9, 10**9, 10**15, 1e300, 0, -1, 1e-300])
@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_no_number_makes_a_schedule_take_long(name, number):
    """Each number of each example is replaced by one that nobody foresaw: a schedule, or a refusal, at once."""
    text = gallery.EXAMPLES[name]
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            changed = text[: node.col_offset] + f"({number})" + text[node.end_col_offset :]
            begin = time.perf_counter()
            with contextlib.suppress(ScheduleTextError):
                read_schedule(changed)(STEPS)
            assert time.perf_counter() - begin < QUICK, changed


def test_text_that_is_no_text():
    with pytest.raises(TypeError, match="text is a int; allowed is a str"):
        read_schedule(3)


# ---- the gallery


def schedule_functions():
    """The functions of `schedules` that make a schedule; the primitives stand in `expressions`."""
    found = {name: getattr(schedules, name) for name in schedules.__all__}
    return {
        name: made
        for name, made in found.items()
        if callable(made) and not isinstance(made, Expr) and made.__module__ != "gpuadam.expressions"
    }


def test_every_schedule_has_an_example():
    missing = sorted(set(schedule_functions()) - set(gallery.EXAMPLES) - {"sampled", "sampled_epochs"})
    assert not missing, f"gpuadam/gallery.py has no example of {missing}"
    unknown = sorted(set(gallery.EXAMPLES) - set(schedule_functions()))
    assert not unknown, f"gpuadam/gallery.py has examples of {unknown}, which schedules.__all__ does not name"


@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_every_example_is_of_its_schedule(name):
    text = gallery.EXAMPLES[name]
    assert re.match(rf"{name}\(", text)
    values = read_schedule(text)(np.arange(gallery.STEPS))
    assert np.all(np.isfinite(values))
    assert name == "constant" or np.ptp(values) > 0, "there is nothing to see"

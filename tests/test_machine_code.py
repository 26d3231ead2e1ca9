"""What Numba makes of float32: no double anywhere, which would halve the speed and change the bits."""

import numba
import pytest
from cases import RULES
from numba import float32, float64, from_dtype, int64, none, types, uint64

from gpuadam import formats, sweeps
from gpuadam.formats import Specialisation
from gpuadam.tables import TENSOR


def machine_code(function, signature):
    """The LLVM of a function alone, without the wrappers through which Python would call it."""
    compiled = numba.njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    code = compiled.inspect_llvm(compiled.signatures[0])
    return "\n".join(line for line in code.splitlines() if not line.startswith(("declare", "@", "!")))


ALWAYS = {"adam": 2, "nadam": 2, "rmsprop": 1, "sgd": 0, "radam": 2, "lamb": 2}  # states that no option leaves out
ALWAYS |= {"adam_l1": 2, "sgd_l1": 0, "adamw_schedule_free": 2, "sgd_schedule_free": 1}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
@pytest.mark.parametrize("present", [False, True], ids=["few states", "all states"])
def test_no_double_in_the_machine_code_of_a_float32_rule(rule, present):
    """A literal or a promotion in an element function would halve the speed and change the bits."""
    states = [
        float32 if present or i < ALWAYS.get(rule.name, len(rule.states)) else none for i in range(len(rule.states))
    ]
    row = types.NamedUniTuple(float32, len(rule.row._fields), rule.row)
    body = machine_code(rule.element, (float32, float32, *states, row))
    assert "fmul float" in body
    assert "double" not in body
    assert "fpext" not in body


def all_kinds():
    """Specialisations that compute in float32, each way of storing something at least once."""
    adam = RULES["adam"]
    plain = ("float32", "float32", None)
    yield from (Specialisation(rule, "float32", "float32", ("float32",) * len(rule.states)) for rule in RULES.values())
    yield Specialisation(adam, "float32", "float16", plain, ema=True, zero_grads=True)
    yield Specialisation(adam, "float16", "bfloat16", plain, "float32", ema=True)
    yield Specialisation(adam, "bfloat16", "bfloat16", plain, "remainder", ema=True)
    yield Specialisation(adam, "bfloat16", "float32", plain, rounding="stochastic")
    yield Specialisation(adam, "float16", "float16", ("bfloat16",) * 3, rounding="stochastic")
    yield Specialisation(adam, "float32", "float32", ("int8", "uint8", "uint8"))


def machine_code_of_update(kind):
    """The LLVM of the loop over the elements of a run, rule and formats and all."""
    number = float64 if kind.compute == "float64" else float32
    row = types.NamedUniTuple(number, len(kind.rule.row._fields), kind.rule.row)
    buffer = float32[::1] if any(map(formats.is_8_bit, kind.states)) else none
    arguments = (from_dtype(TENSOR), int64, int64, row, types.UniTuple(number, 2))
    rest = (uint64 if kind.draws else none, types.UniTuple(buffer, 3))
    return machine_code(sweeps.make_update(kind), (*arguments, *rest))


@pytest.mark.parametrize("kind", [*all_kinds()], ids=lambda kind: kind.name)
def test_no_double_in_the_machine_code_of_a_float32_update(kind):
    body = machine_code_of_update(kind)
    assert "fmul float" in body
    assert "double" not in body
    assert "fpext" not in body


def test_that_test_sees_a_double_in_an_update():
    kind = Specialisation(RULES["sgd"], "float64", "float32", ("float64",))
    assert "double" in machine_code_of_update(kind)


def test_that_test_sees_a_double():
    assert "double" in machine_code(lambda x: x * 0.5, (float32,))

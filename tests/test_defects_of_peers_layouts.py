"""Defects that were found in other optimizers, each as a test of ours: where elements lie, how many there are, and what
belongs to whom.
"""

import numpy as np
import oracle
import pytest
from recipe_checks import BF16, F16, F32, F64, deviation

import gpuadam
from gpuadam import schedules, tables

RULES = [gpuadam.SGD, gpuadam.Adam, gpuadam.RMSprop, gpuadam.Lion]
CHANNELS_LAST = (0, 2, 3, 1)  # the order in memory of an array of N, C, H, W


def in_order(values, axes):
    """The same array, its elements in memory in the order of those axes."""
    return np.ascontiguousarray(values.transpose(axes)).transpose(np.argsort(axes))


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_elements_that_belong_together_meet_or_the_gradient_is_refused(kind):
    """PyTorch's fused Adam and SGD on the CPU pair a channels_last parameter with a gradient in another order element
    by element in memory; so do apex and DeepSpeed, and TransformerEngine does not look."""
    rng = np.random.default_rng(0)
    start, grad = (rng.normal(size=(2, 3, 4, 5)) for _ in range(2))
    plain, last = start.copy(), in_order(start, CHANNELS_LAST)
    kind([plain], lr=0.1).step([grad])
    optimizer = kind([last], lr=0.1)
    with pytest.raises(ValueError, match="allowed is the same order"):
        optimizer.step([grad])
    assert np.array_equal(last, start)
    optimizer.step([in_order(grad, CHANNELS_LAST)])
    assert last.strides != plain.strides
    assert np.array_equal(last, plain)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5, "nesterov": False}])
def test_a_parameter_that_is_thawed_later(options):
    """PyTorch's fused SGD stops with a TypeError about None. It begins as if the steps before had not been."""
    params, fresh = [np.ones(300), np.ones(300)], [np.ones(300)]
    optimizer, beginning = gpuadam.SGD(params, lr=0.1, **options), gpuadam.SGD(fresh, lr=0.1, **options)
    rng = np.random.default_rng(1)
    for k in range(8):
        grads = [rng.normal(size=300) for _ in range(2)]
        optimizer.step([grads[0], grads[1] if k >= 3 else None])
        if k < 3:
            assert np.all(params[1] == 1)
        else:
            beginning.step([grads[1]])
    assert np.array_equal(params[1], fresh[0])


def test_groups_of_mixed_dtypes_have_rates_of_their_own():
    """PyTorch's `_fused_adam` takes a tensor's rate from the last device that it saw, whenever one comes back."""
    dtypes = [F32, F64, F16, F32, BF16, F64]
    rates = [0.5, schedules.step / 8, 0.125]
    params = [[np.zeros(9, dtype) for dtype in dtypes] for _ in rates]
    optimizer = gpuadam.SGD([{"params": own, "lr": lr} for own, lr in zip(params, rates, strict=True)])
    for _ in range(3):
        optimizer.step([np.ones(9, dtype) for _ in rates for dtype in dtypes])
    for own, moved in zip(params, [1.5, 0.375, 0.375], strict=True):
        assert [float(param[0]) for param in own] == [-moved] * len(dtypes)
        assert all(np.all(param == -moved) for param in own)


def test_more_than_2_to_the_31_elements(monkeypatch):
    """apex, bitsandbytes and llm.c count in 32 bits; DeepSpeed updated nothing from there on (DeepSpeed#7640).

    The walk visits a few places only (each by itself, as rounding at random asks): what nobody writes takes no memory.
    That it is told to visit all others is shown by `test_the_chunk_table_of_tensors_beyond_2_to_the_31`.
    """
    count = 2**31 + 5
    places = np.array([0, 2**31 - 1, 2**31, count - 1])
    all_rows = tables.chunk_rows

    def few_rows(tensors, numels):
        rows = all_rows(tensors, numels)
        return rows[np.isin(rows["index"], places // tables.CHUNK)]

    monkeypatch.setattr(tables, "chunk_rows", few_rows)
    param, grad = np.zeros(count, F16), np.zeros(count, F16)
    grad[places] = 1
    gpuadam.SGD([param], lr=0.5, rounding="stochastic").step([grad])
    assert param[places].tolist() == [-0.5] * 4
    assert [np.count_nonzero(param[begin : begin + 2048]) for begin in (0, 2**31 - 1024)] == [1, 3]


@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray, lambda p: in_order(p, (1, 0, 2))])
def test_a_parameter_stays_where_it_is(make):
    """bitsandbytes puts `p.data = p.data.contiguous()` in its place: views and aliases are left behind."""
    param = make(np.random.default_rng(2).normal(size=(4, 5, 6)))
    address, strides, view, before = param.ctypes.data, param.strides, param[1:3, ::2], param.copy()
    optimizer = gpuadam.AdamW([param], lr=0.1)
    for _ in range(3):
        optimizer.step([np.ones_like(param)])
    assert (param.ctypes.data, param.strides) == (address, strides)
    assert np.array_equal(view, param[1:3, ::2])
    assert np.all(param != before)


def test_a_parameter_that_is_no_run_of_memory_is_refused_and_not_copied():
    """As above: what cannot be updated where it lies is named."""
    whole = np.ones((4, 6))
    with pytest.raises(ValueError, match="run of memory"):
        gpuadam.AdamW([whole[:, ::2]])
    assert np.all(whole == 1)


def test_rates_are_functions_of_the_step_and_nobody_holds_them():
    """In PyTorch `get_last_lr` and `initial_lr` may be the tensor that the optimizer goes on with: rates that were
    written down change, and a scheduler multiplies what it has multiplied before (pytorch#163103, #126854)."""
    param, lr = np.ones(3), 0.8 * schedules.exponential_decay(1.0, 2, 0.5)
    settings = {"lr": lr, "betas": [0.5, 0.75]}
    optimizer, other = gpuadam.Adam([param], **settings), gpuadam.Adam([np.ones(3)], **settings)
    settings["betas"][0] = 0.0
    seen = []
    for _ in range(6):
        seen.append(optimizer.hyperparameters()[0])
        optimizer.hyperparameters()[0]["lr"] = 7.0
        optimizer.step([np.ones(3)])
    assert [own["lr"] for own in seen] == pytest.approx([0.8 * 0.5 ** (t / 2) for t in range(6)])
    assert other.hyperparameters()[0]["lr"] == pytest.approx(0.8), "the schedule of two optimizers is no one's clock"
    expected = oracle.adam(np.ones(3), [np.ones(3)] * 6, lr=lambda t: 0.8 * 0.5 ** (t / 2), betas=(0.5, 0.75))
    assert deviation(param, expected.param) < 1e-13

"""`gpuadam.torch` and autograd: gradients of any layout are paired rightly or refused, and nobody keeps them alive."""

import gc
import weakref

import numpy as np
import pytest
from cases import LR

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import gpuadam  # noqa: E402
import gpuadam.torch as ours  # noqa: E402
from gpuadam import engine, schedules, tensors, torch_gradients, torch_layouts  # noqa: E402

SHAPES = [(4, 3), (5,), (), (2, 3, 4, 4)]


def numbers(shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameters(shapes=SHAPES, dtype=torch.float32):
    return [torch.nn.Parameter(numbers(shape, i, dtype)) for i, shape in enumerate(shapes)]


def pair(params, **settings):
    """An optimizer of ours, and PyTorch's plain loop over copies of the same layout."""
    copies = [torch.nn.Parameter(param.detach().clone()) for param in params]
    return ours.AdamW(params, lr=0.1, **settings), torch.optim.AdamW(copies, lr=0.1, foreach=False), copies


def step_both(optimizer, reference, params, copies, grads):
    """The same gradients for both; ours as they are, the reference's copies of them."""
    for param, copy, grad in zip(params, copies, grads, strict=True):
        param.grad, copy.grad = grad, None if grad is None else grad.detach().clone()
    optimizer.step()
    reference.step()
    check(params, copies)


def check(params, copies):
    for param, copy in zip(params, copies, strict=True):
        torch.testing.assert_close(param, copy, rtol=1e-5, atol=1e-6)


# ---- autograd is told


def test_a_graph_that_saved_a_parameter_is_refused_after_a_step():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.Adam([weight], lr=0.1)
    loss = (weight**3).sum()
    loss.backward(retain_graph=True)
    for _ in range(2):
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward(retain_graph=True)
        loss = (weight**3).sum()


def test_a_graph_of_parameters_without_gradients_is_still_good():
    """As in training two networks by turns, with one optimizer: PyTorch does not touch what has no gradient."""
    first, second = (torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(2))
    optimizer = ours.Adam([first, second], lr=0.1)
    ((first**3).sum() + (second**3).sum()).backward()
    optimizer.step()  # both have states
    optimizer.zero_grad()
    kept, before = (first**3).sum(), first.detach().clone()
    (second**3).sum().backward()
    optimizer.step()
    kept.backward()
    torch.testing.assert_close(first.grad, 3 * before**2)


@pytest.mark.parametrize("zero_grads", [False, True])
def test_a_graph_that_saved_a_gradient_is_refused_where_the_step_zeroes_it(zero_grads):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([weight], lr=0.1, zero_grads=zero_grads)
    weight.grad = torch.full((3,), 2.0)
    other = torch.ones(3, requires_grad=True)
    loss = (other * weight.grad).sum()
    optimizer.step()
    if zero_grads:
        assert torch.equal(weight.grad, torch.zeros(3))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    else:
        loss.backward()
        assert torch.equal(other.grad, torch.full((3,), 2.0))


def test_averages_in_the_place_of_parameters_are_noticed_too():
    """Of all parameters, with a gradient or without."""
    params = parameters([(3,), (4,)])
    optimizer = ours.SGD(params, lr=0.1, ema_decay=0.5)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    params[0].grad = None
    optimizer.step()
    losses = [(param**3).sum() for param in params]
    optimizer.swap_ema()
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


# ---- layouts


def channels_last(seed):
    return numbers((2, 3, 4, 4), seed).contiguous(memory_format=torch.channels_last)


LAYOUTS = {
    "contiguous": lambda seed: numbers((4, 6), seed),
    "transposed": lambda seed: numbers((6, 4), seed).t(),
    "channels_last": channels_last,
    "a view in the middle": lambda seed: numbers((50,), seed)[7:31].view(4, 6),
    "0-d": lambda seed: numbers((), seed),
    "empty": lambda seed: numbers((0, 3), seed),
    "axes of one": lambda seed: numbers((24,), seed).as_strided((1, 4, 1, 6), (5, 6, 7, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_of_the_same_layout(name):
    param = torch.nn.Parameter(LAYOUTS[name](0))
    optimizer, reference, copies = pair([param])
    for seed in range(1, 4):
        step_both(optimizer, reference, [param], copies, [LAYOUTS[name](seed)])


@pytest.mark.parametrize("strides", [(24, 6, 6, 1), (1, 6, 1, 1), (24, 6, 1, 1)])
def test_strides_of_axes_of_one_mean_nothing(strides):
    param = torch.nn.Parameter(numbers((1, 4, 1, 6), 0))
    optimizer, reference, copies = pair([param])
    for seed in range(1, 4):
        grad = numbers((24,), seed).as_strided((1, 4, 1, 6), strides if seed == 2 else (24, 6, 6, 1))
        step_both(optimizer, reference, [param], copies, [grad])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_gradient_in_another_order_of_elements_is_refused(is_first):
    param = torch.nn.Parameter(channels_last(0))
    optimizer, reference, copies = pair([param])
    if not is_first:
        step_both(optimizer, reference, [param], copies, [channels_last(1)])
    before = param.detach().clone()
    param.grad = numbers(param.shape, 2)
    with pytest.raises(
        ValueError, match=r"gradient 0 has strides \(192, 64, 16, 4\) bytes, its parameter \(192, 4, 48, 12\)"
    ):
        optimizer.step()
    assert torch.equal(param, before)
    step_both(optimizer, reference, [param], copies, [channels_last(3)])


def test_a_gradient_replaced_at_the_same_address_with_other_strides_is_refused():
    param = torch.nn.Parameter(numbers((4, 4), 0))
    optimizer, reference, copies = pair([param])
    grad = numbers((4, 4), 1)
    step_both(optimizer, reference, [param], copies, [grad])
    before = param.detach().clone()
    for replace in (lambda: setattr(param, "grad", grad.t()), lambda: setattr(param.grad, "data", grad.t())):
        param.grad = grad.view(4, 4)
        replace()
        assert param.grad.data_ptr() == grad.data_ptr()
        with pytest.raises(ValueError, match="gradient 0 has strides"):
            optimizer.step()
        assert torch.equal(param, before)
    step_both(optimizer, reference, [param], copies, [grad])


REPLACED = {
    "smaller, in place": lambda data: data[:2],
    "transposed, in place": lambda data: data.t(),
    "other shape, in place": lambda data: data.view(2, 8),
    "other dtype": lambda data: data.double(),
    "channels_last": lambda data: data.t().contiguous().t(),
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_parameter_with_other_data_of_another_layout_is_refused(name):
    param = torch.nn.Parameter(numbers((4, 4), 0))
    optimizer, reference, copies = pair([param])
    step_both(optimizer, reference, [param], copies, [numbers((4, 4), 1)])
    held, before = param.data, param.detach().clone()
    param.data = REPLACED[name](held)
    with pytest.raises(ValueError, match="parameter 0 was float32 of shape"):
        optimizer.step()
    param.data = held
    assert torch.equal(param, before)
    step_both(optimizer, reference, [param], copies, [numbers((4, 4), 2)])


def test_a_parameter_with_other_data_of_its_layout_is_followed():
    params = parameters()
    optimizer, reference, copies = pair(params)
    for seed in range(3):
        for param in params:
            param.data = param.data.clone()
        step_both(optimizer, reference, params, copies, [numbers(param.shape, seed) for param in params])


def test_a_gradient_with_other_data_is_followed_or_refused():
    param = torch.nn.Parameter(numbers((4,), 0))
    optimizer, reference, copies = pair([param])
    step_both(optimizer, reference, [param], copies, [numbers((4,), 1)])
    param.grad.data = numbers((4,), 2)
    copies[0].grad = param.grad.clone()
    optimizer.step()
    reference.step()
    check([param], copies)
    before = param.detach().clone()
    for data, text in ((torch.ones(2), r"shape \(2,\)"), (torch.ones(8)[::2], "not one dense run")):
        param.grad.data = data
        with pytest.raises(ValueError, match=f"gradient 0.* {text}"):
            optimizer.step()
        assert torch.equal(param, before)


# ---- dtypes and kinds


def test_gradients_of_another_dtype_and_back():
    """`grad_dtype` lets a bfloat16 parameter have float32 gradients, from one step to the next at one address."""
    param = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    param.grad_dtype = None
    twin = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    twin.grad_dtype = None
    optimizer, reference = ours.SGD([param], lr=1.0), torch.optim.SGD([twin], lr=1.0, foreach=False)
    memory = torch.tensor([0.5, -0.25, 1.0, 2.0])
    for grad in (memory, memory.to(torch.bfloat16), memory, memory.view(torch.bfloat16)[::2].clone(), memory.clone()):
        param.grad = grad
        twin.grad = grad.to(torch.bfloat16)
        optimizer.step()
        reference.step()
        assert torch.equal(param, twin)
    param.grad = memory
    optimizer.step()
    before = param.detach().clone()
    param.grad = memory.view(torch.bfloat16)[:4]  # the same address and strides, other numbers
    optimizer.step()
    assert torch.equal(param, before - memory.view(torch.bfloat16)[:4])


def test_a_sparse_gradient_is_refused_by_its_name():
    table, bias = torch.nn.Parameter(torch.ones(5, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = ours.AdamW([("table", table), ("bias", bias)], lr=0.1)
    bias.grad = torch.ones(2)
    for _ in range(2):
        table.grad = torch.ones(5, 2).to_sparse()
        with pytest.raises(TypeError, match=r"gradient 'table' is sparse.*to_dense\(\)"):
            optimizer.step()
        table.grad = torch.ones(5, 2)
        optimizer.step()


def test_an_expanded_gradient_is_refused():
    param = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = ours.AdamW([param], lr=0.1)
    for before in (None, torch.ones(2, 3)):
        if before is not None:
            param.grad = before
            optimizer.step()
        param.grad = torch.ones(1, 1).expand(2, 3)
        with pytest.raises(ValueError, match=r"gradient 0 of shape .* not one dense run"):
            optimizer.step()


@pytest.mark.parametrize("is_first", [True, False])
def test_gradients_that_share_memory_are_refused(is_first):
    params = parameters([(4,), (4,)])
    optimizer, reference, copies = pair(params)
    if not is_first:
        step_both(optimizer, reference, params, copies, [numbers((4,), i) for i in range(2)])
    memory, before = numbers((7,), 3), [param.detach().clone() for param in params]
    for grads, text in (
        ((memory[:4], memory[3:]), "gradient 1 shares memory with gradient 0"),
        ((memory[:4], memory[:4]), "gradient 1 shares memory with gradient 0"),
        ((params[0].data, memory[:4]), "gradient 0 shares memory with parameter 0"),
        ((params[1].data, memory[:4]), "gradient 0 shares memory with parameter 1"),
    ):
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        with pytest.raises(ValueError, match=text):
            optimizer.step()
        assert all(map(torch.equal, params, before))
    step_both(optimizer, reference, params, copies, [memory[:4], numbers((4,), 5)])


@pytest.mark.parametrize("is_first", [True, False])
def test_freed_gradients_and_parameters_are_refused(is_first):
    params = parameters([(4,), (64,)])
    optimizer, reference, copies = pair(params)
    if not is_first:
        step_both(optimizer, reference, params, copies, [numbers(param.shape, 1) for param in params])
    before = params[0].detach().clone()
    for param in params:
        param.grad = numbers(param.shape, 2)
    for tensor, size, text in (
        (params[1].grad, 0, "gradient 1 has no memory"),
        (params[1], 0, "parameter 1 has no memory"),
        (params[1], 16, "parameter 1 needs 256 bytes, but its storage of 16 ends before"),
    ):
        values = tensor.detach().clone()
        tensor.untyped_storage().resize_(size)
        with pytest.raises(ValueError, match=text):
            optimizer.step()
        assert torch.equal(params[0], before)
        tensor.untyped_storage().resize_(256)
        with torch.no_grad():
            tensor.copy_(values)
    step_both(optimizer, reference, params, copies, [param.grad for param in params])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_lazily_negated_gradient_is_refused(is_first):
    """Its memory holds other values."""
    param = torch.nn.Parameter(torch.ones(4))
    optimizer, reference, copies = pair([param])
    if not is_first:
        step_both(optimizer, reference, [param], copies, [torch.ones(4)])
    before = param.detach().clone()
    param.grad = torch.ones(4)._neg_view()
    with pytest.raises(TypeError, match=r"gradient 0 has PyTorch's negative bit.*resolve_neg\(\)"):
        optimizer.step()
    assert torch.equal(param, before)


# ---- which parameters have one


def test_gradients_that_come_and_go():
    params = parameters([(4,), (0,), (3, 2), ()])
    optimizer, reference, copies = pair(params)
    for present in ("1000", "1110", "0001", "1011", "0000", "1111", "1111"):
        grads = [
            numbers(p.shape, i) if flag == "1" else None
            for i, (p, flag) in enumerate(zip(params, present, strict=True))
        ]
        step_both(optimizer, reference, params, copies, grads)


def test_states_are_made_only_for_parameters_that_have_had_a_gradient():
    """As LoRA trains few of many parameters: frozen ones cost nothing, and one that thaws begins then."""
    frozen = [torch.nn.Parameter(torch.ones(1000), requires_grad=False) for _ in range(3)]
    never = torch.nn.Parameter(torch.ones(1000))
    adapter = torch.nn.Parameter(torch.ones(10))
    optimizer = ours.AdamW([*frozen, never, adapter], lr=0.1)

    def held():
        engine = optimizer._core._engine
        return sum(array.nbytes for own in engine.tensors.arrays for array in own.values())

    assert held() == 0
    for _ in range(2):
        adapter.grad = torch.ones(10)
        optimizer.step()
        assert held() == 2 * 4 * 10
        assert list(optimizer.state) == [adapter]
    frozen[0].requires_grad_(True)
    frozen[0].grad = torch.ones(1000)
    optimizer.step()
    assert held() == 2 * 4 * 1010
    assert optimizer.state[frozen[0]]["step"] == 1
    assert optimizer.state[adapter]["step"] == 3


# ---- whose they are


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"zero_grads": True}, {"clip_norm": 1.0}], ids=str)
def test_gradients_are_freed_when_pytorch_forgets_them(steps, settings):
    params = parameters()
    optimizer = ours.AdamW(params, lr=LR, **settings)
    for seed in range(steps):
        for param in params:
            param.grad = numbers(param.shape, seed)
        optimizer.step()
    tensors = [weakref.ref(param.grad) for param in params]
    memory = [param.grad.untyped_storage()._weak_ref() for param in params]
    optimizer.zero_grad()
    gc.collect()
    try:
        assert [ref() for ref in tensors] == [None] * len(params)
        assert all(torch.UntypedStorage._expired(weak) for weak in memory)
    finally:
        for weak in memory:
            torch.UntypedStorage._free_weak_ref(weak)


def test_a_model_is_freed_with_its_optimizer():
    """No cycle, and no table of the package's, holds parameters."""
    params = parameters()
    optimizer = ours.AdamW(params, lr=LR, flat_grads=True)
    optimizer.step()
    memory = [param.untyped_storage()._weak_ref() for param in params]
    del params, optimizer
    gc.collect()
    try:
        assert all(torch.UntypedStorage._expired(weak) for weak in memory)
    finally:
        for weak in memory:
            torch.UntypedStorage._free_weak_ref(weak)


# ---- what else there is in the package


def test_the_tools_for_our_own_optimizers_refuse_and_say_what_to_do():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([param], lr=0.1 * schedules.parameter("plateau", 1.0))
    with pytest.raises(TypeError, match=r"a gpuadam\.torch\.SGD; .*torch\.optim\.lr_scheduler\.ReduceLROnPlateau"):
        gpuadam.ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match=r"a gpuadam\.torch\.SGD; allowed is gpuadam's own class of that name"):
        gpuadam.LRFinder(optimizer)
    with pytest.raises(TypeError, match="array 0 is a PyTorch tensor: pack"):
        gpuadam.pack([param])
    for name in ("save", "load"):  # state_dict is PyTorch's way
        with pytest.raises(AttributeError, match=name):
            getattr(optimizer, name)


def test_the_learning_rate_finder_takes_the_tensors_themselves():
    """As its refusal says."""
    layer = torch.nn.Linear(2, 1)
    params = list(layer.parameters())
    before = [param.detach().clone() for param in params]
    optimizer, batch = gpuadam.SGD(params, lr=0.1), torch.tensor([[1.0, 2.0], [-1.0, 0.5]])

    def train_step():
        layer.zero_grad()
        loss = (layer(batch) - 1).square().mean()
        loss.backward()
        optimizer.step([param.grad for param in params])
        return loss.item()

    finder = gpuadam.LRFinder(optimizer)
    finder.range_test(train_step, start_lr=1e-4, end_lr=10.0, num_iter=30)
    assert 1e-4 < finder.suggestion(skip_start=0, skip_end=0) < 10
    assert all(map(torch.equal, params, before))


@pytest.mark.parametrize("has_schedule", [True, False])
def test_pytorchs_plateau_scheduler_multiplies_the_schedule(has_schedule):
    param = torch.nn.Parameter(torch.ones(3))
    rate = schedules.linear_warmup(1.0, 4, 0.25) if has_schedule else 1.0
    optimizer = ours.SGD([param], lr=rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    before = param.detach().clone()
    for k, factor in enumerate([1.0, 1.0, 0.5, 0.25]):
        param.grad = torch.ones(3)
        optimizer.step()
        base = min(1.0, 0.25 + 0.75 * k / 4) if has_schedule else 1.0
        torch.testing.assert_close(before - param, torch.full((3,), factor * base))
        before = param.detach().clone()
        plateau.step(1.0)


# ---- what a step costs


@pytest.fixture
def calls(monkeypatch):
    """Names of the costly calls that were made since it was cleared."""
    made = []

    def watch(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: (made.append(name), original(*args, **kwargs))[1])

    for owner in (torch_gradients, tensors):
        watch(owner, "borrow")
    watch(torch.Tensor, "__dlpack__")
    watch(engine.Engine, "put")
    watch(engine.Engine, "relocate")
    watch(torch_layouts.Layouts, "look")
    return made


def test_a_step_looks_at_each_tensor_once_and_borrows_none_that_only_moved(calls):
    params = parameters()
    optimizer, reference, copies = pair(params)
    grads = [[numbers(param.shape, 10 * k + i) for i, param in enumerate(params)] for k in range(4)]
    looks = ["look", "look"]  # at all parameters, and at all gradients
    for own, expected in (
        (grads[0], [*looks, *["borrow"] * len(params), "put"]),
        (grads[0], looks),
        (grads[1], [*looks, "relocate"]),
        (grads[1], looks),
        ([*grads[1][:3], grads[2][3]], [*looks, "relocate"]),
        ([*grads[1][:3], grads[2][3]], looks),
        ([None, *grads[1][1:]], [*looks, *["borrow"] * (len(params) - 1), "put"]),
        ([None, *grads[1][1:]], looks),
        ([None, *grads[3][1:]], [*looks, "relocate"]),
    ):
        calls.clear()
        step_both(optimizer, reference, params, copies, own)
        assert calls == expected


def test_a_learning_rate_that_is_written_every_step_costs_no_look_more(calls):
    params = parameters()
    optimizer, reference, copies = pair(params)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(own, 0.5) for own in (optimizer, reference)]
    grads = [numbers(param.shape, i) for i, param in enumerate(params)]
    for step in range(4):
        calls.clear()
        step_both(optimizer, reference, params, copies, grads)
        for scheduler in schedulers:
            scheduler.step()
        assert step == 0 or calls == ["look", "look"]


@pytest.mark.parametrize("moment", ["relocate", "put"])
def test_what_was_interrupted_while_it_was_bound_is_bound_anew(moment, monkeypatch):
    params = parameters()
    optimizer, reference, copies = pair(params)
    first, second = ([numbers(param.shape, 10 * k + i) for i, param in enumerate(params)] for k in range(2))
    step_both(optimizer, reference, params, copies, first)
    original = getattr(engine.Engine, moment)

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    for param, grad in zip(params, [second[0], *(second[1:] if moment == "relocate" else [None] * 3)], strict=True):
        param.grad = grad
    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    step_both(optimizer, reference, params, copies, first)


def test_the_layouts_of_many_kinds_of_tensors():
    """Against PyTorch's own words; what PyTorch cannot describe is never the same as anything."""
    plain = torch.ones(4, 6)
    others = {
        "moved": (plain.clone(), torch_layouts.MOVED),
        "itself": (plain.view(4, 6), torch_layouts.SAME),
        "a parameter": (torch.nn.Parameter(plain), torch_layouts.SAME),
        "strides": (plain.view(6, 4).t(), torch_layouts.CHANGED),
        "shape": (plain.view(6, 4), torch_layouts.CHANGED),
        "axes": (plain.view(24), torch_layouts.CHANGED),
        "dtype": (plain.view(torch.int32), torch_layouts.CHANGED),
        "none": (None, torch_layouts.CHANGED),
        "sparse": (plain.to_sparse(), torch_layouts.CHANGED),
        "meta": (torch.ones(4, 6, device="meta"), torch_layouts.CHANGED),
        "no tensor": (3, torch_layouts.CHANGED),
    }
    for name, (other, verdict) in others.items():
        layouts = torch_layouts.Layouts([2, 0, 1])
        for k, members in enumerate(([plain, None, torch.ones(0)], [other, None, torch.ones(0)])):
            objects = np.empty(3, object)
            objects[0], objects[1], objects[2] = members
            assert layouts.look(objects) == (verdict if k else torch_layouts.CHANGED), name
            assert k or layouts.addresses().tolist() == [plain.data_ptr(), 0, 0]
            layouts.accept()

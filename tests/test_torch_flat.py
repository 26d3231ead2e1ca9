"""`gpuadam.torch` with flat_grads=True: all gradients in one buffer, whatever somebody does with them."""

import pytest
from cases import LR

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import gpuadam.torch as ours  # noqa: E402
from gpuadam import engine, torch_gradients  # noqa: E402


def model(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(20, 7), torch.nn.Linear(7, 2)
    )
    return layers.to(dtype)


def twins(**settings):
    """A model with flat gradients, and one like it with its own."""
    networks = model(), model()
    optimizers = [
        ours.AdamW(network.parameters(), lr=LR, flat_grads=flat, **settings)
        for network, flat in zip(networks, (True, False), strict=True)
    ]
    return networks, optimizers


def backward(network, seed):
    """Real gradients, to the bit: those of a network may depend on the alignment of its arrays."""
    generator = torch.Generator().manual_seed(seed)
    products = [param * torch.randn(param.shape, generator=generator) for param in network.parameters()]
    sum(product.sum() for product in products).backward()


def assert_same(networks):
    for mine, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(mine, other)


def assert_flat(optimizer, buffers=1):
    """Every gradient is a view into a buffer, on a cache line of its own."""
    flat = optimizer._flat
    params = [param for group in optimizer.param_groups for param in group["params"] if param.requires_grad]
    storages = {param.grad.untyped_storage().data_ptr() for param in params}
    assert storages == {buffer.untyped_storage().data_ptr() for buffer in flat._buffers}
    assert len(storages) == buffers
    for param in params:
        assert param.grad.data_ptr() % 64 == 0
        assert (param.grad.shape, param.grad.stride()) == (param.shape, param.stride())


def step_alike(networks, optimizers, seed):
    """A training step of both, after which they hold the same bits."""
    for network, optimizer in zip(networks, optimizers, strict=True):
        optimizer.zero_grad()
        backward(network, seed)
        optimizer.step()
    assert_same(networks)


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.5}, {"zero_grads": True}, {"ema_decay": 0.9}], ids=str)
def test_the_bits_are_those_of_the_normal_mode_and_gradients_stay(settings):
    networks, optimizers = twins(**settings)
    addresses = [param.grad.data_ptr() for param in networks[0].parameters()]
    for seed in range(4):
        step_alike(networks, optimizers, seed)
        assert_flat(optimizers[0])
        assert [param.grad.data_ptr() for param in networks[0].parameters()] == addresses


def test_gradients_of_micro_batches_add_up():
    networks, optimizers = twins()
    for step in range(3):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            for micro in range(3):
                backward(network, 10 * step + micro)
            optimizer.step()
        assert_same(networks)


def test_zero_grad_is_one_fill_for_each_buffer():
    networks, optimizers = twins()
    backward(networks[0], 0)
    with torch.profiler.profile() as profile:
        optimizers[0].zero_grad()
    fills = [event for event in profile.events() if event.name == "aten::zero_"]
    assert len(fills) == 1
    assert all(not param.grad.any() for param in networks[0].parameters())
    backward(networks[0], 0)
    assert all(param.grad.any() for param in networks[0].parameters())


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_keeps_the_buffer_whatever_it_is_told(set_to_none):
    networks, optimizers = twins()
    backward(networks[0], 0)
    optimizers[0].zero_grad(set_to_none=set_to_none)
    assert_flat(optimizers[0])


CHANGES = {
    "model.zero_grad()": lambda network: network.zero_grad(),
    "one is None": lambda network: setattr(network[3].weight, "grad", None),
    "another tensor": lambda network: setattr(network[3].weight, "grad", torch.ones(7, 20)),
    "all other tensors": lambda network: [setattr(p, "grad", torch.ones_like(p)) for p in network.parameters()],
    "other data": lambda network: setattr(network[3].weight.grad, "data", torch.ones(7, 20)),
}


@pytest.mark.parametrize("moment", ["before backward", "after backward"])
@pytest.mark.parametrize("name", CHANGES)
def test_gradients_that_somebody_replaces(name, moment):
    networks, optimizers = twins()
    for seed in range(6):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=False)
            is_changed = seed in (1, 2, 4)
            if moment == "before backward" and is_changed:
                CHANGES[name](network)
            backward(network, seed)
            if moment == "after backward" and is_changed:
                CHANGES[name](network)
            optimizer.step()
        assert_same(networks)
        optimizers[0].zero_grad()
        assert_flat(optimizers[0])


def test_steps_on_gradients_that_stay_look_at_them_and_check_nothing(monkeypatch):
    networks, optimizers = twins()
    backward(networks[0], 0)
    optimizers[0].step()

    def refuse(*arguments):
        raise AssertionError("checked")

    monkeypatch.setattr(torch_gradients, "borrow", refuse)
    monkeypatch.setattr(engine.Engine, "put", refuse)
    monkeypatch.setattr(engine.Engine, "relocate", refuse)
    for seed in range(3):
        optimizers[0].zero_grad()
        backward(networks[0], seed)
        optimizers[0].step()


def test_parameters_that_are_frozen_and_thaw():
    networks, optimizers = twins()
    for seed in range(6):
        for network, optimizer in zip(networks, optimizers, strict=True):
            network[3].requires_grad_(seed not in (2, 3))
            if seed == 2:
                network[3].weight.grad = network[3].bias.grad = None
            optimizer.zero_grad()
            backward(network, seed)
            optimizer.step()
        assert_same(networks)


def test_parameters_that_were_frozen_from_the_beginning():
    networks = model(), model()
    for network in networks:
        network[0].requires_grad_(False)
    optimizers = [
        ours.AdamW(network.parameters(), lr=LR, flat_grads=flat)
        for network, flat in zip(networks, (True, False), strict=True)
    ]
    for seed in range(4):
        for network, optimizer in zip(networks, optimizers, strict=True):
            if seed == 2:
                network[0].requires_grad_(True)
            optimizer.zero_grad()
            backward(network, seed)
            optimizer.step()
        assert_same(networks)
    assert networks[0][0].weight.grad.any()
    optimizers[0].zero_grad()
    assert networks[0][0].weight.grad is None or not networks[0][0].weight.grad.any()


def test_a_group_that_is_added():
    networks, optimizers = twins()
    extra = [torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)]
    extra[1].load_state_dict(extra[0].state_dict())
    for seed in range(4):
        for network, optimizer, layer in zip(networks, optimizers, extra, strict=True):
            if seed == 2:
                optimizer.add_param_group({"params": list(layer.parameters()), "lr": 0.01})
            optimizer.zero_grad()
            layer.zero_grad()
            backward(network, seed)
            backward(layer, seed + 50)
            optimizer.step()
        assert_same(networks)
        assert_same(extra)
    assert_flat(optimizers[0], buffers=2)


def test_a_group_that_is_refused_leaves_no_buffer_behind():
    _, optimizers = twins()
    bad = torch.nn.Parameter(torch.ones(3))
    with pytest.raises((TypeError, ValueError)):
        optimizers[0].add_param_group({"params": [bad], "betas": (2.0, 0.9)})
    assert bad.grad is None
    assert_flat(optimizers[0])


def test_several_dtypes_have_a_buffer_each():
    first, second = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16)), torch.nn.Parameter(torch.ones(3))
    optimizer = ours.AdamW([first, second], lr=0.1, flat_grads=True)
    (first.float().sum() + second.sum()).backward()
    assert_flat(optimizer, buffers=2)
    optimizer.step()
    assert first.dtype == first.grad.dtype == torch.bfloat16
    twin = [torch.nn.Parameter(torch.ones_like(p)) for p in (first, second)]
    other = ours.AdamW(twin, lr=0.1)
    for param in twin:
        param.grad = torch.ones_like(param)
    other.step()
    assert torch.equal(first, twin[0])
    assert torch.equal(second, twin[1])


def test_channels_last_parameters():
    networks = [model().to(memory_format=torch.channels_last) for _ in range(2)]
    optimizers = [
        ours.AdamW(network.parameters(), lr=LR, flat_grads=flat)
        for network, flat in zip(networks, (True, False), strict=True)
    ]
    assert networks[0][0].weight.grad.stride() == networks[0][0].weight.stride() != (27, 9, 3, 1)
    for seed in range(3):
        step_alike(networks, optimizers, seed)
    assert_flat(optimizers[0])


def test_gradients_that_are_there_already_keep_their_values():
    network = model()
    backward(network, 0)
    before = [param.grad.clone() for param in network.parameters()]
    optimizer = ours.AdamW(network.parameters(), lr=LR, flat_grads=True)
    assert_flat(optimizer)
    assert all(torch.equal(param.grad, old) for param, old in zip(network.parameters(), before, strict=True))


def test_a_state_dict_goes_on_in_the_other_mode():
    networks, optimizers = twins()
    for seed in range(5):
        if seed == 2:
            saved = [optimizer.state_dict() for optimizer in optimizers]
            for optimizer, state in zip(optimizers, saved[::-1], strict=True):
                optimizer.load_state_dict(state)
        step_alike(networks, optimizers, seed)

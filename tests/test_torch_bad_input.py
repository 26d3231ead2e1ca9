"""What `gpuadam.torch` refuses, by name, before anything is written; and tensors that are exchanged under its hands."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_checks import assert_same_bits, assert_same_run, copied, flat, train, weights  # noqa: E402

import gpuadam.torch as ours  # noqa: E402

ONES = torch.ones(3)


def parameter(tensor=ONES):
    return torch.nn.Parameter(tensor.clone())


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        (list, ValueError, "empty parameter list"),
        (lambda: ONES, TypeError, "should be an iterable of Tensors or dicts"),
        (lambda: torch.nn.Linear(3, 1), TypeError, r"params is a Linear; allowed is .*model.parameters\(\)"),
        (lambda: None, TypeError, "params is a NoneType; allowed"),
        (lambda: [3], TypeError, "can only optimize Tensors"),
        (lambda: [parameter(), ONES.to(torch.int32)], TypeError, r"parameter 1 has dtype torch.int32; allowed are"),
        (lambda: [parameter(ONES.to(torch.complex64))], TypeError, "parameter 0 has dtype torch.complex64; allowed"),
        (lambda: [torch.eye(3).to_sparse()], TypeError, "parameter 0 has layout torch.sparse_coo; allowed is"),
        (lambda: [parameter() * 2], ValueError, "non-leaf"),
        (lambda: [("a", parameter()), parameter()], ValueError, "with/without names"),
        (lambda: [{"params": [parameter()]}, {"params": [ONES.bool()]}], TypeError, "parameter 1 has dtype torch.bool"),
        (lambda: [{"params": [("w", ONES.int())]}], TypeError, "parameter 'w' has dtype torch.int32"),
        (lambda: [{"params": [parameter()], "lr": -3}], ValueError, r"lr of group 0 is -3.0; allowed is a number"),
        (lambda: [{"params": [parameter()], "amsgrad": 3}], ValueError, r"amsgrad of group 0 is 3; allowed are"),
    ],
)
def test_parameters_that_cannot_be_updated_are_refused(params, error, says):
    with pytest.raises(error, match=says):
        ours.AdamW(params())


def test_a_parameter_is_given_once():
    one = parameter()
    with pytest.raises(ValueError, match="more than one parameter group"):
        ours.AdamW([{"params": [one]}, {"params": [one]}])
    with pytest.warns(UserWarning, match="duplicate"), pytest.raises(ValueError, match="parameter 1 is parameter 0 on"):
        ours.AdamW([one, one])


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"lr": -1}, ValueError, "lr of group 0 is -1.0; allowed is a number from 0"),
        ({"lr": "fast"}, TypeError, "lr of group 0 must be a number, got 'fast'"),
        ({"lr": lambda step: 0.1}, TypeError, "lr of group 0 is a plain callable"),
        ({"betas": (0.9, 1.0)}, ValueError, "beta2 of group 0 is 1.0; allowed is"),
        ({"betas": 0.9}, ValueError, "betas of group 0 must be a tuple of two"),
        ({"speed": 3}, TypeError, "there is no argument 'speed'; there are allow_flush, amsgrad"),
        ({"differentiable": True}, ValueError, "differentiable is True; allowed is False"),
        ({"state_dtype": "int4"}, ValueError, "state_dtype is 'int4'; allowed are"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, says):
    with pytest.raises(error, match=says):
        ours.AdamW([parameter()], **settings)


def test_arguments_given_twice_or_too_many_are_refused():
    with pytest.raises(TypeError, match="multiple values for argument 'lr'"):
        ours.AdamW([parameter()], 0.1, lr=0.1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        ours.AdamW([parameter()], 0.1, (0.9, 0.99), 1e-8, 0.0, False, True)


@pytest.mark.parametrize(
    ("group", "error"),
    [
        (lambda own: {"params": [parameter()], "lr": -1}, ValueError),
        (lambda own: {"params": [parameter()], "betas": (1, 2, 3)}, ValueError),
        (lambda own: {"params": [parameter()], "decay": "none"}, ValueError),
        (lambda own: {"params": [parameter(), parameter(ONES.to(torch.complex64))]}, TypeError),
        (lambda own: {"params": [own]}, ValueError),
        (lambda own: {"params": [parameter(), "text"]}, TypeError),
        (lambda own: {"lr": 3}, KeyError),
        (lambda own: 3, TypeError),
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_group_that_is_refused_leaves_no_trace(group, error, steps):
    optimizer, other = ours.AdamW(weights(), lr=0.01), ours.AdamW(weights(), lr=0.01)
    train(optimizer, range(steps))
    with pytest.raises(error):
        optimizer.add_param_group(group(flat(optimizer)[0]))
    assert len(optimizer.param_groups) == 1
    train(optimizer, range(steps, 6))
    train(other, range(6))
    assert_same_bits(flat(optimizer), flat(other))
    late = parameter()
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    train(optimizer, [6])
    assert float(optimizer.state[late]["step"]) == 1
    assert not torch.equal(late, parameter())


def _sparse():
    table = parameter(torch.ones(4, 3))
    torch.nn.functional.embedding(torch.tensor([0, 1]), table, sparse=True).sum().backward()
    return [table]


def _strided():
    param = torch.nn.Parameter(torch.ones(6)[::2])
    param.grad = torch.ones(3)
    return [param]


def _overlapping():
    memory = torch.ones(4)
    params = [memory[:3], memory[1:]]
    for param in params:
        param.grad = torch.ones(3)
    return params


def _elsewhere():
    params = [parameter(), torch.nn.Parameter(torch.ones(3, device="meta"))]
    for param in params:
        param.grad = torch.ones_like(param)
    return params


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (_sparse, TypeError, "gradient 0 is sparse; allowed are dense ones: sparse=False, or to_dense()"),
        (_strided, ValueError, "parameter 0 of shape .* is not one dense run|so its elements are not one dense run"),
        (_overlapping, ValueError, "parameter 1 shares memory with parameter 0"),
        (_elsewhere, TypeError, "parameter 1 is a Parameter of layout torch.strided on meta; allowed are"),
    ],
)
def test_a_step_that_cannot_be_done_writes_nothing(make, error, says):
    params = make()
    before = [param.detach().clone() for param in params]
    optimizer = ours.AdamW(params, lr=0.5)
    for _ in range(2):
        with pytest.raises(error, match=says.replace("()", r"\(\)")):
            optimizer.step()
    for param, was in zip(params, before, strict=True):
        assert param.is_meta or torch.equal(param, was)


def test_a_gradient_that_turns_sparse_writes_nothing():
    (table,) = _sparse()
    sparse, table.grad = table.grad, torch.ones(4, 3)
    other = parameter()
    optimizer = ours.SGD([other, table], lr=0.5)
    other.grad = torch.ones(3)
    optimizer.step()
    before, table.grad = copied([other, table]), sparse
    with pytest.raises(TypeError, match="gradient 1 is sparse"):
        optimizer.step()
    assert_same_bits([other, table], before)
    table.grad = sparse.to_dense()
    optimizer.step()
    assert torch.equal(other, torch.zeros(3))


def test_lists_of_parameters_replaced_before_the_first_step_are_followed():
    """As accelerate does, once it has wrapped the model."""
    optimizer, other = ours.AdamW(weights(), lr=0.01), ours.AdamW(weights(), lr=0.01)
    optimizer.param_groups[0]["params"] = copied(flat(optimizer))
    for own in (optimizer, other):
        train(own, range(5))
    assert_same_bits(flat(optimizer), flat(other))


@pytest.mark.parametrize("how", ["list", "element", "insert", "remove"])
def test_lists_of_parameters_changed_in_the_middle_are_followed(how):
    """A new tensor begins anew, the others go on, one that was taken out is left alone: as in PyTorch."""
    runs, gone = [], []
    for module in (ours, torch.optim):
        optimizer = module.AdamW(weights(), lr=0.01)
        train(optimizer, range(3))
        own = optimizer.param_groups[0]["params"]
        fresh = copied(flat(optimizer))
        gone.append(own[0])
        if how == "list":
            optimizer.param_groups[0]["params"] = fresh
        elif how == "element":
            own[0] = fresh[0]
        elif how == "insert":
            own.insert(0, fresh[0])
        else:
            own.pop(0)
        before = gone[-1].detach().clone()
        train(optimizer, range(3, 6))
        assert how == "insert" or torch.equal(gone[-1], before)
        runs.append(optimizer)
    assert_same_run(*runs)
    assert [float(runs[0].state[p]["step"]) for p in flat(runs[0])] == [
        float(runs[1].state[p]["step"]) for p in flat(runs[1])
    ]


def test_a_parameter_may_go_to_another_group():
    runs = []
    for module in (ours, torch.optim):
        own = weights()
        optimizer = module.AdamW([{"params": own[:3]}, {"params": own[3:], "lr": 0.05, "weight_decay": 0.3}], lr=0.01)
        train(optimizer, range(3))
        first, second = (group["params"] for group in optimizer.param_groups)
        second.insert(0, first.pop())
        train(optimizer, range(3, 6))
        runs.append(optimizer)
    assert_same_run(*runs)


def test_names_given_twice_do_not_hide_a_parameter():
    runs = []
    for module in (ours, torch.optim):
        optimizer = module.AdamW([("weight", param) for param in weights()], lr=0.01)
        train(optimizer, range(3))
        runs.append(optimizer)
    assert_same_run(*runs)


def test_data_may_be_put_elsewhere():
    runs = []
    for module in (ours, torch.optim):
        optimizer = module.AdamW(weights(), lr=0.01)
        train(optimizer, range(3))
        for param in flat(optimizer):
            param.data = param.data.clone() * 2
        train(optimizer, range(3, 6))
        runs.append(optimizer)
    assert_same_run(*runs)


def test_a_model_is_converted_before_its_first_step_not_after():
    model = torch.nn.Linear(3, 3)
    optimizer = ours.AdamW(model.parameters(), lr=0.01)
    model.to(torch.bfloat16)
    train(optimizer, range(2))
    assert optimizer.state[model.weight]["exp_avg"].dtype == torch.float32
    optimizer.zero_grad()
    model.to(torch.float32)
    before = copied(model.parameters())
    with pytest.raises(ValueError, match=r"parameter 0 was bfloat16 .* now it is float32 .* its states no longer fit"):
        train(optimizer, [2])
    assert_same_bits(model.parameters(), before)


def test_groups_cannot_be_taken_away():
    own = weights()
    optimizer = ours.AdamW([{"params": own[:2]}, {"params": own[2:]}], lr=0.01)
    train(optimizer, range(2))
    optimizer.param_groups.pop()
    with pytest.raises(ValueError, match="param_groups has 1 groups, the optimizer knows 2"):
        train(optimizer, [2])


def test_a_step_takes_no_gradients():
    one = parameter()
    one.grad = torch.ones(3)
    with pytest.raises(TypeError, match="closure is a list; allowed are None and a callable"):
        ours.AdamW([one]).step([one.grad])
    assert torch.equal(one, ONES)


def test_a_path_is_no_state_dict():
    with pytest.raises(TypeError, match="state_dict is a str; allowed is"):
        ours.AdamW([parameter()]).load_state_dict("run.pt")

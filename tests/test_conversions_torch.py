"""Every scheduler of PyTorch and of transformers as a schedule of ours: its numbers, or a refusal by name."""

import inspect
import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.optim import lr_scheduler as theirs  # noqa: E402
from torch.optim.swa_utils import SWALR  # noqa: E402

from gpuadam import torch_formulas  # noqa: E402
from gpuadam.torch import as_schedule  # noqa: E402

COUNT = 150
CHAIN = "[LinearLR(o, 0.1, total_iters=10), ConstantLR(o, 0.5, 20), PolynomialLR(o, 90, 2.0), ExponentialLR(o, 0.99)]"
FORMULAS = [
    "StepLR(o, 7, 0.5)",
    "MultiStepLR(o, [3, 3, 50], 0.5)",
    "MultiStepLR(o, [0, 2.5, 200])",
    "MultiStepLR(o, [])",
    "ConstantLR(o)",
    "ConstantLR(o, 0.5, 0)",
    "LinearLR(o)",
    "LinearLR(o, 1.0, 0.0, 100)",
    "LinearLR(o, 0.5, total_iters=0)",
    "ExponentialLR(o, 0.95)",
    "PolynomialLR(o, 100, 2.0)",
    "PolynomialLR(o, 0)",
    "CosineAnnealingLR(o, 30)",
    "CosineAnnealingLR(o, 47, eta_min=0.05)",
    "CosineAnnealingWarmRestarts(o, 10)",
    "CosineAnnealingWarmRestarts(o, 7, 2, eta_min=0.05)",
    "CyclicLR(o, [0.01, 0.2], [0.1, 0.02], 8)",
    "CyclicLR(o, 0.01, 0.1, 7, 3, mode='triangular2')",
    "CyclicLR(o, 0.01, 0.1, 4.3, mode='exp_range', gamma=0.99)",
    "OneCycleLR(o, [0.1, 0.3], 150)",
    "OneCycleLR(o, 0.1, 150, pct_start=0.4, anneal_strategy='linear', three_phase=True)",
    "OneCycleLR(o, 0.1, 150, pct_start=0.0, div_factor=10.0, final_div_factor=7.0)",
    "SWALR(o, [0.05, 0.3])",
    "SWALR(o, 0.05, 20, 'linear')",
    "SWALR(o, 0.05, 0)",
    "SequentialLR(o, [LinearLR(o, 0.1, total_iters=9), CosineAnnealingLR(o, 90), ConstantLR(o, 0.2, 0)], [10, 100])",
    "SequentialLR(o, [ConstantLR(o, 0.1, 100), ExponentialLR(o, 0.9), StepLR(o, 9)], [20, 60])",
    "SequentialLR(o, [ExponentialLR(o, 0.9), LinearLR(o, 0.2, total_iters=5), MultiStepLR(o, [3, 9])], [30, 90])",
    "SequentialLR(o, [CosineAnnealingLR(o, 100), SWALR(o, 0.05, 20)], [70])",
    "SequentialLR(o, [SWALR(o, 0.05, 20), PolynomialLR(o, 50)], [10])",
    "SequentialLR(o, [StepLR(o, 5), StepLR(o, 7), ExponentialLR(o, 0.9)], [0, 40])",
    "SequentialLR(o, [StepLR(o, 5), StepLR(o, 7), ExponentialLR(o, 0.9)], [40, 40])",
    "SequentialLR(o, [StepLR(o, 50), OneCycleLR(o, 0.4, 120), ], [40])",
    "SequentialLR(o, [CyclicLR(o, 0.01, 0.1, 7), CosineAnnealingWarmRestarts(o, 10)], [45])",
    f"ChainedScheduler({CHAIN})",
    f"ChainedScheduler([ChainedScheduler({CHAIN}), StepLR(o, 40, 0.5), MultiStepLR(o, [5, 90])])",
    "ChainedScheduler([CosineAnnealingLR(o, 40)])",
]
SAMPLED = [
    "LambdaLR(o, [lambda k: 0.95**k, lambda k: 1.0 + k % 3])",
    "MultiplicativeLR(o, lambda k: 1 - 0.5 / k)",
    "SequentialLR(o, [MultiplicativeLR(o, lambda k: 0.9), LambdaLR(o, lambda k: 0.9**k)], [50])",
    "SequentialLR(o, [LambdaLR(o, lambda k: 0.9**k), MultiplicativeLR(o, lambda k: 0.9 + 0.05 / (k + 1))], [20])",
    "CyclicLR(o, 0.01, 0.1, 8, scale_fn=lambda x: 1 / x)",
    "ChainedScheduler([LinearLR(o, 0.1, total_iters=10), CosineAnnealingLR(o, 60)])",
    "ChainedScheduler([ConstantLR(o, 0.1, 50), MultiplicativeLR(o, lambda k: 0.9)])",
    "SequentialLR(o, [ChainedScheduler([ExponentialLR(o, 0.9), StepLR(o, 9)]), ExponentialLR(o, 0.9)], [20])",
    "SequentialLR(o, [CosineAnnealingLR(o, 50), OneCycleLR(o, 0.4, 150)], [40])",
    "Halved(o, 0.9)",
    "StepLR(o, 2.5, 0.5)",
    "LinearLR(o, 0.1, total_iters=7.5)",
    "ConstantLR(o, 0.5, 5.5)",
    "PolynomialLR(o, 7.5)",
    "ChainedScheduler([StepLR(o, 2.5, 0.5), ConstantLR(o, 0.5, 5)])",
]


class Renamed(theirs.ExponentialLR):
    """One that changes nothing that counts."""

    def __init__(self, optimizer):
        super().__init__(optimizer, 0.9)


class Halved(theirs.ExponentialLR):
    """One that does something else."""

    def get_lr(self):
        return [lr / 2 if self.last_epoch == 9 else lr for lr in super().get_lr()]


def optimizer_of(momentum=0.9):
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.02}]
    return torch.optim.SGD(groups, 0.1, momentum)


def make(text, o):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch steps a ChainedScheduler that a SequentialLR begins with
        return eval(text, {**vars(theirs), "SWALR": SWALR, "Halved": Halved, "o": o})


def run(scheduler, count=COUNT):
    """What a scheduler gives its optimizer: a row for each group and each of so many steps."""
    groups, found = scheduler.optimizer.param_groups, []
    for k in range(count):
        if k:
            scheduler.optimizer.step()
            scheduler.step()
        beta1 = [group.get("momentum", group.get("betas", (0,))[0]) for group in groups]
        found.append([[float(group["lr"]) for group in groups], beta1])
    return np.array(found).transpose(1, 2, 0)


def assert_close(ours, theirs, tolerance=1e-10):
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_over_the_run_and_beyond(text):
    scheduler = make(text, optimizer_of())
    before = [as_schedule(scheduler, group=group) for group in (0, 1)]
    expected = run(scheduler)[0]
    for group in (0, 1):
        assert_close(before[group](np.arange(COUNT)), expected[group])
        after = as_schedule(scheduler, group=group)  # as the whole schedule, wherever it stands
        assert_close(after(np.arange(COUNT)), expected[group])


@pytest.mark.parametrize("text", SAMPLED)
def test_what_is_no_formula_is_sampled(text):
    optimizer = optimizer_of()
    scheduler = make(text, optimizer)
    with pytest.raises(ValueError, match=r"; give `steps` to sample so many"):
        as_schedule(scheduler)
    untouched = [dict(group) for group in optimizer.param_groups]
    ours = [as_schedule(scheduler, group=group, steps=COUNT) for group in (0, 1)]
    assert optimizer.param_groups == untouched
    expected = run(scheduler)[0]
    for group in (0, 1):
        assert_close(ours[group](np.arange(COUNT)), expected[group])


def test_every_class_of_pytorch_converts_or_is_refused():
    """A class that a newer PyTorch brings is missing here."""
    classes = {kind for kind in vars(theirs).values() if inspect.isclass(kind) and issubclass(kind, theirs.LRScheduler)}
    known = {*torch_formulas.FACTORS, *torch_formulas.FORMULAS}
    assert classes - known == {theirs.LRScheduler, theirs._LRScheduler, theirs.ReduceLROnPlateau}
    assert known - classes == {SWALR}
    tested = set(re.findall(r"\w+(?=\()", " ".join([*FORMULAS, *SAMPLED])))
    assert {kind.__name__ for kind in known} <= tested


@pytest.mark.parametrize("text", ["CyclicLR(o, 0.01, 0.1, 7, 3, mode='triangular2')", "OneCycleLR(o, 0.1, 150)",
                                  "OneCycleLR(o, 0.1, 150, three_phase=True, base_momentum=0.5)"])  # fmt: skip
@pytest.mark.parametrize("kind", ["momentum", "beta1"])
def test_the_momentum_that_moves_along(text, kind):
    optimizer = optimizer_of() if kind == "momentum" else torch.optim.AdamW([torch.zeros(1)], 0.1)
    scheduler = make(text, optimizer)
    ours = as_schedule(scheduler, of=kind)
    wrong = "beta1" if kind == "momentum" else "momentum"
    with pytest.raises(ValueError, match=f"of is '{wrong}'; allowed is '{kind}'"):
        as_schedule(scheduler, of=wrong)
    if kind == "momentum":
        expected = run(scheduler)[1]
    else:
        expected = []
        for _ in range(COUNT):
            expected.append(optimizer.param_groups[0]["betas"][0])
            optimizer.step()
            scheduler.step()
        expected = np.array([expected])
    assert np.ptp(expected[0]) > 0.04
    assert_close(ours(np.arange(COUNT)), expected[0])


def test_a_sampled_momentum():
    scheduler = make("CyclicLR(o, 0.01, 0.1, 8, scale_fn=lambda x: 1 / x)", optimizer_of())
    ours = as_schedule(scheduler, of="momentum", steps=COUNT)
    assert_close(ours(np.arange(COUNT)), run(scheduler)[1][0])
    assert ours(10 * COUNT) == ours(COUNT - 1)


def test_one_cycle_holds_its_end():
    ours = as_schedule(theirs.OneCycleLR(optimizer_of(), 0.1, 100))
    assert ours([99, 100, 10**9]) == pytest.approx([0.1 / 25 / 1e4] * 3, rel=1e-12)


def test_learning_rates_that_are_tensors():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=torch.tensor(0.1, dtype=torch.float64))
    assert as_schedule(theirs.StepLR(optimizer, 10))(10) == pytest.approx(0.01, rel=1e-12)


def test_a_subclass_that_changes_nothing_converts():
    assert as_schedule(Renamed(optimizer_of()))(3) == pytest.approx(0.1 * 0.9**3, rel=1e-12)


REFUSED = {
    "ReduceLROnPlateau(o)": (TypeError, r"ReduceLROnPlateau follows a metric.*gpuadam\.ReduceLROnPlateau"),
    "LambdaLR(o, lambda k: 1.0)": (ValueError, "the function of LambdaLR is Python, which a kernel cannot call; give"),
    "MultiplicativeLR(o, lambda k: 1.0)": (ValueError, "the function of MultiplicativeLR is Python"),
    "CyclicLR(o, 0.1, 1.0, scale_fn=lambda x: x)": (ValueError, "the scale_fn of this CyclicLR is a Python function"),
    "ChainedScheduler([StepLR(o, 1), CosineAnnealingLR(o, 9)])": (
        ValueError, "CosineAnnealingLR in it is no product"),
    "Halved(o, 0.9)": (ValueError, "Halved is no scheduler whose formula is known; give `steps`"),
    "StepLR(o, 2.5)": (ValueError, r"step_size of StepLR is 2\.5, no whole number of steps; give `steps` to sample"),
    "SequentialLR(o, [StepLR(o, 1), LinearLR(o, total_iters=0)], [4])": (
        ValueError, "total_iters of LinearLR is 0; allowed within a SequentialLR is > 0"),
    "SequentialLR(o, [StepLR(o, 1), StepLR(o, 1), StepLR(o, 1)], [9, 4])": (
        ValueError, r"the milestones of a SequentialLR are \[9, 4\]; allowed are whole numbers in order"),
    "3": (TypeError, r"scheduler must be one of torch\.optim\.lr_scheduler, got int"),
    "o": (TypeError, r"scheduler must be one of torch\.optim\.lr_scheduler, got SGD"),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    kind, message = REFUSED[text]
    with pytest.raises(kind, match=message):
        as_schedule(make(text, optimizer_of()))


def test_bad_arguments():
    scheduler = theirs.StepLR(optimizer_of(), 10)
    for group in (2, -1, True, "0"):
        with pytest.raises(ValueError, match=rf"group is {group!r}; allowed are 0 to 1"):
            as_schedule(scheduler, group=group)
    with pytest.raises(ValueError, match=r"of is 'beta2'; allowed are \('lr', 'momentum', 'beta1'\)"):
        as_schedule(scheduler, of="beta2")
    with pytest.raises(ValueError, match="of is 'momentum', but StepLR moves the learning rate alone"):
        as_schedule(scheduler, of="momentum")
    still = theirs.OneCycleLR(optimizer_of(), 0.1, 100, cycle_momentum=False)
    with pytest.raises(ValueError, match="of is 'momentum', but this OneCycleLR moves the learning rate alone"):
        as_schedule(still, of="momentum")
    with pytest.raises(ValueError, match="steps must be finite and > 0, got 0"):
        as_schedule(Halved(optimizer_of(), 0.9), steps=0)
    stepped = Halved(optimizer_of(), 0.9)
    stepped.optimizer.step()
    stepped.step()
    with pytest.raises(ValueError, match="this Halved has been stepped, and can be sampled from its beginning only"):
        as_schedule(stepped, steps=10)


# ---- transformers


TRANSFORMERS = [
    "get_constant_schedule(o)",
    "get_constant_schedule_with_warmup(o, 10)",
    "get_constant_schedule_with_warmup(o, 0)",
    "get_linear_schedule_with_warmup(o, 10, 100)",
    "get_linear_schedule_with_warmup(o, 0, 100)",
    "get_cosine_schedule_with_warmup(o, 10, 100)",
    "get_cosine_schedule_with_warmup(o, 10, 100, num_cycles=1.5)",
    "get_cosine_with_hard_restarts_schedule_with_warmup(o, 10, 100, num_cycles=3)",
    "get_polynomial_decay_schedule_with_warmup(o, 10, 100, power=2.0)",
    "get_inverse_sqrt_schedule(o, 10)",
    "get_inverse_sqrt_schedule(o, 10, timescale=50)",
    "get_cosine_with_min_lr_schedule_with_warmup(o, 10, 100, min_lr=0.01)",
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 10, 100, min_lr_rate=0.2)",
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 10, 100, min_lr_rate=0.2, warmup_lr_rate=0.3)",
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 1, 100, min_lr_rate=0.2, warmup_lr_rate=0.3)",
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 0, 100, min_lr_rate=0.2, warmup_lr_rate=0.3)",
    "get_wsd_schedule(o, 10, 20, num_stable_steps=30)",
    "get_wsd_schedule(o, 10, 20, 90, warmup_type='cosine', decay_type='1-sqrt', min_lr_ratio=0.1)",
    "get_scheduler('linear', o, 10, 100)",
]
NO_FORMULAS = {"get_reduce_on_plateau_schedule", "get_greedy_schedule", "get_adafactor_schedule"}


@pytest.mark.parametrize("text", TRANSFORMERS)
def test_transformers(text):
    module = pytest.importorskip("transformers.optimization")
    scheduler = eval(text, {**vars(module), "o": optimizer_of()})
    ours = [as_schedule(scheduler, group=group) for group in (0, 1)]
    expected = run(scheduler)[0]
    for group in (0, 1):
        assert_close(ours[group](np.arange(COUNT)), expected[group])


def test_every_schedule_of_transformers_is_tested_or_refused():
    module = pytest.importorskip("transformers.optimization")
    found = {name for name in vars(module) if re.fullmatch(r"get_\w*schedule\w*", name)}
    assert {text.split("(")[0] for text in TRANSFORMERS} == found - NO_FORMULAS
    with pytest.raises(TypeError, match="ReduceLROnPlateau follows a metric"):
        as_schedule(module.get_reduce_on_plateau_schedule(optimizer_of()))
    with pytest.raises(TypeError, match="got GreedyLR"):
        as_schedule(module.get_greedy_schedule(optimizer_of()))
    adafactor = module.Adafactor([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="AdafactorSchedule is no scheduler whose formula is known"):
        as_schedule(module.get_adafactor_schedule(adafactor))


def test_of_transformers_what_has_no_formula_is_sampled():
    module = pytest.importorskip("transformers.optimization")
    wave = module.get_wsd_schedule(optimizer_of(), 10, 20, 90, num_cycles=1.5)
    with pytest.raises(ValueError, match=r"num_cycles is 1\.5; allowed in a get_wsd_schedule that is not sampled is"):
        as_schedule(wave)
    assert_close(as_schedule(wave, steps=COUNT)(np.arange(COUNT)), run(wave)[0][0])


def test_a_function_of_the_same_name_is_another():
    def _get_constant_lambda(_=None):
        return 0.5

    with pytest.raises(ValueError, match="the function of LambdaLR is Python"):
        as_schedule(theirs.LambdaLR(optimizer_of(), _get_constant_lambda))

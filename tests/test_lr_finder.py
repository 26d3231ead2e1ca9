"""The range test: what its ramp, its smoothing and its end are, what is suggested, and what is refused."""

import math
import sys

import numpy as np
import pytest

import gpuadam
from gpuadam import LRFinder, schedules
from gpuadam.lr_suggestions import suggest

LR = schedules.warmup_cosine_decay(0.0, 0.01, 3, 50)


class Bowl:
    """The sum of squares: it falls while lr < 1 under plain gradient descent, and diverges beyond."""

    def __init__(self, losses=None, make=gpuadam.SGD, **settings):
        self.weight = np.array([1.0, -2.0])
        self.optimizer = make([self.weight], **{"lr": LR, **settings})
        self.losses = losses and iter(losses)
        self.calls = 0

    def train_step(self):
        self.calls += 1
        loss = float((self.weight**2).sum()) if self.losses is None else next(self.losses)
        self.optimizer.step([2 * self.weight])
        return loss


def finder_of(bowl, **settings):
    finder = LRFinder(bowl.optimizer)
    finder.range_test(bowl.train_step, **settings)
    return finder


# ---- the ramp


@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("mode", ["exp", "linear"])
def test_the_history_has_the_rates_that_the_steps_used(mode, before):
    """Plain gradient descent tells its rate: the weight is multiplied by 1 - 2 lr."""
    bowl = Bowl()
    for _ in range(before):
        bowl.optimizer.step([2 * bowl.weight])
    used = []

    def train_step():
        old = bowl.weight.copy()
        bowl.train_step()
        used.append(float((1 - bowl.weight[0] / old[0]) / 2))
        return 1.0

    finder = LRFinder(bowl.optimizer)
    finder.range_test(train_step, start_lr=1e-3, end_lr=0.4, num_iter=30, step_mode=mode)
    spaced = np.geomspace(1e-3, 0.4, 30) if mode == "exp" else np.linspace(1e-3, 0.4, 30)
    np.testing.assert_allclose(finder.history["lr"], spaced, rtol=1e-14)
    np.testing.assert_allclose(used, spaced, rtol=1e-9)
    assert (finder.history["lr"][0], finder.history["lr"][-1]) == (1e-3, 0.4)
    assert len(finder.history["loss"]) == 30


def test_all_groups_share_the_ramp_and_keep_their_factors():
    first, second, third = (np.array([1.0]) for _ in range(3))
    groups = [{"params": [first], "lr": 0.3}, {"params": [second, third], "lr": LR, "lr_scale": [0.5, 0.25]}]
    optimizer = gpuadam.SGD(groups)
    seen = []

    def train_step():
        first[:] = second[:] = third[:] = 1
        optimizer.step([np.ones(1) for _ in range(3)])
        seen.append([1 - float(x[0]) for x in (first, second, third)])
        return 1.0

    LRFinder(optimizer).range_test(train_step, start_lr=0.01, end_lr=0.1, num_iter=2)
    np.testing.assert_allclose(seen, [[0.01, 0.005, 0.0025], [0.1, 0.05, 0.025]], rtol=1e-12)
    assert [own["lr"] for own in optimizer.hyperparameters()] == [0.3, 0.0]


def test_without_a_start_the_ramp_begins_at_the_present_rate():
    bowl = Bowl(lr=0.002)
    assert finder_of(bowl, start_lr=None, end_lr=0.1).history["lr"][0] == 0.002
    with pytest.raises(ValueError, match=r"start_lr is 0\.0"):
        finder_of(Bowl(), start_lr=None)


# ---- losses, and the end


def smoothed(losses, f):
    found = []
    for loss in losses:
        found.append(f * loss + (1 - f) * found[-1] if found and f else loss)
    return found


@pytest.mark.parametrize("factor", [0, 0.05, 0.5])
def test_losses_are_smoothed(factor):
    losses = [3.0, 2.5, 2.7, 1.0, 1.4, 1.2]
    finder = finder_of(Bowl(losses), num_iter=6, smooth_f=factor)
    np.testing.assert_allclose(finder.history["loss"], smoothed(losses, factor), rtol=1e-15)


@pytest.mark.parametrize(
    ("losses", "threshold", "kept"),
    [
        ([4.0, 1.0, 4.9, 5.1, 1.0], 5, 4),
        ([4.0, 1.0, 2.1, 1.0], 2, 3),
        ([4.0, 1.0, math.nan, 1.0], 5, 2),
        ([4.0, math.inf, 1.0], 5, 1),
        ([-1.0, -2.0, -1.5, 5.9, 6.1, 1.0], 5, 5),
        ([4.0, 1.0, 2.0, 3.0], 5, 4),
    ],
    ids=["above five times", "above twice", "NaN", "infinite", "below zero", "none"],
)
def test_the_test_ends_where_the_loss_diverges(losses, threshold, kept):
    bowl = Bowl(losses)
    finder = finder_of(bowl, num_iter=len(losses), smooth_f=0, diverge_th=threshold)
    assert finder.history["loss"] == losses[:kept]
    assert len(finder.history["lr"]) == kept
    assert bowl.calls == min(len(losses), kept + (kept < len(losses) and not math.isfinite(losses[kept])))


def test_plain_gradient_descent_diverges_where_it_should():
    finder = finder_of(Bowl(), start_lr=1e-3, end_lr=100, smooth_f=0, num_iter=200)
    lrs, losses = np.array(finder.history["lr"]), np.array(finder.history["loss"])
    assert lrs[-1] < 2
    assert 0.9 < lrs[np.argmin(losses)] < 1.2


def test_a_skipped_step_leaves_no_point_and_the_ramp_where_it_is():
    bowl = Bowl(make=gpuadam.AdamW)

    def train_step():
        bowl.calls += 1
        bowl.optimizer.step([2 * bowl.weight], found_inf=bowl.calls in (1, 3))
        return 1.0

    finder = LRFinder(bowl.optimizer)
    finder.range_test(train_step, start_lr=1e-3, end_lr=1e-2, num_iter=10)
    np.testing.assert_allclose(finder.history["lr"], np.geomspace(1e-3, 1e-2, 10)[:8], rtol=1e-14)
    assert bowl.optimizer.skipped_steps == 0


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_gradients_that_are_not_finite_end_the_test(nonfinite):
    bowl = Bowl(make=gpuadam.AdamW, nonfinite=nonfinite)

    def train_step():
        bowl.calls += 1
        loss = 1.0 if bowl.calls < 6 else math.inf
        bowl.optimizer.step([bowl.weight * loss])
        return loss

    finder = LRFinder(bowl.optimizer)
    finder.range_test(train_step, num_iter=20)
    assert (len(finder.history["lr"]), bowl.calls) == (5, 6)


# ---- what is suggested


def reference(method, lrs, losses):
    """The definitions of torch-lr-finder (steepest) and fastai (the others), point by point."""
    count = len(losses)
    slopes = [
        losses[1] - losses[0],
        *((losses[i + 1] - losses[i - 1]) / 2 for i in range(1, count - 1)),
        losses[-1] - losses[-2],
    ]
    if method == "steepest":
        return lrs[slopes.index(min(slopes))]
    if method == "minimum":
        return lrs[list(losses).index(min(losses))] / 10
    if method == "slide":
        right = count - 1
        found = lrs[right - 15]
        while right - 15 >= 0 and abs(slopes[right] - slopes[right - 15]) > 0.005:
            found = lrs[right - 15]
            right -= 1
        return found
    lengths = [1] * count  # of the longest falling subsequence that ends here
    for i in range(count):
        lengths[i] = 1 + max((lengths[j] for j in range(i) if losses[j] > losses[i]), default=0)
    end = lengths.index(max(lengths))
    begin = end - lengths[end]
    third = (end - begin) / 3
    return lrs[max(begin + int(third) + int(third / 2), 0)]


@pytest.mark.parametrize("method", ["steepest", "valley", "slide", "minimum"])
@pytest.mark.parametrize("seed", range(6))
def test_suggestions_follow_their_definitions(method, seed):
    generator = np.random.default_rng(seed)
    lrs = np.geomspace(1e-6, 10, 60 + seed)
    place = np.log10(lrs)
    losses = 2.5 - 2 / (1 + np.exp(-3 * (place + 3))) + 10 ** (2 * place) + 0.02 * generator.standard_normal(len(lrs))
    assert suggest(method, lrs, losses) == reference(method, lrs.tolist(), losses.tolist())


def test_suggestions_of_a_curve_that_can_be_read_by_eye():
    lrs = np.arange(1.0, 31.0)
    losses = np.array([10.0] * 9 + [9, 8, 5, 4, 3] + [3.0] * 14 + [20, 50])
    assert suggest("steepest", lrs, losses) == 11.0
    assert suggest("minimum", lrs, losses) == 1.4
    assert suggest("valley", lrs, losses) == 11.0  # places 8 to 13 fall: 8 + 2 + 1 - 1, from one before
    assert suggest("slide", lrs, losses) == 9.0  # from place 7 on, and 15 further on, it is flat on either side
    assert suggest("slide", lrs, np.arange(30.0) ** 2) == 1.0


@pytest.mark.parametrize("losses", [[3.0, 2.0], [1.0], [1.0, 2.0, 3.0]], ids=len)
def test_the_shortest_valleys(losses):
    assert suggest("valley", np.arange(1.0, 1 + len(losses)), np.array(losses)) == 1.0


def test_points_at_the_ends_are_left_out():
    finder = finder_of(Bowl(), start_lr=1e-3, end_lr=0.4, num_iter=40, smooth_f=0)
    losses = finder.history["loss"]
    finder.history["loss"][0], finder.history["loss"][-1] = -200.0, -100.0
    lrs = finder.history["lr"]
    assert finder.suggestion("minimum", skip_start=0, skip_end=0) == lrs[0] / 10
    assert finder.suggestion("minimum", skip_start=1, skip_end=0) == lrs[-1] / 10
    inner = losses[10:-5]
    assert finder.suggestion("minimum") == lrs[10 + inner.index(min(inner))] / 10


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_lr": 0}, "start_lr is 0.0 and end_lr 10.0; allowed are 0 < start_lr < end_lr"),
        ({"start_lr": 1.0, "end_lr": 1.0}, "start_lr is 1.0 and end_lr 1.0"),
        ({"end_lr": math.inf}, "end_lr inf"),
        ({"start_lr": math.nan}, "start_lr is nan"),
        ({"num_iter": 1}, "num_iter is 1; allowed are whole numbers from 2"),
        ({"num_iter": 10.0}, "num_iter is 10.0"),
        ({"step_mode": "log"}, "step_mode is 'log'; allowed are 'exp' and 'linear'"),
        ({"smooth_f": 1}, "smooth_f is 1; allowed are numbers >= 0 and < 1"),
        ({"smooth_f": math.nan}, "smooth_f is nan"),
        ({"diverge_th": 1}, "diverge_th is 1; allowed are numbers > 1"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    bowl = Bowl()
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        finder_of(bowl, **settings)
    assert bowl.calls == 0


def test_bad_types():
    with pytest.raises(TypeError, match="end_lr must be a number, got 'high'"):
        finder_of(Bowl(), end_lr="high")
    with pytest.raises(TypeError, match="optimizer is a list; allowed are the optimizers of gpuadam"):
        LRFinder([])
    with pytest.raises(TypeError, match="buffer 0 is a list"):
        LRFinder(Bowl().optimizer, buffers=[[1.0]]).range_test(lambda: 1.0)


@pytest.mark.parametrize(
    ("loss", "told"),
    [(None, "None"), ("0.5", "'0.5'"), (np.zeros(2), r"ndarray of shape \(2,\)"), (True, "True"), ([1.0], r"\[1\.0\]")],
    ids=["none", "text", "array", "bool", "list"],
)
def test_a_loss_that_is_no_number(loss, told):
    bowl = Bowl([loss])
    with pytest.raises(TypeError, match=f"train_step has returned {told}; allowed is the loss"):
        finder_of(bowl)
    assert bowl.weight.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("loss", [1, 1.0, np.float32(1), np.array(1.0), np.array([[1.0]])], ids=repr)
def test_a_loss_may_be_an_array_of_one(loss):
    assert finder_of(Bowl([loss] * 2), num_iter=2).history["loss"] == [1.0, 1.0]


def test_a_loss_of_pytorch_that_wants_a_gradient():
    torch = pytest.importorskip("torch")
    loss = torch.ones((), requires_grad=True) * 2
    assert finder_of(Bowl([loss] * 2), num_iter=2).history["loss"] == [2.0, 2.0]


@pytest.mark.parametrize("times", [0, 2])
def test_a_train_step_that_does_not_step_once(times):
    bowl = Bowl()

    def train_step():
        for _ in range(times):
            bowl.train_step()
        return 1.0

    with pytest.raises(
        RuntimeError, match=f"train_step has called the optimizer's step {times} times; allowed is once"
    ):
        LRFinder(bowl.optimizer).range_test(train_step)
    assert bowl.weight.tolist() == [1.0, -2.0]


def test_a_test_without_a_finite_loss():
    with pytest.raises(RuntimeError, match="no step of the range test has given a finite loss, the last one is nan"):
        finder_of(Bowl([math.nan]))


def test_suggestions_that_cannot_be_made():
    finder = LRFinder(Bowl().optimizer)
    with pytest.raises(ValueError, match="there are 0 points, of which skip_start=10 and skip_end=5 leave none"):
        finder.suggestion()
    finder = finder_of(Bowl(), end_lr=0.1, num_iter=30)
    with pytest.raises(ValueError, match="the method 'slide' needs 16 points, there are 15"):
        finder.suggestion("slide")
    with pytest.raises(ValueError, match="method is 'best'; allowed are 'steepest', 'valley', 'slide', 'minimum'"):
        finder.suggestion("best")
    with pytest.raises(ValueError, match=r"method is \['valley'\]; allowed are"):
        finder.suggestion(["valley"])
    with pytest.raises(ValueError, match="skip_start is -1; allowed are whole numbers from 0"):
        finder.suggestion(skip_start=-1)


# ---- what is drawn


def test_the_curve_and_its_marks():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    finder = finder_of(Bowl(), start_lr=1e-3, end_lr=0.4, num_iter=40)
    axes = figure.subplots()
    assert finder.plot(ax=axes, show_lr=0.02) is axes
    curve, mark, line = axes.lines
    assert curve.get_xdata().tolist() == finder.history["lr"][10:-5]
    assert curve.get_ydata().tolist() == finder.history["loss"][10:-5]
    assert mark.get_xdata()[0] == finder.suggestion("steepest")
    assert line.get_xdata()[0] == 0.02
    assert axes.get_xscale() == "log"
    plain = finder.plot(0, 0, log_lr=False, ax=figure.add_subplot(), suggest_lr=False)
    assert (len(plain.lines), plain.get_xscale()) == (1, "linear")


def test_new_axes_where_none_are_given():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = finder_of(Bowl(), end_lr=0.1).plot()
    assert pyplot.gcf() is axes.figure
    pyplot.close(axes.figure)


def test_without_matplotlib(monkeypatch):
    finder = finder_of(Bowl(), end_lr=0.1)
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"a picture needs matplotlib .*: pip install 'gpuadam\[plot\]'"):
        finder.plot()


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_terminal_sees_a_progress_bar(has_rich, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    if not has_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    finder_of(Bowl(), end_lr=0.1)
    assert ("range test" in capsys.readouterr().err) == has_rich

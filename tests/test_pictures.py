"""Schedules as pictures: what is drawn is what runs, in matplotlib and in the terminal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuadam import pictures, schedules
from gpuadam import terminal_picture as terminal

ROOT = Path(__file__).parents[1]
figures = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
LR = schedules.warmup_cosine_decay(0, 1, 10, 100)


def axes():
    return figures.Figure().subplots()


# ---- matplotlib


def test_the_curve_is_the_schedule():
    own = axes()
    assert LR.plot(120, own, color="red", label="lr") is own
    (line,) = own.lines
    assert line.get_xdata().tolist() == list(range(120))
    assert line.get_ydata().tolist() == [LR(k) for k in range(120)]
    assert line.get_color() == "red"
    assert [text.get_text() for text in own.get_legend().get_texts()] == ["lr"]
    LR.plot(50, ax=own)
    assert len(own.lines) == 2


def test_new_axes_where_none_are_given():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    own = LR.plot(10)
    assert pyplot.gcf() is own.figure
    pyplot.close(own.figure)


@pytest.mark.parametrize("steps", [1, 2, 9_999, 10_001, 3_000_000, 2**53])
def test_many_steps_are_drawn_by_some_of_them(steps):
    curve = pictures.trace(LR, steps)
    assert len(curve.steps) == min(steps, pictures.MOST_POINTS)
    assert (curve.steps[0], curve.steps[-1]) == (0, steps - 1)
    assert np.all(np.diff(curve.steps) > 0)
    assert np.array_equal(curve.values, LR(curve.steps))


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (0, ValueError, "steps is 0; allowed are whole numbers from 1 to"),
        (1.5, ValueError, "steps is 1.5"),
        (1e300, ValueError, "steps is 1e"),
        (float("nan"), ValueError, "steps is nan"),
        ("10", TypeError, "steps must be a number, got '10'"),
        (None, TypeError, "steps must be a number, got None"),
    ],
)
def test_bad_steps(steps, error, message):
    with pytest.raises(error, match=message):
        LR.plot(steps, axes())


def test_without_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"a picture needs matplotlib .*: pip install 'gpuadam\[plot\]'"):
        LR.plot(10)


def test_matplotlib_is_imported_by_a_picture_alone():
    code = (
        "import sys, gpuadam; gpuadam.schedules.step(3); from gpuadam import pictures; "
        "print('matplotlib' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 37])
def test_each_curve_has_a_panel(count):
    curves = [pictures.trace(LR * (i + 1), 50, f"curve {i}", f"({i})") for i in range(count)]
    figure = pictures.draw_panels(curves)
    drawn = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title(loc="left") for panel in drawn] == [curve.title for curve in curves]
    assert [panel.texts[0].get_text() for panel in drawn] == [curve.note for curve in curves]
    for panel, curve in zip(drawn, curves, strict=True):
        assert np.array_equal(panel.lines[0].get_ydata(), curve.values)
        low, high = panel.get_ylim()
        assert low <= curve.values.min() < curve.values.max() <= high
        assert panel.get_xlim() == (0, 50)


@pytest.mark.parametrize("schedule", ["momentum", "tiny", "negative", "constant", "nan", "zero"])
def test_odd_values_can_be_drawn(schedule, tmp_path):
    made = {
        "momentum": schedules.one_cycle_momentum(50),
        "tiny": 1e-300 * LR,
        "negative": -LR,
        "constant": schedules.constant(0.3),
        "nan": schedules.log(LR - 0.5),
        "zero": schedules.constant(0),
    }[schedule]
    curve = pictures.trace(made, 50, schedule)
    figure = pictures.draw_panels([curve])
    figure.savefig(tmp_path / "a.png")
    low, high = figure.axes[0].get_ylim()
    if schedule == "momentum":
        assert 0.8 < low < 0.85
        assert 0.95 < high < 1
    finite = curve.values[np.isfinite(curve.values)]
    assert low <= finite.min() <= finite.max() <= high
    assert terminal.panel(schedule, 49, curve.values, 40)


def test_long_titles_are_shortened():
    assert pictures.wrapped("constant(0.1)", 40) == ["constant(0.1)"]
    assert len(pictures.wrapped("word " * 100, 40)) == 2
    assert max(map(len, pictures.wrapped("x" * 1000, 40))) <= 40


# ---- the terminal


def dots(lines):
    """The braille characters as a grid, by the definition of Unicode: dots 1, 2, 3, 7 left, 4, 5, 6, 8 right."""
    places = {1: (0, 0), 2: (1, 0), 3: (2, 0), 4: (0, 1), 5: (1, 1), 6: (2, 1), 7: (3, 0), 8: (3, 1)}
    grid = np.zeros((4 * len(lines), 2 * len(lines[0])), bool)
    for row, line in enumerate(lines):
        for column, letter in enumerate(line):
            assert 0x2800 <= ord(letter) < 0x2900
            for dot, (down, right) in places.items():
                grid[4 * row + down, 2 * column + right] = bool((ord(letter) - 0x2800) >> (dot - 1) & 1)
    return grid


def test_a_straight_line_goes_from_corner_to_corner():
    count = 4 * terminal.HEIGHT
    grid = dots(terminal.braille(np.arange(float(count)), 0.0, count - 1.0, count // 2))
    assert grid[-1, 0]
    assert grid[0, -1]
    rows = [np.flatnonzero(column) for column in grid.T]
    assert all(count - 1 - i in own and set(own) <= {count - 1 - i, count - i} for i, own in enumerate(rows))


def test_a_peak_between_two_columns_is_seen():
    values = np.zeros(10_000)
    values[4_321] = 1
    grid = dots(terminal.braille(values, 0.0, 1.0, 30))
    assert grid[:, 4_321 * 60 // 10_000].all()
    assert grid[-1].all()


def test_a_step_is_joined():
    grid = dots(terminal.braille(np.repeat([0.0, 1.0], 30), 0.0, 1.0, 30))
    assert grid[:, 30].all()
    assert grid[-1, :30].all()
    assert grid[0, 30:].all()
    assert not grid[:-1, :30].any()


def test_values_that_are_not_finite_leave_a_gap():
    values = np.array([0.0] * 20 + [np.nan] * 20 + [np.inf] * 20 + [1.0] * 20)
    grid = dots(terminal.braille(values, 0.0, 1.0, 40))
    assert not grid[:, 21:60].any()
    assert grid[-1, :20].all()
    assert grid[0, 61:].all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 1.0], (0.0, 1.0)),
        ([0.85, 0.95], (0.85, 0.95)),
        ([3.0, 3.0], (0.0, 3.0)),
        ([0.0, 0.0], (0.0, 1.0)),
        ([-1.0, 1.0], (-1.0, 1.0)),
        ([-2.0, -2.0], (-2.0, -1.0)),
        ([np.nan, np.inf], (0.0, 1.0)),
        ([np.nan, 0.5, 1.0], (0.5, 1.0)),
    ],
)
def test_the_axis(values, expected):
    assert terminal.limits(np.array(values)) == expected


@pytest.mark.parametrize(("width", "across"), [(20, 1), (80, 2), (120, 3), (400, 5)])
def test_panels_stand_side_by_side(width, across):
    values = LR(np.arange(100))
    text = terminal.arrange([(f"panel {i}", 99, values) for i in range(5)], width)
    rows = [line for line in text.splitlines() if "panel" in line]
    assert [row.count("panel") for row in rows] == [min(across, 5 - i) for i in range(0, 5, across)]
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, terminal.NARROWEST)
    assert lines[1].split()[0] == "1"
    assert lines[terminal.HEIGHT].split()[0] == "0"
    assert lines[terminal.HEIGHT + 1].split()[:2] == ["0", "99"]


def test_a_long_title_is_cut():
    assert terminal.panel("x" * 100, 9, np.zeros(3), 40)[0] == "x" * 39 + "…"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", None])
def test_a_terminal_without_such_letters_gets_stars(encoding):
    text = terminal.arrange([("p" * 100, 99, LR(np.arange(100)))], 60)
    plain = terminal.writable(text, encoding)
    plain.encode("ascii")
    assert plain.count("*") > 20
    assert terminal.writable(text, "utf-8") == text

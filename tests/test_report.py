"""The pages show the figures that were measured, and no others."""

import copy
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("report")
    for name in OWN & set(sys.modules):
        del sys.modules[name]


def spread(median):
    return {"count": 9, "min": median / 2, "p25": 0.9 * median, "median": median, "p75": 1.25 * median}


def case(name, title, ours, others, **settings):
    """A case as `cpu.py` writes it; `others`: seconds of the other contenders."""
    plain = {"rule": "adamw", "dtype": "float32", "master": None, "recipe": "plain", "tensors": 1, "groups": 1}
    seconds = {"gpuadam": ours, **others}
    return {
        "case": name,
        "title": title,
        **plain,
        "elements": 1000,
        "bytes_moved": 28_000,
        "in_cache": False,
        **settings,
        "seconds": {own: spread(time) for own, time in seconds.items()},
        "speed_up": {own: spread(time / ours) for own, time in others.items()},
        **{
            what: {own: spread(part * ours / time) for own, time in seconds.items()}
            for what, part in (("of_memory", 0.75), ("of_scale", 0.5))
        },
        "memory_bytes_per_second": {loop: spread(6e10) for loop in ("copy", "triad", "scale")},
        "left_out": {},
    }


@pytest.fixture
def result():
    """Figures that nobody has measured."""
    many = case("10000x128", "10,000 tensors of 128", 2e-4, {"torch-fused": 0.05}, tensors=10_000, in_cache=True)
    rms = case("resnet50-rmsprop", "ResNet-50, 161 tensors", 8e-3, {"torch-foreach": 0.03}, rule="rmsprop", tensors=161)
    about = {"processor": "Abacus", "cores": 2, "load_average_before": 0.25, "python": "3.12.1", "date": "1642-01-01"}
    return {
        "machine": {**about, "packages": {"numpy": "2.1"}, "commit": "abc"},
        "contenders": {"gpuadam": "gpuadam", "torch-fused": "PyTorch, fused", "torch-foreach": "PyTorch, foreach"},
        "missing": {"thinc": "thinc is not installed"},
        "sets": {"targets": ["10000x128", "resnet50", "resnet50-rmsprop"], "sizes": ["1x1000"]},
        "cases": [many, rms],
    }


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_pages_are_what_the_figures_say(report):
    for page in PAGES:
        assert report.rewritten(page.read_text(), page) == page.read_text(), f"run benchmarks/report.py: {page.name}"


def test_a_changed_digit_is_found(report, tmp_path):
    """In a page as in the figures, wherever a page has any."""
    results = tmp_path / "results"
    shutil.copytree(report.RESULTS, results)
    page = ROOT / "benchmarks" / "README.md"
    marked = [
        found for found in report.MARKED.finditer(page.read_text()) if re.search(r"\d", found[0].split("\n", 1)[1])
    ]
    assert marked
    for found in marked:
        place = found.start() + found[0].index("\n")
        place += re.search(r"\d", page.read_text()[place:]).start()
        digit = str((int(page.read_text()[place]) + 1) % 10)
        changed = page.read_text()[:place] + digit + page.read_text()[place + 1 :]
        assert report.rewritten(changed, page) == page.read_text() != changed
    modes = json.loads((results / "modes-cpu.json").read_text())
    modes["modes"]["plain"]["gigabytes_per_second"] *= 1.1
    (results / "modes-cpu.json").write_text(json.dumps(modes))
    assert report.rewritten(page.read_text(), page, results) != page.read_text()


def test_every_figure_of_speed_stands_in_a_table_that_is_made(report):
    """Outside of what the figures make, the README has no table of times or ratios."""
    text = PAGES[0].read_text()
    assert report.MARKED.search(text)
    rest = report.MARKED.sub("", text)
    rows = [line for line in rest.splitlines() if line.startswith("|")]
    assert not [row for row in rows if re.search(r"\d (x|us|ms|s|GB/s)\b", row)]


def test_what_was_never_measured_says_so(report, tmp_path):
    for page in PAGES:
        text = report.rewritten(page.read_text(), page, tmp_path)
        tables = [found[0].split("\n", 1)[1] for found in report.MARKED.finditer(text)]
        assert {table.rsplit("\n", 1)[0] for table in tables} == {"Not measured yet."}


def test_a_set_shows_its_cases_and_leaves_out_what_is_not_there(report, result):
    header, rule, many, rms = cells(report.TABLES["cpu: targets"][1](result))
    assert header == [*("case", "gpuadam: median (middle half)", "of the limit", "PyTorch, fused", "PyTorch, foreach")]
    assert many == ["10,000 tensors of 128", "200 us (180 us to 250 us)", "50 % *", "250 x", ""]
    assert rms == ["ResNet-50, 161 tensors, RMSprop", "8.00 ms (7.20 ms to 10.0 ms)", "50 %", "", "3.75 x"]
    for own in result["cases"]:
        own["speed_up"]["torch-loop"] = spread(9)
    result["contenders"]["torch-loop"] = "PyTorch, loop"
    assert len(cells(report.TABLES["cpu: targets"][1](result))[0]) == 6
    assert cells(report.TABLES["cpu: speed"][1](result)) == [header, rule, many, rms]
    assert report.TABLES["cpu: sizes"][1](result) == "Not measured yet."
    assert report.TABLES["cpu: memory"][1](result) == "Not measured yet."
    told = report.TABLES["cpu: machine"][1](result)
    assert told == "Abacus, 2 cores, load 0.2; Python 3.12.1, numpy 2.1; 1642-01-01, commit abc. Not there: thinc."


def test_bytes(report, result):
    _, _, many, _ = cells(report.TABLES["cpu: bytes"][1](result))
    assert many == ["10,000 tensors of 128", "28", "60.0 / 60.0 / 60.0", "75 %", "0 %", "", "50 %"]


def test_aims_are_met_or_not(report, result):
    result["overhead"] = [{"tensors": 10_000, "beside_walk": spread(31e-6)}]
    result["first-use"] = {name: spread(0.4) for name in ("import gpuadam", "first step ever")}
    result["first-use"]["first step, compiled before"] = spread(0.6)
    rows = {row[0]: row[1:] for row in cells(report.TABLES["cpu: aims"][1](result))[2:]}
    assert rows["10,000 tensors of 128, over PyTorch's fused"] == [">= 120 x", "250 x", "yes"]
    assert rows["RMSprop, over PyTorch's faster form"] == [">= 3.00 x", "3.75 x", "yes"]
    assert rows["ResNet-50, over PyTorch's fused"] == [">= 1.20 x", "not measured", ""]
    assert rows["10,000 tensors: a step beyond its walk"] == ["<= 30.0 us", "31.0 us", "no"]
    assert rows["first step, compiled before"] == ["<= 500 ms", "600 ms", "no"]
    slow = copy.deepcopy(result)
    slow["cases"][1]["speed_up"]["torch-loop"] = spread(2.9)
    rows = {row[0]: row[1:] for row in cells(report.TABLES["cpu: aims"][1](slow))[2:]}
    assert rows["RMSprop, over PyTorch's faster form"] == [">= 3.00 x", "2.90 x", "no"]


def test_overhead_memory_and_first_use(report, result):
    beside = {"step": spread(1e-5), "beside_walk": spread(3e-6), "beside_launch": spread(2e-6)}
    result["overhead"] = [{"tensors": 1000, "groups": 1, "elements": 128_000, **beside}]
    result["memory"] = [
        {"title": "GPT-2", "recipe": "ema", "gpuadam": {"held": 20.04, "beyond": 0.01}, "left_out": {"thinc": "no"}}
    ]
    result["first-use"] = dict.fromkeys(("import gpuadam", "first step ever", "first step, compiled before"), spread(2))
    row = cells(report.TABLES["cpu: overhead"][1](result))[2]
    assert row == ["1,000", "1", "128", "10.0 us (9.00 us to 12.5 us)", "3.00 us", "2.00 us"]
    assert cells(report.TABLES["cpu: memory"][1](result))[2] == ["GPT-2, with average", "20.0 + 0.0"]
    assert cells(report.TABLES["cpu: first-use"][1](result))[2] == ["import gpuadam", "2.00 s (1.80 s to 2.50 s)"]


def test_pictures_show_the_figures(report, result):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    result["sets"] |= {"growth-in-tensors": ["10000x128"], "growth-in-groups": []}
    (panel,) = report.PICTURES["cpu_speed_up"](result).axes
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in panel.patches}
    assert {250.0, 3.75} <= ends
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        *("10,000 tensors of 128", "ResNet-50, 161 tensors, RMSprop")
    ]
    panel = report.PICTURES["cpu_growth"](result).axes[1]
    assert {tuple(map(tuple, line.get_xydata())) for line in panel.lines} == {((1e4, 2e-4),), ((1e4, 0.05),)}


def test_every_table_has_its_place(report):
    named = {found[2] for page in PAGES for found in report.MARKED.finditer(page.read_text())}
    assert named == {*report.TABLES, *(f"picture: {name}" for name in report.PICTURES)}

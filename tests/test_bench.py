"""`python -m gpuadam bench` as a user meets it: its options, its figures, its files, and what it refuses."""

import csv
import io
import itertools
import json
import sys

import numba
import numpy as np
import pytest
from bfloat16 import ml_dtypes
from cli_checks import PNG, python_m_gpuadam, raises, refusal

import gpuadam
from gpuadam import bench, bench_cases, bench_command, bench_host, bench_picture, cli, first_use, samples
from gpuadam.bandwidth import Stream
from gpuadam.bench_cases import given_workloads, make_cases, make_step, random_arrays
from gpuadam.workloads import llama_within, network, uniform

TINY = ["bench", "--backend", "cpu", "--quick", "--seconds", "0.001"]
CACHE = 2**16
# options: bytes that a step reads for each element, and that it writes, counted by hand
BY_HAND = {
    (): (16, 12),
    ("--dtype", "float64"): (32, 24),
    ("--recipe", "schedule"): (16, 12),
    ("--recipe", "clip"): (4 + 16, 12),
    ("--recipe", "ema"): (20, 16),
    ("--recipe", "all"): (4 + 20, 16),
    ("--rule", "sgd"): (8, 4),
    ("--rule", "rmsprop"): (12, 8),
    ("--dtype", "float16"): (12, 10),
    ("--dtype", "bfloat16"): (12, 10),
    ("--dtype", "bfloat16", "--master", "none"): (12, 10),
    ("--dtype", "bfloat16", "--master", "float32"): (16, 14),
    ("--dtype", "bfloat16", "--master", "remainder"): (14, 12),
}


@pytest.fixture
def tiny(monkeypatch):
    """A CPU whose cache is small, so that the streams over memory are short, and samples that are too."""
    monkeypatch.setattr(bench_host, "last_level_cache", lambda: CACHE)
    monkeypatch.setattr(bench_host, "sampler", lambda step: samples.sampler(step, 1e-4))


def measured(arguments, tmp_path):
    """The result of a run, from its file."""
    path = tmp_path / "bench.json"
    assert cli.main([*TINY, "--json", str(path), *arguments]) == 0
    return json.loads(path.read_text())


def assert_bandwidth_is_bytes_over_time(case, bytes_per_element):
    """A rate is highest where the time is shortest, so the quantiles of one are those of the other, turned around."""
    moved = bytes_per_element * case["elements"]
    assert case["bytes_moved"] == moved
    for rate, time in (("min", "max"), ("max", "min"), ("median", "median")):
        for name, work in (("bytes_per_second", moved), ("elements_per_second", case["elements"])):
            expected = work / case["seconds"][time]
            tolerance = 1e-9 if case["seconds"]["count"] % 2 or rate != "median" else 0.5
            assert case[name][rate] == pytest.approx(expected, rel=tolerance)


# ---- what is measured


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("options", BY_HAND, ids=lambda options: " ".join(options) or "plain")
def test_the_bandwidth_is_bytes_over_time(options, tmp_path):
    (case,) = measured(["--sizes", "10000", *options], tmp_path)["cases"]
    assert_bandwidth_is_bytes_over_time(case, sum(BY_HAND[options]))


@pytest.mark.usefixtures("tiny")
def test_a_wrong_count_of_bytes_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_cases, "traffic", lambda kind, sums: 27.0)
    (case,) = measured(["--sizes", "10000"], tmp_path)["cases"]
    with pytest.raises(AssertionError):
        assert_bandwidth_is_bytes_over_time(case, 28)


@pytest.mark.usefixtures("tiny")
def test_the_result_has_all_that_it_promises(tmp_path, capsys):
    result = measured(["--tensors", "1,3", "--sizes", "100,2e3", "--recipe", "plain,ema"], tmp_path)
    assert [*result] == [
        *("benchmark", "backend", "machine", "method", "cases", "left_out", "call_seconds", "seconds"),
    ]
    assert (result["backend"], result["left_out"]) == ("cpu", {})
    assert result["machine"]["cache_bytes"] == CACHE
    assert result["method"]["optimizer"] == "AdamW"
    assert result["method"]["recipes"] == {
        "plain": "adam_float32_exp_avg_exp_avg_sq",
        "ema": "adam_float32_exp_avg_exp_avg_sq_ema",
    }
    found = [(case["case"], case["recipe"], case["tensors"], case["elements"]) for case in result["cases"]]
    assert found == [
        (f"{tensors}x{size}", recipe, tensors, tensors * size)
        for tensors, size, recipe in itertools.product((1, 3), (100, 2000), ("plain", "ema"))
    ]
    for case in result["cases"]:
        held = {"plain": 16, "ema": 20}[case["recipe"]] * case["elements"]
        assert case["bytes_held"] == held
        assert case["in_cache"] == (held < 2 * CACHE)
        assert case["limit"] == max(
            case["memory_bytes_per_second"], key=lambda name: case["memory_bytes_per_second"][name]["median"]
        )
        assert set(case["memory_bytes_per_second"]) == {"copy", "triad", "scale"}
        assert case["seconds"]["count"] == case["part_of_limit"]["count"] >= 3
    assert result["call_seconds"]["count"] == sum(case["seconds"]["count"] for case in result["cases"])
    told = capsys.readouterr()
    assert "28 bytes moved, 16 held" in told.out
    assert "36 bytes moved, 20 held" in told.out
    assert told.err == "", "there is no terminal, so no progress"
    assert all(case["title"] in told.out for case in result["cases"])
    largest = result["cases"][-2]
    part = f"{100 * largest['part_of_limit']['median']:.0f} % of what memory gives ({largest['limit']})"
    assert told.out.splitlines()[-1].startswith("3 tensors of 2,000: ")
    assert part in told.out.splitlines()[-1]


def test_figures_are_what_samples_come_to():
    (case,) = make_cases([uniform(2, 500)], "adamw", "float32", ["plain"], {})
    streams = {"copy": Stream(None, 1000), "scale": Stream(None, 3000)}
    taken = {
        "step": [{"seconds": s, "host_seconds": 1e-6} for s in (1.0, 2.0, 4.0)],
        "copy": [{"seconds": s} for s in (0.1, 0.1, 0.001)],  # once the best, but not by its median
        "scale": [{"seconds": s} for s in (0.1, 0.2, 0.1)],
    }
    found = bench.figures(case, 8000, taken, streams)
    assert found["limit"] == "scale"
    assert found["bytes_per_second"]["median"] == 28_000 / 2.0
    parts = sorted([(28_000 / 1) / (3000 / 0.1), (28_000 / 2) / (3000 / 0.2), (28_000 / 4) / (3000 / 0.1)])
    assert [found["part_of_limit"][place] for place in ("min", "median", "max")] == pytest.approx(parts)
    assert found["host_seconds"]["median"] == 1e-6
    assert not found["in_cache"]
    assert bench.figures(case, 8001, taken, streams)["in_cache"]


def test_every_optimizer_can_be_measured():
    public = [getattr(gpuadam, name) for name in gpuadam.__all__]
    kinds = {one for one in public if isinstance(one, type) and issubclass(one, gpuadam.Optimizer)}
    assert set(bench_cases.OPTIMIZERS.values()) == kinds - {gpuadam.Optimizer}


def test_every_recipe_reaches_the_optimizer(monkeypatch):
    made = []

    class Noted(gpuadam.AdamW):
        def __init__(self, *given, **settings):
            super().__init__(*given, **settings)
            made.append(self)

    monkeypatch.setitem(bench_cases.OPTIMIZERS, "adamw", Noted)
    for case in make_cases([uniform(1, 4)], "adamw", "float32", [*bench_cases.RECIPES, "all"], {}):
        make_step(case, np)
        engine = made[-1]._engine
        assert engine.kinds[0].ema == (case.recipe in ("ema", "all"))
        assert (engine.tensors.scope_count > 0) == (case.recipe in ("clip", "all"))
        lr = made[-1].hyperparameters()[0]["lr"]
        assert lr == (0.0 if case.recipe in ("schedule", "all") else 1e-3)


def test_a_step_is_one_step(monkeypatch):
    made = []

    def noted(*arguments):
        made.append(random_arrays(*arguments))
        return made[-1]

    monkeypatch.setattr(bench_cases, "random_arrays", noted)
    (case,) = make_cases([given_workloads([2], [70], [])[0]], "sgd", "float32", ["plain"], {})
    step = make_step(case, np)
    params, grads = made
    before = [param.copy() for param in params]
    step()
    for old, new, grad in zip(before, params, grads, strict=True):
        np.testing.assert_allclose(new, old - 1e-3 * grad, rtol=1e-6, atol=1e-7)


def test_random_arrays_are_random_and_apart(monkeypatch):
    monkeypatch.setattr(bench_cases, "BLOCK", 1000)
    found = random_arrays(np, [(30, 50), (7,), ()], ml_dtypes.bfloat16, 1)
    assert [(one.shape, one.dtype) for one in found] == [(s, ml_dtypes.bfloat16) for s in [(30, 50), (7,), ()]]
    flat = found[0].ravel().astype(float)
    assert np.array_equal(flat[:500], flat[1000:])
    assert 0.9 < flat.std() < 1.1
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (([], [], ["gpt2", "resnet50"]), [network("gpt2"), network("resnet50")]),
        (([5], [], []), [uniform(5, 1000)]),
        (([], [7], ["gpt2"]), [uniform(1, 7), network("gpt2")]),
        (([1, 2], [7], []), [uniform(1, 7), uniform(2, 7)]),
    ],
)
def test_what_is_given_is_stepped(given, expected):
    assert given_workloads(*given) == expected


def test_the_default_cases_are_all_kinds_of_work():
    for backend, largest in (("cpu", 10**8), ("cuda", 10**9)):
        workloads = bench_cases.default_workloads(backend)
        sizes = [work.elements for work in workloads if len(work.shapes) == 1]
        assert (min(sizes), max(sizes)) == (1000, largest)
        assert {uniform(1000, 1000), uniform(10_000, 128), network("resnet50"), network("gpt2")} <= set(workloads)


# ---- memory


@pytest.mark.usefixtures("tiny")
def test_a_case_that_does_not_fit_is_left_out_with_its_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_host.Host, "free", lambda self: 2_000_000)
    result = measured(["--sizes", "1000,1e6"], tmp_path)
    assert [case["case"] for case in result["cases"]] == ["1x1000"]
    assert [*result["left_out"]] == ["one tensor of 1,000,000"]
    reason = "one tensor of 1,000,000 was left out: it needs 0.0160 GB; there is room for 0.00160 GB"
    assert reason in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_a_case_for_which_memory_runs_out_is_left_out(tmp_path, monkeypatch):
    take = bench.take

    def tight(case, *others):
        if case.workload.elements == 20:
            raise MemoryError("Out of memory")
        return take(case, *others)

    monkeypatch.setattr(bench, "take", tight)
    result = measured(["--sizes", "10,20,30"], tmp_path)
    assert [case["case"] for case in result["cases"]] == ["1x10", "1x30"]
    assert result["left_out"] == {"one tensor of 20": "memory ran out: Out of memory"}


@pytest.mark.usefixtures("tiny")
def test_nothing_fits(monkeypatch, capsys):
    monkeypatch.setattr(bench_host.Host, "free", lambda self: 100_000)
    assert "no case fits into memory: one tensor of 1,000,000: it needs" in refusal([*TINY, "--sizes", "1e6"], capsys)


def test_the_scaled_network_is_cut_to_what_there_is():
    (case,) = make_cases([network("llama-7b")], "adamw", "float32", ["plain"], {})
    whole, room = case.needed, 20 * 10**9
    assert case.within(whole) == case
    cut = case.within(room)
    assert room / 2 < cut.needed <= room
    assert cut.workload == llama_within(room // 16)
    other = make_cases([network("gpt2")], "adamw", "float32", ["plain"], {})[0]
    assert other.within(1) == other


def test_the_free_memory_is_that_of_the_machine_or_the_container(tmp_path, monkeypatch):
    texts = {"meminfo": "MemTotal: 99 kB\nMemAvailable:    7000 kB\n", "max": "5000000\n", "used": "1000000\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(bench_host, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(bench_host, "GROUPS", [(tmp_path / "no", tmp_path / "used")])
    host = bench_host.Host()
    assert host.free() == 7000 * 1024
    monkeypatch.setattr(bench_host, "GROUPS", [(tmp_path / "max", tmp_path / "used")])
    assert host.free() == 4_000_000
    (tmp_path / "max").write_text("max\n")
    assert host.free() == 7000 * 1024
    monkeypatch.setattr(bench_host, "MEMORY", tmp_path / "no")
    assert host.free() == bench_host.UNKNOWN_MEMORY


def test_the_last_caches_of_all_cores_count_once_each(tmp_path, monkeypatch):
    shared = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    for core, cores in shared.items():
        for index, (level, size, by) in enumerate([("1", "32K", str(core)), ("3", "16M", cores)]):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", by)):
                (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(bench_host, "CACHES", tmp_path)
    monkeypatch.setattr(bench_host, "cores_in_use", lambda: {"cpu0", "cpu1", "cpu2"})
    assert bench_host.last_level_cache() == 32 * 2**20
    monkeypatch.setattr(bench_host, "CACHES", tmp_path / "no")
    assert bench_host.last_level_cache() == bench_host.UNKNOWN_CACHE


# ---- files


@pytest.fixture
def result(tiny, tmp_path):
    return measured(["--tensors", "1,2", "--sizes", "100,10000", "--recipe", "plain,all"], tmp_path)


@pytest.mark.usefixtures("tiny")
def test_the_files(tmp_path):
    paths = {name: tmp_path / f"a.{name}" for name in ("csv", "md", "png")}
    options = ["--csv", paths["csv"], "--md", paths["md"], "--plot", paths["png"]]
    found = measured(["--sizes", "50,60000", *map(str, options)], tmp_path)
    assert paths["png"].read_bytes().startswith(PNG)
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    for row, case in zip(rows, found["cases"], strict=True):
        assert (row["backend"], row["rule"], row["case"], row["limit"]) == ("cpu", "adamw", case["case"], case["limit"])
        assert float(row["seconds_median"]) == case["seconds"]["median"]
        assert float(row["part_of_limit_p75"]) == case["part_of_limit"]["p75"]
        assert (int(row["bytes_moved"]), row["in_cache"]) == (case["bytes_moved"], str(case["in_cache"]))
    page = paths["md"].read_text()
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    assert [len({line.count("|") for line in table}) for table in tables] == [1, 1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[0]]
    assert [row[:2] for row in cells[2:]] == [["one tensor of 50", "50"], ["one tensor of 60,000", "60,000"]]
    rates = [float(row[3]) for row in cells[2:]]
    assert rates == pytest.approx([case["bytes_per_second"]["median"] / 1e9 for case in found["cases"]], rel=1e-2)
    assert [row[4].endswith("*") for row in cells[2:]] == [True, False]
    assert page.splitlines()[-1].startswith("one tensor of 60,000: ")


def test_the_picture_shows_each_case_and_the_limit(result):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figure = bench_picture.draw(result)
    for panel, what, unit in zip(figure.axes, ("bytes_per_second", "seconds"), (1e-9, 1), strict=True):
        marks = {
            (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor()
            for line in panel.lines
            if line.get_marker() not in ("None", None)
        }
        expected = {(case["elements"], case[what]["median"] * unit): case["in_cache"] for case in result["cases"]}
        assert set(marks) == set(expected)
        assert {place for place, face in marks.items() if face == "white"} == {
            place for place, in_cache in expected.items() if in_cache
        }
    dashed = [line.get_ydata()[0] for line in figure.axes[0].lines if line.is_dashed()]
    medians = [
        np.median([case["memory_bytes_per_second"][name]["median"] for case in result["cases"]])
        for name in ("copy", "triad", "scale")
    ]
    assert dashed == pytest.approx([max(medians) / 1e9])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["plain", "all"]


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_leaves_the_figures_so_far(tmp_path, monkeypatch, capsys):
    take, taken, path = bench.take, [], tmp_path / "a.json"

    def interrupted(case, *others):
        taken.append(case)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return take(case, *others)

    monkeypatch.setattr(bench, "take", interrupted)
    assert cli.main([*TINY, "--sizes", "10,20,30", "--json", str(path)]) == 130
    assert [case["case"] for case in json.loads(path.read_text())["cases"]] == ["1x10"]
    told = capsys.readouterr()
    assert "one tensor of 10" in told.out
    assert told.err == "interrupted\n"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("load", [0.1, 3.0, None])
def test_a_machine_that_is_not_quiet_is_told(load, tmp_path, monkeypatch, capsys):
    about = bench_host.machine() | {"load_average_before": load, "cores": 4}
    monkeypatch.setattr(bench_host, "machine", lambda: about)
    measured(["--sizes", "10"], tmp_path)
    assert ("the load was 3.0 before" in capsys.readouterr().out) == (load == 3.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("tiny")
def test_a_terminal_has_a_progress_bar(monkeypatch, capsys):
    pytest.importorskip("rich", reason="rich is not installed")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main([*TINY, "--sizes", "10,20"]) == 0
    assert "0/3" in terminal.getvalue()
    assert "one tensor of" in terminal.getvalue()
    assert "Time of a step" in capsys.readouterr().out


# ---- the first use


@pytest.mark.usefixtures("tiny")
def test_the_first_use_is_in_the_table(tmp_path, monkeypatch, capsys):
    given = []

    def measure(**settings):
        given.append(settings)
        return {first_use.IMPORT: [0.4], first_use.COLD: [7.0, 9.0], first_use.WARM: [0.3]}

    monkeypatch.setattr(bench, "measure_first_use", measure)
    path = tmp_path / "a.json"
    arguments = ["bench", "--backend", "cpu", "--sizes", "10", "--seconds", "0.001", "--rule", "lion"]
    assert cli.main([*arguments, "--json", str(path)]) == 0
    assert given == [{**bench.STARTS, "rule": "Lion", "module": "numpy"}]
    assert json.loads(path.read_text())["first_use"][first_use.COLD]["median"] == 8.0
    output = capsys.readouterr().out
    assert "first step ever" in output
    assert "8.00 s" in output


@pytest.mark.usefixtures("tiny")
def test_a_first_use_that_fails_is_told(monkeypatch, capsys):
    monkeypatch.setattr(first_use, "TIMED_STEP", "raise OSError('no room left')")
    assert cli.main(["bench", "--backend", "cpu", "--sizes", "10", "--seconds", "0.001"]) == 0
    assert "first use was left out: OSError: no room left" in capsys.readouterr().out


def test_the_first_use_is_timed_in_new_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "not this one"))
    found = first_use.measure_first_use(1, 1, "SGD")
    assert not (tmp_path / "not this one").exists()
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(found, 1)
    assert found[first_use.COLD][0] > 2 * found[first_use.WARM][0] > 0
    assert 0 < found[first_use.IMPORT][0] < 10


# ---- options


@pytest.mark.usefixtures("tiny")
def test_threads(tmp_path):
    before = numba.get_num_threads()
    assert measured(["--sizes", "10", "--threads", "1"], tmp_path)["machine"]["threads"] == 1
    assert numba.get_num_threads() == before


def test_more_threads_than_numba_has_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    assert "argument --threads: '2'; allowed are whole numbers from 1 to 1" in refusal(
        [*TINY, "--threads", "2"], capsys
    )


def test_quick_is_quick(tmp_path):
    """As it is for users: nothing is made smaller here."""
    path = tmp_path / "a.json"
    done = python_m_gpuadam("bench", "--quick", "--backend", "cpu", "--json", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(path.read_text())
    assert len(result["cases"]) + len(result["left_out"]) == len(bench_cases.QUICK)
    assert result["seconds"] < 40
    assert "first_use" not in result


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rule", "adamx"], "--rule"),
        (["--dtype", "int8"], "--dtype"),
        (["--recipe", "plain,ema2"], "'ema2'; allowed are plain, schedule, clip, ema, all"),
        (["--recipe", "ema", "--rule", "adamwschedulefree"], "ema_decay"),
        (["--master", "float32"], "'float32', but weights of float32 leave nothing out; allowed is none"),
        (["--master", "remainder", "--dtype", "float16"], "remainder"),
        (["--tensors", "0"], "'0'; allowed are whole numbers from 1"),
        (["--tensors", "1e12"], "'1e12'; allowed are whole numbers from 1 to 1e+06"),
        (["--tensors", "1,,2"], "''; allowed are whole numbers"),
        (["--sizes", "1.5"], "'1.5'; allowed are whole numbers"),
        (["--sizes", "-5"], "'-5'; allowed are whole numbers"),
        (["--models", "vgg"], "'vgg'; allowed are resnet50"),
        (["--seconds", "0"], "'0'; allowed are numbers > 0"),
        (["--threads", "0"], "'0'; allowed are whole numbers from 1"),
        (["--json", "a.txt"], "end in .json"),
        (["--plot", "no/such/a.png"], "in a folder that exists"),
        (["--colour"], "--colour"),
    ],
)
def test_refusals(arguments, told, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure", raises(AssertionError("something was measured")))
    assert told in refusal([*TINY, *arguments], capsys)


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(bench_command, "unavailable_reason", lambda: "no\ndevice")
    told = refusal(["bench", "--backend", "cuda"], capsys)
    assert "argument --backend: 'cuda' is not available here, allowed are 'auto' and 'cpu': no device" in told


def test_a_picture_needs_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(bench, "measure", raises(AssertionError("something was measured")))
    assert "pip install 'gpuadam[plot]'" in refusal([*TINY, "--plot", str(tmp_path / "a.png")], capsys)

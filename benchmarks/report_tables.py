"""Tables of what `cpu.py` and `modes.py` have measured: nothing is computed here but which figure stands where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aims import HEADER, times, verdict

from gpuadam.bench_report import percent, spread
from gpuadam.figures import digits, duration, markdown_table
from gpuadam.first_use import COLD, IMPORT, WARM

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
Found = dict[str, Any]
OURS, FUSED, PYTORCH = "gpuadam", "torch-fused", ("torch-fused", "torch-foreach", "torch-loop")
FIGURE = "median (middle half)"
RULES = {"adamw": "", "rmsprop": "RMSprop", "sgd": "SGD, momentum"}
RECIPES = {
    "plain": "",
    "schedule": "with schedule",
    "clip": "with clipping",
    "ema": "with average",
    "all": "with schedule, clipping, average",
    "spacy": "with schedule, each gradient clipped",
}


def describe(result: Found) -> str:
    """Where and with what the figures were taken."""
    about = result["machine"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    load = "" if about["load_average_before"] is None else f", load {about['load_average_before']:.1f}"
    where = f"{about['processor']}, {about['cores']} cores{load}"
    absent = f" Not there: {', '.join(result['missing'])}." if result.get("missing") else ""
    commit = f", commit {about['commit']}" if about.get("commit") else ""
    return f"{where}; Python {about['python']}, {packages}; {about['date']}{commit}.{absent}"


def title_of(case: Found) -> str:
    """What is stepped, and what is not AdamW in float32."""
    groups = f"{case['groups']} groups" if case["groups"] > 1 else ""
    dtype = "" if case["dtype"] == "float32" else case["dtype"]
    master = f"master {case['master']}" if case["master"] else ""
    parts = [case["title"], groups, RULES[case["rule"]], dtype, master, RECIPES[case["recipe"]]]
    return ", ".join(filter(None, parts))


def measured(result: Found, name: str) -> list[Found]:
    """The cases of a set for which there are figures, in its order."""
    cases = {case["case"]: case for case in result["cases"] if case.get("seconds")}
    return [cases[own] for own in result["sets"][name] if own in cases]


def set_table(result: Found, name: str, unseen: Sequence[str] = ()) -> Table:
    """Time of ours and its part of memory's bandwidth; then how many times as long each other one takes."""
    cases = measured(result, name)
    seen = [own for own in result["contenders"] if own not in unseen]
    others = [own for own in seen if any(own in case["speed_up"] for case in cases)]
    rows = []
    for case in cases:
        part = percent(case["of_scale"][OURS]["median"]) + (" *" if case["in_cache"] else "")
        ratios = [times(case["speed_up"][own]["median"]) if own in case["speed_up"] else "" for own in others]
        rows.append([title_of(case), spread(case["seconds"][OURS]), part, *ratios])
    titles = [result["contenders"][own] for own in others]
    return ["case", f"{OURS}: {FIGURE}", "of the limit", *titles], rows


def speed_table(result: Found, name: str) -> Table:
    """The same for the README: without forms that nobody would choose, and ours for thinc."""
    return set_table(result, name, ("torch-loop", "gpuadam-thinc"))


def bytes_table(result: Found, name: str) -> Table:
    """Bytes an element, and the part of the bandwidth of memory that each contender reaches with them."""
    cases = measured(result, name)
    names = [own for own in result["contenders"] if any(own in case["of_memory"] for case in cases)]
    rows = []
    for case in cases:
        given = case["memory_bytes_per_second"]
        rates = [digits(given[own]["median"] / 1e9) for own in ("copy", "triad", "scale")]
        parts = [percent(case["of_memory"][own]["median"]) if own in case["of_memory"] else "" for own in names]
        bytes_each = f"{case['bytes_moved'] / case['elements']:.3g}"
        scale = percent(case["of_scale"][OURS]["median"])
        rows.append([title_of(case), bytes_each, " / ".join(rates), *parts, scale])
    titles = [result["contenders"][own] for own in names]
    return ["case", "bytes an element", "copy / triad / scale, GB/s", *titles, f"{OURS}, of scale"], rows


def times_table(result: Found, name: str) -> Table:
    """The times themselves, of all contenders."""
    cases = measured(result, name)
    names = [own for own in result["contenders"] if any(own in case["seconds"] for case in cases)]
    rows = [
        [title_of(case), *(spread(case["seconds"][own]) if own in case["seconds"] else "" for own in names)]
        for case in cases
    ]
    return ["case", *(result["contenders"][own] for own in names)], rows


def overhead_table(result: Found) -> Table:
    """What a bound step costs beside its work on elements."""
    header = [
        "tensors",
        "groups",
        "elements of each",
        f"step: {FIGURE}",
        "beyond the walk",
        "beyond the launch: Python",
    ]
    rows = []
    for case in result["overhead"]:
        counts = [f"{case[what]:,}" for what in ("tensors", "groups")] + [f"{case['elements'] // case['tensors']:,}"]
        beside = [duration(case[what]["median"]) for what in ("beside_walk", "beside_launch")]
        rows.append([*counts, spread(case["step"]), *beside])
    return header, rows


def memory_table(result: Found) -> Table:
    """Bytes a parameter of all that is held, and of what a step takes for a while."""
    names = [own for own in result["contenders"] if any(own in case for case in result["memory"])]
    rows = [
        [
            ", ".join(filter(None, [case["title"], RECIPES[case["recipe"]]])),
            *(f"{case[own]['held']:.1f} + {case[own]['beyond']:.1f}" if own in case else "" for own in names),
        ]
        for case in result["memory"]
    ]
    return ["bytes a parameter: held + for a while", *(result["contenders"][own] for own in names)], rows


def first_use_table(result: Found) -> Table:
    rows = [[name, spread(result["first-use"][name])] for name in (IMPORT, COLD, WARM)]
    return ["what", FIGURE], rows


def modes_table(result: Found) -> Table:
    rows = [
        [
            name,
            f"{own['bytes_per_element']:g}",
            *(f"{own[what]:.{places}f}" for what, places in MODES_FIGURES),
        ]
        for name, own in result["modes"].items()
    ]
    return ["mode", "bytes an element", "ms", "GB/s", "of the plain step's bandwidth"], rows


MODES_FIGURES = (("milliseconds", 2), ("gigabytes_per_second", 1), ("of_plain", 2))


@dataclass(frozen=True)
class Target:
    """What a figure is to come to.

    Attributes:
        title: What it is.
        bound: The least that it may be; the most, with `is_most`.
        figures: The figures themselves; none where nothing was measured.
        show: How it is written.
    """

    title: str
    bound: float
    figures: Callable[[Found], list[float]]
    show: Callable[[float], str] = times
    is_most: bool = False

    def row(self, result: Found) -> list[str]:
        return verdict(self.title, self.bound, self.figures(result), self.show, self.is_most)


def of(case: str, what: str, *names: str) -> Callable[[Found], list[float]]:
    """Medians of a case, which may end in what follows a star: those of some contenders."""

    def figures(result: Found) -> list[float]:
        chosen = [own for own in result["cases"] if matches(own["case"], case)]
        return [own[what][n]["median"] for own in chosen for n in names if n in own.get(what, {})]

    return figures


def matches(name: str, wanted: str) -> bool:
    return name.endswith(wanted[1:]) if wanted.startswith("*") else name == wanted


def beside_walk(result: Found) -> list[float]:
    return [own["beside_walk"]["median"] for own in result.get("overhead", []) if own["tensors"] == 10_000]


def start(name: str) -> Callable[[Found], list[float]]:
    return lambda result: [result["first-use"][name]["median"]] if "first-use" in result else []


TARGETS = (
    Target("one tensor of 20,000,000, over PyTorch's fused", 1.1, of("1x20000000", "speed_up", FUSED)),
    Target("the same, of the faster of copy and triad", 0.9, of("1x20000000", "of_memory", OURS), percent),
    Target("ResNet-50, over PyTorch's fused", 1.2, of("resnet50", "speed_up", FUSED)),
    Target("1,000 tensors of 1,000, over PyTorch's fused", 15.0, of("1000x1000", "speed_up", FUSED)),
    Target("10,000 tensors of 128, over PyTorch's fused", 120.0, of("10000x128", "speed_up", FUSED)),
    Target("ResNet-50, all of the recipe, over PyTorch's fused", 1.5, of("resnet50-all", "speed_up", FUSED)),
    Target("1,000 tensors of 1,000, all of the recipe, the same", 10.0, of("1000x1000-all", "speed_up", FUSED)),
    Target("RMSprop, over PyTorch's faster form", 3.0, of("*-rmsprop", "speed_up", *PYTORCH)),
    Target("spaCy's small pipeline, over thinc's Adam", 4.0, of("spacy-small", "speed_up", "thinc")),
    Target("10,000 tensors: a step beyond its walk", 30e-6, beside_walk, duration, is_most=True),
    Target(COLD, 10.0, start(COLD), duration, is_most=True),
    Target(WARM, 0.5, start(WARM), duration, is_most=True),
    Target(IMPORT, 0.5, start(IMPORT), duration, is_most=True),
)


def target_table(result: Found) -> Table:
    return HEADER, [target.row(result) for target in TARGETS]


def as_markdown(table: Table) -> str:
    return markdown_table(*table) if table[1] else NOT_MEASURED


NOT_MEASURED = "Not measured yet."

"""The tables of `gpu.py`, from what it has measured: nothing here needs a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aims import HEADER, times, verdict

from gpuadam.figures import digits, duration, print_table

Table = tuple[list[str], list[list[str]]]
Found = dict[str, Any]
TORCH = "torch fused"


def median(case: Found, what: str, name: str, show: Callable[[float], str] = digits) -> str:
    """One figure of a case, or nothing where the contender is not there."""
    found = case.get(what, {}).get(name)
    return show(found["median"]) if found else ""


def percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def bandwidth_table(result: Found) -> Table:
    """What a step moves a second, against the faster of two copies."""
    rows = []
    for case in result["cases"]:
        rate = {name: f"{found['median'] / 1e9:,.0f}" for name, found in case["bytes_per_second"].items()}
        copy = f"{case['memory_bytes_per_second'][case['limit']]['median'] / 1e9:,.0f}"
        of_copy = median(case, "part_of_limit", "gpuadam", percent)
        bytes_each = f"{case['bytes_an_element']:g}"
        rows.append(
            [case["title"], bytes_each, copy, rate.get("gpuadam", ""), of_copy, median(case, "ratio", TORCH, times)]
        )
    return ["case", "bytes an element", "copy GB/s", "gpuadam GB/s", "of the copy", f"{TORCH}: time over ours"], rows


def device_table(result: Found) -> Table:
    """Time of a step to the device, nothing in the cache."""
    return contender_table(result, "seconds", duration)


def wall_table(result: Found) -> Table:
    """Time of a step in a row, and (in brackets) until the host may go on."""
    names = names_of(result, "wall_seconds")
    rows = []
    for case in result["cases"]:
        cells = [(median(case, "wall_seconds", n, duration), median(case, "host_seconds", n, duration)) for n in names]
        rows.append([case["title"], *(f"{wall} ({host})" if host else wall for wall, host in cells)])
    return ["case", *names], rows


def ratio_table(result: Found) -> Table:
    """Time of a step in a row over that of gpuadam."""
    return contender_table(result, "wall_ratio", times)


def memory_table(result: Found) -> Table:
    """Bytes a parameter: of state, and (after +) of what a step takes for a while."""
    names = names_of(result, "memory")
    rows = []
    for case in result["cases"]:
        cells = []
        for name in names:
            own = case["memory"].get(name)
            shown = [digits(own[kind] / case["elements"]) for kind in ("state", "temporaries")] if own else []
            cells.append(" + ".join(shown))
        rows.append([case["title"], *cells])
    return ["case", *names], rows


def contender_table(result: Found, what: str, show: Callable[[float], str]) -> Table:
    names = names_of(result, what)
    return ["case", *names], [
        [case["title"], *(median(case, what, n, show) for n in names)] for case in result["cases"]
    ]


def names_of(result: Found, what: str) -> list[str]:
    """All contenders for which there is a figure, in order."""
    return list(dict.fromkeys(name for case in result["cases"] for name in case.get(what, {})))


GROWTH: dict[str, Callable[[Found], tuple[bool, int]]] = {  # what grows: whether a case belongs there, and its place
    "elements of one tensor": lambda case: (case["tensors"] == 1, case["elements"]),
    "tensors of 1,000": lambda case: (case["elements"] == 1000 * case["tensors"], case["tensors"]),
    "groups of 465 tensors": lambda case: (case["tensors"] == 465, case["groups"]),
}


def growth_table(result: Found, what: str) -> Table:
    """Time of a step in a row while one number grows, the others as they are."""
    plain = [case for case in result["cases"] if (case["dtype"], case["recipe"]) == ("float32", "plain")]
    grown = {number: case for case in plain for belongs, number in [GROWTH[what](case)] if belongs}
    names = names_of({"cases": list(grown.values())}, "wall_seconds")
    rows = [[f"{n:,}", *(median(grown[n], "wall_seconds", name, duration) for name in names)] for n in sorted(grown)]
    return [what, *names], rows


@dataclass(frozen=True)
class Target:
    """What a figure should come to.

    Attributes:
        title: What it is.
        case: Beginning of the name of its case, and `exactly` whether it is all of it.
        figure: Its place in the case: what, and whose.
        least: The bound; with `is_most` it is an upper one.
    """

    title: str
    case: str
    figure: tuple[str, str]
    bound: float
    show: Callable[[float], str] = times
    is_most: bool = False

    def values(self, result: Found) -> list[float]:
        """The figures that the bound is for; none where nothing was measured."""
        what, name = self.figure
        chosen = [case for case in result["cases"] if matches(case["case"], self.case)]
        return [case[what][name]["median"] for case in chosen if name in case.get(what, {})]

    def row(self, result: Found) -> list[str]:
        return verdict(self.title, self.bound, self.values(result), self.show, self.is_most)


def matches(name: str, wanted: str) -> bool:
    """Whether a case is that of a target: the same name, a beginning that ends in a star, or any."""
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


BILLION, LLAMA, MANY, TINY = "1x1000000000", "llama-*", "1000x1000", "10000x128"
GROUPED, COPY, FUSED = "465x60000, 465 groups", ("part_of_limit", "gpuadam"), ("ratio", TORCH)
WALL = ("wall_ratio", TORCH)
TARGETS = [
    Target("one tensor of 10^9: part of the copy's bandwidth", BILLION, COPY, 0.93, percent),
    Target("Llama: part of the copy's bandwidth", LLAMA, COPY, 0.93, percent),
    Target("one tensor of 10^9: over torch fused", BILLION, FUSED, 1.05),
    Target("Llama: over torch fused", LLAMA, FUSED, 1.05),
    Target("1,000 tensors of 1,000: over torch fused", MANY, WALL, 5.0),
    Target("10,000 tensors of 128: over torch fused", TINY, WALL, 5.0),
    Target("465 groups: over torch fused", GROUPED, WALL, 20.0),
    Target("whole recipe, one tensor of 10^8: over torch fused", "1x100000000, all", FUSED, 1.5),
    Target("whole recipe, ResNet-50: over torch fused", "resnet50, all", WALL, 1.5),
    Target("whole recipe, 1,000 tensors of 1,000: over torch fused", "1000x1000, all", WALL, 5.0),
    Target("host time of a step, at most", "*", ("host_seconds", "gpuadam"), 20e-6, duration, is_most=True),
]


def target_table(result: Found) -> Table:
    return HEADER, [target.row(result) for target in TARGETS]


def described(result: Found) -> str:
    about = result["machine"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    streams = ", ".join(f"{name} {found['median'] / 1e9:,.0f}" for name, found in result["memory"].items())
    return f"{about['device']}; {packages}; {about['date']}. Memory, GB/s: {streams}."


def notes(result: Found) -> Sequence[str]:
    """What is not there, and why."""
    failed = [(f"{case['case']}: {name}", why) for case in result["cases"] for name, why in case["failures"].items()]
    groups = {"failed": [*failed, *result["broken"].items()], "is not compared": result["absent"].items()}
    groups["was left out"] = result["left_out"].items()
    return [f"{name} {what}: {why[:200]}" for what, found in groups.items() for name, why in found]


def print_result(result: Found) -> None:
    print(described(result))
    if result["cases"]:
        print_table("Bandwidth", *bandwidth_table(result))
        print_table("Time to the device, nothing in the cache", *device_table(result))
        print_table("Time on the wall in a row (time of the host)", *wall_table(result))
        print_table("Time on the wall over gpuadam's", *ratio_table(result))
        print_table("Bytes a parameter: state + temporaries", *memory_table(result))
        for what in GROWTH:
            print_table(f"Growth: {what}", *growth_table(result, what))
    print("\n".join(notes(result)))
    print_table("Targets", *target_table(result))

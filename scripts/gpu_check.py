"""The parts of `scripts/gpu_check`: doctor, tests, sanitizers and bandwidth, each with its time limit.

    scripts/gpu_check OUT [--parts doctor,tests,sanitizers,benchmark] [--without-sanitizers]

OUT gets environment.json, tests.json, sanitizers.json, benchmark.json and summary.json. A part that fails does not stop
the others. The limits of all commands, those that ask what the machine is among them, are together below eight minutes.

The exit status is 0 if every part has passed. A tool that is not there is a failure: without compute-sanitizer the part
`sanitizers` fails, unless it was left out by --without-sanitizers.
"""

import argparse
import glob
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMITS = {
    "nvidia-smi": 10,
    "reason": 20,
    "commit": 5,
    "doctor": 30,
    "tests": 185,
    "without": 35,
    "memcheck": 35,
    "racecheck": 35,
    "initcheck": 35,
    "benchmark": 85,
}  # seconds of each command; tests/test_gpu_check.py adds them up
BENCHMARK_BEGINS = 55  # seconds after which the benchmark begins no case
NO_SANITIZER = "compute-sanitizer not found: it is neither on PATH nor in a CUDA toolkit"
TAIL = 6000  # characters of an output that are kept
MOST_LINES = 20  # of tests in the summary
PACKAGES = ("numpy", "numba", "llvmlite", "cupy-cuda13x", "cupy-cuda12x", "torch", "pytest", "nvidia-cuda-nvrtc")
REASON = "from gpuadam import cuda; print('reason:', cuda.unavailable_reason() or '')"


def run(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run a command; when its time is over, end it and all that it has started."""
    begin = time.perf_counter()
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return {"status": "failed", "code": None, "seconds": 0.0, "output": str(error)}
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    seconds = time.perf_counter() - begin
    timed_out = process.returncode == -signal.SIGKILL and seconds >= limit
    status = "timed out" if timed_out else "failed" if process.returncode else "passed"
    return {"status": status, "code": process.returncode, "seconds": round(seconds, 1), "output": output[-TAIL:]}


def find_reason() -> str:
    """Why nothing can be checked here; empty if it can."""
    output = run([sys.executable, "-c", REASON], LIMITS["reason"])["output"]
    said = [line.removeprefix("reason:").strip() for line in output.splitlines() if line.startswith("reason:")]
    return said[-1] if said else f"gpuadam cannot be imported: {output.strip()}"


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_sanitizer() -> str | None:
    """compute-sanitizer on PATH or in a CUDA toolkit."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    homes += sorted(glob.glob("/usr/local/cuda*"), reverse=True)
    places = [Path(home) / part / "compute-sanitizer" for home in homes for part in ("bin", "compute-sanitizer")]
    found = [str(place) for place in places if place.is_file()]
    return shutil.which("compute-sanitizer") or (found[0] if found else None)


def describe_environment() -> dict[str, Any]:
    """On what all this runs."""
    query = "--query-gpu=name,driver_version,memory.total,memory.free,clocks.sm,clocks.mem,temperature.gpu"
    return {
        "nvidia_smi": run(["nvidia-smi", query, "--format=csv"], LIMITS["nvidia-smi"])["output"],
        "unavailable_reason": find_reason(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "sanitizer": find_sanitizer(),
        "commit": run(["git", "describe", "--always", "--dirty=+"], LIMITS["commit"])["output"].strip(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def check_doctor(out: Path) -> dict[str, Any]:
    """The package's own report, with a first step."""
    return run([sys.executable, "-m", "gpuadam"], LIMITS["doctor"])


def check_tests(out: Path) -> dict[str, Any]:
    """The tests marked gpu, with none of the repository's own options, which ask for xdist."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-m", "gpu", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider", "-v"]
        command = [sys.executable, "-m", "pytest", "tests/gpu", *options, "--tb=short", f"--junitxml={report}"]
        part = run(command, LIMITS["tests"])
        part["tests"] = read_report(report) if report.exists() else []
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for test in part["tests"]:
        counts[test["status"]] += 1
    part["counts"] = counts
    if part["status"] == "passed" and not counts["passed"]:
        part["status"] = "failed"  # all were skipped
    write(out, "tests", part)
    return part


def read_report(report: Path) -> list[dict[str, Any]]:
    """Name, outcome and seconds of every test, and what it noted or why it did not pass."""
    tests = []
    for case in ElementTree.parse(report).iter("testcase"):
        test: dict[str, Any] = {"name": f"{case.get('classname')}::{case.get('name')}", "status": "passed"}
        test["seconds"] = float(case.get("time", 0))
        for found in case:
            if found.tag in ("failure", "error", "skipped"):
                test["status"] = "skipped" if found.tag == "skipped" else "failed"
                test["message"] = (found.get("message") or "")[:500]
                test["text"] = (found.text or "")[-1500:]
            for noted in found.iter("property"):
                test.setdefault("noted", {})[noted.get("name")] = noted.get("value")
        tests.append(test)
    return tests


def check_sanitizers(out: Path) -> dict[str, Any]:
    """The small case under three tools of compute-sanitizer; kernels are compiled before, outside of it."""
    sanitizer = find_sanitizer()
    if sanitizer is None:
        write(out, "sanitizers", {"status": "failed", "output": NO_SANITIZER})
        return {"status": "failed", "seconds": 0.0, "output": NO_SANITIZER}
    script = [sys.executable, "tests/gpu/small_case.py"]
    tools = {"without": run(script, LIMITS["without"])}
    for tool in ("memcheck", "racecheck", "initcheck"):
        options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        options += ["--report-api-errors", "no"] if tool == "memcheck" else []
        tools[tool] = run([sanitizer, *options, *script], LIMITS[tool])
        if "small case: done" not in tools[tool]["output"] and tools[tool]["status"] == "passed":
            tools[tool]["status"] = "failed"
        write(out, "sanitizers", tools)
    failed = [f"{name} {part['status']}" for name, part in tools.items() if part["status"] != "passed"]
    seconds = sum(part["seconds"] for part in tools.values())
    return {"status": "failed" if failed else "passed", "seconds": seconds, "output": ", ".join(failed)}


def check_benchmark(out: Path) -> dict[str, Any]:
    """Bandwidth and times; the figures are in benchmark.json as soon as a case is done."""
    options = ["--json", str(out / "benchmark.json"), "--limit", str(BENCHMARK_BEGINS)]
    return run([sys.executable, "benchmarks/gpu.py", *options], LIMITS["benchmark"])


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "doctor": check_doctor,
    "tests": check_tests,
    "sanitizers": check_sanitizers,
    "benchmark": check_benchmark,
}


def write(out: Path, name: str, content: Any) -> None:
    """One of the files in OUT."""
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def summarise(results: dict[str, dict[str, Any]]) -> None:
    """What did not pass, then a short line for each part: the last of all that is printed."""
    print("\n--- gpu_check")
    tests = results.get("tests", {}).get("tests", [])
    noteworthy = sorted((test for test in tests if test["status"] != "passed"), key=lambda test: test["status"])
    for test in noteworthy[:MOST_LINES]:
        print(f"{test['status']}: {test['name'].partition('::')[2]}: {' '.join(test['message'].split())}"[:200])
    if len(noteworthy) > MOST_LINES:
        print(f"and {len(noteworthy) - MOST_LINES} more, see tests.json")
    for name, part in results.items():
        counts = ", ".join(f"{count} {status}" for status, count in part.get("counts", {}).items())
        more = counts or (part["output"].strip()[-160:] if name == "sanitizers" else "")
        print(f"{name}: {part['status']} in {part['seconds']:.0f} s {more}".rstrip())


def parse(arguments: Sequence[str] | None) -> tuple[Path, list[str]]:
    """The folder OUT and the names of the parts to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the JSON files")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--without-sanitizers", action="store_true", help="leave the part `sanitizers` out")
    given = parser.parse_args(arguments)
    names = given.parts.split(",")
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if given.without_sanitizers:
        names = [name for name in names if name != "sanitizers"]
    if not names:
        parser.error("no part is left to run")
    return given.out.resolve(), names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and tell what came of them."""
    out, names = parse(arguments)
    out.mkdir(parents=True, exist_ok=True)
    environment = describe_environment()
    write(out, "environment", environment)
    if environment["unavailable_reason"]:
        print(f"gpu_check: nothing can be checked: {environment['unavailable_reason']}")
        return 1
    print(environment["nvidia_smi"].strip(), environment["packages"], sep="\n", flush=True)
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        results[name] = PARTS[name](out)
        write(out, "summary", {"environment": environment, "parts": results})
        print(f"\n--- {name}: {results[name]['status']}\n{results[name]['output'].strip()[-2000:]}", flush=True)
    summarise(results)
    return 0 if all(part["status"] == "passed" for part in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the tests under sanitizers share: clean runs, runs that look for races, and the barriers of a kernel file."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import host_kernels
from host_kernels import KERNELS, Patch
from optional import missing


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout == "driver: as expected\n"
    assert done.stderr == ""


def drive_threads(
    source: str, options: Mapping[str, str], patch: Patch | None = None
) -> subprocess.CompletedProcess[str]:
    """Two blocks at the same time under ThreadSanitizer."""
    library = host_kernels.build(options, source=source, sanitize="thread", patch=patch)
    done = host_kernels.drive(library, "thread", source=source, copies=2)
    if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
        missing("ThreadSanitizer of this g++ cannot run under this kernel's address randomisation")
    return done


@dataclass(frozen=True)
class Barrier:
    """One barrier in the text of a kernel file: its characters [begin, end)."""

    file: str
    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.file}-line{(KERNELS / self.file).read_text().count(chr(10), 0, self.begin) + 1}"

    def replaced_by(self, text: str) -> Patch:
        """A patch that puts `text` in its place."""
        return lambda name, old: old[: self.begin] + text + old[self.end :] if name == self.file else old


def barriers(file: str) -> list[Barrier]:
    found = re.finditer(r"__sync(threads|warp)\(\);", (KERNELS / file).read_text())
    return [Barrier(file, *match.span()) for match in found]

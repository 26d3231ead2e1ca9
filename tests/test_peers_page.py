"""docs/peers.md: each row names tests that are there, and every test of a defect stands on it."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)
ROWS = ROW.findall((TESTS.parent / "docs" / "peers.md").read_text())


def defined(pattern):
    return {name for path in TESTS.glob(pattern) for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}


def test_every_row_names_tests_that_are_there():
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 30
    every = defined("test_*.py")
    for number, names in ROWS:
        named = re.findall(r"`(\w+)`", names)
        assert named, f"row {number} names no test"
        assert set(named) <= every, f"row {number} names {set(named) - every}, which is no test"


def test_every_test_of_a_defect_stands_on_the_page():
    assert defined("test_defects_of_peers*.py") <= set(re.findall(r"`(test_\w+)`", " ".join(n for _, n in ROWS)))

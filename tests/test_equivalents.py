"""Every schedule against the library that it comes from, or against numbers worked out by hand."""

import equivalents
import numpy as np
import pytest
from equivalents_page import PAGE, homes, page

CASES = [(home, row) for home in homes(equivalents) for row in home.ROWS]
TOLERANCE = 1e-10  # of the largest value; the libraries work in double too


@pytest.mark.parametrize(("home", "row"), CASES, ids=[f"{home.HOME}: {row.there}" for home, row in CASES])
def test_the_numbers_are_those_of_its_home(home, row):
    theirs = np.array(list(row.numbers.values())) if row.numbers else home.values(row.there, row.steps)
    ours = row.ours()
    assert len(theirs) == len(ours) > 2
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_the_page_is_made_of_these_rows():
    assert PAGE.read_text() == page(), "run: python tests/equivalents_page.py"

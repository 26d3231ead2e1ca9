"""Every optimizer against the library that it comes from, step by step in double."""

import equivalent_optimizers
import numpy as np
import pytest
from equivalents_page import homes

CASES = [(home, row) for home in homes(equivalent_optimizers) for row in home.ROWS]


@pytest.mark.parametrize(("home", "row"), CASES, ids=[f"{home.HOME}: {row.there}" for home, row in CASES])
def test_every_step_is_that_of_its_home(home, row):
    param, grads = equivalent_optimizers.problem()
    theirs = row.reference(param, grads) if row.reference else home.trajectory(row.there, param, grads)
    ours = row.ours(param, grads)
    assert len(theirs) == len(ours) == equivalent_optimizers.STEPS
    assert np.abs(ours[-1] - param).max() > 1e-3
    for own, other in zip(ours, theirs, strict=True):
        assert (np.abs(own - other) <= row.tolerance * (1 + np.abs(other))).all()

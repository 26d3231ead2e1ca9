"""What a test needs and a machine may lack."""

import os
from typing import NoReturn

import pytest

IN_CI = bool(os.environ.get("CI"))


def missing(what: str) -> NoReturn:
    """Skip the test and say what is missing; where CI is set it fails, so that no proof vanishes unseen."""
    if IN_CI:
        pytest.fail(f"{what}, but CI is set: there nothing may be missing")
    pytest.skip(what)

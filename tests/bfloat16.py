"""NumPy's bfloat16; a test that imports it from here is skipped, and says so, where ml_dtypes is missing."""

import pytest

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

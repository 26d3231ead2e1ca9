"""What the codes of 8 bits stand for: a signed table and an unsigned one of 256 values each, the largest 1.

`rounding` finds codes by the places of these values, so neither changes alone.
"""

import numpy as np
import numpy.typing as npt


def tree_values(fraction_bits: int) -> npt.NDArray[np.float64]:
    """The positive values of dynamic tree quantisation (Dettmers 2016, Dettmers et al. 2022, section 1.3), rising.

    A code begins with k zeros and a one, k = 0 to 6; the bits that are left number equal parts of [0.1, 1], and the
    middle of the part times 10^-k is the value. Where the sign is not needed, its bit is one more for the fraction.
    """
    values = []
    for zeros in range(6, -1, -1):
        count = 2 ** (fraction_bits - zeros)
        values.append((0.1 + 0.9 * (np.arange(count) + 0.5) / count) * 10.0**-zeros)
    return np.concatenate(values)


def signed_codes() -> npt.NDArray[np.float32]:
    """Codes c and 255 - c have opposite values, 0 included.

    The published map has 1 but not -1, to which a block is scaled as often. Here 1 stands in place of the largest
    fraction, 0.993, on both sides; the code that this leaves over is a second 0, the negative one.
    """
    positive = np.concatenate([[0.0], tree_values(6)[:-1], [1.0]])
    return np.concatenate([-positive[::-1], positive]).astype(np.float32)


def unsigned_codes() -> npt.NDArray[np.float32]:
    """0, the fractions, 1: as published."""
    return np.concatenate([[0.0], tree_values(7), [1.0]]).astype(np.float32)


SIGNED_CODES = signed_codes()
UNSIGNED_CODES = unsigned_codes()

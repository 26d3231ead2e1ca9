"""Doubles in arrays of JAX, which has none unless it is told to: each is two words of 32 bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SUBNORMAL = 2.0**-126


def words_of(doubles: Any) -> Any:
    """The bits of NumPy doubles, the lower word first."""
    return np.ascontiguousarray(doubles, np.float64).view(np.uint32).reshape(-1, 2)


def widened(numbers: Any) -> Any:
    """The bits of the doubles that are equal to float32 or float64 numbers, the lower word first."""
    if numbers.dtype == jnp.float64:
        return jax.lax.bitcast_convert_type(numbers, jnp.uint32)
    is_small = jnp.abs(numbers) < SUBNORMAL
    scaled = jnp.where(is_small, numbers * 2.0**64, numbers)
    bits = jax.lax.bitcast_convert_type(scaled, jnp.uint32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    wide = exponent + jnp.where(is_small, 1023 - 127 - 64, 1023 - 127).astype(jnp.uint32)
    wide = jnp.where(exponent == 0, 0, jnp.where(exponent == 0xFF, 0x7FF, wide)).astype(jnp.uint32)
    high = (bits >> 31 << 31) | (wide << 20) | (fraction >> 3)
    return jnp.stack([fraction << 29, high], axis=-1)

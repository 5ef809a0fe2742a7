"""Padding of rows to a length that a kernel accepts."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def pad_time(
    arrays: Sequence[Float[Array, "B T _ H"]], segment_ids: Int[Array, "B T"], multiple: int
) -> tuple[list[Float[Array, "B P _ H"]], Int[Array, "B P"]]:
    """Appends zeros until T is a multiple of `multiple`; the padding gets the segment id -1, which no token has."""
    missing = -segment_ids.shape[1] % multiple
    padded = [jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))) for x in arrays]
    return padded, jnp.pad(segment_ids, ((0, 0), (0, missing)), constant_values=-1)

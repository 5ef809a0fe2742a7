"""Padding of rows to a length that a kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pad_time(
    arrays: Sequence[jax.Array], segment_ids: jax.Array, multiple: int
) -> tuple[list[jax.Array], jax.Array]:
    """Zeros after the last of T tokens, until T is a multiple; the padding gets segment id -1, which no token has.

    arrays [B,T,...], segment_ids [B,T].
    """
    missing = -segment_ids.shape[1] % multiple
    padded = [jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))) for x in arrays]
    return padded, jnp.pad(segment_ids, ((0, 0), (0, missing)), constant_values=-1)

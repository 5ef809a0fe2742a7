"""Which keys a query may attend to, and the score of those it may not."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

MASK_VALUE = -1e30  # exp of it is 0; finite, so that a row that is masked everywhere gives no NaN


def causal_segment_mask(segment_ids: Int[Array, "B T"], queries: slice, keys: slice) -> Bool[Array, "B Q S"]:
    """True where a key is not after the query and belongs to the same segment.

    queries, keys: slices of the T positions, both with a start and a stop.
    """
    causal = jnp.arange(queries.start, queries.stop)[:, None] >= jnp.arange(keys.start, keys.stop)
    same = segment_ids[:, queries, None] == segment_ids[:, None, keys]
    return causal & same

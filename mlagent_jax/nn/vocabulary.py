"""Ids that no token has: rows that only round the matrices to a good size, and gaps in a vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

UnusedIds = tuple[tuple[int, int], ...]  # ranges [start, stop)

# Finite, since an entropy multiplies it by its weight, 0; far below any logit, at any temperature.
_NEVER = -1e30


def hide_unused(logits: jax.Array, unused: UnusedIds, first: int | jax.Array = 0) -> jax.Array:
    """logits [..., V] -> those of ids without a token so low that their probability is 0, and their gradient too.

    The sampler and all losses do this, so a model is one distribution, over its tokens. first: the id of the first
    logit, where they are one device's share.
    """
    if not unused:
        return logits
    hidden = np.zeros(max(stop for _, stop in unused), bool)
    for start, stop in unused:
        hidden[start:stop] = True
    ids = first + jnp.arange(logits.shape[-1])
    mask = jnp.take(jnp.asarray(hidden), ids, mode="fill", fill_value=False)
    return jnp.where(mask, jnp.asarray(_NEVER, logits.dtype), logits)

"""Ids without a token: rows that only pad the matrices to a convenient size, and gaps in a vocabulary."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mlagent_jax.nn.masks import MASK_VALUE

UnusedIds = tuple[tuple[int, int], ...]  # ranges [start, stop)


def mask_unused_ids(
    logits: Float[Array, "*B V"], unused: UnusedIds, first: int | Int[Array, ""] = 0
) -> Float[Array, "*B V"]:
    """Logits in which ids without a token have probability 0, and no gradient.

    The sampler and all losses do this, so that all of them have the same distribution, which is over tokens only.
    first: the id of the first logit, where the logits are one device's share.
    """
    if not unused:
        return logits
    flags = np.zeros(max(stop for _, stop in unused), bool)
    for start, stop in unused:
        flags[start:stop] = True
    ids = first + jnp.arange(logits.shape[-1])
    mask = jnp.take(jnp.asarray(flags), ids, mode="fill", fill_value=False)
    # A finite value, since the entropy multiplies it by its weight, which is 0.
    return jnp.where(mask, jnp.asarray(MASK_VALUE, logits.dtype), logits)

"""Looking up word embeddings in a table that may be split over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlagent_jax.parallel.rules import RULES, spec


def embedding_lookup(table: jax.Array, tokens: jax.Array, dtype: str, mesh: Mesh | None = None) -> jax.Array:
    """table [V,D], tokens [B,T] int -> [B,T,D] in `dtype`.

    mesh: each device looks every token up in its share of the words and columns, and gets the whole rows of its own
    tokens back: so tokens travel and their rows, never the table. Left alone, XLA makes every row on every device
    where time is split.
    """
    if mesh is None:
        return table[tokens].astype(dtype)

    def local(table: jax.Array, tokens: jax.Array) -> jax.Array:
        everyones = jax.lax.all_gather(tokens.reshape(-1), RULES["embed"])  # [devices, b*t]
        index = everyones - jax.lax.axis_index(RULES["vocab"]) * table.shape[0]
        mine = (index >= 0) & (index < table.shape[0])
        rows = jnp.where(mine[..., None], table[jnp.where(mine, index, 0)].astype(dtype), 0)
        rows = jax.lax.all_to_all(rows, RULES["embed"], split_axis=0, concat_axis=2, tiled=True)
        return jax.lax.psum(rows.reshape(*tokens.shape, -1), RULES["vocab"])

    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(spec(("vocab", "embed")), spec(("batch", "time"))),
        out_specs=spec(("batch", "time", None)),
        check_vma=False,  # all_to_all cannot say that its result varies over no axis but its own
    )
    return sharded(table, tokens)

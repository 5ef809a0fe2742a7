"""Looking up token embeddings in a table that may be split over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mlagent_jax.parallel.rules import RULES, spec


def embedding_lookup(
    table: Float[Array, "V D"], tokens: Int[Array, "B T"], dtype: str, mesh: Mesh | None = None
) -> Float[Array, "B T D"]:
    """The rows of `tokens`, in `dtype`.

    mesh: each device looks up every token in its part of the table, and then receives the whole rows of its own tokens.
        Token ids and rows are communicated, the table never is. Left to itself, XLA computes every row on every device
        when time is split.
    """
    if mesh is None:
        return table[tokens].astype(dtype)

    def local(table: Float[Array, "v d"], tokens: Int[Array, "b t"]) -> Float[Array, "b t D"]:
        all_tokens = jax.lax.all_gather(tokens.reshape(-1), RULES["embed"])  # [devices, b*t]
        index = all_tokens - jax.lax.axis_index(RULES["vocab"]) * table.shape[0]
        mine = (index >= 0) & (index < table.shape[0])
        rows = jnp.where(mine[..., None], table[jnp.where(mine, index, 0)].astype(dtype), 0)
        rows = jax.lax.all_to_all(rows, RULES["embed"], split_axis=0, concat_axis=2, tiled=True)
        return jax.lax.psum(rows.reshape(*tokens.shape, -1), RULES["vocab"])

    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(spec(("vocab", "embed")), spec(("batch", "time"))),
        out_specs=spec(("batch", "time", None)),
        check_vma=False,  # all_to_all cannot declare that its result varies only over its own axis
    )
    return sharded(table, tokens)

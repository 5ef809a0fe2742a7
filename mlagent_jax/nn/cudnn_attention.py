"""Attention on NVIDIA GPUs: cuDNN's fused kernels through `jax.nn.dot_product_attention`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float, Float16, Int

from mlagent_jax.nn.padding import pad_time

_MULTIPLE = 8  # of T: with a mask cuDNN wants an even T, and its rows aligned to 16 bytes


def cudnn_attention(
    q: BFloat16[Array, "B T N H"] | Float16[Array, "B T N H"],
    k: BFloat16[Array, "B T K H"] | Float16[Array, "B T K H"],
    v: BFloat16[Array, "B T K H"] | Float16[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
) -> BFloat16[Array, "B T N H"] | Float16[Array, "B T N H"]:
    """Computes `nn.attention.attention` by cuDNN, on one device or inside `jax.shard_map`.

    Where every row holds one document, the rows' lengths are enough. Where at least one row is packed, a mask is used
    for all of them; it takes B*T*T*2 bytes while a layer runs (450 MB for a row of 15,000 tokens). cuDNN's packed
    layout would need no mask, but JAX has no public function for it, it runs on Hopper only, and up to JAX 0.10 its
    offsets are wrong for grouped heads (jax-ml/jax#39521).
    """
    T = q.shape[1]
    (q, k, v), segment_ids = pad_time((q, k, v), segment_ids, _MULTIPLE)
    first = segment_ids == segment_ids[:, :1]
    lengths = jnp.sum(first, axis=1, dtype=jnp.int32)
    follows = jnp.arange(segment_ids.shape[1]) >= lengths[:, None]
    one_document = jnp.all(first | (follows & (segment_ids <= 0)))

    def by_length(
        q: Float[Array, "B T N H"], k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]
    ) -> Float[Array, "B T N H"]:
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=True,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            implementation="cudnn",
        )

    def by_mask(
        q: Float[Array, "B T N H"], k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]
    ) -> Float[Array, "B T N H"]:
        same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        return jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True, implementation="cudnn")

    return jax.lax.cond(one_document, by_length, by_mask, q, k, v)[:, :T]

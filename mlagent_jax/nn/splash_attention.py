"""Attention on TPUs: JAX's splash kernel, with segment ids."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import MultiHeadMask
from jaxtyping import Array, Float, Int

from mlagent_jax.nn.chunked_attention import CHECKPOINT_NAME
from mlagent_jax.nn.padding import pad_time

_LANES = 128  # a block is a multiple of this
_BLOCK = 512


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Computes `nn.attention.attention` by splash attention, on one device or inside `jax.shard_map`.

    T is padded to whole blocks.

    interpret: run the kernel as plain JAX, on any device; for tests.
    """
    T, N, H = q.shape[1:]
    block = min(_BLOCK, T + -T % _LANES)
    (q, k, v), segment_ids = pad_time((q * H**-0.5, k, v), segment_ids, block)
    padded = q.shape[1]
    kernel = make_splash_mha_single_device(
        MultiHeadMask([CausalMask((padded, padded))] * N),
        block_sizes=BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name=CHECKPOINT_NAME,
        interpret=interpret,
    )

    def one_row(
        q: Float[Array, "N P H"], k: Float[Array, "K P H"], v: Float[Array, "K P H"], ids: Int[Array, " P"]
    ) -> Float[Array, "N P H"]:
        return kernel(q, k, v, segment_ids=SegmentIds(ids, ids))

    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(jax.vmap(one_row)(q, k, v, segment_ids), 1, 2)[:, :T]

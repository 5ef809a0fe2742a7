"""Causal self-attention within segments, behind one switch.

All backends compute the same function: token i attends to token j of its row when j <= i and both carry the
same segment id. Padding has a segment id of its own (0), so it attends to padding only and stays finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from mlagent_jax.nn.chunked_attention import SAVED, chunked_attention
from mlagent_jax.nn.cudnn_attention import cudnn_attention
from mlagent_jax.nn.splash_attention import splash_attention
from mlagent_jax.parallel.rules import constrain, spec

_HEADS = ("heads", "kv_heads", "kv_heads")  # logical axes of q, k and v
BACKENDS = ("xla", "xla_chunked", "cudnn", "splash")


def check_backend(name: str) -> None:
    """Raises ValueError for an unknown backend."""
    if name not in BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; choose one of {', '.join(BACKENDS)}")


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    *,
    backend: str,
    query_chunk: int = 128,
    mesh: Mesh | None = None,
) -> jax.Array:
    """q [B,T,N,H], k and v [B,T,K,H] with N a multiple of K, segment_ids [B,T] int -> [B,T,N,H].

    backend: "xla" (one block, the readable reference), "xla_chunked" (causal blocks of `query_chunk` queries
    with a backward pass of its own; several times faster on a CPU, and linear in memory), "cudnn" (NVIDIA GPUs
    from Ampere on, bfloat16 or float16) or "splash" (TPUs).
    mesh: each device then computes the whole rows of its share of the heads, split over the mesh axes tensor and
    sequence. That is DeepSpeed-Ulysses (arXiv 2309.14509): whatever the backend, it sees whole rows, and the
    causal half of the work is spread evenly.
    """
    check_backend(backend)

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
        if backend == "xla_chunked":
            return chunked_attention(q, k, v, segment_ids, query_chunk)
        if backend == "cudnn":
            return cudnn_attention(q, k, v, segment_ids)
        if backend == "splash":
            return splash_attention(q, k, v, segment_ids)
        return plain_attention(q, k, v, segment_ids)

    if mesh is None:
        return local(q, k, v, segment_ids)
    # Stated on both sides, or the split of the heads spreads to the projections and gathers their inputs.
    q, k, v = (
        constrain(x, ("batch", "time", heads, None), mesh) for x, heads in zip((q, k, v), _HEADS, strict=True)
    )
    if k.shape[2] % (mesh.shape["tensor"] * mesh.shape["sequence"]):
        # Each device needs the keys of its own queries, and they are fewer than the devices.
        k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    heads, rows = spec(("batch", None, "attention_heads", None)), spec(("batch", None))
    # Pallas kernels do not say over which axes their results vary, so JAX cannot check it.
    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
    return constrain(sharded(q, k, v, segment_ids), ("batch", "time", "heads", None), mesh)


def plain_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Shapes as in `attention`; all scores [B,K,N/K,T,T] at once; float32 from the scores to the context."""
    B, T, N, H = q.shape
    K = k.shape[2]
    q = q.reshape(B, T, K, N // K, H) * H**-0.5
    scores = jnp.einsum("bqkgh,bskh->bkgqs", q, k, preferred_element_type=jnp.float32)
    position = jnp.arange(T)
    allowed = (position[:, None] >= position) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    scores = jnp.where(allowed[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    context = jnp.einsum("bkgqs,bskh->bqkgh", weights, v.astype(weights.dtype))
    context = context.astype(v.dtype).reshape(B, T, N, H)
    return checkpoint_name(context, SAVED)

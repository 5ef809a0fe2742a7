"""Log-probabilities and cross-entropy over a large vocabulary, a few positions at a time.

Logits [B,T,V] never exist whole: 152,064 words x 4,096 positions x 4 bytes are 2.5 GB a row. Each chunk of positions
is multiplied out, reduced and forgotten; the backward pass makes it again.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


def token_logprobs(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    temperature: float | jax.Array = 1.0,
    chunk: int = 128,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of `targets`, and the entropy of each position's distribution, in nats.

    hidden [B,T,D], unembed [D,V], targets [B,T] int; the distribution is softmax(hidden @ unembed / temperature).
    chunk: positions of each row whose logits exist at a time. Returns logprobs [B,T], entropy [B,T], both float32.
    Differentiable in hidden and unembed.
    """
    logprobs, entropy = _scan_chunks(hidden, unembed, targets, temperature, chunk, with_entropy=True)
    return logprobs, entropy


def cross_entropy(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    chunk: int = 128,
) -> tuple[jax.Array, jax.Array]:
    """Sum of weights * -log p(targets) and sum of weights, both float32 scalars; their quotient is the mean loss.

    The two are returned apart, so that micro-batches with unequal numbers of supervised tokens add up correctly.
    hidden [B,T,D], unembed [D,V], targets [B,T] int, weights [B,T].
    """
    logprobs, _ = _scan_chunks(hidden, unembed, targets, 1.0, chunk, with_entropy=False)
    weights = weights.astype(jnp.float32)
    return -jnp.sum(weights * logprobs), jnp.sum(weights)


def _scan_chunks(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    temperature: float | jax.Array,
    chunk: int,
    with_entropy: bool,
) -> tuple[jax.Array, jax.Array]:
    B, T, D = hidden.shape
    chunk = min(chunk, T)
    padding = -T % chunk
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    # [chunks, B, chunk, ...]: splitting time, not batch, leaves a batch that is sharded over devices where it is.
    hidden = hidden.reshape(B, -1, chunk, D).swapaxes(0, 1)
    targets = targets.reshape(B, -1, chunk).swapaxes(0, 1)

    @partial(jax.checkpoint, prevent_cse=False)
    def one(unembed: jax.Array, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jnp.einsum("btd,dv->btv", hidden, unembed, preferred_element_type=jnp.float32) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        entropy = jnp.zeros_like(normaliser)
        if with_entropy:
            entropy = normaliser - jnp.sum(jnp.exp(logits - normaliser[..., None]) * logits, axis=-1)
        return chosen - normaliser, entropy

    _, (logprobs, entropy) = jax.lax.scan(lambda _, x: (None, one(unembed, *x)), None, (hidden, targets))
    return tuple(x.swapaxes(0, 1).reshape(B, -1)[:, :T] for x in (logprobs, entropy))

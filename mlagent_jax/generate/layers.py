"""Running the model's layers on the cache.

While decoding, the few activations move to where the weights are, and each device multiplies all rows with its columns
of the weights (Pope et al. 2022, arXiv 2211.05102). A chunk of a prompt has so many activations that the weights are
gathered layer by layer instead, as in training.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from mlagent_jax.generate.engine_setup import EngineSetup
from mlagent_jax.generate.fused_qkv import fused_block
from mlagent_jax.generate.kv_cache import KVCache, LayerCache
from mlagent_jax.models.params import Params
from mlagent_jax.nn.rope import rope_tables
from mlagent_jax.parallel.rules import LogicalAxes, constrain

SPLIT_ROWS: LogicalAxes = ("slots", None, None)
SPLIT_COLUMNS: LogicalAxes = (None, None, "embed")


class CachedAttention:
    """An `AttentionFn` for one layer, which first writes the keys and values that it is given to the cache.

    write(cache, k, v) -> cache. attend(q, cache) -> context. cache: with what has been written.
    """

    def __init__(
        self,
        cache: LayerCache,
        write: Callable[[LayerCache, Array, Array], LayerCache],
        attend: Callable[[Array, LayerCache], Array],
    ):
        self.cache, self._write, self._attend = cache, write, attend

    def __call__(
        self, q: Float[Array, "B T N H"], k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]
    ) -> Float[Array, "B T N H"]:
        self.cache = self._write(self.cache, k, v)
        return self._attend(q, self.cache)


def run_layers(
    setup: EngineSetup,
    weights: Params,
    cache: KVCache,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_of: Callable[[LayerCache], CachedAttention],
    axes: LogicalAxes,
) -> tuple[KVCache, Float[Array, "B T D"]]:
    """The cache with these tokens, and the activations of the last layer. axes: how activations are split."""
    rope = rope_tables(positions, setup.model.head_dim, setup.model.rope_theta)
    x = weights["embed"][tokens]
    updated: KVCache = []
    for layer, layer_cache in zip(weights["layers"], cache, strict=True):
        attention_fn = attention_of(layer_cache)
        x = fused_block(setup.model, setup.tensor, layer)(constrain(x, axes, setup.mesh), rope, attention_fn)
        updated.append(attention_fn.cache)
    return updated, x

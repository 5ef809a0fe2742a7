"""What a layer keeps from its forward pass for the backward pass; the rest is computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from mlagent_jax.models.params import Params
from mlagent_jax.nn.chunked_attention import CHECKPOINT_NAME

REMAT_POLICIES = ("none", "dots", "attention", "full", "offload")

_INPUT = "block_input"
_Layer = Callable[[Array, Params], tuple[Array, None]]


def rematerialised(layer: _Layer, policy: str) -> _Layer:
    """`layer(x, params)` under one of `REMAT_POLICIES`, which go from the most memory to the least.

    "none" keeps everything. "dots" keeps the results of matrix products with parameters. "attention" keeps the layer's
    input and the output and normalisers of attention, so that its kernel runs once; for long rows, where that kernel
    is expensive. "full" keeps the layer's input only. "offload" keeps that input in the host's pinned memory and
    nothing on the device: a row of 15,000 tokens takes 3 GB of the host's memory at 7B.
    """
    if policy == "none":
        return layer
    if policy == "offload":
        return jax.checkpoint(
            lambda x, params: layer(checkpoint_name(x, _INPUT), params), policy=_offload_inputs()
        )
    keep = {
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "attention": _keep_attention,
        "full": None,
    }
    return jax.checkpoint(layer, policy=keep[policy])


def _offload_inputs() -> Any:
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    )


def _keep_attention(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """The results of attention: named by the backends, except cuDNN's, which is recognised by its primitive."""
    if primitive.name == "name":
        return bool(parameters["name"] == CHECKPOINT_NAME)
    return str(primitive.name).startswith("dot_product_attention_fwd")

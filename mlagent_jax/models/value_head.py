"""A critic's head: one number for each position of a trunk, its own or one shared with the policy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mlagent_jax.models.config import Qwen2Config

ValueParams = dict[str, Any]


def init_value_head(config: Qwen2Config) -> ValueParams:
    """Zeros: before any training the critic says 0 everywhere, so that it cannot mislead the first update.

    Float32 whatever the trunk's parameters are, as adapters: it is small, and so are its updates.
    """
    return {"kernel": jnp.zeros((config.hidden_size,)), "bias": jnp.zeros(())}


def value_head_axes() -> ValueParams:
    """The logical axes of `init_value_head`, as `logical_axes` gives them for the trunk."""
    return {"kernel": ("embed",), "bias": ()}


def values(params: ValueParams, hidden: jax.Array) -> jax.Array:
    """hidden [B,T,D] (of `forward`) -> values [B,T] float32."""
    kernel = params["kernel"].astype(jnp.float32)
    return hidden.astype(jnp.float32) @ kernel + params["bias"].astype(jnp.float32)

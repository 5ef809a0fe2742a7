"""A critic's head: one value for each position. The trunk is the critic's own, or shared with the policy."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params


def init_value_head(config: Qwen2Config) -> Params:
    """Zeros: an untrained critic predicts 0 everywhere, so that it cannot bias the first update.

    Float32, whatever the dtype of the trunk: it is small, and so are its updates.
    """
    return {"kernel": jnp.zeros((config.hidden_size,)), "bias": jnp.zeros(())}


def value_head_axes() -> Params:
    """The tree of `init_value_head` with a tuple of logical axes for each array."""
    return {"kernel": ("embed",), "bias": ()}


def values(params: Params, hidden: Float[Array, "B T D"]) -> Float32[Array, "B T"]:
    """hidden: the result of `models.qwen2.forward`."""
    kernel = params["kernel"].astype(jnp.float32)
    return hidden.astype(jnp.float32) @ kernel + params["bias"].astype(jnp.float32)

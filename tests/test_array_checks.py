"""Arrays that do not fit their annotations fail, in whichever package the function is."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from mlagent_jax.generate.sampling import mask_stop_ids, raw_logprobs
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params
from mlagent_jax.models.value_head import init_value_head, values
from mlagent_jax.nn import linear as linear_module
from mlagent_jax.nn.attention import plain_attention
from mlagent_jax.nn.linear import linear
from mlagent_jax.nn.losses import cross_entropy
from mlagent_jax.nn.norm import rms_norm
from mlagent_jax.nn.rope import apply_rope, rope_tables

B, T, D, V = 2, 6, 8, 10
MODEL = Qwen2Config(V, D, 12, 1, 2, 1)
IDS = jnp.ones((B, T), jnp.int32)
HEADS = jnp.ones((B, T, 2, 4))


def run(tokens, positions):
    return forward(MODEL, init_params(MODEL, 0), tokens, positions, jnp.ones_like(tokens))


WRONG = {
    "two sizes of an axis": lambda: rms_norm(jnp.ones((B, D)), jnp.ones(D + 1), 1e-6),
    "too few axes": lambda: cross_entropy(jnp.ones((T, D)), jnp.ones((D, V)), IDS, jnp.ones((B, T))),
    "keys and values differ": lambda: plain_attention(HEADS, HEADS[:, :, :1], HEADS, IDS),
    "sizes that depend on others": lambda: apply_rope(HEADS, *rope_tables(IDS, 6, 1e4)),
    "float for int": lambda: run(jnp.ones((B, T)), IDS),
    "int for float": lambda: values(init_value_head(MODEL), jnp.ones((B, T, D), jnp.int32)),
    "another dtype": lambda: raw_logprobs(jnp.ones((B, V)), jnp.ones(B, jnp.int16)),
    "positions of other rows": lambda: run(IDS, IDS[:1]),
    "inside jit": lambda: jax.jit(mask_stop_ids)(jnp.ones((B, V)), IDS, jnp.ones(B + 1, bool)),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_fail(case):
    with pytest.raises(TypeCheckError, match="checking the parameters"):
        WRONG[case]()


def test_a_wrong_result_fails(monkeypatch):
    monkeypatch.setattr(linear_module, "_linear", lambda x, kernel, dtype: x)
    with pytest.raises(TypeCheckError, match="checking the return value"):
        linear(jnp.ones((B, D)), jnp.ones((D, V)))


def test_right_arguments_pass():
    assert run(IDS, IDS).shape == (B, T, D)

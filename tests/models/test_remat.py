import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params
from mlagent_jax.models.remat import REMAT_POLICIES

MODEL = Qwen2Config(32, 16, 24, 2, 4, 2, initializer_range=0.3, scan_layers=False, query_chunk=8)
TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12)
POSITIONS = np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12))


def loss(model, params):
    return jnp.sum(forward(model, params, TOKENS, POSITIONS, np.ones_like(TOKENS)) ** 2)


def kept(model):
    """How many numbers the forward pass keeps for the backward pass, parameters included."""
    pullback = jax.eval_shape(lambda p: jax.vjp(lambda q: loss(model, q), p)[1], init_params(model, 0))
    return sum(leaf.size for leaf in jax.tree.leaves(pullback))


@pytest.fixture(scope="module")
def plain_gradient():
    return jax.jit(jax.grad(lambda p: loss(MODEL, p)))(init_params(MODEL, 0))


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_a_policy_compiles_under_scan_and_changes_no_gradient(policy, plain_gradient):
    model = MODEL.replace(remat=policy, scan_layers=True)
    ours = jax.jit(jax.grad(lambda p: loss(model, p)))(init_params(MODEL, 0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, plain_gradient)


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_each_policy_keeps_less_than_the_one_before(attention):
    none, dots, attended, full = (
        kept(MODEL.replace(remat=policy, attention=attention))
        for policy in ("none", "dots", "attention", "full")
    )
    assert none > dots > attended > full

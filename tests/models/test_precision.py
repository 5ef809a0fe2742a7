"""Computing in bfloat16, over parameters in float32 or bfloat16, and the same program at every depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params, forward, init_params
from mlagent_jax.sft.step import loss_sum

MODEL = Qwen2Config(64, 32, 48, 3, 4, 2, initializer_range=0.1, query_chunk=8)
RNG = np.random.default_rng(0)
ROWS = {
    "tokens": RNG.integers(0, 64, (2, 24)).astype(np.int32),
    "targets": RNG.integers(0, 64, (2, 24)).astype(np.int32),
    "positions": np.broadcast_to(np.arange(24, dtype=np.int32), (2, 24)),
    "segment_ids": np.ones((2, 24), np.int32),
    "action": np.ones((2, 24), bool),
}


def mean_loss(model, params):
    total, count = loss_sum(model, params, ROWS)
    return total / count


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_bfloat16_compute_is_float32_compute_but_for_rounding(param_dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(param_dtype), init_params(MODEL, 0))
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    model = MODEL.replace(dtype="bfloat16", param_dtype=param_dtype)
    hidden = jax.eval_shape(
        lambda p: forward(model, p, ROWS["tokens"], ROWS["positions"], ROWS["segment_ids"]), params
    )
    assert hidden.dtype == jnp.bfloat16

    loss, gradients = jax.jit(jax.value_and_grad(lambda p: mean_loss(model, p)))(params)
    expected_loss, expected = jax.jit(jax.value_and_grad(lambda p: mean_loss(MODEL, p)))(exact)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-3)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert ours.dtype == param_dtype, name
        ours = np.asarray(ours, np.float32)
        error = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-3)
        assert error < 0.05, name  # bfloat16 keeps 8 bits: 0.4% a rounding


def test_the_program_does_not_grow_with_depth():
    def lines(depth):
        model = MODEL.replace(num_hidden_layers=depth, remat="full")
        step = jax.jit(jax.grad(lambda p: mean_loss(model, p)))
        return len(step.lower(abstract_params(model)).as_text().splitlines())

    assert lines(28) == lines(4)

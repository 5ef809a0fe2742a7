"""FLOPs against what XLA counts in an unrolled model on the CPU."""

import jax
import jax.numpy as jnp
import pytest

from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.models.lora import LoRAConfig, join, partition
from mlagent_jax.models.qwen2 import abstract_params, forward, unembedding
from mlagent_jax.nn.losses import cross_entropy
from mlagent_jax.planner.flops import executed_training_flops, forward_flops

MODEL = Qwen2Config(
    vocab_size=1024,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    attention="xla",
    scan_layers=False,
    logits_chunk=512,
)
ROWS, LENGTH = 2, 512


def counted(function, model=MODEL) -> float:
    rows = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    return jax.jit(function).lower(abstract_params(model), rows).compile().cost_analysis()["flops"]


def test_forward():
    def logits(params, tokens):
        hidden = forward(MODEL, params, tokens, tokens, jnp.ones_like(tokens))
        return hidden @ unembedding(MODEL, params)

    flops = forward_flops(MODEL, ROWS, LENGTH)
    # The reference attention computes all T x T scores, not the causal T (T + 1) / 2.
    whole = flops.layers + flops.attention * 2 * LENGTH / (LENGTH + 1) + flops.head
    assert counted(logits) == pytest.approx(whole, rel=0.04)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["all weights", "adapters"])
def test_training(lora):
    model = MODEL.replace(lora=lora)

    def gradient(params, tokens):
        trained, frozen = partition(params)

        def loss(trained):
            params, ones = join(trained, frozen), jnp.ones(tokens.shape)
            hidden = forward(model, params, tokens, tokens, jnp.ones_like(tokens))
            return cross_entropy(hidden, unembedding(model, params), tokens, ones, model.logits_chunk)[0]

        return jax.grad(loss)(trained)

    flops = forward_flops(model, ROWS, LENGTH)
    ratio = 2 * LENGTH / (LENGTH + 1)
    # Attention that is not fused computes no scores again: its backward pass takes twice the forward pass.
    expected = executed_training_flops(model, flops) + (3 * ratio - 3.5) * flops.attention
    assert counted(gradient, model) == pytest.approx(expected, rel=0.06)


def test_full_rematerialisation_adds_the_layers_once_more():
    flops = forward_flops(MODEL, ROWS, LENGTH)
    more = executed_training_flops(MODEL.replace(remat="full"), flops) - executed_training_flops(MODEL, flops)
    assert more == pytest.approx(flops.layers + flops.attention)


def test_seven_billion_parameters_at_4096():
    """14.96 GFLOP per token by an independent calculation (2 x 7,070,285,824 weights, and causal attention)."""
    per_token = forward_flops(qwen2_5("7b"), 1, 4096).total / 4096
    assert per_token == pytest.approx(2 * 7_070_285_824 + 28 * 4 * 3584 * 2048, rel=1e-3)

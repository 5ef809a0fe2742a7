"""Floating-point operations of the model, by arithmetic: a compiler counts the body of a scan only once.

A product of [m,k] and [k,n] is 2mkn. Attention is counted causal: token t attends to t + 1 tokens, about half of
T x T. Norms, rotary embeddings and the softmax are left out: they are under 1% at the sizes that matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.models.config import Qwen2Config


@dataclass(frozen=True)
class ForwardFlops:
    """Of one forward pass: the layers' products with weights, attention's own two products, the unembedding."""

    layers: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.layers + self.attention + self.head


def forward_flops(model: Qwen2Config, rows: int, length: int, predicted: int = -1) -> ForwardFlops:
    """rows of `length` tokens, each row one segment. predicted: positions of a row with logits; -1 for all."""
    L, H = model.num_hidden_layers, model.head_dim
    N = model.num_attention_heads
    predicted = length if predicted < 0 else predicted
    return ForwardFlops(
        layers=2.0 * rows * length * L * layer_weights(model),
        attention=4.0 * rows * L * N * H * length * (length + 1) / 2,
        head=2.0 * rows * predicted * model.hidden_size * model.vocab_size,
    )


def decode_flops(model: Qwen2Config, rows: int, context: int) -> ForwardFlops:
    """One token of each row, which attends to `context` tokens."""
    per_key = 4.0 * model.num_hidden_layers * model.num_attention_heads * model.head_dim
    return ForwardFlops(
        layers=2.0 * rows * model.num_hidden_layers * layer_weights(model),
        attention=rows * per_key * context,
        head=2.0 * rows * model.hidden_size * model.vocab_size,
    )


def layer_weights(model: Qwen2Config) -> int:
    """Elements of one layer's matrices."""
    D, F, H = model.hidden_size, model.intermediate_size, model.head_dim
    N, K = model.num_attention_heads, model.num_key_value_heads
    return 2 * D * N * H + 2 * D * K * H + 3 * D * F


def training_flops(model: Qwen2Config, forward: ForwardFlops) -> float:
    """Model FLOPs of forward and backward, as MFU counts them.

    The backward pass is twice the forward; with adapters only, the frozen kernels have no gradient of their own and
    it is as much. The adapters' own products, under 1%, are left out.
    """
    kernels = 2 if model.lora else 3
    return kernels * (forward.layers + forward.head) + 3 * forward.attention


def executed_training_flops(model: Qwen2Config, forward: ForwardFlops) -> float:
    """What the hardware computes for forward and backward, with all that is computed a second time.

    That is the logits (always, chunk by chunk), the scores inside a fused attention kernel's backward pass (five
    products for the forward's two), and what `model.remat` says of the layers.
    """
    again = REMATERIALISED[model.remat]
    once = training_flops(model, forward)
    return once + again.layers * forward.layers + (0.5 + again.attention) * forward.attention + forward.head


@dataclass(frozen=True)
class Rematerialised:
    """The share of a forward pass that a backward pass computes again."""

    layers: float
    attention: float


REMATERIALISED = {
    "none": Rematerialised(0, 0),
    "dots": Rematerialised(0, 1),
    "attention": Rematerialised(1, 0),
    "full": Rematerialised(1, 1),
    "offload": Rematerialised(1, 1),
}

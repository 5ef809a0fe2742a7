"""Floating-point operations of the model, calculated, since a compiler counts the body of a scan only once.

A product of [m,k] and [k,n] is 2mkn. Attention is counted as causal: token t attends to t + 1 tokens, about half of
T x T. Norms, rotary embeddings and the softmax are left out: they are under 1% at relevant sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.models.config import Qwen2Config


@dataclass(frozen=True)
class ForwardFlops:
    """One forward pass: the layers' products with weights, the two products of attention, and the unembedding."""

    layers: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.layers + self.attention + self.head


def forward_flops(model: Qwen2Config, rows: int, length: int, predicted: int = -1) -> ForwardFlops:
    """rows: of `length` tokens, each one segment. predicted: positions of a row with logits; -1 for all."""
    L, H = model.num_hidden_layers, model.head_dim
    N = model.num_attention_heads
    predicted = length if predicted < 0 else predicted
    return ForwardFlops(
        layers=2.0 * rows * length * L * layer_weights(model),
        attention=4.0 * rows * L * N * H * length * (length + 1) / 2,
        head=2.0 * rows * predicted * model.hidden_size * model.vocab_size,
    )


def decode_flops(model: Qwen2Config, rows: int, context: int) -> ForwardFlops:
    """One token in each row, which attends to `context` tokens."""
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
    """Model FLOPs of forward and backward pass, as MFU counts them.

    The backward pass takes twice the forward pass. With adapters it takes as much for the kernels, which are frozen and
    have no gradient. The adapters' own products, under 1%, are left out.
    """
    kernels = 2 if model.lora else 3
    return kernels * (forward.layers + forward.head) + 3 * forward.attention


def executed_training_flops(model: Qwen2Config, forward: ForwardFlops) -> float:
    """FLOPs that the hardware executes for forward and backward pass, with everything that is computed twice.

    This is the logits (always, chunk by chunk), the scores in a fused attention kernel's backward pass (five products
    against two in the forward pass), and the parts of the layers that `model.remat` does not keep.
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

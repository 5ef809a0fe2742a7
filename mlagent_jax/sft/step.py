"""Supervised fine-tuning as pure functions: the loss on action tokens and one optimiser step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from mlagent_jax.finite import all_finite
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join, partition
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.nn.losses import cross_entropy
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.parallel.jitted import Jitted
from mlagent_jax.training.state import TrainState, take_step

Batch = dict[str, Shaped[Array, "B T"]]
MicroBatches = dict[str, Shaped[Array, "A B T"]]  # A micro-batches of B rows
Metrics = dict[str, Shaped[Array, ""]]


def loss_sum(
    config: Qwen2Config, params: Params, batch: Batch, mesh: Mesh | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over action tokens of -log pi(token | the tokens before it in its segment), and the number of these tokens.

    batch: rows of `text.packing`. mesh: as in `forward`. This is L_SFT of arXiv 2505.23723, equation 2.
    """
    hidden = forward(config, params, batch["tokens"], batch["positions"], batch["segment_ids"], mesh)
    weights = batch["action"].astype(jnp.float32)
    unembed = unembedding(config, params)
    return cross_entropy(
        hidden, unembed, batch["targets"], weights, config.logits_chunk, mesh, config.unused_ids
    )


def train_step(
    config: Qwen2Config,
    optimiser: optax.GradientTransformation,
    state: TrainState,
    batch: MicroBatches,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimiser step, whose gradient is accumulated over the micro-batches.

    The loss is the mean over all action tokens of the whole batch: the sum of each micro-batch is divided by the whole
    batch's number of action tokens, so the split into micro-batches does not matter. If the model has adapters, only
    these are trained. Metrics whose names end in `_finite` are bools for `finite.Guard`.
    """
    count = jnp.maximum(batch["action"].sum(), 1).astype(jnp.float32)

    trained, frozen = partition(state.params)

    def accumulate(total: tuple[Params, Array], rows: Batch) -> tuple[tuple[Params, Array], None]:
        loss, grads = jax.value_and_grad(lambda p: loss_sum(config, join(p, frozen), rows, mesh)[0] / count)(
            trained
        )
        return jax.tree.map(jnp.add, total, (_reduced_in_own_dtype(grads), loss)), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), trained)
    (grads, loss), _ = jax.lax.scan(accumulate, (zeros, jnp.float32(0)), batch)
    after = take_step(optimiser, TrainState(trained, state.opt_state, state.step), grads)
    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "action_tokens": batch["action"].sum(),
        "tokens": (batch["segment_ids"] > 0).sum(),
        "params_finite": all_finite(after.params),
        "optimiser_finite": all_finite(after.opt_state),
    }
    return after._replace(params=join(after.params, frozen)), metrics


def _reduced_in_own_dtype(grads: Params) -> Params:
    """Keeps the all-reduce of the gradients over devices before their conversion to float32.

    XLA may move the all-reduce out of the loop over micro-batches. Behind a conversion, its pass for TPUs fails (libtpu
    0.0.42): "while_loop_all_reduce_code_motion.cc: RET_CHECK user->opcode() == HloOpcode::kAdd".
    """
    return jax.tree.map(
        lambda g: g if g.dtype == jnp.float32 else jax.lax.optimization_barrier(g),
        grads,
    )


def compile_train_step(
    config: Qwen2Config, optimiser: optax.GradientTransformation, shardings: TrainState
) -> Jitted[[TrainState, MicroBatches], tuple[TrainState, Metrics]]:
    """`train_step` jitted, on the mesh of `shardings`; the state passed in is donated."""
    mesh: Mesh = jax.tree.leaves(shardings)[0].mesh

    def sft_train_step(state: TrainState, batch: MicroBatches) -> tuple[TrainState, Metrics]:
        return train_step(config, optimiser, state, batch, mesh)

    return jax.jit(
        sft_train_step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=AS_WRITTEN
    )


def compile_eval_step(
    config: Qwen2Config, mesh: Mesh
) -> Jitted[[Params, Batch], tuple[Float[Array, ""], Float[Array, ""]]]:
    """`loss_sum` jitted."""

    def sft_eval_step(params: Params, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return loss_sum(config, params, batch, mesh)

    return jax.jit(sft_eval_step, compiler_options=AS_WRITTEN)

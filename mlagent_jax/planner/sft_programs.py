"""The programs of supervised fine-tuning, with the shapes they are called with."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import partition
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel.mesh import batch_sharding, param_shardings
from mlagent_jax.planner.flops import executed_training_flops, forward_flops, training_flops
from mlagent_jax.planner.programs import Program, Work, bytes_per_device, shaped
from mlagent_jax.planner.traffic import forward_bytes, training_bytes
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import check
from mlagent_jax.sft.step import compile_eval_step, compile_train_step
from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import pack
from mlagent_jax.training.optimisers import make_optimiser
from mlagent_jax.training.state import abstract_state

_STEPS = 1000  # of the schedule; the number does not change what is compiled


def sft_programs(config: SFTConfig, model: Qwen2Config, mesh: Mesh) -> list[Program]:
    """The training step over all micro-batches, and the held-out loss of one.

    Raises UserError for settings that the training loop refuses.
    """
    check(config, mesh)
    optimiser = make_optimiser(config.optimiser, _STEPS)
    shardings = param_shardings(model, mesh)
    state = abstract_state(abstract_params(model), shardings, optimiser, mesh)
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    example = pack([Encoded(np.zeros(2, np.int32), np.array([False, True]), ((1, 2),))], 2).take(
        np.zeros(1, int)
    )
    rows, length = config.micro_rows, config.row_length
    # With `batch_sequences` the number of rows depends on the trajectories; one row for each is the most.
    micro_batches = -(-(config.batch_sequences or config.batch_rows) // rows)
    batch = shaped(example, (micro_batches, rows, length), batch_sharding(mesh, leading=1))
    held_out = shaped(example, (rows, length), batch_sharding(mesh))
    forward = forward_flops(model, rows, length)
    tokens, tensor = rows * length / mesh.size, mesh.shape["tensor"]
    gradients = bytes_per_device(partition(state.params)[0])
    return [
        Program(
            name="sft train step",
            function=compile_train_step(model, optimiser, state_shardings),
            arguments=(state, batch),
            parts={"parameters": state.params, "optimiser": state.opt_state, "batch": batch},
            devices=mesh.size,
            work=Work(
                model_flops=micro_batches * training_flops(model, forward),
                executed_flops=micro_batches * executed_training_flops(model, forward),
                memory_bytes=micro_batches * (training_bytes(model, tokens, tensor) + 2 * gradients)
                + 2 * bytes_per_device(state)
                + gradients,
            ),
        ),
        Program(
            name="sft held-out loss",
            function=compile_eval_step(model, mesh),
            arguments=(state.params, held_out),
            parts={"parameters": state.params, "batch": held_out},
            beside={"optimiser": state.opt_state},
            devices=mesh.size,
            work=Work(forward.total, forward.total, forward_bytes(model, tokens, tensor)),
            runs_per_step=0,
        ),
    ]

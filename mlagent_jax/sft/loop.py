"""The supervised fine-tuning loop. It can be killed at any step and resumes to the same result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optax
from jax.sharding import Mesh

from mlagent_jax.finite import Guard, require_finite
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import with_adapters
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import batch_sharding, check_batch_fits, put
from mlagent_jax.sft.batches import Batches, RowArrays, make_batches
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.step import Metrics, MicroBatches, compile_eval_step, compile_train_step
from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import PackedRows
from mlagent_jax.tracking.tracker import Tracking
from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints
from mlagent_jax.training.optimisers import make_optimiser, make_schedule
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.stage_checkpoints import (
    SavedState,
    open_checkpoints,
    resume_state,
    save_state,
)
from mlagent_jax.training.state import TrainState, init_state, state_shardings

GUARD = Guard("SFT", "sft.optimiser.learning_rate")


def train(
    config: SFTConfig,
    model: Qwen2Config,
    params: Params,
    sequences: Sequence[Encoded],
    workdir: Path,
    mesh: Mesh,
    tracking: Tracking = Tracking(),
    paraphrases: Sequence[Sequence[Encoded]] = (),
) -> Params:
    """Fine-tunes `params` on `sequences`, one for each trajectory, and returns the result, sharded over the mesh.

    paraphrases: of each sequence, trained on beside it unless it is held out for the evaluation loss.
    params: where to start from, the same on every process. With `model.lora` they are frozen, adapters are trained
    beside them, and the result has both.

    Resumes from the newest checkpoint in `workdir`, with the same bits as an uninterrupted run: the order of the rows
    is a function of seed and step. Writes `workdir/checkpoints/` and what `tracking` chooses; the metrics are those
    of tracking/METRICS.md.

    Raises UserError for settings or sequences that cannot work. Raises NotFiniteError if training diverges: nothing of
    that step is written, and earlier checkpoints are kept.
    """
    check(config, mesh)
    batches, eval_rows = make_batches(config, sequences, paraphrases)
    total = _total_steps(config, batches)
    optimiser = make_optimiser(config.optimiser, total)
    schedule = make_schedule(config.optimiser, total)
    shardings = param_shardings(model, mesh)
    require_finite(params, "the weights that SFT starts from", "start from others")
    params = put(with_adapters(model, params, config.seed), shardings)
    state = init_state(params, shardings, optimiser, mesh)
    del params  # the state has copies: if the caller keeps none, this memory is free during training
    layout = state_shardings(state.params, shardings, optimiser, mesh)
    step_function = compile_train_step(model, optimiser, layout)
    evaluate = _Evaluation(config, model, eval_rows, mesh)

    with open_checkpoints(workdir, config.keep) as checkpoints:
        state = resume(checkpoints, state)
        start = int(state.step)
        main = distributed.is_main()
        with (
            tracking.open(workdir, start) as tracker,
            ProgressBar(workdir.name, total, start, shown=main) as bar,
        ):
            throughput = _Throughput(batches.tokens(0, start))
            unchecked: list[tuple[int, Metrics]] = []
            for step in range(start, total):
                rows = batches.rows(step)
                throughput.total += batches.tokens(step, step + 1)
                state, metrics = step_function(state, _device_batch(config, rows, mesh))
                unchecked.append((step, metrics))
                done, note = step + 1, ""
                evaluates = eval_rows is not None and _is_due(done, config.eval_every, total)
                logs = evaluates or _is_due(done, config.log_every, total)
                saves = _is_due(done, config.checkpoint_every, total)
                if logs or saves:
                    _check(unchecked, schedule)
                if logs:
                    rate = throughput.rate()
                    line = _train_metrics(metrics, float(schedule(step)), throughput.total, rate / mesh.size)
                    if evaluates:
                        line["val/loss"] = _eval_loss(evaluate, state, float(schedule(step)))
                        throughput.restart()
                    tracker.log_scalars(done, line)
                    note = f"loss {line['train/loss']:.3f}, {rate:,.0f} tokens/s"
                if saves:
                    _check_new_weights(evaluate, state, rows, float(schedule(step)))
                    save(checkpoints, state)
                bar.advance(note)
    return state.params


def total_steps(
    config: SFTConfig, sequences: Sequence[Encoded], paraphrases: Sequence[Sequence[Encoded]] = ()
) -> int:
    """Optimiser steps that `train` takes. Raises UserError for sequences that cannot work."""
    return _total_steps(config, make_batches(config, sequences, paraphrases)[0])


def _total_steps(config: SFTConfig, batches: Batches) -> int:
    return config.steps or max(1, round(config.epochs * batches.per_epoch))


def check(config: SFTConfig, mesh: Mesh) -> None:
    """Raises UserError for settings that cannot work, on any mesh or on this one."""
    config.validate()
    check_batch_fits(config.micro_rows, config.row_length, mesh, "sft")


def save(checkpoints: Checkpoints, state: TrainState) -> None:
    save_state(checkpoints, SavedState(int(state.step), state.params, (state.opt_state, state.step)))


def resume(checkpoints: Checkpoints, state: TrainState) -> TrainState:
    """The state in the newest intact checkpoint, with the shardings of `state`; `state` if nothing has been saved.

    Raises CheckpointError.
    """
    saved = resume_state(checkpoints, state.params, (state.opt_state, state.step))
    if saved is None:
        return state
    resumed = TrainState(saved.params, *saved.training)
    if int(resumed.step) != saved.step:
        raise CheckpointError(
            f"checkpoint {saved.step} of SFT holds step {int(resumed.step)}: its folder was renamed; rename it back"
        )
    return resumed


def _check(unchecked: list[tuple[int, Metrics]], schedule: optax.Schedule) -> None:
    """Raises NotFiniteError for the first of these steps that diverged. Empties the list."""
    for step, metrics in unchecked:
        quantities = {
            "the loss": metrics["loss"],
            "the gradient's norm": metrics["grad_norm"],
            "the parameters": metrics["params_finite"],
            "the optimiser's moments": metrics["optimiser_finite"],
        }
        GUARD.require(quantities, f"at step {step + 1}", float(schedule(step)))
    unchecked.clear()


def _check_new_weights(
    evaluate: _Evaluation, state: TrainState, rows: RowArrays, learning_rate: float
) -> None:
    """Finite weights can still be too large to compute with: a loss is computed before they are saved.

    Raises NotFiniteError.
    """
    quantities = {"the loss with the new weights": evaluate.loss(state.params, rows)}
    GUARD.require(quantities, f"after step {int(state.step)}", learning_rate)


def _eval_loss(evaluate: _Evaluation, state: TrainState, learning_rate: float) -> float:
    """Raises NotFiniteError."""
    loss = evaluate(state.params)
    GUARD.require({"the evaluation loss": loss}, f"after step {int(state.step)}", learning_rate)
    return loss


def _train_metrics(
    metrics: Metrics, learning_rate: float, tokens: int, tokens_per_second: float
) -> dict[str, float]:
    """The metrics of one step. tokens: since training began. tokens_per_second: of one device."""
    line = {f"train/{name}": float(metrics[name]) for name in ("loss", "grad_norm", "action_tokens")}
    return line | {
        "train/lr": learning_rate,
        "train/total_tokens": tokens,
        "perf/throughput": tokens_per_second,
    }


def _is_due(done: int, every: int, total: int) -> bool:
    """Whether what happens every so many steps, and at the end, happens after this one."""
    return done % every == 0 or done == total


class _Throughput:
    """Tokens trained on, in total and by second."""

    def __init__(self, tokens: int) -> None:
        self.total = self._before = tokens
        self._since = time.monotonic()

    def rate(self) -> float:
        """Tokens a second since the last call."""
        tokens, elapsed = self.total - self._before, time.monotonic() - self._since
        self._before = self.total
        self.restart()
        return tokens / max(elapsed, 1e-9)

    def restart(self) -> None:
        """Leaves out the time since the last call of `rate`, such as that of an evaluation."""
        self._since = time.monotonic()


def _device_batch(config: SFTConfig, rows: RowArrays, mesh: Mesh) -> MicroBatches:
    shape = (-1, config.micro_rows, config.row_length)
    micro_batches = {name: array.reshape(shape) for name, array in rows.items()}
    on_device: MicroBatches = put(micro_batches, batch_sharding(mesh, leading=1))
    return on_device


class _Evaluation:
    """Losses without an optimiser step. Calling it gives the mean loss over all held-out action tokens."""

    def __init__(self, config: SFTConfig, model: Qwen2Config, rows: PackedRows | None, mesh: Mesh):
        self._mesh, self._micro_rows = mesh, config.micro_rows
        self._step = compile_eval_step(model, mesh)
        count = 0 if rows is None else len(rows.tokens)
        chunks = np.arange(count).reshape(-1, config.micro_rows)
        self._batches = (
            [put(rows.take(chunk), batch_sharding(mesh)) for chunk in chunks] if rows is not None else []
        )

    def loss(self, params: Params, rows: RowArrays) -> float:
        """The loss of the first micro-batch of these rows, summed over its action tokens."""
        first = {name: array[: self._micro_rows] for name, array in rows.items()}
        return float(self._step(params, put(first, batch_sharding(self._mesh)))[0])

    def __call__(self, params: Params) -> float:
        sums = [self._step(params, batch) for batch in self._batches]
        return float(sum(float(loss) for loss, _ in sums) / max(sum(float(n) for _, n in sums), 1))

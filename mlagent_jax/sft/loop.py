"""The supervised fine-tuning loop: resumable at any step, the same result however often it was killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from mlagent_jax.finite import Guard, require_finite
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params, with_adapters
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import batch_sharding, check_batch_fits, param_shardings, put
from mlagent_jax.run_folder import CHECKPOINTS
from mlagent_jax.sft.batches import make_batches
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.step import Metrics, compile_eval_step, compile_train_step
from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import PackedRows
from mlagent_jax.tracking.tracker import Tracking
from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints
from mlagent_jax.training.optimisers import make_optimiser, make_schedule
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.state import TrainState, init_state, state_shardings, with_shardings

CHECKPOINT_ITEMS = ("params", "training")
GUARD = Guard("SFT", "sft.optimiser.learning_rate")


def train(
    config: SFTConfig,
    model: Qwen2Config,
    params: Any,
    sequences: Sequence[Encoded],
    workdir: Path,
    mesh: Mesh,
    tracking: Tracking = Tracking(),
) -> Any:
    """Fine-tunes `params` on `sequences` (one a trajectory) and returns the result, laid out over the mesh.

    params: where to start from, the same on every process. With `model.lora` they stay as they are, adapters are
    trained beside them, and the result has both. Goes on from the newest checkpoint in `workdir`,
    to the same bits as an uninterrupted run: the order of the rows follows from seed and step. Writes
    `workdir/checkpoints/` and what `tracking` chooses; the metrics are those of tracking/METRICS.md.
    Raises UserError for settings or sequences that cannot work, and NotFiniteError where training diverges: what was
    saved before stays, and nothing is written of the step that did.
    """
    check(config, mesh)
    batches, eval_rows = make_batches(config, sequences)
    total = config.steps or max(1, round(config.epochs * batches.per_epoch))
    optimiser = make_optimiser(config.optimiser, total)
    schedule = make_schedule(config.optimiser, total)
    shardings = param_shardings(model, mesh)
    require_finite(params, "the weights that SFT starts from", "start from others")
    params = put(with_adapters(model, params, config.seed), shardings)
    state = init_state(params, shardings, optimiser, mesh)
    del params  # the state has copies; where the caller keeps none, these need not last as long as training
    layout = state_shardings(state.params, shardings, optimiser, mesh)
    step_function = compile_train_step(model, optimiser, layout)
    evaluate = _Evaluation(config, model, eval_rows, mesh)

    with Checkpoints(workdir / CHECKPOINTS, CHECKPOINT_ITEMS, config.keep) as checkpoints:
        state = resume(checkpoints, state)
        start = int(state.step)
        main = distributed.is_main()
        tokens_seen = batches.tokens(0, start)
        with tracking.open(workdir, start) as tracker, ProgressBar("sft", total, start, shown=main) as bar:
            clock, since = time.monotonic(), tokens_seen
            unchecked: list[tuple[int, Metrics]] = []
            for step in range(start, total):
                rows = batches.rows(step)
                tokens_seen += batches.tokens(step, step + 1)
                state, metrics = step_function(state, _device_batch(config, rows, mesh))
                unchecked.append((step, metrics))
                done = step + 1
                evaluates = eval_rows is not None and (done % config.eval_every == 0 or done == total)
                if done % config.log_every == 0 or evaluates or done == total:
                    _check(unchecked, schedule)
                    line = {
                        f"train/{name}": float(metrics[name])
                        for name in ("loss", "grad_norm", "action_tokens")
                    }
                    elapsed = time.monotonic() - clock
                    rate = (tokens_seen - since) / max(elapsed, 1e-9)
                    clock, since = time.monotonic(), tokens_seen
                    line |= {
                        "train/lr": float(schedule(step)),
                        "train/total_tokens": tokens_seen,
                        "perf/throughput": rate / mesh.size,
                    }
                    if evaluates:
                        line["val/loss"] = evaluate(state.params)
                        GUARD.require(
                            {"the evaluation loss": line["val/loss"]},
                            f"after step {done}",
                            float(schedule(step)),
                        )
                        clock = time.monotonic()
                    tracker.log_scalars(done, line)
                    note = f"loss {line['train/loss']:.3f}, {rate:,.0f} tokens/s"
                else:
                    note = ""
                if done % config.checkpoint_every == 0 or done == total:
                    _check(unchecked, schedule)
                    # Finite weights may be too large to compute with: they are tried before they are saved.
                    tried = evaluate.loss(state.params, rows)
                    GUARD.require(
                        {"the loss with the new weights": tried}, f"after step {done}", float(schedule(step))
                    )
                    save(checkpoints, state)
                bar.advance(note)
    return state.params


def check(config: SFTConfig, mesh: Mesh) -> None:
    """Raises UserError where the settings cannot work, alone or on this mesh."""
    config.validate()
    check_batch_fits(config.micro_rows, config.row_length, mesh, "sft")


def load_params(folder: Path, model: Qwen2Config, mesh: Mesh) -> Any:
    """What the stage that wrote `folder/checkpoints` learnt last, "sft" or "ppo", laid out over the mesh.

    model: as that stage was given it, with adapters if it had any.

    Raises CheckpointError where there is none, or it is of another model.
    """
    target = with_shardings(abstract_params(model), param_shardings(model, mesh))
    with Checkpoints(folder / CHECKPOINTS, CHECKPOINT_ITEMS) as checkpoints:
        return checkpoints.restore(params=target)["params"]


def save(checkpoints: Checkpoints, state: TrainState) -> None:
    """Params apart from the rest, so that a later stage can read them alone."""
    checkpoints.save(int(state.step), params=state.params, training=(state.opt_state, state.step))


def resume(checkpoints: Checkpoints, state: TrainState) -> TrainState:
    """The newest whole state that was saved, with the shardings of `state`; `state` where there is none."""
    found = checkpoints.resume(params=state.params, training=(state.opt_state, state.step))
    if found is None:
        return state
    number, saved = found
    resumed = TrainState(saved["params"], *saved["training"])
    if int(resumed.step) != number:
        raise CheckpointError(
            f"checkpoint {number} of SFT holds step {int(resumed.step)}: it was renamed; give it its number back"
        )
    return resumed


def _check(unchecked: list[tuple[int, Metrics]], schedule: optax.Schedule) -> None:
    """Raises NotFiniteError for the first of these steps that diverged; empties the list."""
    for step, metrics in unchecked:
        quantities = {
            "the loss": metrics["loss"],
            "the gradient's norm": metrics["grad_norm"],
            "the parameters": metrics["params_finite"],
            "the optimiser's moments": metrics["optimiser_finite"],
        }
        GUARD.require(quantities, f"at step {step + 1}", float(schedule(step)))
    unchecked.clear()


def _device_batch(config: SFTConfig, rows: dict[str, np.ndarray], mesh: Mesh) -> Any:
    shape = (-1, config.micro_rows, config.row_length)
    return put({name: array.reshape(shape) for name, array in rows.items()}, batch_sharding(mesh, leading=1))


class _Evaluation:
    """Losses without a step. Called, the mean over the held-out action tokens, whose rows are put on the mesh once."""

    def __init__(self, config: SFTConfig, model: Qwen2Config, rows: PackedRows | None, mesh: Mesh):
        self._mesh, self._micro_rows = mesh, config.micro_rows
        self._step = compile_eval_step(model, mesh)
        count = 0 if rows is None else len(rows.tokens)
        chunks = np.arange(count).reshape(-1, config.micro_rows)
        self._batches = (
            [put(rows.take(chunk), batch_sharding(mesh)) for chunk in chunks] if rows is not None else []
        )

    def loss(self, params: Any, rows: dict[str, np.ndarray]) -> float:
        """The loss of the first micro-batch of these rows, summed over its tokens."""
        first = {name: array[: self._micro_rows] for name, array in rows.items()}
        return float(self._step(params, put(first, batch_sharding(self._mesh)))[0])

    def __call__(self, params: Any) -> float:
        sums = [self._step(params, batch) for batch in self._batches]
        return float(sum(float(loss) for loss, _ in sums) / max(sum(float(n) for _, n in sums), 1))

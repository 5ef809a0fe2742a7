"""The supervised fine-tuning loop: resumable at any step, the same result however often it was killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params, with_adapters
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import batch_sharding, check_batch_fits, param_shardings, put
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.step import compile_eval_step, compile_train_step
from mlagent_jax.text.chat import Encoded, require_supervision
from mlagent_jax.text.packing import PackedRows, pack, pad_rows
from mlagent_jax.training.checkpoints import Checkpoints
from mlagent_jax.training.metrics import MetricsWriter
from mlagent_jax.training.optimisers import make_optimiser, make_schedule
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.state import TrainState, init_state, state_shardings, with_shardings

CHECKPOINT_ITEMS = ("params", "training")

_log = logging.getLogger("mlagent_jax")


def train(
    config: SFTConfig,
    model: Qwen2Config,
    params: Any,
    sequences: Sequence[Encoded],
    workdir: Path,
    mesh: Mesh,
) -> Any:
    """Fine-tunes `params` on `sequences` (one a trajectory) and returns the result, laid out over the mesh.

    params: where to start from, the same on every process. With `model.lora` they stay as they are, adapters are
    trained beside them, and the result has both. Goes on from the newest checkpoint in `workdir`,
    to the same bits as an uninterrupted run: the order of the rows follows from seed and step. Writes
    `workdir/checkpoints/`, `workdir/metrics.jsonl` and TensorBoard events.
    Raises UserError for settings or sequences that cannot work.
    """
    check(config, mesh)
    train_rows, eval_rows = make_rows(config, sequences)
    total = total_steps(config, train_rows)
    optimiser = make_optimiser(config.optimiser, total)
    schedule = make_schedule(config.optimiser, total)
    shardings = param_shardings(model, mesh)
    params = put(with_adapters(model, params, config.seed), shardings)
    state = init_state(params, shardings, optimiser, mesh)
    del params  # the state has copies; where the caller keeps none, these need not last as long as training
    layout = state_shardings(state.params, shardings, optimiser, mesh)
    step_function = compile_train_step(model, optimiser, layout)
    evaluate = _Evaluation(config, model, eval_rows, mesh)

    with Checkpoints(workdir / "checkpoints", CHECKPOINT_ITEMS, config.keep) as checkpoints:
        if checkpoints.latest() is not None:
            state = restore(checkpoints, state)
        start = int(state.step)
        main = distributed.is_main()
        writer = MetricsWriter(workdir, start, enabled=main)
        rows_seen = start * config.batch_rows
        tokens_seen = int(_tokens_of(train_rows)[_order(config, train_rows, 0, rows_seen)].sum())
        with ProgressBar("sft", total, start, shown=main) as bar:
            clock, since = time.monotonic(), tokens_seen
            for step in range(start, total):
                rows = _order(config, train_rows, step * config.batch_rows, (step + 1) * config.batch_rows)
                tokens_seen += int(_tokens_of(train_rows)[rows].sum())
                state, metrics = step_function(state, _device_batch(config, train_rows, rows, mesh))
                done = step + 1
                if done % config.log_every == 0 or done == total:
                    line = {name: float(value) for name, value in metrics.items() if name != "tokens"}
                    elapsed = time.monotonic() - clock
                    rate = (tokens_seen - since) / max(elapsed, 1e-9)
                    clock, since = time.monotonic(), tokens_seen
                    line |= {"tokens": tokens_seen, "tokens_per_second": rate, "lr": float(schedule(step))}
                    if eval_rows is not None and (done % config.eval_every == 0 or done == total):
                        line["eval_loss"] = evaluate(state.params)
                        clock = time.monotonic()
                    writer.write(done, line)
                    note = f"loss {line['loss']:.3f}, {rate:,.0f} tokens/s"
                else:
                    note = ""
                if done % config.checkpoint_every == 0 or done == total:
                    save(checkpoints, state)
                bar.advance(note)
        writer.close()
    return state.params


def check(config: SFTConfig, mesh: Mesh) -> None:
    """Raises UserError where the settings cannot work, alone or on this mesh."""
    config.validate()
    check_batch_fits(config.micro_rows, config.row_length, mesh, "sft")


def make_rows(config: SFTConfig, sequences: Sequence[Encoded]) -> tuple[PackedRows, PackedRows | None]:
    """Training and held-out rows; whole sequences are held out, at least one if `eval_fraction` is not 0."""
    for number, sequence in enumerate(sequences):
        require_supervision(sequence, f"trajectory {number}")
    order = np.random.default_rng([config.seed, 0]).permutation(len(sequences))
    held_out = int(np.ceil(config.eval_fraction * len(sequences)))
    if held_out >= len(sequences):
        raise UserError(
            f"{len(sequences)} trajectories leave none to train on after holding out {held_out} "
            f"(sft.eval_fraction {config.eval_fraction}); collect more, or set it to 0"
        )
    evaluation = [sequences[i] for i in sorted(order[:held_out])]
    training = [sequences[i] for i in sorted(order[held_out:])]
    rows = pack(training, config.row_length)
    if not rows.action.any():
        raise UserError(
            f"none of {len(training)} trajectories has an action within sft.row_length {config.row_length}"
        )
    if rows.cut:
        _log.warning(
            "%d of %d trajectories are longer than sft.row_length %d: cut at a step, %d of them away",
            rows.cut,
            len(training),
            config.row_length,
            rows.dropped,
        )
    eval_rows = pad_rows(pack(evaluation, config.row_length), config.micro_rows) if evaluation else None
    return rows, eval_rows


def total_steps(config: SFTConfig, rows: PackedRows) -> int:
    return config.steps or max(1, round(config.epochs * len(rows.tokens) / config.batch_rows))


def load_params(folder: Path, model: Qwen2Config, mesh: Mesh) -> Any:
    """What the stage that wrote `folder/checkpoints` learnt last, "sft" or "ppo", laid out over the mesh.

    model: as that stage was given it, with adapters if it had any.

    Raises CheckpointError where there is none, or it is of another model.
    """
    target = with_shardings(abstract_params(model), param_shardings(model, mesh))
    with Checkpoints(folder / "checkpoints", CHECKPOINT_ITEMS) as checkpoints:
        return checkpoints.restore(params=target)["params"]


def save(checkpoints: Checkpoints, state: TrainState) -> None:
    """Params apart from the rest, so that a later stage can read them alone."""
    checkpoints.save(int(state.step), params=state.params, training=(state.opt_state, state.step))


def restore(checkpoints: Checkpoints, state: TrainState) -> TrainState:
    """The newest saved state, with the shardings of `state`."""
    saved = checkpoints.restore(params=state.params, training=(state.opt_state, state.step))
    return TrainState(saved["params"], *saved["training"])


def _order(config: SFTConfig, rows: PackedRows, start: int, stop: int) -> np.ndarray:
    """Rows number `start` to `stop` of an endless stream of permutations, one an epoch."""
    n = len(rows.tokens)
    epochs = range(start // n, -(-stop // n))
    stream = [np.random.default_rng([config.seed, 1, epoch]).permutation(n) for epoch in epochs]
    offset = start // n * n
    return np.concatenate([*stream, np.array([], int)])[start - offset : stop - offset]


def _tokens_of(rows: PackedRows) -> np.ndarray:
    return (rows.segment_ids > 0).sum(1)


def _device_batch(config: SFTConfig, rows: PackedRows, chosen: np.ndarray, mesh: Mesh) -> Any:
    shape = (-1, config.micro_rows, config.row_length)
    batch = {name: array.reshape(shape) for name, array in rows.take(chosen).items()}
    return put(batch, batch_sharding(mesh, leading=1))


class _Evaluation:
    """Mean loss on the held-out action tokens; its rows are put on the mesh once."""

    def __init__(self, config: SFTConfig, model: Qwen2Config, rows: PackedRows | None, mesh: Mesh):
        self._step = compile_eval_step(model, mesh)
        count = 0 if rows is None else len(rows.tokens)
        chunks = np.arange(count).reshape(-1, config.micro_rows)
        self._batches = (
            [put(rows.take(chunk), batch_sharding(mesh)) for chunk in chunks] if rows is not None else []
        )

    def __call__(self, params: Any) -> float:
        sums = [self._step(params, batch) for batch in self._batches]
        return float(sum(float(loss) for loss, _ in sums) / max(sum(float(n) for _, n in sums), 1))

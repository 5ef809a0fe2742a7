"""Batches of packed rows: which trajectories each step trains on, as a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from absl import logging
from jaxtyping import Int, Shaped

from mlagent_jax.errors import UserError
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.text.chat import Encoded, require_supervision
from mlagent_jax.text.packing import PackedRows, cut_at_step, pack, pad_rows, rows_needed

RowArrays = dict[str, Shaped[np.ndarray, "R T"]]


class Batches(Protocol):
    """per_epoch: how many steps make one pass over the training trajectories."""

    per_epoch: float

    def rows(self, step: int) -> RowArrays:
        """The arrays of `text.packing` for a step (counted from 0); the number of rows is the same in every step."""
        ...

    def tokens(self, start: int, stop: int) -> int:
        """The number of tokens in the steps from `start` up to, not including, `stop`."""
        ...


def make_batches(
    config: SFTConfig, sequences: Sequence[Encoded], paraphrases: Sequence[Sequence[Encoded]] = ()
) -> tuple[Batches, PackedRows | None]:
    """Batches of the training trajectories, and the rows of the held-out ones, if there are any. Raises UserError.

    paraphrases: of each sequence; they are trained on beside it, unless it is held out.
    """
    training, held_out = _split(config, sequences, paraphrases)
    if config.batch_sequences:
        return SequenceBatches(config, training), _held_out_rows(config, held_out)
    return RowBatches(config, pack(training, config.row_length)), _held_out_rows(config, held_out)


def cut_counts(sequences: Sequence[Encoded], length: int) -> tuple[int, int]:
    """How many sequences are longer than a row, and so cut at a step; how many of those have no action left."""
    kept = [cut_at_step(sequence, length) for sequence in sequences]
    cut = sum(len(a.tokens) < len(b.tokens) for a, b in zip(kept, sequences, strict=True))
    return cut, sum(len(sequence.tokens) == 0 for sequence in kept)


class RowBatches:
    """`batch_rows` rows in each step, however many trajectories they contain. The packing never changes."""

    def __init__(self, config: SFTConfig, rows: PackedRows):
        self._config, self._rows = config, rows
        self._row_tokens = (rows.segment_ids > 0).sum(1)
        self.per_epoch = len(rows.tokens) / config.batch_rows

    def rows(self, step: int) -> RowArrays:
        return self._rows.take(self._indices(step, step + 1))

    def tokens(self, start: int, stop: int) -> int:
        return int(self._row_tokens[self._indices(start, stop)].sum())

    def _indices(self, start: int, stop: int) -> Int[np.ndarray, " rows"]:
        size = self._config.batch_rows
        return shuffled(self._config.seed, len(self._rows.tokens), start * size, stop * size)


class SequenceBatches:
    """`batch_sequences` trajectories in each step, packed into as many rows as the fullest step of the run needs."""

    def __init__(self, config: SFTConfig, sequences: Sequence[Encoded]):
        kept = [cut_at_step(sequence, config.row_length) for sequence in sequences]
        self._config = config
        self._sequences = [sequence for sequence in kept if len(sequence.tokens)]
        self._sizes = np.array([len(sequence.tokens) for sequence in self._sequences])
        self.per_epoch = len(self._sequences) / config.batch_sequences
        steps = config.steps or max(1, round(config.epochs * self.per_epoch))
        most = max(rows_needed(self._sizes[self._indices(step)], config.row_length) for step in range(steps))
        self._row_count = -(-most // config.micro_rows) * config.micro_rows

    def rows(self, step: int) -> RowArrays:
        members = [self._sequences[i] for i in self._indices(step)]
        packed = pad_rows(pack(members, self._config.row_length), self._row_count)
        return packed.take(np.arange(self._row_count))

    def tokens(self, start: int, stop: int) -> int:
        return sum(int(self._sizes[self._indices(step)].sum()) for step in range(start, stop))

    def _indices(self, step: int) -> Int[np.ndarray, " sequences"]:
        size = self._config.batch_sequences
        return shuffled(self._config.seed, len(self._sequences), step * size, (step + 1) * size)


def shuffled(seed: int, count: int, start: int, stop: int) -> Int[np.ndarray, " members"]:
    """Members `start` to `stop` of an endless stream of permutations of range(count), one for each epoch."""
    epochs = range(start // count, -(-stop // count))
    stream = [np.random.default_rng([seed, 1, epoch]).permutation(count) for epoch in epochs]
    offset = start // count * count
    return np.concatenate([*stream, np.array([], int)])[start - offset : stop - offset]


def _split(
    config: SFTConfig, sequences: Sequence[Encoded], paraphrases: Sequence[Sequence[Encoded]]
) -> tuple[list[Encoded], list[Encoded]]:
    """Training and held-out sequences: at least one is held out, unless `eval_fraction` is 0.

    Raises UserError if there is nothing to train on.
    """
    for number, sequence in enumerate(sequences):
        require_supervision(sequence, f"trajectory {number}")
    order = np.random.default_rng([config.seed, 0]).permutation(len(sequences))
    held_out = int(np.ceil(config.eval_fraction * len(sequences)))
    if held_out >= len(sequences):
        raise UserError(
            f"{len(sequences)} trajectories leave none to train on after holding out {held_out} "
            f"(sft.eval_fraction {config.eval_fraction}); collect more, or set it to 0"
        )
    kept = sorted(order[held_out:])
    training = [sequences[i] for i in kept]
    if paraphrases:
        training += [one for i in kept for one in paraphrases[i]]
    if cut_counts(training, config.row_length)[1] == len(training):
        raise UserError(
            f"none of {len(training)} trajectories has an action within sft.row_length {config.row_length}"
        )
    cut, dropped = cut_counts(sequences, config.row_length)
    if cut:
        logging.warning(
            "%d of %d trajectories are longer than sft.row_length %d and are cut at a step; %d of these have no action "
            "left",
            cut,
            len(sequences),
            config.row_length,
            dropped,
        )
    return training, [sequences[i] for i in sorted(order[:held_out])]


def _held_out_rows(config: SFTConfig, held_out: Sequence[Encoded]) -> PackedRows | None:
    rows = pack(held_out, config.row_length)
    if held_out and not len(rows.tokens):
        logging.warning(
            "no evaluation loss: none of the %d held-out trajectories has an action within sft.row_length %d",
            len(held_out),
            config.row_length,
        )
    return pad_rows(rows, config.micro_rows) if len(rows.tokens) else None

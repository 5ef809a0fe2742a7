"""Packs sequences into rows of equal length. Segment ids separate them, so packing does not change the loss.

What a loss needs is stored at the position of the prediction: position i of a row predicts `targets[i]`, which is the
row's token i + 1, and `action[i]` says whether the agent sampled that token.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from mlagent_jax.text.chat import Encoded


@dataclass(frozen=True)
class Placement:
    """Where a sequence was packed: row, first position and length; row -1 if it was dropped."""

    row: int
    start: int
    length: int


@dataclass(frozen=True)
class PackedRows:
    """R rows of T tokens, as int32.

    segment_ids: 0 is padding; the sequences of a row are numbered from 1, from left to right.
    positions: restart at 0 in each segment.
    action: whether the token in `targets` is an action token.
    placements: one for each sequence.
    cut: how many sequences were truncated. dropped: how many of those had no action left.
    """

    tokens: Int[np.ndarray, "R T"]
    targets: Int[np.ndarray, "R T"]
    segment_ids: Int[np.ndarray, "R T"]
    positions: Int[np.ndarray, "R T"]
    action: Bool[np.ndarray, "R T"]
    placements: tuple[Placement, ...]
    cut: int
    dropped: int

    @property
    def fill(self) -> float:
        """The fraction of positions with a token."""
        return float((self.segment_ids > 0).mean()) if self.segment_ids.size else 0.0

    def take(self, rows: Int[np.ndarray, " N"]) -> dict[str, Shaped[np.ndarray, "N T"]]:
        """The arrays named in ROW_ARRAYS, for some of the rows."""
        return {name: getattr(self, name)[rows] for name in ROW_ARRAYS}


ROW_ARRAYS = ("tokens", "targets", "segment_ids", "positions", "action")


def cut_at_step(sequence: Encoded, length: int) -> Encoded:
    """The longest prefix of `sequence` that ends with a complete action and has at most `length` tokens."""
    if len(sequence.tokens) <= length:
        return sequence
    ranges = tuple((start, end) for start, end in sequence.response_ranges if end <= length)
    end = ranges[-1][1] if ranges else 0
    return Encoded(sequence.tokens[:end], sequence.action[:end], ranges)


def pack(sequences: Sequence[Encoded], length: int) -> PackedRows:
    """Packs by best-fit decreasing. Sequences longer than `length` are truncated by `cut_at_step`, and counted."""
    kept = [cut_at_step(sequence, length) for sequence in sequences]
    sizes = [len(sequence.tokens) for sequence in kept]
    placements, rows = _best_fit(sizes, length)
    packed = PackedRows(
        tokens=np.zeros((rows, length), np.int32),
        targets=np.zeros((rows, length), np.int32),
        segment_ids=np.zeros((rows, length), np.int32),
        positions=np.zeros((rows, length), np.int32),
        action=np.zeros((rows, length), bool),
        placements=tuple(placements),
        cut=sum(size < len(sequence.tokens) for size, sequence in zip(sizes, sequences, strict=True)),
        dropped=sizes.count(0),
    )
    segments = np.zeros(rows, np.int32)
    for sequence, place in sorted(zip(kept, placements, strict=True), key=lambda pair: pair[1].start):
        if place.row < 0:
            continue
        segments[place.row] += 1
        here = slice(place.start, place.start + place.length)
        before = slice(place.start, place.start + place.length - 1)
        packed.tokens[place.row, here] = sequence.tokens
        packed.segment_ids[place.row, here] = segments[place.row]
        packed.positions[place.row, here] = np.arange(place.length)
        packed.targets[place.row, before] = sequence.tokens[1:]
        packed.action[place.row, before] = sequence.action[1:]
    return packed


def rows_needed(sizes: Sequence[int] | Int[np.ndarray, " N"], length: int) -> int:
    """How many rows `pack` needs for sequences of these sizes, none of them longer than `length`."""
    return _best_fit(list(sizes), length)[1]


def _best_fit(sizes: Sequence[int], length: int) -> tuple[list[Placement], int]:
    """The placement of each sequence, and the number of rows."""
    placements = [Placement(-1, 0, 0)] * len(sizes)
    spaces: list[tuple[int, int]] = []  # (free positions, row), sorted
    rows = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if sizes[index] == 0:
            continue
        fit = bisect.bisect_left(spaces, (sizes[index], -1))
        if fit < len(spaces):
            free, row = spaces.pop(fit)
        else:
            free, row = length, rows
            rows += 1
        placements[index] = Placement(row, length - free, sizes[index])
        bisect.insort(spaces, (free - sizes[index], row))
    return placements, rows


def pad_rows(packed: PackedRows, multiple: int) -> PackedRows:
    """Adds empty rows until there are a multiple of `multiple`. They have no action, and so no loss."""
    missing = -len(packed.tokens) % multiple
    padded: dict[str, Any] = {
        name: np.pad(getattr(packed, name), ((0, missing), (0, 0))) for name in ROW_ARRAYS
    }
    return dataclasses.replace(packed, **padded)

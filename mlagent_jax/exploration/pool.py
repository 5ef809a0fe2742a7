"""Idea pools: a fixed, diverse set of one-line ideas for each task, from which an episode's ideas are drawn.

Version 1 has one pool. Version 2 has one for each of three axes (arXiv 2505.23723, section 4.1; v2, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.exploration.diversity import farthest_point, top_by_mean_distance
from mlagent_jax.exploration.embedding import Embedder
from mlagent_jax.exploration.ideas import AXES, IdeaError, IdeaWriter
from mlagent_jax.fields import check, setting
from mlagent_jax.tasks.task import Task

SCHEMA_VERSION = 1
SINGLE_POOL = "all"  # the one axis of a version 1 pool
MAX_DRAWN = 3


@dataclass(frozen=True)
class PoolConfig:
    """version: "v1" or "v2". candidates, keep: for the one pool (v1; in the paper 100 and 10) or for each axis (v2)."""

    version: str = setting("v2", choices=("v1", "v2"))
    candidates: int = setting(40, at_least=1)
    keep: int = setting(4, at_least=1)

    def __post_init__(self) -> None:
        check(self, "ideas")
        if self.keep > self.candidates:
            raise UserError(
                f"ideas.keep is {self.keep}, but must be at most ideas.candidates, {self.candidates}"
            )


@dataclass(frozen=True)
class IdeaPool:
    """The ideas that were kept, and the candidates they were selected from, by axis."""

    task: str
    version: str
    writer: str
    embedder: str
    seed: int
    kept: Mapping[str, tuple[str, ...]]
    candidates: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, which `from_json` reads."""
        return {"schema": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for a record of another schema."""
        if record["schema"] != SCHEMA_VERSION:
            raise ValueError(f"idea pool schema {record['schema']}, but this version reads {SCHEMA_VERSION}")
        fields = {name: value for name, value in record.items() if name != "schema"}
        for name in ("kept", "candidates"):
            fields[name] = {axis: tuple(ideas) for axis, ideas in fields[name].items()}
        return cls(**fields)


def build_pool(task: Task, writer: IdeaWriter, embedder: Embedder, config: PoolConfig, seed: int) -> IdeaPool:
    """Gets candidates from `writer` and selects by the version's rule. Deterministic in its arguments.

    seed: for the first idea of each axis (v2); the others are those farthest from it. Raises IdeaError if the writer
    has fewer distinct ideas than are to be kept.
    """
    rng = np.random.default_rng(seed)
    axes = (SINGLE_POOL,) if config.version == "v1" else AXES
    candidates: dict[str, tuple[str, ...]] = {}
    kept: dict[str, tuple[str, ...]] = {}
    for axis in axes:
        requested = None if axis == SINGLE_POOL else axis
        lines = tuple(dict.fromkeys(writer.write(task, requested, config.candidates)))
        if len(lines) < config.keep:
            raise IdeaError(
                f"task {task.name!r}: {writer.name} wrote {len(lines)} distinct ideas on axis {axis!r}, "
                f"but {config.keep} are to be kept; lower ideas.keep or use another writer"
            )
        embeddings = embedder.embed(lines)
        if config.version == "v1":
            chosen = top_by_mean_distance(embeddings, config.keep)
        else:
            chosen = farthest_point(embeddings, config.keep, start=int(rng.integers(len(lines))))
        candidates[axis] = lines
        kept[axis] = tuple(lines[index] for index in chosen)
    return IdeaPool(task.name, config.version, writer.name, embedder.name, seed, kept, candidates)


def draw(pool: IdeaPool, rng: np.random.Generator) -> tuple[str, ...]:
    """1 to 3 ideas for one episode: from the one pool (v1), or one from each of as many axes, shuffled (v2)."""
    if pool.version == "v1":
        ideas = pool.kept[SINGLE_POOL]
        count = min(int(rng.integers(1, MAX_DRAWN + 1)), len(ideas))
        return tuple(ideas[index] for index in rng.permutation(len(ideas))[:count])
    axes = sorted(pool.kept)
    count = min(int(rng.integers(1, MAX_DRAWN + 1)), len(axes))
    chosen = [axes[index] for index in rng.permutation(len(axes))[:count]]
    return tuple(pool.kept[axis][int(rng.integers(len(pool.kept[axis])))] for axis in chosen)

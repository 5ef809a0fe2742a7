"""Checkpoints of a whole training state by orbax: atomic, the latest few kept, restored onto any sharding."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from mlagent_jax.errors import UserError


class CheckpointError(UserError):
    """A checkpoint is absent or does not fit what it is to be restored into."""


class Checkpoints:
    """Numbered states under one folder. All processes must call each method, with their shards of the arrays.

    items: names of the trees that make up a state; each can be read alone.
    keep: how many of the newest to keep. asynchronous: whether `save` may return before all is on disk.
    """

    def __init__(self, folder: Path, items: Sequence[str], keep: int = 2, asynchronous: bool = False):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={name: ocp.StandardCheckpointHandler() for name in items},
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=asynchronous),
        )

    def latest(self) -> int | None:
        """The newest whole step; one that a kill left half-written does not count."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, **items: Any) -> None:
        """items: trees of arrays, by name. They appear together, whole, or not at all.

        Raises OSError (ENOSPC) where the disk is full; earlier checkpoints are as they were.
        """
        self._check_room(items)
        composite = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in items.items()})
        try:
            self._manager.save(step, args=composite, force=True)
        except ValueError as error:
            # tensorstore has an error type of its own for what the operating system said.
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)) from error
            raise

    def _check_room(self, items: dict[str, Any]) -> None:
        """Before anything is written: a write that fails halfway is told by orbax in many tracebacks."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
        if shutil.disk_usage(self._folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def restore(self, step: int | None = None, **targets: Any) -> dict[str, Any]:
        """The named items of `step` (the newest by default), with their targets' dtypes and shardings.

        targets: trees of arrays, or of `jax.ShapeDtypeStruct`s with a sharding, of the saved shapes; the mesh
        may be another one. Raises CheckpointError.
        """
        step = self.latest() if step is None else step
        if step is None or step not in self._manager.all_steps():
            wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{wanted} in {self._folder}: run the stage that writes it first")
        self._check_shapes(step, targets)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, targets)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return {name: restored[name] for name in targets}

    def _check_shapes(self, step: int, targets: dict[str, Any]) -> None:
        """orbax pads or cuts silently where shapes differ; a person should hear of it."""
        saved = self._manager.item_metadata(step)
        for item, target in targets.items():
            metadata = saved[item]
            stored = {} if metadata is None else _shapes(getattr(metadata, "tree", metadata))
            wanted = _shapes(target)
            for name in sorted(stored.keys() | wanted.keys()):
                if stored.get(name) != wanted.get(name):
                    raise CheckpointError(
                        f"checkpoint {self._folder / str(step)} is of another model or optimiser: "
                        f"{item}/{name} is {stored.get(name, 'absent')} there, but "
                        f"{wanted.get(name, 'absent')} is configured"
                    )

    def close(self) -> None:
        """Waits for what is still being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


def _name(path: tuple[Any, ...]) -> str:
    """ "params/layers/kernel" for any mixture of dictionaries, sequences and named tuples."""
    parts = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return "/".join(str(part) for part in parts)

"""Checkpoints of a whole training state by orbax: atomic, finite, the latest few kept, restored onto any sharding.

A checkpoint that a disk or a hand has damaged is named. Training goes on from the newest whole one and says so; a later
stage that reads a finished one refuses, since it would go on from less than was learnt.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mlagent_jax.errors import UserError
from mlagent_jax.finite import leaf_name, require_finite
from mlagent_jax.parallel import distributed

_log = logging.getLogger("mlagent_jax")


class CheckpointError(UserError):
    """A checkpoint is absent or does not fit what it is to be restored into."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint cannot be read whole, or holds what is not finite."""


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

        Raises OSError (ENOSPC) where the disk is full, and NotFiniteError for an array that holds a number that is not
        finite; earlier checkpoints are as they were.
        """
        for name, tree in items.items():
            require_finite(
                tree,
                f"checkpoint {step} of {self._folder} was not written, since training diverged: {name}",
                "lower the learning rate and start again in another work directory",
            )
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
        may be another one. Raises CheckpointError; DamagedCheckpointError says how to make the checkpoint anew.
        """
        step = self.latest() if step is None else step
        if step is None or step not in self._manager.all_steps():
            wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{wanted} in {self._folder}: run the stage that writes it first")
        try:
            return self._read(step, targets)
        except DamagedCheckpointError as error:
            done = self._folder.parent / "done.json"
            raise DamagedCheckpointError(
                f"{error}: delete that folder{f' and {done}' if done.exists() else ''}, then run the stage that "
                "writes it again, which goes on from the checkpoint before it"
            ) from error

    def resume(self, **targets: Any) -> tuple[int, dict[str, Any]] | None:
        """The newest whole step and its items, as `restore` reads them; None where nothing has been saved yet.

        Newer ones that are damaged are said aloud and put aside beside this folder, in FOLDER.damaged. Raises
        CheckpointError where none is whole, and then moves nothing.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem, items = "", {}
            try:
                items = self._read(step, targets)
            except DamagedCheckpointError as error:
                problem = str(error)
            if _all_agree(not problem):
                self._put_aside(damaged, step)
                return step, items
            damaged[step] = problem or "another process cannot read it"
        if damaged:
            told = "; ".join(damaged.values())
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} is whole ({told}): restore one from a copy, or delete "
                "that folder to begin this stage anew"
            )
        return None

    def _read(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
        """Raises DamagedCheckpointError, and CheckpointError for another model's."""
        path = self._folder / str(step)
        missing = [name for name in targets if not (path / name).is_dir()]
        if missing:
            raise DamagedCheckpointError(f"checkpoint {path} is damaged ({', '.join(missing)} is missing)")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, targets)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        try:
            self._check_shapes(step, targets)
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except (UserError, MemoryError, PermissionError, jax.errors.JaxRuntimeError):
            raise
        except (
            Exception
        ) as error:  # orbax and tensorstore raise bare Exception for a file that cannot be read
            said = " ".join(str(error).split()).partition(" See full TensorStore details")[0]
            raise DamagedCheckpointError(
                f"checkpoint {path} is damaged: a file of it cannot be read ({said[:160]})"
            ) from error
        for name in targets:
            try:
                require_finite(restored[name], name, "it was saved after training had diverged")
            except UserError as error:
                raise DamagedCheckpointError(f"checkpoint {path} is of no use ({error})") from error
        return {name: restored[name] for name in targets}

    def _put_aside(self, damaged: dict[int, str], whole: int) -> None:
        if not damaged:
            return
        aside = self._folder.with_name(f"{self._folder.name}.damaged")

        def move() -> None:
            for step, problem in damaged.items():
                _log.warning("%s; put aside in %s, going on from step %d", problem, aside, whole)
                shutil.rmtree(aside / str(step), ignore_errors=True)
                aside.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(aside / str(step))

        distributed.on_main(move)
        self._manager.reload()

    def _check_shapes(self, step: int, targets: dict[str, Any]) -> None:
        """orbax pads or cuts silently where shapes differ; a person should hear of it."""
        saved = self._manager.item_metadata(step)
        for item, target in targets.items():
            metadata = saved[item]
            stored = {} if metadata is None else _shapes(getattr(metadata, "tree", metadata))
            if not stored:
                raise DamagedCheckpointError(
                    f"checkpoint {self._folder / str(step)} is damaged ({item} holds no arrays)"
                )
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
    return {leaf_name(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


def _all_agree(mine: bool) -> bool:
    """Whether it is so on every process; all must call it."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))

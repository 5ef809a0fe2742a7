"""Checkpoints of a whole training state by orbax: atomic, finite, the newest few kept, restored onto any sharding.

Errors name a damaged checkpoint. Training resumes from the newest intact one and logs a warning. A later stage refuses
a damaged one instead, since an older one would silently lose training.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.finite import leaf_name, require_finite
from mlagent_jax.parallel import distributed
from mlagent_jax.run_folder import DAMAGED_SUFFIX, DONE


class CheckpointError(UserError):
    """A checkpoint is missing, or is of another model or optimiser than the one to restore."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint cannot be read completely, or contains numbers that are not finite."""


class Checkpoints:
    """Numbered checkpoints in one folder. All processes must call each method, with their shards of the arrays.

    items: names of the trees that make up a checkpoint; each can be restored alone.
    keep: how many of the newest to keep. asynchronous: whether `save` may return before everything is on disk.
    """

    def __init__(self, folder: Path, items: Sequence[str], keep: int = 2, asynchronous: bool = False):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={name: ocp.StandardCheckpointHandler() for name in items},
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=asynchronous),
        )

    def latest(self) -> int | None:
        """The newest complete step; one that was killed while being written does not count."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, **items: Any) -> None:
        """Writes all items or, if it fails, none. items: trees of arrays, by name.

        Raises OSError (ENOSPC) if the disk is full, and NotFiniteError if an array is not finite; earlier checkpoints
        are not changed.
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
            # tensorstore has no OSError: the operating system's message is inside its own error.
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)) from error
            raise

    def _check_room(self, items: dict[str, Any]) -> None:
        """Checks before writing, because a write that fails halfway makes orbax print many tracebacks."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
        if shutil.disk_usage(self._folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def restore(self, step: int | None = None, **targets: Any) -> dict[str, Any]:
        """The named items of `step` (the newest by default), with their targets' dtypes and shardings.

        targets: trees of arrays, or of `jax.ShapeDtypeStruct`s with shardings, in the saved shapes; they may be on
        another mesh. Raises CheckpointError, and DamagedCheckpointError, which says how to write the checkpoint again.
        """
        step = self.latest() if step is None else step
        if step is None or step not in self._manager.all_steps():
            missing = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{missing} in {self._folder}: run the stage that writes it first")
        try:
            return self._restore_checked(step, targets)
        except DamagedCheckpointError as error:
            done = self._folder.parent / DONE
            raise DamagedCheckpointError(
                f"{error}: delete that folder{f' and {done}' if done.exists() else ''}, then run the stage that "
                "writes it again, which resumes from the checkpoint before it"
            ) from error

    def resume(self, **targets: Any) -> tuple[int, dict[str, Any]] | None:
        """The newest intact step and its items, as `restore` returns them; None if nothing has been saved yet.

        Newer, damaged ones are moved to FOLDER.damaged, with a warning for each. Raises CheckpointError if there are
        checkpoints but none is intact; then nothing is moved.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem, items = "", {}
            try:
                items = self._restore_checked(step, targets)
            except DamagedCheckpointError as error:
                problem = str(error)
            if _true_on_all(not problem):
                self._move_damaged(damaged, step)
                return step, items
            damaged[step] = problem or "another process cannot read it"
        if damaged:
            problems = "; ".join(damaged.values())
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} is intact ({problems}): restore one from a backup, or "
                "delete that folder to start this stage from the beginning"
            )
        return None

    def _restore_checked(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
        """Raises DamagedCheckpointError, and CheckpointError for a checkpoint of another model."""
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
        except Exception as error:  # orbax and tensorstore raise many types for a file that cannot be read
            reason = " ".join(str(error).split()).partition(" See full TensorStore details")[0]
            raise DamagedCheckpointError(
                f"checkpoint {path} is damaged: one of its files cannot be read ({reason[:160]})"
            ) from error
        for name in targets:
            try:
                require_finite(restored[name], name, "it was saved after training had diverged")
            except UserError as error:
                raise DamagedCheckpointError(f"checkpoint {path} cannot be used ({error})") from error
        return {name: restored[name] for name in targets}

    def _move_damaged(self, damaged: dict[int, str], intact: int) -> None:
        if not damaged:
            return
        destination = self._folder.with_name(self._folder.name + DAMAGED_SUFFIX)

        def move() -> None:
            for step, problem in damaged.items():
                logging.warning("%s; moved to %s, resuming from step %d", problem, destination, intact)
                shutil.rmtree(destination / str(step), ignore_errors=True)
                destination.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(destination / str(step))

        distributed.on_main(move)
        self._manager.reload()

    def _check_shapes(self, step: int, targets: dict[str, Any]) -> None:
        """orbax pads or truncates silently where shapes differ; this raises CheckpointError instead."""
        saved = self._manager.item_metadata(step)
        for item, target in targets.items():
            metadata = saved[item]
            stored = {} if metadata is None else _shapes(getattr(metadata, "tree", metadata))
            if not stored:
                raise DamagedCheckpointError(
                    f"checkpoint {self._folder / str(step)} is damaged ({item} holds no arrays)"
                )
            expected = _shapes(target)
            for name in sorted(stored.keys() | expected.keys()):
                if stored.get(name) != expected.get(name):
                    raise CheckpointError(
                        f"checkpoint {self._folder / str(step)} is of another model or optimiser: "
                        f"{item}/{name} is {stored.get(name, 'absent')} there, but "
                        f"{expected.get(name, 'absent')} is configured"
                    )

    def close(self) -> None:
        """Waits until pending writes are done."""
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


def _true_on_all(local: bool) -> bool:
    """Whether `local` is true on every process; all of them must call this."""
    if jax.process_count() == 1:
        return local
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(local))))

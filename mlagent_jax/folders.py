"""Atomic replacement of folders: a reader finds either the old or the new one, never a mixture."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder next to `folder`, which replaces it when the block ends without an exception.

    If the block raises, or the machine dies, `folder` stays as it was. What a killed attempt leaves behind is removed
    by the next one.
    """
    folder = folder.resolve()
    aside = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in aside.iterdir():
            _sync(file)
        _sync(aside)
        if not folder.exists():
            aside.rename(folder)
        else:
            _exchange(aside, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # the unfinished folder, or the old one


def _exchange(aside: Path, folder: Path) -> None:
    """Swaps the two folders, in one step if the kernel and the file system support that, else in two."""
    if not _renameat2(aside, folder):
        old = folder.parent / f".{folder.name}.previous"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _renameat2(one: Path, other: Path) -> bool:
    """Exchanges two paths with renameat2(2). Returns whether that worked."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)  # not every C library has it
    if call is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    done: int = call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return done == 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Puts a job's files into its workspace, and takes out what is there once nothing runs any more."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import names
from .record import LeftOut


class TooMuchOutputError(Exception):
    """The workspace holds more, or larger, files than it may."""


def write_files(root: str, files: Mapping[str, bytes]) -> None:
    """Writes files below `root`. Raises OSError (ENOSPC when they are more than the workspace can hold)."""
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(frozen=True)
class Kept:
    """What may be taken out of a workspace: the output whatever it holds, then what was put in, then the smallest.

    files: most files and folders, beyond those that were put in. megabytes: of all together.
    """

    output: str
    files: int
    megabytes: float
    put_in: Collection[str] = ()


@dataclass(frozen=True)
class _File:
    size: int
    name: str
    path: str


def read_files(
    root: str, max_files: int, max_bytes: int, kept: Kept
) -> tuple[dict[str, bytes], dict[LeftOut, int]]:
    """Reads the regular files below `root` by their path relative to `root`, and counts what it leaves out.

    Nothing may be running there any more. Links are not followed. Folders and files that the program made
    unreadable are made readable. Which files are taken depends on names and sizes alone.

    Raises:
        TooMuchOutputError: above `max_files` files and folders, or `max_bytes`.
    """
    files, left_out = _find(root, max_files, kept.output)
    if sum(file.size for file in files) > max_bytes:  # sparse ones cost a program nothing
        raise TooMuchOutputError("more bytes than the workspace may hold")
    taken: dict[str, bytes] = {}
    places: set[str] = set()
    room = kept.megabytes * 2**20

    def rank(file: _File) -> tuple[bool, bool, int, str]:
        return file.name != kept.output, file.name not in kept.put_in, file.size, file.name

    for file in sorted(files, key=rank):
        needed = {file.name, *names.parents(file.name)} - places
        if file.name != kept.output:
            if file.size > room:
                left_out[LeftOut.LARGE] += 1
                continue
            is_new = file.name not in kept.put_in
            if is_new and len(places) + len(needed) > min(kept.files, names.MAX_FILES):
                left_out[LeftOut.MANY] += 1
                continue
            room -= file.size
        places |= needed
        taken[file.name] = _read(file.path)
    return dict(sorted(taken.items())), dict(left_out)


def _find(root: str, max_files: int, output: str) -> tuple[list[_File], Counter[LeftOut]]:
    files: list[_File] = []
    left_out: Counter[LeftOut] = Counter()
    seen = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _entries(os.path.join(root, folder)):  # noqa: PTH118
            name = f"{folder}/{entry.name}" if folder else entry.name
            if name == names.DATA:
                continue
            seen += 1
            if seen > max_files:
                raise TooMuchOutputError(f"more than {max_files} files and folders")
            if names.fault(name):
                left_out[LeftOut.NAME] += 1
            elif name == output and not entry.is_file(follow_symlinks=False):
                left_out[LeftOut.OUTPUT] += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                files.append(_File(os.lstat(entry.path).st_size, name, entry.path))
            else:
                left_out[LeftOut.SPECIAL] += 1
    return files, left_out


def clear(root: str, keep: str) -> None:
    """Removes all that lies in `root` but the entry `keep`, also what was made unreadable. Raises OSError.

    What a program may have written on `root` itself goes too: mode, attributes, times. It may have nested folders
    more deeply than Python recurses: that is a RecursionError.
    """
    for entry in _entries(root):
        if entry.name == keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_make_removable)
        else:
            Path(entry.path).unlink()
    if Path(root).stat().st_uid != os.geteuid():  # a program could change it as little as we
        return
    Path(root).chmod(stat.S_IRWXU)
    for attribute in os.listxattr(root):
        os.removexattr(root, attribute)
    os.utime(root)


def _make_removable(function: Callable[[str], object], path: str, _: object) -> None:
    for locked in (path, str(Path(path).parent)):
        if not Path(locked).is_symlink():
            Path(locked).chmod(stat.S_IRWXU)
    if Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink()


def used_bytes(root: str) -> int:
    """What the regular files below `root` occupy; files that vanish meanwhile count as nothing."""
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            except OSError:
                continue
            total += status.st_blocks * 512
    return total


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in `folder`, made readable and searchable first: a program may have made it neither."""
    if os.lstat(folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        Path(folder).chmod(stat.S_IRWXU)
    with os.scandir(folder) as entries:
        return list(entries)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except PermissionError:
        Path(path).chmod(stat.S_IRWXU)
    return Path(path).read_bytes()

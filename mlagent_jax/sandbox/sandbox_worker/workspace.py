"""Writes a job's files into its workspace, and collects what is there once all its processes have ended."""

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
    """The workspace holds more files, or more bytes, than it may."""


def write_files(root: str, files: Mapping[str, bytes]) -> None:
    """Writes files below `root`. Raises OSError (ENOSPC when they do not fit into the workspace)."""
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(frozen=True)
class CollectionLimits:
    """What may be collected from a workspace: the output of any size, then the job's own files, then the smallest.

    output: name of the job's output. inputs: names of the files that the job was given.
    files: the most files and folders, beyond the inputs. megabytes: of all files together but the output.
    """

    output: str
    files: int
    megabytes: float
    inputs: Collection[str] = ()


@dataclass(frozen=True)
class _File:
    size: int
    name: str
    path: str


def collect_files(
    root: str, max_files: int, max_bytes: int, limits: CollectionLimits
) -> tuple[dict[str, bytes], dict[LeftOut, int]]:
    """Reads the regular files below `root`, by their path relative to `root`, and counts what is left out.

    No process may be running there any more. Links are not followed. Folders and files that the program made
    unreadable are made readable. Which files are collected depends on names and sizes alone.

    Raises:
        TooMuchOutputError: more than `max_files` files and folders, or more than `max_bytes`.
    """
    files, left_out = _find(root, max_files, limits.output)
    if sum(file.size for file in files) > max_bytes:  # sparse files may exceed the size of the file system
        raise TooMuchOutputError("more bytes than the workspace may hold")
    collected: dict[str, bytes] = {}
    entries: set[str] = set()  # the files and folders so far
    room = limits.megabytes * 2**20

    def rank(file: _File) -> tuple[bool, bool, int, str]:
        return file.name != limits.output, file.name not in limits.inputs, file.size, file.name

    for file in sorted(files, key=rank):
        new = {file.name, *names.parents(file.name)} - entries
        if file.name != limits.output:
            if file.size > room:
                left_out[LeftOut.LARGE] += 1
                continue
            is_input = file.name in limits.inputs
            if not is_input and len(entries) + len(new) > min(limits.files, names.MAX_FILES):
                left_out[LeftOut.MANY] += 1
                continue
            room -= file.size
        entries |= new
        collected[file.name] = _read(file.path)
    return dict(sorted(collected.items())), dict(left_out)


def _find(root: str, max_files: int, output: str) -> tuple[list[_File], Counter[LeftOut]]:
    """The regular files with valid names, and how many other things there are."""
    files: list[_File] = []
    left_out: Counter[LeftOut] = Counter()
    seen = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _list_readable(os.path.join(root, folder)):  # noqa: PTH118
            name = f"{folder}/{entry.name}" if folder else entry.name
            if name == names.DATA:
                continue
            seen += 1
            if seen > max_files:
                raise TooMuchOutputError(f"more than {max_files} files and folders")
            if names.why_invalid(name):
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
    """Removes everything in `root` but the entry `keep`, even if it was made unreadable. Raises OSError.

    Also resets what a program may have changed on `root` itself: mode, extended attributes, times. Raises
    RecursionError if a program nested folders more deeply than Python recurses.
    """
    for entry in _list_readable(root):
        if entry.name == keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_make_removable)
        else:
            Path(entry.path).unlink()
    if Path(root).stat().st_uid != os.geteuid():  # a program could not change it either
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
    """The disk usage of the regular files below `root`. Files that vanish meanwhile count as 0."""
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            except OSError:
                continue
            total += status.st_blocks * 512
    return total


def _list_readable(folder: str) -> list[os.DirEntry[str]]:
    """The entries of `folder`, which is first made readable and searchable if a program made it neither."""
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

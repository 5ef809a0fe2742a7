"""Puts a job's files into its workspace, and takes out what is there once nothing runs any more."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path


class TooMuchOutputError(Exception):
    """The workspace holds more, or larger, files than may be taken out."""


def write_files(root: str, files: Mapping[str, bytes]) -> None:
    """Writes files below `root`. Raises OSError (ENOSPC when they are more than the workspace can hold)."""
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_files(root: str, skip: str, max_files: int, max_bytes: int) -> dict[str, bytes]:
    """Reads every regular file below `root`, by its path relative to `root`.

    Nothing may be running there any more. Links are not followed, and are left out as all special files are.
    Names that are not printable UTF-8 come out with backslash escapes. Folders and files that the program
    made unreadable are made readable.

    Args:
        skip: name of a top-level entry to leave out, or "".

    Raises:
        TooMuchOutputError: above `max_files` or `max_bytes`, or paths longer than the system allows.
    """
    found: dict[str, bytes] = {}
    total = 0
    folders = [root]
    entries_seen = 0
    while folders:
        folder = folders.pop()
        for entry in _entries(folder):
            if folder == root and entry.name == skip:
                continue
            entries_seen += 1
            if entries_seen > max_files:
                raise TooMuchOutputError(f"more than {max_files} files and folders")
            if len(os.fsencode(entry.path)) >= os.pathconf("/", "PC_PATH_MAX"):
                raise TooMuchOutputError("folders nested too deeply")
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                content = _read(entry.path, max_bytes - total)
                total += len(content)
                found[_printable(os.path.relpath(entry.path, root))] = content
    return dict(sorted(found.items()))


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
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            except OSError:
                continue
            total += status.st_blocks * 512
    return total


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        Path(folder).chmod(stat.S_IRWXU)
    with os.scandir(folder) as entries:
        return list(entries)


def _read(path: str, max_bytes: int) -> bytes:
    # A sparse file costs the program nothing, so its size is looked at before it is read.
    if os.lstat(path).st_size > max_bytes:
        raise TooMuchOutputError("more bytes than the workspace may hold")
    try:
        return Path(path).read_bytes()
    except PermissionError:
        Path(path).chmod(stat.S_IRWXU)
    return Path(path).read_bytes()


def _printable(name: str) -> str:
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )

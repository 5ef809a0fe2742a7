"""What tools may do in a workspace: which paths they may use, and what they see. Agents read the error messages.

A workspace maps relative POSIX paths to contents. `data/` is not part of it: that is the task's public folder, which is
the same in every state and read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from mlagent_jax.sandbox.sandbox_worker import names

DATA = names.DATA
SUBMISSIONS = ("submission.csv", "submission.npy")
STARTER = "train.py"
MAX_PATH_CHARS = names.MAX_CHARS
MAX_FILE_BYTES = 1 << 20  # of a file that a tool reads or writes as a whole
MAX_FILES = 256  # that tools may create; the sandbox limits the files of scripts
MAX_INSPECTED_LINES = 100
_MAX_LINE = 10**9  # no file here has so many lines, and islice does not take much larger numbers

Files = Mapping[str, bytes]


class WorkspaceError(Exception):
    """What a tool was asked for does not exist or is not allowed. The message is feedback for the agent."""


def clean_path(path: str) -> str:
    """The path in normal form. Raises WorkspaceError if it leads out of the workspace or is not a valid path."""
    name = path.strip()
    if len(name) > MAX_PATH_CHARS:
        raise WorkspaceError(f"a path may have at most {MAX_PATH_CHARS} characters, this one has {len(name)}")
    if not name.isprintable() or "\\" in name:
        raise WorkspaceError(f"{name!r} is not a path: use printable characters and forward slashes")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise WorkspaceError(f"{name!r} lies outside the workspace: use a path relative to it")
    return "/".join(parts) or "."


def writable_path(path: str) -> str:
    """The path in normal form. Raises WorkspaceError if it is not one of a file that a tool may write."""
    name = clean_path(path)
    if name == ".":
        raise WorkspaceError("a file name is needed")
    if name.split("/")[0] == DATA:
        raise WorkspaceError(f"{DATA}/ is read-only: choose another place than {name!r}")
    if why := names.why_invalid(name):
        raise WorkspaceError(f"{name!r} cannot be written: it {why}")
    if name in SUBMISSIONS:
        raise WorkspaceError(f"{name} is written by running a script, not by a tool")
    return name


def with_file(files: Files, path: str, content: bytes) -> dict[str, bytes]:
    """A copy of the workspace in which one file is written. Raises WorkspaceError if that is not possible."""
    if len(content) > MAX_FILE_BYTES:
        raise WorkspaceError(f"{path} would have {len(content)} bytes; at most {MAX_FILE_BYTES} are allowed")
    if path not in files and len(files) >= MAX_FILES:
        raise WorkspaceError(f"the workspace is full: it has {len(files)} files, of at most {MAX_FILES}")
    if any(folder in files for folder in names.parents(path)):
        raise WorkspaceError(f"{path} cannot be written: a file has the name of its folder")
    if any(other.startswith(f"{path}/") for other in files):
        raise WorkspaceError(f"{path} is a folder")
    return {**files, path: content}


def read_bytes(files: Files, path: str, data_dir: Path) -> bytes:
    """Reads a file of the workspace or of `data/`. Raises WorkspaceError if it is missing or too large."""
    name = clean_path(path)
    if name in files:
        content = files[name]
        if len(content) > MAX_FILE_BYTES:
            raise WorkspaceError(f"{name} is too large: {len(content)} bytes, of at most {MAX_FILE_BYTES}")
        return content
    source = _data_file(name, data_dir)
    if source is None:
        raise WorkspaceError(missing(files, name))
    if source.stat().st_size > MAX_FILE_BYTES:
        raise WorkspaceError(f"{name} is too large to copy or read whole; inspect some of its lines instead")
    return source.read_bytes()


def read_text(files: Files, path: str, data_dir: Path) -> str:
    """The content of a text file; raises like `read_bytes`, and if it is no text."""
    return _decode(read_bytes(files, path, data_dir), path)


def inspect_lines(files: Files, path: str, first: int, last: int, data_dir: Path) -> str:
    """Lines `first` to `last`, counted from 1 and both included, with their numbers. Data files may be large."""
    if first < 1 or last < first:
        raise WorkspaceError(
            f"lines {first} to {last} are not a range: start at 1 or later, end at or after that"
        )
    if last - first + 1 > MAX_INSPECTED_LINES:
        count = last - first + 1
        raise WorkspaceError(f"at most {MAX_INSPECTED_LINES} lines can be inspected at once, not {count}")
    name = clean_path(path)
    source = None if name in files else _data_file(name, data_dir)
    lines = read_text(files, name, data_dir).splitlines() if source is None else _data_lines(source)
    chosen = list(islice(lines, first - 1, last)) if last <= _MAX_LINE else []
    if not chosen:
        raise WorkspaceError(f"{name} has fewer than {first} lines")
    return "\n".join(f"{number} {line}" for number, line in enumerate(chosen, first))


def list_files(files: Files, path: str, data_dir: Path) -> list[str]:
    """The sorted entries of a folder, with a slash after folders. Raises WorkspaceError if there is no such folder."""
    folder = clean_path(path)
    if folder.split("/")[0] == DATA:
        source = data_dir.joinpath(*folder.split("/")[1:])
        if not source.is_dir():
            raise WorkspaceError(missing(files, folder))
        return sorted(entry.name + "/" * entry.is_dir() for entry in source.iterdir())
    prefix = "" if folder == "." else f"{folder}/"
    entries = {DATA + "/"} if folder == "." else set()
    for name in files:
        if name.startswith(prefix):
            head, slash, _ = name[len(prefix) :].partition("/")
            entries.add(head + slash)
    if not entries:
        raise WorkspaceError(missing(files, folder))
    return sorted(entries)


def _data_file(name: str, data_dir: Path) -> Path | None:
    head, _, rest = name.partition("/")
    path = data_dir / rest
    return path if head == DATA and rest and path.is_file() else None


def _data_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield _decode(line, path.name).rstrip("\r\n")


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WorkspaceError(f"{name} is not a text file") from None


def missing(files: Files, name: str, kind: str = "") -> str:
    """Says that there is no such file, and names some that there are. kind: such as "script"."""
    shown = sorted(files)[:8]
    subject = f"{kind} {name!r}" if kind else f"{name!r}"
    return f"there is no {subject}; files: {', '.join(shown)}" + (", ..." if len(files) > len(shown) else "")

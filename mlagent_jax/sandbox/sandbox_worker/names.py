"""Which names files of a workspace may have: one rule for what a worker takes out, for jobs and for the agent's tools.

So whatever comes out of one job goes into the next, and can be named by whoever works with it.
"""

from __future__ import annotations

from collections.abc import Iterable

DATA = "data"  # where a job's data is shown: never a file of the workspace itself
MAX_CHARS = 120
MAX_PART_BYTES = 255  # of one folder's or file's name, on every file system that we meet
MAX_FILES = 4096  # of one job: their names then always fit a message's header


def fault(path: str) -> str:
    """Why `path` cannot be the name of a file in a workspace, to come after "because it"; "" if it can."""
    if len(path) > MAX_CHARS:
        return f"has {len(path)} characters, of at most {MAX_CHARS}"
    if not path.isprintable() or "\\" in path:  # lone surrogates, and so bytes that are no UTF-8, among them
        return "has characters that are not printable, or backslashes"
    if path != path.strip():
        return "begins or ends with a blank"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is not a plain path below the workspace"
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"has a part of more than {MAX_PART_BYTES} bytes"
    if parts[0] == DATA:
        return "would lie in the folder that shows the task's data"
    return ""


def parents(path: str) -> list[str]:
    """The folders that `path` lies in, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def collision(paths: Iterable[str]) -> str:
    """One of `paths` that lies below another, as no file can; "" if there is none."""
    known = set(paths)
    return next((path for path in sorted(known) if any(folder in known for folder in parents(path))), "")

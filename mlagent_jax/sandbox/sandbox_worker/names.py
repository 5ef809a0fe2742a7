"""Which names the files of a workspace may have: one rule for collected output, for jobs and for the agent's tools.

So every file that comes out of one job can go into the next, and can be named by whoever works with it.
"""

from __future__ import annotations

from collections.abc import Iterable

DATA = "data"  # the folder that shows a job's data; never a file of the workspace itself
MAX_CHARS = 120
MAX_PART_BYTES = 255  # of one path component, on every common file system
MAX_FILES = 4096  # of one job, so that their names always fit into a message header


def why_invalid(path: str) -> str:
    """Why `path` cannot be the name of a workspace file, as the end of a sentence "because it ..."; "" if it can."""
    if len(path) > MAX_CHARS:
        return f"has {len(path)} characters, of at most {MAX_CHARS}"
    if not path.isprintable() or "\\" in path:  # excludes lone surrogates, and so bytes that are not UTF-8
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
    """The folders that contain `path`, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def collision(paths: Iterable[str]) -> str:
    """One of `paths` that lies below another one, which no file can; "" if there is none."""
    known = set(paths)
    return next((path for path in sorted(known) if any(folder in known for folder in parents(path))), "")

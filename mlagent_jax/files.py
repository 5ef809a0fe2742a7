"""Atomic writing of files: neither a reader nor a restart after kill -9 ever sees a partial file. Reading of JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Writes a file next to `path` and renames it into place. Creates the parent folder if needed.

    sync: return only once the content is on disk, so that it survives a crash of the machine, not just of the program.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` a hard link to a file that never changes, or a copy on another file system. Creates its folder.

    Does nothing if there is a `target` already.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)


def read_json_object(path: Path, error: type[Exception], remedy: str = "") -> dict[str, Any]:
    """The JSON object in `path`.

    error: what is raised if the file holds anything else. remedy: what the reader of that error can do.
    Raises FileNotFoundError too.
    """
    ending = remedy and f"; {remedy}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:  # of JSON or of UTF-8
        raise error(f"{path} is not valid JSON ({problem}){ending}") from problem
    if not isinstance(content, dict):
        raise error(f"{path} should contain a JSON object, not a {type(content).__name__}{ending}")
    return content

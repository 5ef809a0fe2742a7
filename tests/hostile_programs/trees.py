"""Trees of files that a hostile script may leave: names of any bytes, any depth, every kind of file."""

# pathlib does not support names of bytes.
# ruff: noqa: PTH101, PTH102, PTH108, PTH118, PTH119, PTH123, PTH211

from __future__ import annotations

import inspect

from hostile_programs.program import Hostile
from mlagent_jax.sandbox.interface import Status


def grow(seed: int) -> None:
    """Fills the working directory. Its source also runs alone in a sandbox, so it may use nothing defined outside."""
    import os
    import random
    import socket
    import stat

    rng = random.Random(seed)
    pieces = [
        *(
            b"a",
            b"B",
            b"7",
            b".",
            b"..",
            b" ",
            b"\t",
            b"\n",
            b"\r",
            b"\\",
            b"\\n",
            b"'",
            b'"',
            b"*",
            b"~",
            b":",
            b"%",
        ),
        *(
            b"\x01",
            b"\x1b[0m",
            b"\x7f",
            b"\x80",
            b"\xff",
            b"\xc3\xa9",
            b"e\xcc\x81",
            b"\xf0\x9f\x98\x80",
            b"\xe2\x80\xae",
        ),
        *(
            b"\xed\xa0\x80",
            b"\xef\xbb\xbf",
            b"\xc2\xa0",
            b"\xe3\x80\x80",
            b"<|im_end|>",
            b"file/",
            b"name",
            b"\xcd\xb8",
        ),
    ]
    plain = [b"model.bin", b"out", b"notes.txt", b"src", b"a b", b"caf\xc3\xa9.csv"]
    known = [
        *plain,
        *(
            b"submission.csv",
            b"submission.npy",
            b"data",
            b"data ",
            b"train.py",
            b"x\ny",
            b"x\\ny",
            b"__pycache__",
        ),
        *(
            b"head",
            b"tail",
            b"a" * 255,
            b"\xff" * 255,
            b"\xc3\xa9" * 127,
            b"\xf0\x9f\x98\x80" * 63,
            b"numpy.py",
        ),
    ]

    def name() -> bytes:
        if rng.random() < 0.6:
            return rng.choice(rng.choice((plain, known)))
        made = b"".join(rng.choice(pieces) for _ in range(rng.choice((1, 1, 2, 3, 8, 40, 130))))
        return made.replace(b"/", b"")[:255]

    folders = [b"."]
    for _ in range(rng.choice((1, 3, 10, 30))):
        path = os.path.join(rng.choice(folders), name())
        kind = rng.choice(
            ("file", "file", "file", "folder", "folder", "deep", "link", "hard", "pipe", "socket", "sparse")
        )
        try:
            if os.path.basename(path) in (b"train.py", b"submission.csv") and rng.random() < 0.5:
                os.unlink(path)
            if kind == "file":
                with open(path, "xb") as file:
                    file.write(rng.randbytes(rng.choice((0, 1, 100, 5000))))
                os.chmod(path, rng.choice((0o644, 0o644, 0, 0o7777)))
            elif kind == "folder":
                os.mkdir(path)
                folders.append(path)
            elif kind == "deep":
                for _ in range(rng.choice((5, 40, 90))):
                    os.mkdir(path)
                    folders.append(path)
                    path = os.path.join(path, rng.choice((b"d", b"dd" * 50, name())))
            elif kind == "link":
                os.symlink(
                    rng.choice((b"/etc/passwd", b".", b"..", b"train.py", b"nowhere", b"data", path)), path
                )
            elif kind == "hard":
                os.link(b"train.py", path)
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(path)
            else:
                with open(path, "xb") as file:
                    file.truncate(rng.choice((0, 1 << 16, 1 << 22)))
        except (OSError, ValueError):
            pass
    for folder in folders[1:]:
        try:
            if rng.random() < 0.1 and stat.S_ISDIR(os.lstat(folder).st_mode):
                os.chmod(folder, rng.choice((0, 0o100, 0o444)))
        except OSError:
            pass


GROW = inspect.getsource(grow)


def tree(seed: int) -> Hostile:
    """The program that makes the tree of `seed`."""
    return Hostile(f"tree {seed}", f"{GROW}\n\ngrow({seed})\n", (Status.OK, Status.OUTPUT_LIMIT, Status.DISK))

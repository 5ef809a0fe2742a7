"""Wordings: every operation is asked for in several ways, and a share of them is kept from every trajectory.

A phrase such as "(Use|Fit) a forest of {n} trees" stands for each way through its alternatives. An instruction is
read exactly: lower case, one space, no full stop at the end and numbers aside, it must be one of them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence

_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_PLACE = re.compile(r"\{\w+\}")

HELD_OUT = 4  # one wording in so many


def expand(phrase: str) -> tuple[str, ...]:
    """Every wording, placeholders as they are, the first way first."""
    parts = _ALTERNATIVES.split(phrase)
    ways = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return tuple(dict.fromkeys(" ".join("".join(way).split()) for way in itertools.product(*ways)))


def placeholders(wording: str) -> list[str]:
    """Names of the numbers, in the order in which they are said."""
    return [place[1:-1] for place in _PLACE.findall(wording)]


def normalise(text: str) -> str:
    """What tells wordings apart: the text in lower case, numbers and placeholders as "#"."""
    plain = " ".join(text.lower().split()).rstrip(" .")
    return _NUMBER.sub("#", _PLACE.sub("#", plain))


def numbers(text: str) -> list[str]:
    return _NUMBER.findall(text.lower().rstrip(" ."))


def taught(identity: str, wordings: Sequence[str]) -> tuple[str, ...]:
    """The wordings that trajectories may hold: about three quarters of them, never none."""
    every = min(HELD_OUT, len(wordings))
    start = hashlib.sha256(identity.encode()).digest()[0]
    return tuple(one for index, one in enumerate(wordings) if every < 2 or (index + start) % every)

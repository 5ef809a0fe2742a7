"""What the best constant sequence of some tasks brings on these and on others, as a file, and the rule for a suite.

A suite on which the same few operations help everywhere teaches one sentence. So the sequence that is best on the
held-in tasks has to bring less than `CONSTANT_LIMIT` of what can be gained on the held-out ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.controls.forward_selection import ConstantConfig, Played
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

CONSTANT_LIMIT = 0.4  # of the way from the starter to m_best, on average over the held-out tasks


@dataclass(frozen=True)
class ConstantGains:
    """sequence: instructions, chosen on the held-in tasks. config: how they were chosen.

    scripts: by task, the digest of its starter and of what single operations make of it; see `operation_gains.digest`.
    played: by task, its scores. They are raw, so that they stay true if m_best changes.
    """

    config: ConstantConfig
    sequence: tuple[str, ...]
    scripts: Mapping[str, str]
    played: Mapping[str, Played]

    def mean_shares(self, m_best: Mapping[str, float], names: Collection[str]) -> tuple[float, float]:
        """Public and private means over these tasks, of the way to m_best. Raises KeyError for an unknown task."""
        public, private = zip(*(self.played[name].shares(m_best[name]) for name in names), strict=True)
        return sum(public) / len(names), sum(private) / len(names)


def write_constant_gains(path: Path, command: str, found: ConstantGains) -> None:
    """A line for each task, so that a difference can be read."""
    head = {
        "command": command,
        "length": found.config.length,
        "numbers": found.config.numbers,
        "shortlist": found.config.shortlist,
        "sequence": found.sequence,
    }
    tasks = {
        name: {"scripts": found.scripts[name], "starter": _short(one.starter), "reached": _short(one.reached)}
        for name, one in sorted(found.played.items())
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in tasks.items())
    write_atomically(path, f'{json.dumps(head, indent=1)[:-2]},\n"tasks": {{\n{lines}\n}}}}\n')


def _short(scores: tuple[float, float]) -> list[float]:
    return [float(f"{score:.6g}") for score in scores]


def read_constant_gains(path: Path) -> ConstantGains:
    """Raises UserError."""
    try:
        stored = json.loads(path.read_text())
        tasks = stored["tasks"]
        return ConstantGains(
            ConstantConfig(stored["length"], stored["numbers"], stored["shortlist"]),
            tuple(stored["sequence"]),
            {name: one["scripts"] for name, one in tasks.items()},
            {name: Played(tuple(one["starter"]), tuple(one["reached"])) for name, one in tasks.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds no gains of a constant sequence ({error}); delete it and run `tasks constant` again"
        ) from error

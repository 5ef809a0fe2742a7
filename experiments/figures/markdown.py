"""Tables and intervals of the pages that are generated from runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mlagent_jax.evaluation.numbers import NONE, format_signed


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(table_row(*row) for row in (head, ["---"] * len(head), *rows))


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def interval_text(value: Mapping[str, float | None] | None, unit: str) -> str:
    """A share in per cent or points, such as "+8.3 % [+4.8, +12.0]"."""
    if value is None:
        return NONE
    mean = format_signed(value["mean"], 1, factor=100, unit=unit)
    if value["low"] is None or value["high"] is None:
        return mean
    low, high = (format_signed(value[end], 1, factor=100) for end in ("low", "high"))
    return f"{mean} [{low}, {high}]"

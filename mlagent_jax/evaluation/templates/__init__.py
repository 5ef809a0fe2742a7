"""Templates of the report and of its picture, with the filters that they share."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlagent_jax.evaluation import tables
from mlagent_jax.evaluation.embed import visible
from mlagent_jax.evaluation.numbers import format_gain, format_percent, format_score, format_signed


def page_templates() -> Environment:
    """Everything is escaped, and characters that would not show are written out."""
    environment = Environment(
        loader=PackageLoader("mlagent_jax.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "agent": tables.agent_title,
        "score": format_score,
        "gain": format_gain,
        "points": lambda value: format_signed(value, 1, factor=100, unit=" pp"),
        "signed": lambda value: format_signed(value, 3),
        "percent": format_percent,
        "outcome_bar": tables.outcome_bar,
        "tojson_text": lambda value: json.dumps(value, separators=(",", ":")),
    }
    return environment


def source(name: str) -> str:
    """The text of a style sheet or script."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")

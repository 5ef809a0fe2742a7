"""Nested records as rows of a name and a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def flat_rows(record: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """("a.b.0.c", value as text) for each leaf of nested dictionaries and lists of dictionaries, in order."""
    rows: list[tuple[str, str]] = []
    for name, value in (record or {}).items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(place): item for place, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            rows += [(f"{name}.{inner}", text) for inner, text in flat_rows(value)]
        else:
            rows.append((str(name), value if isinstance(value, str) and value else json.dumps(value)))
    return rows

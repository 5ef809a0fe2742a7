"""Embeds what agents and scripts wrote in an HTML page, where none of it may run or stay invisible.

Text reaches the page in only two ways: through Jinja's autoescape, and as data in inert `<script>` elements, which the
page's own script turns into text nodes. Both pass through `visible` first.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import unicodedata
from typing import Any

_UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]")
_JSON_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def visible(text: str) -> str:
    """`text` with every character that is invisible, or reorders what is shown, replaced by its code point.

    Newline and tab stay. Other control characters, bidirectional controls, zero-width characters, tags, lone surrogates
    and private use characters become, for example, "⟨U+202E⟩".
    """
    return _UNUSUAL.sub(lambda match: _visible_character(match[0]), text)


def _visible_character(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return f"⟨U+{ord(character):04X}⟩"


def visible_data(value: Any) -> Any:
    """`visible` of all strings in a JSON-like value, keys included; nan and infinity become their names."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): visible_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_data(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def script_json(value: Any) -> str:
    """`value` as JSON that cannot end a `<script>` element or start a comment."""
    text = json.dumps(visible_data(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_JSON_ESCAPES)


def packed_json(value: Any) -> str:
    """`value` as gzipped JSON in base64; the same value gives the same bytes."""
    text = json.dumps(visible_data(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def shortened(text: str, limit: int) -> str:
    """The head and tail of a text longer than `limit` characters, with a note on how much was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out here ...]\n{text[-half:]}"

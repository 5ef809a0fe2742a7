"""Text that no encoding can hold."""

from __future__ import annotations


def replace_surrogates(text: str) -> str:
    """Replaces lone surrogates with "?": a script's output, a model's text or JSON may hold them, but UTF-8 cannot."""
    return text.encode(errors="replace").decode()

"""What the small files beside a checkpoint's weights say of its tokens and chats."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError

_GENERATION, _MODEL = "generation_config.json", "config.json"
_CONFIG, _SPECIAL, _TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
# Of a tokenizer, beside its vocabulary.
DESCRIPTIONS = (_CONFIG, _SPECIAL, "added_tokens.json", _TEMPLATE)


class TokenizerError(UserError):
    """A tokenizer could not be trained or loaded; the message says what to do."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where there is no such file. Raises TokenizerError."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


def read_files(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the files that are there, as they are."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def chat_template(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The chat template, None if there is none, and the special tokens that it may refer to, such as `bos_token`.

    A file of its own goes before the field, and of several templates the one called "default" is taken, as
    `transformers` does. Raises TokenizerError.
    """
    config = read_object(folder / _CONFIG)
    given = {**read_object(folder / _SPECIAL), **config}
    named = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in given.items()
        if name.endswith("_token") and isinstance(token, str | dict)
    }
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8"), named
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {one["name"]: one["template"] for one in source}.get("default")
    if not isinstance(source, str | None):
        raise TokenizerError(f"chat_template in {folder / _CONFIG} is a {type(source).__name__}, not a text")
    return source, named


def eos_ids(folder: Path, known: Collection[int]) -> list[int]:
    """The ids that end an answer by `generation_config.json` and `config.json`, where a file names any.

    known: ids that have a token. Raises TokenizerError for anything else than one of these, or a list of them.
    """
    found: list[int] = []
    for name in (_GENERATION, _MODEL):
        given = read_object(folder / name).get("eos_token_id")
        for one in given if isinstance(given, list) else [] if given is None else [given]:
            if type(one) is not int or one not in known:
                raise TokenizerError(
                    f"{folder / name} has eos_token_id {given!r}, but the tokenizer has no token of id {one!r}; "
                    "correct it, or take the tokenizer that belongs to this model"
                )
            found += [one] if one not in found else []
    return found


def pad_id(folder: Path, known: Collection[int]) -> int | None:
    """The first of the two files that names one which has a token."""
    given = [read_object(folder / name).get("pad_token_id") for name in (_GENERATION, _MODEL)]
    return next((one for one in given if type(one) is int and one in known), None)

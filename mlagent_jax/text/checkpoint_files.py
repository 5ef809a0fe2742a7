"""Reads the small files beside a checkpoint's weights that describe its tokens and chats."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.files import read_json_object

_GENERATION_CONFIG, _MODEL_CONFIG = "generation_config.json", "config.json"
_TOKENIZER_CONFIG, _SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
# The files of a tokenizer beside its vocabulary.
TOKENIZER_FILES = (_TOKENIZER_CONFIG, _SPECIAL_TOKENS, "added_tokens.json", _TEMPLATE)
MAX_STOP_IDS = 32  # as many as the engine can compare each sampled token with


class TokenizerError(UserError):
    """A tokenizer could not be trained or loaded. The message says what to do."""


def read_json(path: Path, error: type[UserError] = TokenizerError) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is no such file. error: what is raised for anything else in it."""
    return read_json_object(path, error) if path.is_file() else {}


def read_files(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of those files that exist."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def chat_template(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The chat template, or None, and the special tokens that it may use by name, such as `bos_token`.

    As in `transformers`, a template file takes precedence over the field, and of several templates the one called
    "default" is used. Raises TokenizerError.
    """
    config = read_json(folder / _TOKENIZER_CONFIG)
    fields = {**read_json(folder / _SPECIAL_TOKENS), **config}
    named = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in fields.items()
        if name.endswith("_token") and isinstance(token, str | dict)
    }
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8"), named
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {one["name"]: one["template"] for one in source}.get("default")
    if not isinstance(source, str | None):
        raise TokenizerError(
            f"chat_template in {folder / _TOKENIZER_CONFIG} is a {type(source).__name__}, not a string"
        )
    return source, named


def eos_ids(folder: Path, known: Collection[int]) -> list[int]:
    """The ids in `eos_token_id` of `generation_config.json` and `config.json`.

    known: ids that have a token. Raises TokenizerError for a value that is neither one of these nor a list of them.
    """
    found: list[int] = []
    for name in (_GENERATION_CONFIG, _MODEL_CONFIG):
        value = read_json(folder / name).get("eos_token_id")
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            if type(one) is not int or one not in known:
                raise TokenizerError(
                    f"{folder / name} has eos_token_id {value!r}, but the tokenizer has no token with id {one!r}; "
                    "correct it, or use the tokenizer that belongs to this model"
                )
            found += [one] if one not in found else []
    return found


def unique_stop_ids(ids: Iterable[int], folder: Path | None) -> tuple[int, ...]:
    """The ids in order, each once. `folder`: of their checkpoint. Raises TokenizerError for too many."""
    unique = tuple(dict.fromkeys(ids))
    if len(unique) > MAX_STOP_IDS:
        raise TokenizerError(
            f"the checkpoint in {folder} has {len(unique)} stop tokens, but at most {MAX_STOP_IDS} are supported; "
            f"shorten eos_token_id in its {_GENERATION_CONFIG} and {_MODEL_CONFIG}"
        )
    return unique


def pad_id(folder: Path, known: Collection[int]) -> int | None:
    """The first `pad_token_id` in the same files that has a token."""
    values = [read_json(folder / name).get("pad_token_id") for name in (_GENERATION_CONFIG, _MODEL_CONFIG)]
    return next((one for one in values if type(one) is int and one in known), None)

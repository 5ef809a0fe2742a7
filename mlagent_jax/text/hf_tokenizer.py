"""A checkpoint's tokenizer.json, used exactly as it is, with the chat template and special tokens beside it.

`transformers` rebuilds parts of some tokenizers from the `model_type`, whatever the file contains
(https://github.com/huggingface/transformers/issues/45920). So `tokenizers` reads the file directly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mlagent_jax.files import write_atomically
from mlagent_jax.text.chat_template import ChatTemplate, ChatTemplateError, chatml, jinja_template
from mlagent_jax.text.checkpoint_files import (
    TOKENIZER_FILES,
    TokenizerError,
    chat_template,
    eos_ids,
    pad_id,
    read_files,
    unique_stop_ids,
)
from mlagent_jax.text.control_tokens import ControlTokens

HF_FILE = "tokenizer.json"
_FILES = (HF_FILE, *TOKENIZER_FILES, "tokenizer.model", "vocab.json", "merges.txt")
_CHATML = ("<|im_start|>", "<|im_end|>")
_END_OF_TEXT = "<|endoftext|>"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "\u2581"


class HuggingFaceTokenizer:
    """The tokenizer of a checkpoint's folder with tokenizer.json. Never accesses the network.

    Uses the folder's chat template. Without one, it uses ChatML if the vocabulary has ChatML's tokens.
    """

    def __init__(self, folder: Path):
        """Raises TokenizerError if the files cannot be read, or cannot be used for chats."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        self._files = read_files(folder, _FILES)
        try:
            configured = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
            backend = Tokenizer.from_str(self._files[HF_FILE].decode())
        except Exception as error:  # `tokenizers` raises plain Exceptions
            raise TokenizerError(f"the tokenizer in {folder} cannot be read: {error}") from error
        _add_missing_tokens(backend, configured, folder)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.ids = frozenset(vocabulary.values())
        self.vocab_size = max(self.ids) + 1
        self.template = _template(vocabulary, folder)
        eos = [
            *eos_ids(folder, self.ids),
            *([] if configured.eos_token_id is None else [configured.eos_token_id]),
        ]
        backend, self.control = _mark_control_tokens(backend, eos, self.template)
        backend.no_truncation()  # the file may contain either setting, left over from its last use
        backend.no_padding()
        backend.encode_special_tokens = True  # otherwise a script's output could end a turn
        self._backend = backend
        stops = [*_end_of_turn(self.template, self.control), *eos]
        if not eos and _END_OF_TEXT in self.control.ids:
            stops.append(self.control.ids[_END_OF_TEXT])
        self.stop_ids: tuple[int, ...] = unique_stop_ids(stops, folder)
        pads = [
            pad_id(folder, self.ids),
            configured.pad_token_id,
            self.control.ids.get(_END_OF_TEXT),
            *stops,
            0,
        ]
        self.pad_id: int = next(pad for pad in pads if pad is not None)

    def encode(self, text: str, special: bool = False) -> list[int]:
        valid = text.encode(errors="replace").decode()
        if special:
            return list(self._special_backend.encode(valid, add_special_tokens=True).ids)
        return list(self._backend.encode(valid, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode([i for i in ids if i in self.ids], skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        if token not in self.ids:
            return b""
        piece = self._backend.id_to_token(token)
        if token in self._added:
            return str(piece).encode()
        return self._piece_bytes(str(piece))

    def save(self, folder: Path) -> None:
        for name, content in self._files.items():
            write_atomically(folder / name, content)

    @cached_property
    def _special_backend(self) -> Any:
        """A `_backend` in which names of control tokens become these tokens."""
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = False
        return backend

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._backend.get_added_tokens_decoder())

    @cached_property
    def _decoders(self) -> set[str]:
        """The types of the file's decoder and of its parts."""
        decoder = json.loads(self._backend.to_str()).get("decoder") or {}
        return {part["type"] for part in [decoder, *decoder.get("decoders", [])] if "type" in part}

    def _piece_bytes(self, piece: str) -> bytes:
        if "ByteLevel" in self._decoders:
            from transformers.convert_slow_tokenizer import bytes_to_unicode

            byte = {letter: value for value, letter in bytes_to_unicode().items()}
            return bytes(byte[letter] for letter in piece) if set(piece) <= byte.keys() else piece.encode()
        if "ByteFallback" in self._decoders and (match := _BYTE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self._decoders & {"ByteFallback", "Metaspace"}:
            return piece.replace(_METASPACE, " ").encode()
        return piece.encode()


def _add_missing_tokens(backend: Any, configured: Any, folder: Path) -> None:
    """Adds the tokens that only tokenizer_config.json or similar files define, in the order of their ids."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    missing = {i: t for i, t in configured.added_tokens_decoder.items() if str(t) not in vocabulary}
    for i, token in sorted(missing.items()):
        backend.add_tokens([token])
        if backend.token_to_id(str(token)) != i:
            raise TokenizerError(
                f"tokenizer_config.json in {folder} gives {str(token)!r} the id {i}, which is not the next free one in "
                f"{HF_FILE}"
            )


def _template(vocabulary: Mapping[str, int], folder: Path) -> ChatTemplate:
    source, tokens = chat_template(folder)
    if source is not None:
        return jinja_template(source, tokens)
    missing = [name for name in _CHATML if name not in vocabulary]
    if missing:
        raise TokenizerError(
            f"the tokenizer in {folder} has no chat template, and lacks {missing} for ChatML; add its "
            "chat_template.jinja, or use a checkpoint that was trained for chats"
        )
    return chatml(joined=True)


def _mark_control_tokens(
    backend: Any, eos: Iterable[int], template: ChatTemplate
) -> tuple[Any, ControlTokens]:
    """Makes every token special that ends an answer or appears in the template. Returns all special tokens too."""
    from tokenizers import Tokenizer

    delimiters = "".join(
        _delimiters(template, ("system", "user", "assistant")) + _delimiters(template, ("user", "assistant"))
    )
    state, found = json.loads(backend.to_str()), []
    eos = set(eos)
    for token in state["added_tokens"]:
        if not token["special"] and (token["id"] in eos or token["content"] in delimiters):
            token["special"] = True
        found += [token] if token["special"] else []
    control = ControlTokens(
        {token["content"]: token["id"] for token in found},
        {token["content"] for token in found if token["lstrip"]},
        {token["content"] for token in found if token["rstrip"]},
    )
    return Tokenizer.from_str(json.dumps(state)), control


def _delimiters(template: ChatTemplate, roles: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return template.delimiters(roles, False)
    except ChatTemplateError:  # raised again when such a chat is encoded
        return ()


def _end_of_turn(template: ChatTemplate, control: ControlTokens) -> list[int]:
    delimiters = _delimiters(template, ("user", "assistant"))
    try:
        return [control.partition_end_of_turn(delimiters[-1])[1]] if delimiters else []
    except ChatTemplateError:
        return []

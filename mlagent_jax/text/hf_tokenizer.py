"""A checkpoint's tokenizer.json, taken at its word, with the chat template and special tokens that lie beside it.

`transformers` rebuilds parts of some tokenizers by the `model_type`, whatever the file says
(https://github.com/huggingface/transformers/issues/45920); so the file is read by `tokenizers` itself.
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
    DESCRIPTIONS,
    TokenizerError,
    chat_template,
    eos_ids,
    pad_id,
    read_files,
)
from mlagent_jax.text.control_tokens import ControlTokens

HF_FILE = "tokenizer.json"
_FILES = (HF_FILE, *DESCRIPTIONS, "tokenizer.model", "vocab.json", "merges.txt")
_CHATML = ("<|im_start|>", "<|im_end|>")
_END_OF_TEXT = "<|endoftext|>"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "\u2581"


class HuggingFaceTokenizer:
    """Of the folder of a checkpoint, with tokenizer.json. Never touches the network.

    Its chat template is the folder's own; ChatML for one that has none, but has ChatML's tokens.
    """

    def __init__(self, folder: Path):
        """Raises TokenizerError for files that cannot be read, or cannot be used for chats."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        self._files = read_files(folder, _FILES)
        try:
            described = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
            backend = Tokenizer.from_str(self._files[HF_FILE].decode())
        except Exception as error:  # `tokenizers` raises bare ones
            raise TokenizerError(f"the tokenizer in {folder} cannot be read: {error}") from error
        _add_missing(backend, described, folder)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.ids = frozenset(vocabulary.values())
        self.vocab_size = max(self.ids) + 1
        self.template = _template(vocabulary, folder)
        named = [
            *eos_ids(folder, self.ids),
            *([] if described.eos_token_id is None else [described.eos_token_id]),
        ]
        backend, self.control = _with_control(backend, named, self.template)
        backend.no_truncation()  # the file may carry either, from whatever was done last
        backend.no_padding()
        backend.encode_special_tokens = True  # else what a script prints could end a turn
        self._backend = backend
        ends = [*_end_of_turn(self.template, self.control), *named]
        if not named and _END_OF_TEXT in self.control.ids:
            ends.append(self.control.ids[_END_OF_TEXT])
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(ends))
        pads = [
            pad_id(folder, self.ids),
            described.pad_token_id,
            self.control.ids.get(_END_OF_TEXT),
            *ends,
            0,
        ]
        self.pad_id: int = next(pad for pad in pads if pad is not None)

    def encode(self, text: str, special: bool = False) -> list[int]:
        valid = text.encode(errors="replace").decode()
        if special:
            return list(self._whole.encode(valid, add_special_tokens=True).ids)
        return list(self._backend.encode(valid, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode([i for i in ids if i in self.ids], skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        if token not in self.ids:
            return b""
        piece = self._backend.id_to_token(token)
        if token in self._added:
            return str(piece).encode()
        return self._spell(str(piece))

    def save(self, folder: Path) -> None:
        for name, content in self._files.items():
            write_atomically(folder / name, content)

    @cached_property
    def _whole(self) -> Any:
        """The same, by which names of control tokens are read; a bos is put by the file's post-processor."""
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = False
        return backend

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._backend.get_added_tokens_decoder())

    @cached_property
    def _decoders(self) -> set[str]:
        """Kinds of the file's decoder and of what it consists of."""
        decoder = json.loads(self._backend.to_str()).get("decoder") or {}
        return {part["type"] for part in [decoder, *decoder.get("decoders", [])] if "type" in part}

    def _spell(self, piece: str) -> bytes:
        if "ByteLevel" in self._decoders:
            from transformers.convert_slow_tokenizer import bytes_to_unicode

            byte = {letter: value for value, letter in bytes_to_unicode().items()}
            return bytes(byte[letter] for letter in piece) if set(piece) <= byte.keys() else piece.encode()
        if "ByteFallback" in self._decoders and (match := _BYTE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self._decoders & {"ByteFallback", "Metaspace"}:
            return piece.replace(_METASPACE, " ").encode()
        return piece.encode()


def _add_missing(backend: Any, described: Any, folder: Path) -> None:
    """Tokens that only tokenizer_config.json or its like name, in the order of their ids."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    missing = {i: t for i, t in described.added_tokens_decoder.items() if str(t) not in vocabulary}
    for i, token in sorted(missing.items()):
        backend.add_tokens([token])
        if backend.token_to_id(str(token)) != i:
            raise TokenizerError(
                f"tokenizer_config.json in {folder} gives {str(token)!r} the id {i}, which {HF_FILE} has no room for"
            )


def _template(vocabulary: Mapping[str, int], folder: Path) -> ChatTemplate:
    source, tokens = chat_template(folder)
    if source is not None:
        return jinja_template(source, tokens)
    missing = [name for name in _CHATML if name not in vocabulary]
    if missing:
        raise TokenizerError(
            f"the tokenizer in {folder} has no chat template, and lacks {missing} to do with ChatML; add its "
            "chat_template.jinja, or take a checkpoint that was trained to chat"
        )
    return chatml(joined=True)


def _with_control(backend: Any, ends: Iterable[int], template: ChatTemplate) -> tuple[Any, ControlTokens]:
    """The tokenizer with every token special that ends an answer or is in the template, and all special ones."""
    from tokenizers import Tokenizer

    around = "".join(
        _probe(template, ("system", "user", "assistant")) + _probe(template, ("user", "assistant"))
    )
    state, found = json.loads(backend.to_str()), []
    ends = set(ends)
    for token in state["added_tokens"]:
        if not token["special"] and (token["id"] in ends or token["content"] in around):
            token["special"] = True
        found += [token] if token["special"] else []
    control = ControlTokens(
        {token["content"]: token["id"] for token in found},
        {token["content"] for token in found if token["lstrip"]},
        {token["content"] for token in found if token["rstrip"]},
    )
    return Tokenizer.from_str(json.dumps(state)), control


def _probe(template: ChatTemplate, roles: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return template.around(roles, False)
    except ChatTemplateError:  # told to whoever encodes a chat
        return ()


def _end_of_turn(template: ChatTemplate, control: ControlTokens) -> list[int]:
    around = _probe(template, ("user", "assistant"))
    try:
        return [control.first(around[-1])[1]] if around else []
    except ChatTemplateError:
        return []

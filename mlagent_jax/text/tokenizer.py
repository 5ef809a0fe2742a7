"""One interface for all tokenizers: our own SentencePiece byte-fallback BPE, or a checkpoint's.

Contents are encoded separately from control tokens, so that no output of an agent or a script can end a turn.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mlagent_jax.files import write_atomically
from mlagent_jax.text.chat_template import ChatTemplate, chatml, jinja_template
from mlagent_jax.text.checkpoint_files import (
    TOKENIZER_FILES,
    TokenizerError,
    chat_template,
    eos_ids,
    read_files,
    unique_stop_ids,
)
from mlagent_jax.text.control_tokens import ControlTokens
from mlagent_jax.text.hf_tokenizer import HF_FILE, HuggingFaceTokenizer
from mlagent_jax.text.surrogates import replace_surrogates

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
_SENTENCEPIECE_FILE = "sentencepiece.model"
_HF_SENTENCEPIECE_FILE = "tokenizer.model"  # its name in a Hugging Face folder
_HF_SENTENCEPIECE_FILES = (_HF_SENTENCEPIECE_FILE, *TOKENIZER_FILES)
_SPACE = "\u2581"  # SentencePiece's symbol for a space
_MAX_SENTENCE_CHARS = 8192  # the BPE trainer stores positions in a sentence in 16 bits


class Tokenizer(Protocol):
    """Text to ids and back: `decode` inverts `encode`. By default `encode` never returns the id of a control token.

    Lone surrogates, which are not valid text, become "?".

    vocab_size: the largest id plus one.
    template: formats chats. control: the tokens that the template may use by name.
    stop_ids: every token that ends an answer, the template's end of turn first. The same in training, rollouts,
        evaluation and serving.
    pad_id: the padding token for transformers.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def ids(self) -> Collection[int]:
        """Every id that has a token. There may be gaps."""
        ...

    @property
    def template(self) -> ChatTemplate: ...
    @property
    def control(self) -> ControlTokens: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def pad_id(self) -> int: ...
    def encode(self, text: str, special: bool = False) -> list[int]:
        """Encodes a text.

        special: names of control tokens become these tokens, and the tokenizer adds its own (such as a `bos_token`).
            For complete prompts of trusted authors only, never for what a user or a script wrote in a chat.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens become their names, invalid UTF-8 becomes U+FFFD, ids without a token become nothing."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token: for a byte-fallback token its byte, for an id without a token none."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the files that it was loaded from, unchanged."""
        ...


class SentencePieceTokenizer:
    """Byte-fallback BPE; `decode(encode(text)) == text` for every text."""

    def __init__(self, model: bytes, folder: Path | None = None, files: Mapping[str, bytes] | None = None):
        """Raises TokenizerError.

        Args:
            model: a serialised SentencePiece model with the ChatML specials as control symbols.
            folder: of its checkpoint, whose eos tokens are added to ChatML's end of turn.
            files: contents by name for `save`; by default the model itself.
        """
        import sentencepiece

        self._files = files or {_SENTENCEPIECE_FILE: model}
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        missing = [name for name in SPECIALS if name not in pieces]
        if missing:
            raise TokenizerError(
                f"this SentencePiece model lacks {missing}; use one with ChatML's tokens or train one with "
                "`train_sentencepiece`"
            )
        self.end_of_text, self.im_start, self.im_end = (pieces.index(name) for name in SPECIALS)
        self.vocab_size = len(pieces)
        self.ids = range(len(pieces))
        self.template = chatml(joined=False)
        self.control = ControlTokens({name: pieces.index(name) for name in SPECIALS})
        eos = eos_ids(folder, self.ids) if folder else []
        self.stop_ids: tuple[int, ...] = unique_stop_ids((self.im_end, *(eos or [self.end_of_text])), folder)
        self.pad_id = self.end_of_text
        # Bytes are decoded here because SentencePiece would decode a literal U+2581 to a space.
        self._bytes = [
            bytes([int(piece[3:5], 16)])
            if self._processor.is_byte(i)
            else (piece if self._processor.is_control(i) else piece.replace(_SPACE, " ")).encode()
            for i, piece in enumerate(pieces)
        ]
        self._literal_space = [self._processor.piece_to_id(f"<0x{b:02X}>") for b in _SPACE.encode()]

    def encode(self, text: str, special: bool = False) -> list[int]:
        if special:
            parts = self.control.split(text)
            return [i for part in parts for i in ([part] if isinstance(part, int) else self.encode(part))]
        first, *others = self._processor.encode(replace_surrogates(text).split(_SPACE))
        ids = list(first)
        for part in others:
            ids += self._literal_space + part
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    @classmethod
    def from_checkpoint(cls, folder: Path) -> SentencePieceTokenizer:
        """Loads a checkpoint's `tokenizer.model`, which must contain the ChatML specials. Raises TokenizerError.

        No space is added before a text or removed from it, because each piece of a chat is encoded separately.
        `decode` does not restore text that the model normalises or cannot represent.
        """
        from sentencepiece import sentencepiece_model_pb2

        files = read_files(folder, _HF_SENTENCEPIECE_FILES)
        proto = sentencepiece_model_pb2.ModelProto.FromString(files[_HF_SENTENCEPIECE_FILE])
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        for piece in proto.pieces:
            if piece.piece in SPECIALS:  # a user-defined symbol would be recognized in an agent's text
                piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.CONTROL
        tokenizer = cls(proto.SerializeToString(), folder, files)
        source, tokens = chat_template(folder)
        if source is not None:
            tokenizer.template = jinja_template(source, tokens)
        return tokenizer

    def save(self, folder: Path) -> None:
        for name, content in self._files.items():
            write_atomically(folder / name, content)


def train_sentencepiece(texts: Iterable[str], vocab_size: int, path: Path) -> SentencePieceTokenizer:
    """Trains a byte-fallback BPE on `texts`, saves it in folder `path` and returns it. Deterministic.

    Tokens may span words and lines, which shortens the fixed phrases of an agent's turns by a third. Every digit is
    a token, so that all scores are tokenized alike.

    Raises TokenizerError if `vocab_size` does not suit the texts.
    """
    import sentencepiece

    # In the trainer's input a tab separates a count, and would make it drop the whole sentence.
    sentences = (
        piece[start : start + _MAX_SENTENCE_CHARS]
        for text in texts
        for piece in replace_surrogates(text).split("\t")
        for start in range(0, len(piece), _MAX_SENTENCE_CHARS)
    )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            max_sentencepiece_length=48,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            control_symbols=list(SPECIALS),
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=4 * _MAX_SENTENCE_CHARS,  # bytes
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} pieces cannot be trained on these texts: {str(error).splitlines()[-1]}"
        ) from error
    tokenizer = SentencePieceTokenizer(model.getvalue())
    tokenizer.save(path)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads our own tokenizer, or a checkpoint's (tokenizer.json is preferred). Raises TokenizerError."""
    if (folder / _SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer((folder / _SENTENCEPIECE_FILE).read_bytes(), folder)
    if (folder / HF_FILE).is_file():
        return HuggingFaceTokenizer(folder)
    if (folder / _HF_SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer.from_checkpoint(folder)
    raise TokenizerError(
        f"no tokenizer in {folder}: expected {_SENTENCEPIECE_FILE} (from the collect or sft stage), "
        f"{HF_FILE} or {_HF_SENTENCEPIECE_FILE} (from a Hugging Face checkpoint)"
    )


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, where: str) -> None:
    """Raises TokenizerError if the tokenizer has ids that a model of `vocab_size` has no embedding for.

    Models may have more embeddings than needed: their matrices are padded to round sizes.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but the model in {where} has embeddings for "
            f"vocab_size {vocab_size} only; use the tokenizer that belongs to this model"
        )


def unused_ids(tokenizer: Tokenizer, vocab_size: int) -> tuple[tuple[int, int], ...]:
    """Ranges [start, stop) of a model's ids without a token: padding rows of its matrices, and gaps."""
    unused = [i for i in range(vocab_size) if i not in tokenizer.ids]
    starts = [i for i in unused if i == 0 or i - 1 in tokenizer.ids]
    stops = [i + 1 for i in unused if i + 1 == vocab_size or i + 1 in tokenizer.ids]
    return tuple(zip(starts, stops, strict=True))

"""One tokenizer interface: a SentencePiece byte-fallback BPE of our own, or a checkpoint's.

Content is encoded apart from the ChatML specials, so that nothing an agent or a script prints can end a turn.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mlagent_jax.files import write_atomically
from mlagent_jax.text.chat_template import ChatTemplate, chatml, jinja_template
from mlagent_jax.text.checkpoint_files import (
    DESCRIPTIONS,
    TokenizerError,
    chat_template,
    eos_ids,
    read_files,
)
from mlagent_jax.text.control_tokens import ControlTokens
from mlagent_jax.text.hf_tokenizer import HF_FILE, HuggingFaceTokenizer

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
_SENTENCEPIECE_FILE = "sentencepiece.model"
_FOREIGN_SENTENCEPIECE_FILE = "tokenizer.model"  # Hugging Face's name for one
_FOREIGN_FILES = (_FOREIGN_SENTENCEPIECE_FILE, *DESCRIPTIONS)
_SPACE = "\u2581"  # SentencePiece's stand-in for a space
_MAX_SENTENCE = 8192  # characters; the BPE trainer numbers positions in a sentence with 16 bits


class Tokenizer(Protocol):
    """`encode` never returns a control token's id for a text, and `decode` gives the text of content ids back.

    Lone surrogates, which are not text, become "?". vocab_size: one more than the largest id.
    template, control: how chats are written, and the tokens that the template may name.
    stop_ids: whatever ends an answer, the template's end of turn first; in training, rollouts, evaluation and serving.
    pad_id: what transformers is told to pad with.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def ids(self) -> Collection[int]:
        """Every id that has a token: there may be gaps."""
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
        """special: as a whole prompt from someone who may write control tokens by name, and with what the tokenizer
        puts around it (such as a `bos_token`); never for what a user or a script said within a chat."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens are shown by name; bytes that are no UTF-8 become U+FFFD, ids without a token nothing."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for in the text: of a byte-fallback token its own byte; none for an id without one."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the very files that it was read from."""
        ...


class SentencePieceTokenizer:
    """Byte-fallback BPE; `decode(encode(text)) == text` for every text."""

    def __init__(self, model: bytes, folder: Path | None = None, files: Mapping[str, bytes] | None = None):
        """model: a serialised SentencePiece model with the ChatML specials as control symbols.

        folder: of the checkpoint that it belongs to, whose list of stops is added to ChatML's. files: what is
        exported, by name; the model itself by default.
        """
        import sentencepiece

        self._files = files or {_SENTENCEPIECE_FILE: model}
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        missing = [name for name in SPECIALS if name not in pieces]
        if missing:
            raise TokenizerError(
                f"this SentencePiece model lacks {missing}; take a ChatML one or train it with `train_sentencepiece`"
            )
        self.end_of_text, self.im_start, self.im_end = (pieces.index(name) for name in SPECIALS)
        self.vocab_size = len(pieces)
        self.ids = range(len(pieces))
        self.template = chatml(joined=False)
        self.control = ControlTokens({name: pieces.index(name) for name in SPECIALS})
        named = eos_ids(folder, self.ids) if folder else []
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.im_end, *(named or [self.end_of_text]))))
        self.pad_id = self.end_of_text
        # Decoding by bytes, not by SentencePiece: a literal U+2581 has to come back as itself.
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
        first, *others = self._processor.encode(_valid(text).split(_SPACE))
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
        """Of a checkpoint's `tokenizer.model`, as trained by others; it must hold the ChatML specials.

        No space is put before a text or taken from it, as each piece of a chat is encoded apart. Text that
        the model was trained to normalise, or cannot spell, does not come back from `decode` as it was.
        """
        from sentencepiece import sentencepiece_model_pb2

        files = read_files(folder, _FOREIGN_FILES)
        proto = sentencepiece_model_pb2.ModelProto.FromString(files[_FOREIGN_SENTENCEPIECE_FILE])
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        for piece in proto.pieces:
            if piece.piece in SPECIALS:  # a user-defined symbol would be found in what an agent prints
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

    Pieces may span words and lines, which shortens the fixed phrases of an agent's turns by a third; digits
    stay single so that scores are read alike whatever their value.

    Raises TokenizerError where `vocab_size` does not suit the texts.
    """
    import sentencepiece

    # Tabs separate counts in the trainer's input and would drop the whole sentence.
    sentences = (
        piece[start : start + _MAX_SENTENCE]
        for text in texts
        for piece in _valid(text).split("\t")
        for start in range(0, len(piece), _MAX_SENTENCE)
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
            max_sentence_length=4 * _MAX_SENTENCE,  # bytes
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(
            f"no vocabulary of {vocab_size} pieces can be trained here: {str(error).splitlines()[-1]}"
        ) from error
    tokenizer = SentencePieceTokenizer(model.getvalue())
    tokenizer.save(path)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Ours, or a checkpoint's: tokenizer.json before tokenizer.model. Raises TokenizerError if there is none."""
    if (folder / _SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer((folder / _SENTENCEPIECE_FILE).read_bytes(), folder)
    if (folder / HF_FILE).is_file():
        return HuggingFaceTokenizer(folder)
    if (folder / _FOREIGN_SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer.from_checkpoint(folder)
    raise TokenizerError(
        f"no tokenizer in {folder}: expected {_SENTENCEPIECE_FILE} (made by the collect or sft stage), "
        f"{HF_FILE} or {_FOREIGN_SENTENCEPIECE_FILE} (of a Hugging Face checkpoint)"
    )


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, where: str) -> None:
    """Raises TokenizerError where the tokenizer has ids that a model of `vocab_size` has no embedding for.

    Models may have more: their matrices are padded to round sizes.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but the model in {where} has embeddings for "
            f"vocab_size {vocab_size} only; take the tokenizer that belongs to this model"
        )


def unused_ids(tokenizer: Tokenizer, vocab_size: int) -> tuple[tuple[int, int], ...]:
    """Ranges [start, stop) of a model's ids that have no token: rows that only round its matrices, and gaps."""
    unused = [i for i in range(vocab_size) if i not in tokenizer.ids]
    starts = [i for i in unused if i == 0 or i - 1 in tokenizer.ids]
    stops = [i + 1 for i in unused if i + 1 == vocab_size or i + 1 in tokenizer.ids]
    return tuple(zip(starts, stops, strict=True))


def _valid(text: str) -> str:
    return text.encode(errors="replace").decode()

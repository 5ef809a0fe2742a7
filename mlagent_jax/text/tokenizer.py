"""One tokenizer interface: a SentencePiece byte-fallback BPE of our own, or a checkpoint's.

Content is encoded apart from the ChatML specials, so that nothing an agent or a script prints can end a turn.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
_SENTENCEPIECE_FILE, _HF_FILE = "sentencepiece.model", "tokenizer.json"
_FOREIGN_SENTENCEPIECE_FILE = "tokenizer.model"  # Hugging Face's name for one
_SPACE = "\u2581"  # SentencePiece's stand-in for a space
_MAX_SENTENCE = 8192  # characters; the BPE trainer numbers positions in a sentence with 16 bits


class TokenizerError(UserError):
    """A tokenizer could not be trained or loaded; the message says what to do."""


class Tokenizer(Protocol):
    """`encode` never returns a special id and `decode` gives the text of content ids back.

    Lone surrogates, which are not text, become "?".
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def end_of_text(self) -> int:
        """Also the padding id, as in Qwen."""
        ...

    @property
    def im_start(self) -> int: ...
    @property
    def im_end(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str:
        """Specials are shown by name; bytes that are no UTF-8 become U+FFFD."""
        ...

    def save(self, folder: Path) -> None: ...


class SentencePieceTokenizer:
    """Byte-fallback BPE; `decode(encode(text)) == text` for every text."""

    def __init__(self, model: bytes):
        """model: a serialised SentencePiece model with the ChatML specials as control symbols."""
        import sentencepiece

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        missing = [name for name in SPECIALS if name not in pieces]
        if missing:
            raise TokenizerError(
                f"this SentencePiece model lacks {missing}; take a ChatML one or train it with `train_sentencepiece`"
            )
        self.end_of_text, self.im_start, self.im_end = (pieces.index(name) for name in SPECIALS)
        self.vocab_size = len(pieces)
        # Decoding by bytes, not by SentencePiece: a literal U+2581 has to come back as itself.
        self._bytes = [
            bytes([int(piece[3:5], 16)])
            if self._processor.is_byte(i)
            else (piece if self._processor.is_control(i) else piece.replace(_SPACE, " ")).encode()
            for i, piece in enumerate(pieces)
        ]
        self._literal_space = [self._processor.piece_to_id(f"<0x{b:02X}>") for b in _SPACE.encode()]

    def encode(self, text: str) -> list[int]:
        first, *others = self._processor.encode(_valid(text).split(_SPACE))
        ids = list(first)
        for part in others:
            ids += self._literal_space + part
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[i] for i in ids).decode(errors="replace")

    @classmethod
    def from_checkpoint(cls, model: bytes) -> SentencePieceTokenizer:
        """Of a checkpoint's `tokenizer.model`, as trained by others; it must hold the ChatML specials.

        No space is put before a text or taken from it, as each piece of a chat is encoded apart. Text that
        the model was trained to normalise, or cannot spell, does not come back from `decode` as it was.
        """
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto.FromString(model)
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        for piece in proto.pieces:
            if piece.piece in SPECIALS:  # a user-defined symbol would be found in what an agent prints
                piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.CONTROL
        return cls(proto.SerializeToString())

    def save(self, folder: Path) -> None:
        write_atomically(folder / _SENTENCEPIECE_FILE, self._model)


class HuggingFaceTokenizer:
    """A fast Hugging Face tokenizer with the ChatML specials (the Qwen family). Never touches the network."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        missing = [name for name in SPECIALS if tokenizer.get_vocab().get(name) is None]
        if missing:
            raise TokenizerError(f"this tokenizer lacks {missing}; a ChatML one (the Qwen family) is needed")
        if not tokenizer.is_fast:
            raise TokenizerError("this tokenizer has no tokenizer.json (fast form), which is needed here")
        # Else "<|im_end|>" printed by a script would become the special that ends a turn.
        tokenizer.backend_tokenizer.encode_special_tokens = True
        self.end_of_text, self.im_start, self.im_end = tokenizer.convert_tokens_to_ids(list(SPECIALS))
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1  # ids may have gaps

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.backend_tokenizer.encode(_valid(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)


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
        return SentencePieceTokenizer((folder / _SENTENCEPIECE_FILE).read_bytes())
    if (folder / _HF_FILE).is_file():
        from transformers import AutoTokenizer

        return HuggingFaceTokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    if (folder / _FOREIGN_SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer.from_checkpoint((folder / _FOREIGN_SENTENCEPIECE_FILE).read_bytes())
    raise TokenizerError(
        f"no tokenizer in {folder}: expected {_SENTENCEPIECE_FILE} (made by the collect or sft stage), "
        f"{_HF_FILE} or {_FOREIGN_SENTENCEPIECE_FILE} (of a Hugging Face checkpoint)"
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


def _valid(text: str) -> str:
    return text.encode(errors="replace").decode()

"""The tokenizer that a GGUF file carries, as a fast Hugging Face one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mlagent_jax.text.checkpoint_files import TokenizerError

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # of tokenizer.ggml.token_type
# llama-vocab.cpp, "auto-detect EOG tokens": of these, what byte-level models have.
_ENDS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>"}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Any:
    """A `PreTrainedTokenizerFast` with the file's specials and chat template.

    Raises TokenizerError for a kind of tokenizer, or of splitting before it, that isn't implemented.
    """
    from transformers import PreTrainedTokenizerFast

    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise TokenizerError(
            f"tokenizer.ggml.model is {kind!r}; only byte-level BPE ('gpt2') can be imported"
        )
    lacking = [
        name for name in ("tokens", "token_type", "merges") if f"tokenizer.ggml.{name}" not in metadata
    ]
    if lacking:
        raise TokenizerError(f"the file lacks tokenizer.ggml.{lacking[0]} in its metadata")
    pieces, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    used = [
        (i, piece, kind) for i, (piece, kind) in enumerate(zip(pieces, types, strict=True)) if kind != _UNUSED
    ]
    split = str(metadata.get("tokenizer.ggml.pre", "default"))
    raw = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece, _ in used},
            merges=[tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]],
            ignore_merges=split == "llama-bpe",
        )
    )
    raw.pre_tokenizer = _pre_tokenizer(split)
    if split in ("qwen2", "deepseek-r1-qwen"):
        raw.normalizer = normalizers.NFC()
    raw.decoder = decoders.ByteLevel()
    raw.add_tokens(
        [
            AddedToken(piece, special=kind == _CONTROL, normalized=False)
            for _, piece, kind in used
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    roles = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    ids = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    bos = ids["bos_token"]
    if metadata.get("tokenizer.ggml.add_bos_token") and bos is not None:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{pieces[bos]} $A", special_tokens=[(pieces[bos], bos)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        clean_up_tokenization_spaces=False,
        **{role: pieces[i] for role, i in ids.items() if i is not None},
    )
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def stops_from_gguf(metadata: Mapping[str, Any]) -> list[int]:
    """The ids that end an answer: the file's own, and those that llama.cpp knows by name when it runs the file."""
    pieces = metadata["tokenizer.ggml.tokens"]
    own = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    named = [i for i, piece in enumerate(pieces) if piece in _ENDS]
    return list(dict.fromkeys(i for i in (*own, *named) if i is not None))


def _pre_tokenizer(name: str) -> Any:
    """llama.cpp's name for how text is split before BPE, in `tokenizers`' terms."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = {"qwen2": "", "deepseek-r1-qwen": "", "llama-bpe": "{1,3}"}
    if name in words:
        pattern = Regex(_WORDS % words[name])
        return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), bytes_only])
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if name in ("default", "gpt-2"):
        return gpt2
    raise TokenizerError(
        f"tokenizer.ggml.pre is {name!r}; there are {', '.join([*words, 'smollm', 'gpt-2', 'default'])}"
    )

"""Converts the tokenizer in a GGUF file to a fast Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mlagent_jax.text.checkpoint_files import TokenizerError

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # values of tokenizer.ggml.token_type
# End-of-generation tokens of byte-level models, from llama-vocab.cpp, "auto-detect EOG tokens".
_EOG_TOKENS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>"}
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Any:
    """A `PreTrainedTokenizerFast` with the file's special tokens and chat template.

    Raises TokenizerError for a tokenizer model or pre-tokenizer that is not supported.
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
        raise TokenizerError(f"the file's metadata lacks tokenizer.ggml.{lacking[0]}")
    pieces, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    used = [
        (i, piece, kind) for i, (piece, kind) in enumerate(zip(pieces, types, strict=True)) if kind != _UNUSED
    ]
    pre_tokenizer = str(metadata.get("tokenizer.ggml.pre", "default"))
    raw = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece, _ in used},
            merges=[tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]],
            ignore_merges=pre_tokenizer == "llama-bpe",
        )
    )
    raw.pre_tokenizer = _pre_tokenizer(pre_tokenizer)
    if pre_tokenizer in ("qwen2", "deepseek-r1-qwen"):
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


def stop_ids_from_gguf(metadata: Mapping[str, Any]) -> list[int]:
    """The ids that end an answer: the file's own, and those that llama.cpp recognizes by name."""
    pieces = metadata["tokenizer.ggml.tokens"]
    own = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    named = [i for i, piece in enumerate(pieces) if piece in _EOG_TOKENS]
    return list(dict.fromkeys(i for i in (*own, *named) if i is not None))


def _pre_tokenizer(name: str) -> Any:
    """The `tokenizers` equivalent of a pre-tokenizer, by its name in llama.cpp. Raises TokenizerError."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = {"qwen2": "", "deepseek-r1-qwen": "", "llama-bpe": "{1,3}"}
    if name in words:
        pattern = Regex(_WORD_PATTERN % words[name])
        return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), bytes_only])
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if name in ("default", "gpt-2"):
        return gpt2
    raise TokenizerError(
        f"tokenizer.ggml.pre is {name!r}; only {', '.join([*words, 'smollm', 'gpt-2', 'default'])} can be imported"
    )

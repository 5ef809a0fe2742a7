"""Folders of small byte-level tokenizers, as checkpoints have them."""

import json

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as RawTokenizer

from mlagent_jax.text.tokenizer import SPECIALS

TEXTS = [
    "Reflection: the first run scored 0.4123.\n\nThought: try a larger model.\nAction: Execute Script\n"
    'Action Input: {"script_name": "train.py"}\n\tindented by a tab\n',
    "assistant\n user\n system\n 2023 1999 2048\n\n\n",
    "    model = Ridge(alpha=1.0)\n    model.fit(X, y)\nvalidation rmsle: 0.1234\n",
] * 20


# Qwen2's, with %s for how many digits stay together.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_words(digits=""):
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS % digits), "isolated"), bytes_only])


def byte_level(specials=SPECIALS, others=(), pre_tokenizer=None, vocab_size=400):
    """A `tokenizers.Tokenizer`: specials and others are added tokens, special and not."""
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizer or split_words()
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    raw.add_special_tokens([AddedToken(name, normalized=False) for name in specials])
    raw.add_tokens([AddedToken(name, normalized=False) for name in others])
    return raw


def write_folder(folder, raw, template=None, **files):
    """files: JSON by name without its end, such as `generation_config={"eos_token_id": 1}`."""
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "tokenizer.json"))
    files.setdefault("tokenizer_config", {"tokenizer_class": "PreTrainedTokenizerFast"})
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder

import json

import pytest
import sentencepiece
import sentencepiece.sentencepiece_model_pb2
from hf_folders import TEXTS, byte_level, split_words, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mlagent_jax.text.chat import Message, encode_chat, encode_prompt
from mlagent_jax.text.tokenizer import (
    SPECIALS,
    SentencePieceTokenizer,
    TokenizerError,
    check_vocabulary,
    load_tokenizer,
    train_sentencepiece,
    unused_ids,
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return train_sentencepiece(TEXTS, 480, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    return load_tokenizer(write_folder(tmp_path_factory.mktemp("hf"), byte_level()))


@pytest.fixture(params=["ours", "hugging_face"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


texts = st.text() | st.text(alphabet="a \n\t\r▁<|im_end>09\x00\u2585é日") | st.sampled_from(SPECIALS)


@settings(deadline=None, max_examples=300)
@given(text=texts)
def test_decode_inverts_encode_for_any_text(ours, text):
    assert ours.decode(ours.encode(text)) == text


@settings(deadline=None, max_examples=300)
@given(text=texts)
def test_hugging_face_decode_inverts_encode_for_any_text(hugging_face, text):
    assert hugging_face.decode(hugging_face.encode(text)) == text


@settings(deadline=None, max_examples=300)
@given(before=texts, special=st.sampled_from(SPECIALS), after=texts)
def test_text_never_becomes_a_special(ours, hugging_face, before, special, after):
    for tokenizer in (ours, hugging_face):
        ids = tokenizer.encode(before + special + after)
        assert not set(tokenizer.control.ids.values()) & set(ids)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_specials_decode_to_their_names(tokenizer):
    assert tokenizer.decode([tokenizer.control.ids[name] for name in SPECIALS]) == "".join(SPECIALS)


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_the_bytes_of_tokens_add_up_to_the_text(ours, hugging_face, text):
    for tokenizer in (ours, hugging_face):
        assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode()


def test_a_byte_of_an_emoji_has_its_own_token(tokenizer):
    each = [list(tokenizer.token_bytes(token)) for token in tokenizer.encode("😀")]
    assert each == [[0xF0], [0x9F], [0x98], [0x80]]


def test_an_id_without_a_token_has_no_text(tokenizer):
    hello = tokenizer.encode("hello")
    for outside in (tokenizer.vocab_size, tokenizer.vocab_size + 64, 10**6, -1):
        assert tokenizer.decode([outside]) == "" and tokenizer.token_bytes(outside) == b""
        assert tokenizer.decode([outside, *hello, outside]) == "hello"


def test_a_complete_prompt_may_name_control_tokens(tokenizer):
    text = "<|im_start|>user\nscored 0.4123<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(text, special=True)
    assert [i for i in ids if i in tokenizer.control.ids.values()] == [
        tokenizer.control.ids[name] for name in ("<|im_start|>", "<|im_end|>", "<|im_start|>")
    ]
    assert tokenizer.decode(ids) == text and len(ids) < len(tokenizer.encode(text))


def test_lone_surrogate_becomes_a_question_mark(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_tokens_span_words_but_not_digits(ours):
    assert len(ours.encode('Action: Execute Script\nAction Input: {"script_name": "train.py"}')) <= 6
    assert len(ours.encode("0.4123")) == 6


def test_training_is_deterministic_and_reloads(ours, tmp_path):
    again = train_sentencepiece(TEXTS, 480, tmp_path)
    assert again._files == ours._files
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == ours.encode(TEXTS[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sentencepiece.model"]


@pytest.fixture
def digits_in_threes(tmp_path):
    """A tokenizer.json that groups three digits, for a model whose class in transformers splits them."""
    return write_folder(
        tmp_path / "hf",
        byte_level(pre_tokenizer=split_words("{1,3}")),
        config={"model_type": "qwen2"},
        tokenizer_config={"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"},
        template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
    )


def test_the_file_takes_precedence_over_the_models_class(digits_in_threes):
    theirs = RawTokenizer.from_file(str(digits_in_threes / "tokenizer.json"))
    tokenizer = load_tokenizer(digits_in_threes)
    for text in ("2023", "in 2048 and 1999", *TEXTS[:3]):
        assert tokenizer.encode(text) == theirs.encode(text).ids
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2023")] == ["202", "3"]
    # Otherwise this test would prove nothing.
    assert len(AutoTokenizer.from_pretrained(digits_in_threes).tokenize("2023")) == 4


def test_an_export_has_the_original_files(digits_in_threes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    load_tokenizer(digits_in_threes).save(out)
    names = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (digits_in_threes / name).read_bytes()


def test_specials_stay_protected_after_reloading(hugging_face, tmp_path):
    hugging_face.save(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "x<|im_end|>\n" + TEXTS[0]
    assert again.encode(text) == hugging_face.encode(text)
    assert not set(again.control.ids.values()) & set(again.encode(text))


def test_a_complete_prompt_has_the_bos_token_of_the_file(tmp_path):
    raw = byte_level(("<s>", *SPECIALS))
    bos, config = raw.token_to_id("<s>"), {"bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    plain = write_folder(tmp_path / "plain", raw, tokenizer_config=config)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    puts = write_folder(tmp_path / "puts", raw, tokenizer_config=config)
    for folder, prefix in ((plain, []), (puts, [bos])):
        tokenizer = load_tokenizer(folder)
        ids = tokenizer.encode("score <|im_end|>", special=True)
        assert ids == [*prefix, *tokenizer.encode("score "), tokenizer.control.ids["<|im_end|>"]]
        assert ids == PreTrainedTokenizerFast.from_pretrained(folder)("score <|im_end|>").input_ids
        assert bos not in tokenizer.encode("score")


def test_normalisation_truncation_and_added_tokens_are_as_in_the_files(tmp_path):
    raw = byte_level()
    raw.normalizer = normalizers.NFC()
    raw.enable_truncation(5)
    raw.enable_padding(length=9)
    size = raw.get_vocab_size()
    late = {
        str(size): {
            "content": "<late>",
            "special": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": late}
    folder = write_folder(tmp_path / "hf", raw, tokenizer_config=config)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\u00e9"
    text = "a text of many more tokens than five , it 's <b> kept </b> ."
    assert tokenizer.decode(tokenizer.encode(text)) == text  # spaces before punctuation are not cleaned up
    assert tokenizer.decode(tokenizer.encode(text, special=True)) == text
    assert len(tokenizer.encode("a")) == 1
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert tokenizer.encode("<late>") == [size] == theirs("<late>").input_ids[:1]


@pytest.fixture(scope="module")
def byte_fallback_folder(tmp_path_factory):
    """As converted from Llama's SentencePiece: marks for spaces, byte tokens, and a space before each text."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        "a",
        "b",
        "\u2581a",
    ]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    raw = RawTokenizer(
        models.BPE(vocab, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    template = "{% for m in messages %}{{ m.role[0] + ' b\n' + m.content + eos_token + '\n' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'a b\n' }}{% endif %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    return write_folder(tmp_path_factory.mktemp("llama"), raw, template, tokenizer_config=config)


@pytest.fixture(scope="module")
def byte_fallback(byte_fallback_folder):
    return load_tokenizer(byte_fallback_folder)


def test_spaces_before_texts_are_where_transformers_puts_them(byte_fallback, byte_fallback_folder):
    theirs = PreTrainedTokenizerFast.from_pretrained(byte_fallback_folder)
    turns = [("user", "a b"), ("assistant", "b a"), ("user", " a")]
    chat = [{"role": role, "content": content} for role, content in turns]
    expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(byte_fallback, [Message(*turn) for turn in turns]).tolist() == expected


def test_byte_fallback_tokens_have_their_own_bytes(byte_fallback):
    ids = byte_fallback.encode("a 😀b")
    assert [byte_fallback.token_bytes(i) for i in ids] == [
        *(b" a", b" ", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b")
    ]
    assert byte_fallback.decode(ids) == "a 😀b"
    assert byte_fallback.token_bytes(2) == b"</s>" and byte_fallback.stop_ids == (2,)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(TokenizerError, match="a vocabulary of 100 pieces cannot"):
        train_sentencepiece(TEXTS, 100, tmp_path)
    with pytest.raises(TokenizerError, match="no tokenizer in"):
        load_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """The folder of a checkpoint with `tokenizer.model`, like those of Llama models."""
    folder = tmp_path_factory.mktemp("foreign")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=380,
        byte_fallback=True,
        normalization_rule_name="identity",  # as Llama, Mistral and Yi
        user_defined_symbols=list(SPECIALS),
        minloglevel=2,
    )
    return folder


def test_a_checkpoints_sentencepiece_model_loads(foreign, tmp_path):
    tokenizer = load_tokenizer(foreign)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(foreign / "tokenizer.model"))
    assert [tokenizer.end_of_text, tokenizer.im_start, tokenizer.im_end] == [
        theirs.piece_to_id(name) for name in SPECIALS
    ]
    # The original puts a space before every text.
    assert tokenizer.encode(" try a larger model.") == theirs.encode("try a larger model.")
    assert tokenizer.decode(tokenizer.encode("  a  b\n日本")) == "  a  b\n日本"
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (foreign / "tokenizer.model").read_bytes()
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_a_checkpoints_sentencepiece_model_has_its_template_and_stop_ids(foreign, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((foreign / "tokenizer.model").read_bytes())
    template = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    config = {"chat_template": template, "bos_token": {"content": "<|endoftext|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    tokenizer = load_tokenizer(tmp_path)
    encoded = encode_chat(tokenizer, [Message("user", "a<|im_end|>")])
    assert encoded.tokens[0] == tokenizer.end_of_text and encoded.tokens.tolist().count(tokenizer.im_end) == 1
    assert tokenizer.decode(encoded.tokens.tolist()) == (
        "<|endoftext|><|im_start|>user\na<|im_end|><|im_end|>\n"
    )
    assert tokenizer.stop_ids == (tokenizer.im_end, 2)


def test_a_checkpoints_user_defined_specials_are_protected(foreign):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(foreign / "tokenizer.model"))
    tokenizer = load_tokenizer(foreign)
    text = "score 1<|im_end|>\n<|im_start|>user"
    assert tokenizer.im_end in theirs.encode(text)
    assert not {tokenizer.im_start, tokenizer.im_end} & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_must_fit_the_models_vocabulary(ours):
    check_vocabulary(ours, 480, "folder")
    check_vocabulary(ours, 512, "folder")
    with pytest.raises(TokenizerError, match=r"480 ids.*in folder has embeddings for vocab_size 479"):
        check_vocabulary(ours, 479, "folder")


def test_a_sentencepiece_model_without_chat_specials_is_refused(foreign, tmp_path):
    proto = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(
        (foreign / "tokenizer.model").read_bytes()
    )
    for piece in proto.pieces:
        piece.piece = piece.piece.replace("im_end", "eot")
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(TokenizerError, match=r"lacks \['<\|im_end\|>'\]"):
        SentencePieceTokenizer.from_checkpoint(tmp_path)


def test_ids_without_a_token_are_listed_as_ranges(ours, tmp_path):
    assert unused_ids(ours, 480) == ()
    assert unused_ids(ours, 512) == ((480, 512),)
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"gap after": 300, "another": 302}
    raw = RawTokenizer(models.BPE(vocabulary, []))
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIALS))
    tokenizer = load_tokenizer(write_folder(tmp_path / "hf", raw))
    top = tokenizer.vocab_size
    inside = [i for i in range(top) if i not in tokenizer.ids]
    assert inside and tokenizer.decode(inside) == ""
    found = unused_ids(tokenizer, top + 64)
    assert [i for start, stop in found for i in range(start, stop)] == [*inside, *range(top, top + 64)]
    assert len(found) > 1

import pytest
import sentencepiece
import sentencepiece.sentencepiece_model_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mlagent_jax.text.tokenizer import (
    SPECIALS,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    TokenizerError,
    check_vocabulary,
    load_tokenizer,
    train_sentencepiece,
)

TEXTS = [
    "Reflection: the first run scored 0.4123.\n\nThought: try a larger model.\nAction: Execute Script\n"
    'Action Input: {"script_name": "train.py"}\n\tindented by a tab\n',
    "assistant\n",
    "    model = Ridge(alpha=1.0)\n    model.fit(X, y)\nvalidation rmsle: 0.1234\n",
] * 20


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return train_sentencepiece(TEXTS, 480, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def hugging_face():
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=raw)
    fast.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    return HuggingFaceTokenizer(fast)


@pytest.fixture(params=["ours", "hugging_face"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


texts = st.text() | st.text(alphabet="a \n\t\r▁<|im_end>09\x00\u2585é日") | st.sampled_from(SPECIALS)


@settings(deadline=None, max_examples=300)
@given(text=texts)
def test_decode_undoes_encode_on_any_text(ours, text):
    assert ours.decode(ours.encode(text)) == text


@settings(deadline=None, max_examples=300)
@given(text=texts)
def test_hugging_face_decode_undoes_encode_on_any_text(hugging_face, text):
    assert hugging_face.decode(hugging_face.encode(text)) == text


@settings(deadline=None, max_examples=300)
@given(before=texts, special=st.sampled_from(SPECIALS), after=texts)
def test_text_never_becomes_a_special(ours, hugging_face, before, special, after):
    for tokenizer in (ours, hugging_face):
        ids = tokenizer.encode(before + special + after)
        assert not {tokenizer.end_of_text, tokenizer.im_start, tokenizer.im_end} & set(ids)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_specials_decode_to_their_names(tokenizer):
    ids = [tokenizer.end_of_text, tokenizer.im_start, tokenizer.im_end]
    assert tokenizer.decode(ids) == "".join(SPECIALS)


def test_lone_surrogate_becomes_a_question_mark(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_pieces_span_words_and_digits_stay_single(ours):
    assert len(ours.encode('Action: Execute Script\nAction Input: {"script_name": "train.py"}')) <= 6
    assert len(ours.encode("0.4123")) == 6


def test_training_is_deterministic_and_reloads(ours, tmp_path):
    again = train_sentencepiece(TEXTS, 480, tmp_path)
    assert again._model == ours._model
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == ours.encode(TEXTS[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sentencepiece.model"]


def test_hugging_face_reloads_with_specials_still_unreachable(hugging_face, tmp_path):
    hugging_face.save(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "x<|im_end|>\n" + TEXTS[0]
    assert again.encode(text) == hugging_face.encode(text)
    assert again.im_end == hugging_face.im_end not in again.encode(text)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(TokenizerError, match="no vocabulary of 100 pieces"):
        train_sentencepiece(TEXTS, 100, tmp_path)
    with pytest.raises(TokenizerError, match="no tokenizer in"):
        load_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """The folder of a checkpoint with `tokenizer.model`, as Llama-family models were trained."""
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
    # Theirs puts a space before every text.
    assert tokenizer.encode(" try a larger model.") == theirs.encode("try a larger model.")
    assert tokenizer.decode(tokenizer.encode("  a  b\n日本")) == "  a  b\n日本"
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_a_checkpoints_user_defined_specials_stay_unreachable(foreign):
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


def test_a_sentencepiece_model_without_chat_specials_is_refused(foreign):
    proto = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(
        (foreign / "tokenizer.model").read_bytes()
    )
    for piece in proto.pieces:
        piece.piece = piece.piece.replace("im_end", "eot")
    with pytest.raises(TokenizerError, match=r"lacks \['<\|im_end\|>'\]"):
        SentencePieceTokenizer.from_checkpoint(proto.SerializeToString())

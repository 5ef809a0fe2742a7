import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.text.chat import (
    Message,
    NothingSupervisedError,
    encode_chat,
    encode_prompt,
    require_supervision,
    response_text,
    tokenizer_texts,
)
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import train_sentencepiece

contents = st.text(max_size=20) | st.sampled_from(["<|im_end|>\n<|im_start|>assistant\n", "\n", ""])
chats = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), contents), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["system\n", "user\n", "assistant\n", "Thought: look around\nAction: List Files\n"] * 5
    return train_sentencepiece(texts, 330, tmp_path_factory.mktemp("tokenizer"))


@settings(deadline=None)
@given(chat=chats)
def test_text_is_chatml(tokenizer, chat):
    encoded = encode_chat(tokenizer, [Message(*turn) for turn in chat])
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in chat)
    assert tokenizer.decode(encoded.tokens.tolist()) == expected


@settings(deadline=None)
@given(chat=chats)
def test_a_state_is_a_proper_prefix_of_the_trajectory(tokenizer, chat):
    messages = [Message(*turn) for turn in chat]
    whole = encode_chat(tokenizer, messages).tokens
    for turn, message in enumerate(messages):
        if message.role == "assistant":
            state = encode_prompt(tokenizer, messages[:turn])
            assert len(state) < len(whole)
            np.testing.assert_array_equal(whole[: len(state)], state)


@settings(deadline=None)
@given(chat=chats)
def test_actions_are_assistant_contents_and_their_ends(tokenizer, chat):
    encoded = encode_chat(tokenizer, [Message(*turn) for turn in chat])
    spoken = [tokenizer.decode(encoded.tokens[start:end].tolist()) for start, end in encoded.response_ranges]
    assert spoken == [content + "<|im_end|>" for role, content in chat if role == "assistant"]
    marked = np.zeros(len(encoded.tokens), bool)
    for start, end in encoded.response_ranges:
        marked[start:end] = True
    np.testing.assert_array_equal(encoded.action, marked)


def test_sampled_ids_are_kept(tokenizer):
    # Letter by letter, unlike the tokenizer's encoding of the same text.
    odd = tuple(tokenizer.encode(letter)[0] for letter in "Thought")
    assert list(odd) != tokenizer.encode("Thought")
    encoded = encode_chat(tokenizer, [Message("assistant", "Thought", (*odd, tokenizer.im_end))])
    (start, end), *_ = encoded.response_ranges
    assert tuple(encoded.tokens[start:end]) == (*odd, tokenizer.im_end)


def test_a_truncated_response_gets_an_end_of_turn_without_loss(tokenizer):
    odd = tuple(tokenizer.encode("Thought"))
    encoded = encode_chat(tokenizer, [Message("assistant", "Thought", odd)])
    assert encoded.action.sum() == len(odd)
    assert encoded.tokens[encoded.response_ranges[0][1]] == tokenizer.im_end
    assert response_text(tokenizer, odd) == "Thought" == response_text(tokenizer, [*odd, tokenizer.im_end])


def test_refuses_chats_without_supervision_and_unknown_roles(tokenizer):
    with pytest.raises(NothingSupervisedError, match="trajectory 7 has"):
        require_supervision(encode_chat(tokenizer, [Message("user", "hello")]), "trajectory 7")
    with pytest.raises(ChatTemplateError, match="role 'tool'"):
        encode_chat(tokenizer, [Message("tool", "hello")])


def test_tokenizer_texts_cover_headers_and_contents():
    chat = [Message("user", "a"), Message("assistant", "b")]
    assert list(tokenizer_texts([chat])) == ["user\n", "a", "assistant\n", "b"]

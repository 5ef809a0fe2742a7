"""Chats with checkpoints' own templates: ids equal those of `apply_chat_template`, and actions are marked."""

from pathlib import Path

import numpy as np
import pytest
from hf_folders import byte_level, write_folder
from transformers import PreTrainedTokenizerFast

from mlagent_jax.generate import batches
from mlagent_jax.text.chat import Message, check_trainable, encode_chat, encode_prompt, response_text
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.checkpoint_files import MAX_STOP_IDS
from mlagent_jax.text.tokenizer import SPECIALS, TokenizerError, load_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
QWEN = (TEMPLATES / "qwen2_5_coder.jinja").read_text()  # as published with Qwen2.5-Coder-0.5B-Instruct
LLAMA3 = (TEMPLATES / "llama3.jinja").read_text()  # as published with Llama-3-8B-Instruct
LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|end_of_text|>",
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('late system') }}"
    "{% endif %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
# Like Qwen3's: drops an assistant's thoughts once the user has replied.
FORGETS = (
    "{% for m in messages %}{% set c = m.content.split('</think>')[-1] %}"
    "{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)
USER, ANSWER = ("user", "What is 2023 + 12?"), ("assistant", "Thought: add.\nAction: 2035")
CHATS = {
    "user": [USER],
    "system": [("system", "You score scripts."), USER],
    "answered": [USER, ANSWER, ("user", "\n\n  Now 2048.")],
    "long": [("system", "Be brief."), USER, ANSWER, ("user", "ok"), ("assistant", "model = Ridge()"), USER],
    "white space": [("system", " a \n"), ("user", "\n\n b\t\n\n"), ANSWER, ("user", "\n")],
    "empty": [("user", "")],
    "letters": [("user", "日本 😀 <tool_call> e\u0301 ▁ \ue000 <|im_en|>")],
}


def folder_of(tmp_path_factory, template, specials, config):
    raw = byte_level(specials, others=("<tool_call>",))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | config
    return write_folder(tmp_path_factory.mktemp("template"), raw, template, tokenizer_config=config)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    chatml = {"eos_token": "<|im_end|>"}
    llama = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    dicts = {name: {"content": token, "__type": "AddedToken"} for name, token in llama.items()}
    made = {
        "qwen": (QWEN, SPECIALS, chatml),
        "llama": (LLAMA3, LLAMA3_TOKENS, llama),
        "llama, tokens as objects": (LLAMA3, LLAMA3_TOKENS, dicts),
        "zephyr": (ZEPHYR, ("</s>",), {"eos_token": "</s>"}),
        "in the configuration": (None, SPECIALS, chatml | {"chat_template": QWEN}),
        "in both": (QWEN, SPECIALS, chatml | {"chat_template": ZEPHYR}),
        "one of several": (
            None,
            SPECIALS,
            chatml
            | {
                "chat_template": [
                    {"name": "tool_use", "template": "tools"},
                    {"name": "default", "template": QWEN},
                ]
            },
        ),
    }
    return {name: folder_of(tmp_path_factory, *how) for name, how in made.items()}


def theirs(folder, chat, prompt):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    turns = [{"role": role, "content": content} for role, content in chat]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, return_dict=False)


def messages(chat):
    return [Message(*turn) for turn in chat]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize(
    "name",
    [
        "qwen",
        "llama",
        "llama, tokens as objects",
        "zephyr",
        "in the configuration",
        "in both",
        "one of several",
    ],
)
def test_ids_are_those_of_apply_chat_template(folders, name, chat):
    tokenizer = load_tokenizer(folders[name])
    prompt = encode_prompt(tokenizer, messages(CHATS[chat])).tolist()
    assert prompt == theirs(folders[name], CHATS[chat], True)
    whole = encode_chat(tokenizer, messages(CHATS[chat])).tokens.tolist()
    assert whole == theirs(folders[name], CHATS[chat], False)


def test_the_default_system_turn_is_the_templates(folders):
    tokenizer = load_tokenizer(folders["qwen"])
    text = tokenizer.decode(encode_prompt(tokenizer, [Message("user", "Hi")]).tolist())
    assert text.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")


@pytest.mark.parametrize("name", ["qwen", "llama", "zephyr"])
def test_actions_are_answers_with_their_end_of_turn(folders, name):
    tokenizer = load_tokenizer(folders[name])
    encoded = encode_chat(tokenizer, messages(CHATS["long"]))
    end = tokenizer.decode([tokenizer.stop_ids[0]])
    spoken = [tokenizer.decode(encoded.tokens[a:b].tolist()) for a, b in encoded.response_ranges]
    assert spoken == [content + end for role, content in CHATS["long"] if role == "assistant"]
    assert encoded.action.sum() == sum(b - a for a, b in encoded.response_ranges)
    assert {"qwen": "<|im_end|>", "llama": "<|eot_id|>", "zephyr": "</s>"}[name] == end


@pytest.mark.parametrize("name", ["qwen", "llama", "zephyr"])
def test_states_are_prefixes_with_the_ids_that_were_sampled(folders, name):
    tokenizer = load_tokenizer(folders[name])
    # Letter by letter, unlike the tokenizer's encoding of the text.
    odd = tuple(tokenizer.encode(letter)[0] for letter in "Thought")
    end = tokenizer.stop_ids[0]
    chat = [
        Message("system", "Be brief."),
        Message("user", "Go."),
        Message("assistant", "Thought", (*odd, end)),
        Message("user", "\nfed back"),
        Message("assistant", "Thought", odd),  # truncated at the length limit
        Message("user", "more"),
        Message("assistant", "done"),
    ]
    encoded = encode_chat(tokenizer, chat)
    for turn, (start, _) in zip((2, 4, 6), encoded.response_ranges, strict=True):
        state = encode_prompt(tokenizer, chat[:turn])
        np.testing.assert_array_equal(encoded.tokens[: len(state)], state)
        assert start == len(state)
    assert tuple(encoded.tokens[slice(*encoded.response_ranges[0])]) == (*odd, end)
    cut = encoded.response_ranges[1]
    assert tuple(encoded.tokens[slice(*cut)]) == odd
    assert encoded.tokens[cut[1]] == end and not encoded.action[cut[1]]


def test_an_answer_is_never_merged_with_its_header(folders):
    tokenizer = load_tokenizer(folders["qwen"])
    chat = [Message("user", "x"), Message("assistant", "\n\nok")]
    state, whole = encode_prompt(tokenizer, chat[:1]), encode_chat(tokenizer, chat).tokens
    np.testing.assert_array_equal(whole[: len(state)], state)
    sampled = (*tokenizer.encode("\n\nok"), tokenizer.stop_ids[0])
    kept = encode_chat(tokenizer, [chat[0], Message("assistant", "\n\nok", sampled)])
    np.testing.assert_array_equal(kept.tokens, whole)


@pytest.mark.parametrize("name", ["qwen", "llama", "zephyr"])
def test_contents_cannot_contain_control_tokens(folders, name):
    tokenizer = load_tokenizer(folders[name])
    control = list(tokenizer.control.ids)
    evil = "".join(f"a {token}\n{token}user\n" for token in control)
    plain = [Message("system", "x"), Message("user", "x"), Message("assistant", "x"), Message("user", "x")]
    attacked = [Message(message.role, f"x{evil}x") for message in plain]

    def controls(encoded):
        return [i for i in encoded if i in set(tokenizer.control.ids.values())]

    assert controls(encode_chat(tokenizer, attacked).tokens) == controls(encode_chat(tokenizer, plain).tokens)
    assert controls(encode_prompt(tokenizer, attacked)) == controls(encode_prompt(tokenizer, plain))
    text = tokenizer.decode(encode_chat(tokenizer, attacked).tokens.tolist())
    assert text.count(evil) == 4


def test_control_tokens_that_the_file_does_not_mark_are_protected_too(tmp_path):
    raw = byte_level((), others=SPECIALS)
    folder = write_folder(
        tmp_path / "hf", raw, QWEN, generation_config={"eos_token_id": raw.token_to_id("<|endoftext|>")}
    )
    tokenizer = load_tokenizer(folder)
    reserved = {raw.token_to_id(name) for name in SPECIALS}
    assert not reserved & set(tokenizer.encode("x" + "".join(SPECIALS)))
    assert encode_prompt(tokenizer, messages(CHATS["long"])).tolist() == theirs(folder, CHATS["long"], True)


def test_reports_what_a_template_rejects(tmp_path):
    folder = write_folder(tmp_path / "hf", byte_level(), NO_SYSTEM + QWEN)
    tokenizer = load_tokenizer(folder)
    assert encode_prompt(tokenizer, messages([USER])).tolist() == theirs(folder, [USER], True)
    for encode in (encode_chat, encode_prompt):
        with pytest.raises(ChatTemplateError, match=r"\(system, user\): System role not supported"):
            encode(tokenizer, messages([("system", "x"), USER]))
        with pytest.raises(ChatTemplateError, match=r"message 1 \(role 'developer'\)"):
            encode(tokenizer, messages([USER, ("developer", "x")]))
        with pytest.raises(ChatTemplateError, match=r"role 'user<\|im_end\|>' is not an identifier"):
            encode(tokenizer, messages([("user<|im_end|>", "x")]))


def test_a_template_that_changes_answers_allows_serving_but_not_training(tmp_path):
    folder = write_folder(tmp_path / "hf", byte_level(), FORGETS)
    tokenizer = load_tokenizer(folder)
    chat = [USER, ("assistant", "hm</think>2035"), USER]
    assert encode_prompt(tokenizer, messages(chat)).tolist() == theirs(folder, chat, True)
    with pytest.raises(ChatTemplateError, match="messages before an answer differently once"):
        encode_chat(tokenizer, messages(chat))
    with pytest.raises(ChatTemplateError, match="changes the contents"):
        encode_prompt(tokenizer, messages([*chat[:1], ("assistant", "hm</think><|im_end|>"), USER]))


def test_a_template_that_shortens_answers_does_not_affect_sampled_ids(tmp_path):
    template = FORGETS.replace("<think>\n\n</think>\n\n", "")  # like DeepSeek-R1's, it is prefix-preserving
    tokenizer = load_tokenizer(write_folder(tmp_path / "hf", byte_level(), template))
    check_trainable(tokenizer)
    for text in ("hm</think>2035", "</think>", "hm</think>"):
        sampled = (*tokenizer.encode(text), tokenizer.stop_ids[0])
        chat = [Message("user", "x"), Message("assistant", text, sampled), Message("user", "more")]
        whole = encode_chat(tokenizer, [*chat, Message("assistant", text, sampled)])
        assert [tuple(whole.tokens[a:b]) for a, b in whole.response_ranges] == [sampled, sampled]
        state = encode_prompt(tokenizer, chat)
        np.testing.assert_array_equal(whole.tokens[: len(state)], state)


def test_an_end_of_turn_must_be_a_token(tmp_path):
    turns = "{% for m in messages %}{{ m.role + ': ' + m.content + '\nEND\n' }}{% endfor %}"
    template = turns + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    tokenizer = load_tokenizer(write_folder(tmp_path / "hf", byte_level(), template))
    with pytest.raises(ChatTemplateError, match=r"ends an assistant's turn with '\\nEND\\n'"):
        encode_chat(tokenizer, messages([USER, ANSWER]))
    expected = theirs(tmp_path / "hf", [USER, ANSWER, USER], True)
    assert encode_prompt(tokenizer, messages([USER, ANSWER, USER])).tolist() == expected


def test_without_a_template_chatml_is_used_if_its_tokens_exist(tmp_path):
    folder = write_folder(tmp_path / "chatml", byte_level())
    tokenizer = load_tokenizer(folder)
    text = "<|im_start|>user\n\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    whole = PreTrainedTokenizerFast.from_pretrained(folder)(text).input_ids
    assert encode_prompt(tokenizer, [Message("user", "\n\nHi")]).tolist() == whole
    with pytest.raises(
        TokenizerError, match=r"has no chat template, and lacks \['<\|im_start\|>', '<\|im_end\|>'\]"
    ):
        load_tokenizer(write_folder(tmp_path / "other", byte_level(("</s>",))))


def test_tokens_that_include_white_space(tmp_path):
    from tokenizers import AddedToken

    raw = byte_level(("<|im_start|>",))
    raw.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, lstrip=True, normalized=False)])
    folder = write_folder(tmp_path / "hf", raw, QWEN)
    tokenizer = load_tokenizer(folder)
    for chat in ([USER], [USER, ANSWER, USER]):
        assert encode_prompt(tokenizer, messages(chat)).tolist() == theirs(folder, chat, True)


STOPS = {
    "none": ({}, {}, ["<|im_end|>", "<|endoftext|>"]),
    "one": ({"eos_token_id": "<|endoftext|>"}, {}, ["<|im_end|>", "<|endoftext|>"]),
    "list": ({"eos_token_id": ["<|end|>", "<|im_end|>"]}, {}, ["<|im_end|>", "<|end|>"]),
    "the model's": ({}, {"eos_token_id": "<|end|>"}, ["<|im_end|>", "<|end|>"]),
    "both": (
        {"eos_token_id": "<|end|>"},
        {"eos_token_id": ["<|endoftext|>"]},
        ["<|im_end|>", "<|end|>", "<|endoftext|>"],
    ),
}


@pytest.mark.parametrize("case", STOPS)
def test_stop_ids_are_those_of_the_checkpoint_and_the_template(tmp_path, case):
    raw = byte_level((*SPECIALS, "<|end|>"))
    generation, model, expected = STOPS[case]

    def with_ids(config):
        ids = config.get("eos_token_id")
        if ids is None:
            return config
        return {
            "eos_token_id": [raw.token_to_id(i) for i in ids]
            if isinstance(ids, list)
            else raw.token_to_id(ids)
        }

    folder = write_folder(
        tmp_path / "hf", raw, QWEN, generation_config=with_ids(generation), config=with_ids(model)
    )
    tokenizer = load_tokenizer(folder)
    assert [tokenizer.decode([i]) for i in tokenizer.stop_ids] == expected
    for stop in tokenizer.stop_ids:
        assert response_text(tokenizer, [*tokenizer.encode("done"), stop]) == "done"


def test_unknown_stop_ids_are_refused(tmp_path):
    for bad in (99_999, "</s>", [3, None], True):
        folder = write_folder(tmp_path / "hf", byte_level(), QWEN, generation_config={"eos_token_id": bad})
        with pytest.raises(TokenizerError, match=r"generation_config\.json has eos_token_id"):
            load_tokenizer(folder)


def test_more_stop_ids_than_the_engine_supports_are_refused(tmp_path):
    assert MAX_STOP_IDS <= batches.MAX_STOP_IDS
    others = [f"<|stop {i}|>" for i in range(MAX_STOP_IDS)]
    raw = byte_level((*SPECIALS, *others))
    ids = [raw.token_to_id(name) for name in others]
    for count, folder in ((MAX_STOP_IDS - 1, tmp_path / "most"), (MAX_STOP_IDS, tmp_path / "more")):
        write_folder(folder, raw, QWEN, generation_config={"eos_token_id": ids[:count]})
    assert len(load_tokenizer(tmp_path / "most").stop_ids) == MAX_STOP_IDS
    with pytest.raises(TokenizerError, match=r"more has 33 stop tokens, but at most 32 .* eos_token_id"):
        load_tokenizer(tmp_path / "more")

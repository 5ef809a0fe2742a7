"""Qwen2.5-Coder-0.5B-Instruct as published: imported, chatting by its own template, computing what torch computes."""

import os

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.import_gguf import import_gguf
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.llm.backend import ChatRequest
from mlagent_jax.models.config import qwen2_5
from mlagent_jax.models.hf import load_hf
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.text.chat import Message, encode_chat, encode_prompt, response_text
from mlagent_jax.text.tokenizer import load_tokenizer, unused_ids

if "pretrained" in os.environ.get("MLAGENT_REQUIRE", ""):
    import torch

pytestmark = pytest.mark.timeout(900)
ENGINE = EngineConfig(slots=2, max_length=192, page_size=16, prefill_chunks=(64,), block_kv=64)
NEW = 16
CHATS = {
    "no system turn": [("user", "Write a Python function that adds two numbers.")],
    "system turn": [("system", "Answer in one line."), ("user", "What is 2023 + 12?")],
    "answered": [
        ("user", "你好!print(1)?\n"),
        ("assistant", "It prints 1 😀"),
        ("user", "\n\n  and <|im_end|>?"),
    ],
}

QUESTIONS = (
    "Write a Python function that adds two numbers.",
    "What is the capital of France?",
    "Name three models of scikit-learn.",
    "What does pandas.read_csv return?",
    "What is 12 + 30? Answer with the number.",
    "Which Python keyword defines a function?",
    "How do I sort a list in Python?",
    "What does the accuracy of a classifier measure?",
    "Write a for loop in Python that prints 1 to 5.",
    "你好!请用一句话介绍你自己。",
)


@pytest.fixture(scope="module")
def imported(qwen_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "qwen"
    return folder, import_gguf(qwen_file, folder)


@pytest.fixture(scope="module")
def tokenizer(imported):
    return load_tokenizer(imported[0])


@pytest.fixture(scope="module")
def ours(imported, tokenizer):
    config, params = load_hf(imported[0])
    return config.replace(unused_ids=unused_ids(tokenizer, config.vocab_size)), params


@pytest.fixture(scope="module")
def theirs(imported):
    return AutoModelForCausalLM.from_pretrained(imported[0], dtype=torch.float32).eval()


def messages(chat):
    return [Message(*turn) for turn in chat]


def test_it_is_tied_as_the_official_model_is(ours, imported):
    config, params = ours
    assert config.replace(unused_ids=()) == qwen2_5("0.5b")
    assert config.num_parameters == 494_032_768 and "lm_head" not in params
    (note,) = imported[1]
    assert (
        "output.weight (Q8_0) differs from token_embd.weight (Q5_0) by 4." in note
        and "imported as tied" in note
    )


def test_its_tokens_and_stops_are_the_published_ones(tokenizer, ours):
    assert tokenizer.vocab_size == 151_665 and ours[0].unused_ids == ((151_665, 151_936),)
    assert tokenizer.stop_ids == (151_645, 151_643)  # as in its generation_config.json
    assert tokenizer.decode([151_700]) == "" and tokenizer.token_bytes(151_935) == b""


@pytest.mark.parametrize("name", CHATS)
def test_chats_are_those_of_its_own_template(tokenizer, imported, name):
    turns = [{"role": role, "content": content} for role, content in CHATS[name]]
    reference = AutoTokenizer.from_pretrained(imported[0])
    for prompt, encode in ((True, encode_prompt), (False, lambda t, m: encode_chat(t, m).tokens)):
        expected = reference.apply_chat_template(turns, add_generation_prompt=prompt, return_dict=False)
        made = encode(tokenizer, messages(CHATS[name])).tolist()
        if name == "answered":  # where theirs takes a user's word for the end of a turn
            assert made.count(151_645) == expected.count(151_645) - 1
            assert tokenizer.decode(made) == reference.decode(expected)
        else:
            assert made == expected
    assert len(encode_prompt(tokenizer, [Message("user", "Hi")])) == 30  # with its default system turn


def test_logits_are_those_of_transformers(ours, theirs, tokenizer):
    tokens = encode_prompt(tokenizer, messages(CHATS["answered"]))[None]
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    config, params = ours
    hidden = forward(config, params, tokens, positions, np.ones_like(tokens))
    made = np.asarray(hidden @ unembedding(config, params))[0]
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens, dtype=torch.long)).logits[0].numpy()
    assert np.abs(expected).max() > 20
    np.testing.assert_allclose(made, expected, atol=1e-3)  # 5e-5 measured
    np.testing.assert_array_equal(made.argmax(-1), expected.argmax(-1))


def test_greedy_answers_are_those_of_transformers(ours, theirs, tokenizer):
    engine = Engine(ours[0], ENGINE, make_mesh(MeshConfig()))
    engine.load(ours[1])
    prompts = [encode_prompt(tokenizer, messages(CHATS[name])).tolist() for name in CHATS]
    made = engine.generate(prompts, (0, 0, 0), NEW, tokenizer.stop_ids, SamplingParams(0.0))
    for prompt, answer in zip(prompts, made, strict=True):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW, repetition_penalty=1.0
            )
        assert list(answer.tokens) == whole[0, len(prompt) :].tolist()
    assert "def add" in response_text(tokenizer, made[0].tokens) + response_text(
        tokenizer, made[1].tokens
    ) or ("2035" in response_text(tokenizer, made[1].tokens))


@pytest.mark.parametrize("questions", [2, pytest.param(len(QUESTIONS), marks=pytest.mark.slow)])
def test_greedy_answers_are_those_of_llama_cpp(ours, tokenizer, served, questions):
    """Which computes with the weights as they are, in 4 bits and more."""
    chats = [messages([("user", text)]) for text in QUESTIONS[:questions]]
    engine = Engine(ours[0], ENGINE, make_mesh(MeshConfig()))
    engine.load(ours[1])
    prompts = [encode_prompt(tokenizer, chat).tolist() for chat in chats]
    made = engine.generate(prompts, (0,) * len(prompts), NEW, tokenizer.stop_ids, SamplingParams(0.0))
    expected = [served.ask(ChatRequest(tuple(chat), NEW, 0.0)).text for chat in chats]
    assert [response_text(tokenizer, answer.tokens) for answer in made] == expected

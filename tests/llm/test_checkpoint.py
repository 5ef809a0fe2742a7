"""A folder of weights in a role: what it answers to many at once is what the model says to each alone."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.llm.backend import ChatRequest, ModelError, TooLongError
from mlagent_jax.llm.checkpoint import Checkpoint, checkpoint_digest
from mlagent_jax.llm.config import ModelConfig, ModelsConfig
from mlagent_jax.llm.roles import RoleModels
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import save_hf
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.text.chat import Message, encode_prompt, response_text
from mlagent_jax.text.tokenizer import train_sentencepiece

TEXTS = [
    "system\n",
    "user\n",
    "assistant\n",
    "the water goes to the sea, and the sea stays as it is.\n" * 9,
] * 9
WORDS = ("water", "sea", "it goes", "stays", "the sea as it is")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(TEXTS, 320, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    return Qwen2Config(tokenizer.vocab_size, 32, 48, 1, 2, 1, initializer_range=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, model):
    folder = tmp_path_factory.mktemp("weights") / "hf"
    save_hf(folder, model, init_params(model, 0), tokenizer)
    return folder


def config(folder, **changes):
    values = {
        "backend": "checkpoint",
        "model": str(folder),
        "context_tokens": 256,
        "max_tokens": 8,
        "parallel": 2,
    }
    return ModelConfig(**values | changes)


def question(text, temperature=0.0, seed=None):
    return ChatRequest((Message("user", text),), 8, temperature, seed)


def greedy(tokenizer, model, texts):
    """Token by token, each by a pass over all tokens before it."""
    params, length = init_params(model, 0), 64

    @jax.jit
    def next_tokens(tokens):
        positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        hidden = forward(model, params, tokens, positions, jnp.ones_like(tokens))
        return jnp.argmax((hidden @ unembedding(model, params))[..., : tokenizer.vocab_size], -1)

    prompts = [encode_prompt(tokenizer, [Message("user", text)]).tolist() for text in texts]
    rows = [list(prompt) for prompt in prompts]
    for _ in range(8):
        padded = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
        following = np.asarray(next_tokens(padded))
        for row, prompt, next_ids in zip(rows, prompts, following, strict=True):
            if len(row) == len(prompt) or row[-1] not in tokenizer.stop_ids:
                row.append(int(next_ids[len(row) - 1]))
    return [response_text(tokenizer, row[len(prompt) :]) for row, prompt in zip(rows, prompts, strict=True)]


def test_many_at_once_are_answered_as_each_alone(folder, tokenizer, model):
    checkpoint = Checkpoint("coder", config(folder))
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda word: checkpoint.ask(question(word)), WORDS))
    assert [answer.text for answer in answers] == greedy(tokenizer, model, WORDS)
    assert len({answer.text for answer in answers}) > 1
    for word, answer in zip(WORDS, answers, strict=True):
        assert answer.usage.prompt_tokens == len(encode_prompt(tokenizer, [Message("user", word)]))
        assert (answer.problem == "it was cut off at 8 tokens") == (answer.usage.completion_tokens == 8)
    sampled = [checkpoint.ask(question("sea", 1.0, seed)).text for seed in (1, 2, 1)]
    assert sampled[0] == sampled[2] != sampled[1]
    with pytest.raises(TooLongError):
        checkpoint.ask(question("water " * 300))
    checkpoint.close()


def test_a_checkpoint_is_known_by_its_weights_wherever_they_are(folder, model, tokenizer, tmp_path):
    """Its recorded calls are found again by a copy, and not by other weights of the same name."""

    def models(path, name):
        made = ModelsConfig(coder=config(path), cache_dir=str(tmp_path / "calls"))
        return RoleModels(made, tmp_path, tmp_path / f"{name}.jsonl")

    here = models(folder, "here")
    here.check(("coder",))
    text = here.of("coder").ask([Message("user", "sea")]).text
    here.close()
    copy = tmp_path / "copy" / "hf"
    shutil.copytree(folder, copy)
    there = models(copy, "there")
    assert there.of("coder").ask([Message("user", "sea")]).text == text
    assert there.of("coder")._usage.roles["coder"].recorded_calls == 1
    other = tmp_path / "other" / "hf"
    save_hf(other, model, init_params(model, 1), tokenizer)
    assert checkpoint_digest(str(copy)) == checkpoint_digest(str(folder)) != checkpoint_digest(str(other))


def test_a_folder_that_is_none_or_too_short_a_context_is_named(folder, tmp_path):
    with pytest.raises(ModelError, match=r"config.models.coder.model is 'gpt-4', which is no folder"):
        Checkpoint("coder", config("gpt-4"))
    with pytest.raises(ModelError, match=r"config.models.coder: .*config.json"):
        Checkpoint("coder", config(tmp_path))
    with pytest.raises(
        ModelError, match=r"config.models.coder.context_tokens is 99999999, but .* was trained for"
    ):
        Checkpoint("coder", config(folder, context_tokens=99_999_999))


def test_a_checkpoint_that_is_closed_leaves_nobody_waiting(folder, monkeypatch):
    checkpoint = Checkpoint("coder", config(folder))
    thread = checkpoint._engine_thread()
    monkeypatch.setattr(thread._engine, "step", lambda: time.sleep(0.01) or [])
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(checkpoint.ask, question("sea"))
        while not thread._waiting:
            time.sleep(0.01)
        checkpoint.close()
        with pytest.raises(ModelError, match="closed before it had answered"):
            asked.result()


def test_an_engine_that_fails_leaves_nobody_waiting(folder, monkeypatch):
    checkpoint = Checkpoint("coder", config(folder))
    assert checkpoint.ask(question("sea")).usage.completion_tokens
    monkeypatch.setattr(checkpoint._thread._engine, "step", lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            checkpoint.ask(question("water"))

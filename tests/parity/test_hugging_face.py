"""Our Qwen2 against `transformers`: logits, gradients, greedy generation and files, on random small models."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.generate.sampler import Sampler
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save_hf
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.nn.losses import cross_entropy

try:
    import torch
    from transformers import Qwen2Config as TheirConfig
    from transformers import Qwen2ForCausalLM
except ImportError:
    if "torch" in os.environ.get("MLAGENT_REQUIRE", ""):
        raise
    pytest.skip("needs torch, to compare with transformers", allow_module_level=True)

LENGTH = 520  # short prompts hide errors in rotary embeddings
SHAPES = {
    "tied, 2 heads a key": {"tie_word_embeddings": True, "num_attention_heads": 4, "num_key_value_heads": 2},
    "untied, 7 heads a key": {
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "hidden_size": 56,
        "vocab_size": 131,
    },
    "rope theta 1e4": {"rope_theta": 1e4, "num_attention_heads": 2, "num_key_value_heads": 2},
}


def make(shape: dict, folder):
    """Their model, and the folder that ours is read from."""
    values = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    } | shape
    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(TheirConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return theirs


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def models(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return make(SHAPES[request.param], folder), *load_hf(folder)


def rows(vocab: int) -> np.ndarray:
    return np.random.default_rng(1).integers(2, vocab, (2, LENGTH)).astype(np.int32)


def positions_of(segments: np.ndarray) -> np.ndarray:
    positions = np.zeros_like(segments)
    for row, ids in enumerate(segments):
        for segment in np.unique(ids):
            positions[row, ids == segment] = np.arange((ids == segment).sum())
    return positions


def logits(config: Qwen2Config, params, tokens: np.ndarray, segments: np.ndarray) -> np.ndarray:
    hidden = forward(config, params, tokens, positions_of(segments), segments)
    return np.asarray(hidden @ unembedding(config, params))


def their_logits(theirs, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_logits(models, attention):
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    ours = logits(config.replace(attention=attention), params, tokens, np.ones_like(tokens))
    np.testing.assert_allclose(ours, their_logits(theirs, tokens), atol=1e-3)


def test_right_padding_changes_nothing(models):
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    segments = np.ones_like(tokens)
    segments[1, 300:] = 0
    ours = logits(config, params, tokens, segments)
    np.testing.assert_allclose(ours[1, :300], their_logits(theirs, tokens[1:, :300])[0], atol=1e-3)


def test_packed_segments_are_separate_sequences(models):
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    segments = np.repeat([[1, 2, 3]], 2, axis=0).repeat([200, 150, 170], axis=1).astype(np.int32)
    ours = logits(config, params, tokens, segments)
    for start, stop in ((0, 200), (200, 350), (350, 520)):
        np.testing.assert_allclose(
            ours[:, start:stop], their_logits(theirs, tokens[:, start:stop]), atol=1e-3
        )


def test_gradients_of_the_loss(models, tmp_path):
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    theirs.zero_grad()
    theirs(
        torch.tensor(tokens, dtype=torch.long), labels=torch.tensor(tokens, dtype=torch.long)
    ).loss.backward()

    def loss(params):
        segments = np.ones_like(tokens)
        hidden = forward(config, params, tokens, positions_of(segments), segments)
        targets, weights = np.roll(tokens, -1, axis=1), np.ones(tokens.shape, np.float32)
        weights[:, -1] = 0
        total, count = cross_entropy(hidden, unembedding(config, params), targets, jnp.asarray(weights))
        return total / count

    # Written out as a checkpoint, our gradient has the names and layouts of theirs.
    save_hf(tmp_path, config, jax.grad(loss)(params))
    from safetensors.numpy import load_file

    ours = {name: array for file in tmp_path.glob("*.safetensors") for name, array in load_file(file).items()}
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert expected.keys() == ours.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            ours[name], gradient, atol=1e-4 * max(1, abs(gradient).max()), err_msg=name
        )


def test_greedy_generation_token_for_token(models):
    theirs, config, params = models
    prompts = [rows(config.vocab_size)[0, :length].tolist() for length in (5, 60, 130)]
    sampler = Sampler(config, buckets=(64, 160), batch_size=2, max_new_tokens=24, stop_ids=(1,))
    ours = sampler.generate(params, prompts, [0, 1, 2], temperature=0.0)
    for prompt, generation in zip(prompts, ours, strict=True):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=1
            )
        assert list(generation.tokens) == whole[0, len(prompt) :].tolist()


def test_log_probs_of_sampled_tokens_are_the_full_forwards(models):
    _, config, params = models
    prompt = rows(config.vocab_size)[0, :100].tolist()
    sampler = Sampler(config, buckets=(128,), batch_size=2, max_new_tokens=16, stop_ids=(1,))
    (generation,) = sampler.generate(params, [prompt], [7], temperature=0.8)
    tokens = np.array([prompt + list(generation.tokens)], np.int32)
    scaled = logits(config, params, tokens, np.ones_like(tokens))[0] / 0.8
    expected = jax.nn.log_softmax(scaled)[np.arange(99, len(tokens[0]) - 1), tokens[0, 100:]]
    np.testing.assert_allclose(generation.logprobs, expected, atol=1e-4)


def test_sampling_does_not_depend_on_the_batch(models):
    _, config, params = models
    prompts = [rows(config.vocab_size)[0, start : start + 40].tolist() for start in (0, 50, 100, 150)]
    sampler = Sampler(config, buckets=(64,), batch_size=2, max_new_tokens=16, stop_ids=(1,))
    together = sampler.generate(params, prompts, [1, 2, 3, 4], temperature=1.0)
    alone = [
        sampler.generate(params, [p], [s], temperature=1.0)[0]
        for p, s in zip(prompts, (1, 2, 3, 4), strict=True)
    ]
    assert [g.tokens for g in together] == [g.tokens for g in alone]
    assert [g.logprobs for g in together] == [g.logprobs for g in alone]


def test_there_and_back_byte_for_byte(models, tmp_path):
    theirs, config, params = models
    save_hf(tmp_path, config, params)
    again = Qwen2ForCausalLM.from_pretrained(tmp_path)
    for name, parameter in theirs.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name

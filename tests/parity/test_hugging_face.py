"""Our model against `transformers`' Qwen2 and Llama: logits, gradients, greedy generation and files, on random
small ones of every flavour."""

from __future__ import annotations

import copy
import dataclasses
import os
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save_hf
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.nn.losses import cross_entropy
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh

try:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError:
    if "torch" in os.environ.get("MLAGENT_REQUIRE", ""):
        raise
    pytest.skip("needs torch, to compare with transformers", allow_module_level=True)

ENGINE = EngineConfig(max_length=256, page_size=16, prefill_chunks=(16, 64), block_kv=32, decode_steps=5)
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
    "llama, tied, 4 heads a key": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
        "rope_theta": 1e5,
        "vocab_size": 113,
    },
    "llama, untied, wide heads": {"model_type": "llama", "head_dim": 16, "rms_norm_eps": 1e-5},
}
GENERATING = ("tied, 2 heads a key", "untied, 7 heads a key", "llama, tied, 4 heads a key")
# Where the sequences of a row of LENGTH tokens lie: alone, padded on one side, side by side.
LAYOUTS = {
    "right padding": ((0, 510),),
    "left padding": ((10, 520),),
    "packed": ((0, 250), (250, 300), (300, 520)),
    "packed with gaps": ((3, 200), (210, 515)),
}


def make(shape: dict, folder):
    """Their model, and the folder that ours is read from."""
    values = {
        "model_type": "qwen2",
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
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return theirs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each flavour is made once."""

    @cache
    def of(name: str):
        folder = tmp_path_factory.mktemp("model")
        return make(SHAPES[name], folder), *load_hf(folder)

    return of


# What these two have, the others have too, though not all of it together.
SLOW = ("rope theta 1e4", "llama, tied, 4 heads a key")


def shape_params() -> list:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SHAPES]


@pytest.fixture(params=shape_params(), ids=str)
def models(request, made):
    return made(request.param)


ONE_SLOT = pytest.param((GENERATING[0], 1), marks=pytest.mark.slow)


@pytest.fixture(params=[*((name, 2) for name in GENERATING), ONE_SLOT], ids=str)
def generating(request, made):
    """Each flavour in two slots. What one slot does to the order of requests is the same for every flavour."""
    name, slots = request.param
    return *made(name), dataclasses.replace(ENGINE, slots=slots)


def rows(vocab: int) -> np.ndarray:
    return np.random.default_rng(1).integers(2, vocab, (2, LENGTH)).astype(np.int32)


def positions_of(segments: np.ndarray) -> np.ndarray:
    positions = np.zeros_like(segments)
    for row, ids in enumerate(segments):
        for segment in np.unique(ids):
            positions[row, ids == segment] = np.arange((ids == segment).sum())
    return positions


@partial(jax.jit, static_argnums=0)
def compiled_logits(config: Qwen2Config, params, tokens, positions, segments):
    return forward(config, params, tokens, positions, segments) @ unembedding(config, params)


def logits(config: Qwen2Config, params, tokens: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return np.asarray(compiled_logits(config, params, tokens, positions_of(segments), segments))


def their_logits(theirs, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_logits(models, attention):
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    ours = logits(config.replace(attention=attention), params, tokens, np.ones_like(tokens))
    np.testing.assert_allclose(ours, their_logits(theirs, tokens), atol=1e-3)


def laid_out(layout: str) -> np.ndarray:
    """Segment ids [1,T]."""
    segments = np.zeros((1, LENGTH), np.int32)
    for number, (start, stop) in enumerate(LAYOUTS[layout], 1):
        segments[0, start:stop] = number
    return segments


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_of_padded_and_packed_rows(models, layout):
    theirs, config, params = models
    tokens = rows(config.vocab_size)[:1]
    ours = logits(config, params, tokens, laid_out(layout))
    assert np.isfinite(ours).all()  # in the padding too
    for start, stop in LAYOUTS[layout]:
        alone = their_logits(theirs, tokens[:, start:stop])
        np.testing.assert_allclose(ours[:, start:stop], alone, atol=1e-3)


def test_left_padding_as_in_a_batch_of_theirs(models):
    theirs, config, params = models
    tokens, mask = rows(config.vocab_size)[:1], laid_out("left padding")
    with torch.no_grad():
        batched = theirs(
            torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            position_ids=torch.tensor(positions_of(mask), dtype=torch.long),
        ).logits.numpy()
    ours = logits(config, params, tokens, mask)
    np.testing.assert_allclose(ours[mask == 1], batched[mask == 1], atol=1e-3)


def test_loss_and_gradients_of_packed_and_padded_rows(models, tmp_path):
    """Theirs sees one sequence at a time, ours two rows: one packed, one padded on the left."""
    theirs, config, params = models
    tokens = rows(config.vocab_size)
    layouts = ("packed", "left padding")
    segments = np.concatenate([laid_out(layout) for layout in layouts])
    theirs.zero_grad()
    pieces = [tokens[row, a:b] for row, layout in enumerate(layouts) for a, b in LAYOUTS[layout]]
    count = sum(len(piece) - 1 for piece in pieces)
    expected_loss = 0.0
    for piece in pieces:
        ids = torch.tensor(piece[None], dtype=torch.long)
        part = theirs(ids, labels=ids).loss * (len(piece) - 1) / count
        part.backward()
        expected_loss += part.item()

    def loss(params):
        hidden = forward(config, params, tokens, positions_of(segments), segments)
        targets, next_segments = np.roll(tokens, -1, axis=1), np.roll(segments, -1, axis=1)
        weights = ((segments == next_segments) & (segments > 0)).astype(np.float32)
        weights[:, -1] = 0
        total, counted = cross_entropy(hidden, unembedding(config, params), targets, jnp.asarray(weights))
        return total / counted

    ours_loss, gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(ours_loss, expected_loss, atol=1e-4)

    # Written out as a checkpoint, our gradient has the names and layouts of theirs.
    save_hf(tmp_path, config, gradient)
    from safetensors.numpy import load_file

    ours = {name: array for file in tmp_path.glob("*.safetensors") for name, array in load_file(file).items()}
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert expected.keys() == ours.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, atol=1e-4 * max(1, abs(values).max()), err_msg=name)


def test_greedy_generation_token_for_token(generating):
    """Prompts of mixed lengths in fewer slots, a stop id, and again with what was read found in the cache."""
    theirs, config, params, sizes = generating
    prompts = [rows(config.vocab_size)[0, :length].tolist() for length in (5, 60, 130, 131, 200)]
    expected = [their_answer(theirs, prompt) for prompt in prompts]
    engine = Engine(config, sizes, make_mesh(MeshConfig()))
    engine.load(params)
    for order in ((0, 1, 2, 3, 4), (4, 2, 0, 3, 1)):
        given = [prompts[i] for i in order]
        ours = engine.generate(given, range(5), 24, (1,), SamplingParams(0.0))
        assert [list(generation.tokens) for generation in ours] == [expected[i] for i in order]
    assert engine.counts.reused > sum(map(len, prompts)) / 2


def their_answer(theirs, prompt: list[int]) -> list[int]:
    with torch.no_grad():
        whole = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=1)
    return whole[0, len(prompt) :].tolist()


def test_log_probs_of_sampled_tokens_are_the_full_forwards(generating):
    _, config, params, sizes = generating
    prompt = rows(config.vocab_size)[0, :100].tolist()
    engine = Engine(config, sizes, make_mesh(MeshConfig()))
    engine.load(params)
    (generation,) = engine.generate([prompt], [7], 16, (1,), SamplingParams(0.8))
    tokens = np.array([prompt + list(generation.tokens)], np.int32)
    scaled = logits(config, params, tokens, np.ones_like(tokens))[0] / 0.8
    expected = jax.nn.log_softmax(scaled)[np.arange(99, len(tokens[0]) - 1), tokens[0, 100:]]
    np.testing.assert_allclose(generation.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back_byte_for_byte(models, tmp_path, dtype):
    theirs, _, _ = models
    theirs = copy.deepcopy(theirs).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs")
    save_hf(tmp_path / "ours", *load_hf(tmp_path / "theirs", param_dtype=dtype), max_shard_bytes=20_000)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert type(again) is type(theirs) and again.dtype == theirs.dtype
    for name, parameter in theirs.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name

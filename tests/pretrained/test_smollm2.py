"""SmolLM2-135M-Instruct: imported from GGUF, loaded, answering, and as sure of a text as another implementation."""

import os

import jax
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.import_gguf import import_gguf
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.hf import load_hf
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.text.chat import Message, encode_prompt, response_text
from mlagent_jax.text.tokenizer import load_tokenizer

if "pretrained" in os.environ.get("MLAGENT_REQUIRE", ""):
    import torch

ENGINE = EngineConfig(slots=2, max_length=192, page_size=16, prefill_chunks=(64,), block_kv=64)
TEXT = """The water cycle describes how water moves on, above and below the surface of the Earth. Heat from the
Sun makes water evaporate from oceans, lakes and rivers; plants give off more of it through their leaves. The
vapour rises into the air, where it cools and condenses into clouds. When the drops in a cloud grow heavy
enough, they fall as rain or snow. Some of that water soaks into the ground, some runs over the land into
streams, and in the end most of it finds its way back to the sea, where the cycle begins again. In 2019 about
71 percent of the planet's surface was covered by oceans, which held 96.5 percent of all its water.
"""


@pytest.fixture(scope="module")
def folder(smollm2_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    import_gguf(smollm2_file, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return *load_hf(folder), load_tokenizer(folder)


@pytest.fixture(scope="module")
def engine(loaded):
    config, params, _ = loaded
    engine = Engine(config, ENGINE, make_mesh(MeshConfig()))
    engine.load(params)
    return engine


@pytest.fixture(scope="module")
def theirs(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_it_answers_a_question(loaded, engine):
    tokenizer = loaded[2]
    prompt = encode_prompt(tokenizer, [Message("user", "What is the capital of France?")])
    (generation,) = engine.generate([prompt.tolist()], [0], 12, tokenizer.stop_ids, SamplingParams(0.0))
    assert "Paris" in response_text(tokenizer, generation.tokens)


def test_greedy_answers_are_those_of_transformers(loaded, engine, theirs):
    """Mixed lengths in two slots, the second time with the prompts' beginnings found in the cache."""
    ids = loaded[2].encode(TEXT)
    prompts = [ids[:20], ids[:110], ids[:75]]
    expected, reused = [], engine.counts.reused
    for prompt in prompts:
        with torch.no_grad():
            whole = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)
        expected.append(whole[0, len(prompt) :].tolist())
    for order in ((0, 1, 2), (2, 1, 0)):
        made = engine.generate([prompts[i] for i in order], (0, 0, 0), 12, (2,), SamplingParams(0.0))
        assert [list(answer.tokens) for answer in made] == [expected[i] for i in order]
    assert engine.counts.reused > reused


def test_prompts_follow_the_files_own_chat_template(loaded, folder):
    tokenizer = loaded[2]
    chat = [("system", "Be brief."), ("user", "Sum 12 and 345."), ("assistant", "357"), ("user", "Thanks!")]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": role, "content": content} for role, content in chat],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert encode_prompt(tokenizer, [Message(*turn) for turn in chat]).tolist() == theirs


@pytest.mark.slow  # of the real weights in the fast tests, Qwen2.5's logits are compared
def test_perplexity_is_another_implementations(loaded, smollm2_file):
    """transformers reads the GGUF itself: it dequantises, orders and computes with none of our code."""
    config, params, tokenizer = loaded
    tokens = np.array([tokenizer.encode(TEXT)], np.int32)

    def nll(logits) -> float:
        log_probs = jax.nn.log_softmax(logits[0, :-1].astype(np.float32))
        return float(-log_probs[np.arange(tokens.shape[1] - 1), tokens[0, 1:]].mean())

    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    ours = nll(forward(config, params, tokens, positions, np.ones_like(tokens)) @ unembedding(config, params))
    model = AutoModelForCausalLM.from_pretrained(
        smollm2_file.parent, gguf_file=smollm2_file.name, dtype=torch.float32
    )
    with torch.no_grad():
        theirs = nll(model(torch.tensor(tokens, dtype=torch.long)).logits.numpy())
    assert np.exp(ours) == pytest.approx(np.exp(theirs), rel=0.01)
    assert np.exp(ours) < 25  # it has learnt English


def test_transformers_loads_the_export(theirs, loaded):
    _, params, _ = loaded
    assert type(theirs).__name__ == "LlamaForCausalLM"
    np.testing.assert_array_equal(
        theirs.model.layers[7].self_attn.q_proj.weight.detach().numpy().T,
        params["layers"]["attention"]["q_proj"]["kernel"][7],
    )
    assert theirs.generation_config.eos_token_id == [2, 0]  # llama.cpp stops at <|endoftext|> as well

"""Importing GGUF files that llama.cpp's own package has written."""

import json

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.import_gguf import import_gguf
from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_config, load_hf
from mlagent_jax.models.hf.names import hf_tensors
from mlagent_jax.text.tokenizer import SPECIALS, load_tokenizer

PIECES = ["a", "b", "ab", *SPECIALS]


def config_of(architecture):
    return Qwen2Config(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=5e5,
        attention_bias=architecture == "qwen2",
    )


def permuted(weights, heads):
    """As llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute) stores queries and keys of Llama."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def write(
    path,
    architecture="llama",
    quantised=False,
    metadata=(),
    drop=(),
    reshape=(),
    split="smollm",
    kinds=None,
    noise=None,
):
    """Writes a GGUF file and returns the Hugging Face tensors in it.

    kinds: quantisation by tensor name. noise: the output matrix is the embedding plus this much of its size in noise.
    """
    config = config_of(architecture)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(5e5)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(PIECES)
    writer.add_token_types([1, 1, 1, 3, 3, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(5)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for add, *arguments in metadata:
        getattr(writer, add)(*arguments)
    rng = np.random.default_rng(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], 2)
    made = {}
    for tensor in hf_tensors(config):
        values = rng.standard_normal(tensor.shape).astype(np.float32)
        if noise is not None and tensor.name == "lm_head.weight":
            values = made["model.embed_tokens.weight"] + np.float32(noise) * values
        made[tensor.name] = values
        if architecture == "llama" and ".q_proj" in tensor.name:
            values = permuted(values, 4)
        if architecture == "llama" and ".k_proj" in tensor.name:
            values = permuted(values, 2)
        if tensor.name in drop:
            continue
        if tensor.name in reshape:
            values = values[:, :32]
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if (quantised or tensor.name in (kinds or {})) and values.ndim == 2:
            kind = (kinds or {}).get(tensor.name, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_tensors_config_and_tokenizer_are_imported(tmp_path, architecture):
    made = write(tmp_path / "m.gguf", architecture)
    (note,) = import_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    assert "output.weight (F32) differs" in note and "imported as untied" in note
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == made.keys()
    for name, values in made.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert load_config(tmp_path / "hf") == config_of(architecture)
    load_hf(tmp_path / "hf")
    tokenizer = load_tokenizer(tmp_path / "hf")
    assert [tokenizer.control.ids[name] for name in SPECIALS] == [3, 4, 5]
    assert tokenizer.encode("abba") == [2, 1, 0]
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    assert tokenizer.stop_ids == (5, 3)
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"] == [5, 3]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantised_tensors_are_dequantised(tmp_path, dtype):
    made = write(tmp_path / "m.gguf", quantised=True)
    import_gguf(tmp_path / "m.gguf", tmp_path / "hf", dtype)
    for name, values in load_file(tmp_path / "hf" / "model.safetensors").items():
        assert values.dtype == dtype
        # Q8_0 has 127 steps up to the largest of 32 values; bfloat16 has 8 bits.
        np.testing.assert_allclose(values.astype(np.float32), made[name], atol=0.04, err_msg=name)


EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
KIND = gguf.GGMLQuantizationType
TIED = {
    "equal": ({}, 0.0, "token_embd.weight"),
    "as in Qwen's own files": ({EMBEDDING: KIND.Q5_0, OUTPUT: KIND.Q8_0}, 0.0, "output.weight"),
    "the output coarser": ({EMBEDDING: KIND.Q8_0, OUTPUT: KIND.Q4_0}, 0.0, "token_embd.weight"),
    "halves and whole": ({EMBEDDING: KIND.BF16, OUTPUT: KIND.F16}, 0.0, "output.weight"),
}


@pytest.mark.parametrize("case", TIED)
def test_two_copies_of_one_matrix_make_a_tied_model(tmp_path, case):
    kinds, noise, taken = TIED[case]
    made = write(tmp_path / "m.gguf", "qwen2", kinds=kinds, noise=noise)
    (note,) = import_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    assert "imported as tied" in note and f"values of {taken}" in note
    config, params = load_hf(tmp_path / "hf")
    assert config.tie_word_embeddings and "lm_head" not in params
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert OUTPUT not in found
    # The more precise copy is used: Q8_0 or better.
    np.testing.assert_allclose(found[EMBEDDING], made[EMBEDDING], atol=0.02)


@pytest.mark.parametrize("kind", [KIND.F32, KIND.F16, KIND.Q8_0, KIND.Q5_0])
def test_two_different_matrices_make_an_untied_model(tmp_path, kind):
    """They differ by more than their quantisation explains: by little for floats, by more for few bits."""
    noise = {KIND.F32: 1e-4, KIND.F16: 5e-3, KIND.Q8_0: 0.05, KIND.Q5_0: 0.4}[kind]
    kinds = {} if kind == KIND.F32 else {EMBEDDING: kind, OUTPUT: kind}
    write(tmp_path / "m.gguf", "qwen2", kinds=kinds, noise=noise)
    (note,) = import_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    assert "imported as untied" in note
    assert not load_config(tmp_path / "hf").tie_word_embeddings
    assert OUTPUT in load_file(tmp_path / "hf" / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": [("add_rope_scaling_type", gguf.RopeScalingType.YARN)]}, "rope.scaling.type is 'yarn'"),
        ({"metadata": [("add_expert_count", 4)]}, "expert_count is 4"),
        ({"split": "tekken"}, "tokenizer.ggml.pre is 'tekken'"),
        ({"drop": ["model.layers.1.mlp.up_proj.weight"]}, "lacks ['blk.1.ffn_up.weight']"),
        (
            {"reshape": ["model.layers.1.mlp.up_proj.weight"]},
            "blk.1.ffn_up.weight is [96, 32], but the metadata imply [96, 64]",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_imported_is_named(tmp_path, changes, message):
    write(tmp_path / "m.gguf", **changes)
    with pytest.raises(UserError) as error:
        import_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    assert message in str(error.value)
    assert not (tmp_path / "hf").exists()


def test_other_architectures_and_other_files_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'gemma3'; only llama, qwen2"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    (tmp_path / "other.gguf").write_bytes(b"not a model at all")
    with pytest.raises(UserError, match="truncated, damaged or not a GGUF file"):
        import_gguf(tmp_path / "other.gguf", tmp_path / "hf")
    write(tmp_path / "cut.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "cut.gguf").read_bytes()[:-5000])
    with pytest.raises(UserError, match="truncated, damaged or not a GGUF file"):
        import_gguf(tmp_path / "cut.gguf", tmp_path / "hf")
    with pytest.raises(UserError, match="there is no file"):
        import_gguf(tmp_path / "absent.gguf", tmp_path / "hf")

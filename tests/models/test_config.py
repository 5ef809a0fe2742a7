"""Reading and writing Hugging Face's config.json."""

import pytest
from transformers import AutoConfig

from mlagent_jax.models.config import Qwen2Config, qwen2_5

# As published at huggingface.co/Qwen: D, F, L, N, K, V, tied; billions of parameters, as the model cards say.
PUBLISHED = {
    "Qwen2-0.5B": ((896, 4864, 24, 14, 2, 151936, True), 0.49),
    "Qwen2-1.5B": ((1536, 8960, 28, 12, 2, 151936, True), 1.54),
    "Qwen2-7B": ((3584, 18944, 28, 28, 4, 152064, False), 7.62),
    "Qwen2-72B": ((8192, 29568, 80, 64, 8, 152064, False), 72.7),
    "Qwen2.5-3B": ((2048, 11008, 36, 16, 2, 151936, True), 3.09),
    "Qwen2.5-14B": ((5120, 13824, 48, 40, 8, 152064, False), 14.8),
    "Qwen2.5-32B": ((5120, 27648, 64, 40, 8, 152064, False), 32.8),
}


def published(shape, **other):
    D, F, L, N, K, V, tied = shape
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_act": "silu",
        "hidden_size": D,
        "initializer_range": 0.02,
        "intermediate_size": F,
        "max_position_embeddings": 131072,
        "max_window_layers": L,
        "model_type": "qwen2",
        "num_attention_heads": N,
        "num_hidden_layers": L,
        "num_key_value_heads": K,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": V,
        **other,
    }


SMALL = published((64, 96, 2, 4, 2, 100, True))
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "pretraining_tp": 1,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    shape, billions = PUBLISHED[name]
    config = Qwen2Config.from_hf(published(shape))
    assert config.num_parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert config.rms_norm_eps == 1e-5 and config.rope_theta == 1e6 and config.attention_bias


@pytest.mark.parametrize("size", ["0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b"])
def test_named_sizes_are_the_published_ones(size):
    config = qwen2_5(size)
    same = {name: shape for name, (shape, _) in PUBLISHED.items() if name.lower().endswith("-" + size)}
    (shape,) = same.values()
    theirs = Qwen2Config.from_hf(published(shape, rms_norm_eps=1e-6))
    assert theirs.replace(max_position_embeddings=config.max_position_embeddings) == config


def test_llama_is_the_network_without_biases():
    config = Qwen2Config.from_hf(LLAMA)
    assert not config.attention_bias
    assert config.num_key_value_heads == 4  # the checkpoint is older than grouped heads
    assert config.rope_theta == 10_000 and not config.tie_word_embeddings


def test_rope_theta_in_both_spellings():
    assert Qwen2Config.from_hf(LLAMA | {"rope_theta": 5e5}).rope_theta == 5e5
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert Qwen2Config.from_hf(LLAMA | new).rope_theta == 5e5


@pytest.mark.parametrize(
    "hf", [SMALL, LLAMA | {"num_key_value_heads": 2, "head_dim": 32}], ids=["qwen2", "llama"]
)
def test_round_trip(hf, tmp_path):
    config = Qwen2Config.from_hf(hf)
    assert Qwen2Config.from_hf(config.to_hf()) == config
    theirs = AutoConfig.for_model(**config.to_hf())
    assert theirs.model_type == hf["model_type"]
    assert Qwen2Config.from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("hf", "change", "named"),
    [
        (SMALL, {"use_sliding_window": True}, "use_sliding_window=True"),
        (SMALL, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
        (SMALL, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope type 'llama3'"),
        (LLAMA, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        (LLAMA, {"attention_bias": True}, "attention_bias=True"),
        (SMALL, {"attention_bias": False}, "attention_bias=False"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias=True"),
        (LLAMA, {"pretraining_tp": 2}, "pretraining_tp=2"),
        (
            SMALL,
            {"quantization_config": {"quant_method": "gptq"}},
            "quantization_config={'quant_method': 'gptq'}",
        ),
        (SMALL, {"num_experts": 60}, "num_experts=60"),
        (SMALL, {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        (SMALL, {"model_type": "qwen3"}, "model_type='qwen3'"),
        (SMALL, {"model_type": "qwen2_moe"}, "model_type='qwen2_moe'"),
        (SMALL, {"architectures": ["Qwen2ForSequenceClassification"]}, "architectures="),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_implemented_is_refused_by_name(hf, change, named):
    with pytest.raises(ValueError) as error:
        Qwen2Config.from_hf(hf | change)
    assert named in str(error.value)


@pytest.mark.parametrize("field", ["model_type", "vocab_size", "num_key_value_heads"])
def test_an_absent_field_is_named(field):
    with pytest.raises(ValueError, match=f"lacks {field}"):
        Qwen2Config.from_hf({name: value for name, value in SMALL.items() if name != field})

"""A bad checkpoint gives one error with file, tensor and shapes; missing weights are never invented."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import HfCheckpointError, load_hf, save_hf
from mlagent_jax.models.qwen2 import init_params

CONFIG = Qwen2Config(97, 32, 48, 2, 4, 2)
INDEX = "model.safetensors.index.json"
NAME = "model.layers.1.self_attn.k_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint."""
    save_hf(tmp_path / "hf", CONFIG, init_params(CONFIG, 0), max_shard_bytes=20_000)
    return tmp_path / "hf"


def file_of(folder, name):
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def rewrite(folder, change):
    """Changes the tensors in the file that holds NAME."""
    path = file_of(folder, NAME)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


def refusal(folder):
    with pytest.raises(HfCheckpointError) as error:
        load_hf(folder)
    return str(error.value)


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_missing_shard(folder):
    path = file_of(folder, NAME)
    path.unlink()
    assert f"{path} is missing" in refusal(folder)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_truncated_file(folder, left):
    path = file_of(folder, NAME)
    path.write_bytes(path.read_bytes()[:left])
    assert f"{path} is truncated, damaged" in refusal(folder)


def test_wrong_shape_names_both(folder):
    path = rewrite(folder, lambda tensors: tensors.update({NAME: np.zeros((16, 31), np.float32)}))
    assert f"{path}: {NAME} is [16, 31], but config.json implies [16, 32]" in refusal(folder)


def test_unimplemented_dtype(folder):
    path = rewrite(folder, lambda tensors: tensors.update({NAME: np.zeros((16, 32), np.int8)}))
    assert f"{path}: {NAME} is stored as I8, which is not one of F32, BF16, F16" in refusal(folder)


def test_dtype_that_the_format_does_not_have(folder):
    path = file_of(folder, NAME)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    path.write_bytes(
        content[:8] + content[8 : 8 + length].replace(b'"F32"', b'"Q99"', 1) + content[8 + length :]
    )
    assert str(path) in refusal(folder) and "Q99" in refusal(folder)


def test_tensor_that_is_in_the_index_but_not_in_its_file(folder):
    path = rewrite(folder, lambda tensors: tensors.pop(NAME))
    assert f"{path} does not hold {NAME}" in refusal(folder)


def test_tensor_that_is_not_in_the_index(folder):
    path = rewrite(folder, lambda tensors: tensors.update({"stray": np.zeros(3, np.float32)}))
    assert f"{path} holds stray, which {INDEX} does not list" in refusal(folder)


def test_absent_and_unexpected_tensors(tmp_path):
    save_hf(tmp_path, CONFIG, init_params(CONFIG, 0))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.1.self_attn.key.weight"] = tensors.pop(NAME)
    save_file(tensors, tmp_path / "model.safetensors")
    message = refusal(tmp_path)
    assert f"missing from the files: {NAME}" in message
    assert f"{tmp_path / 'model.safetensors'}: model.layers.1.self_attn.key.weight [16, 32]" in message


def test_layers_beyond_the_configs(folder):
    edit_json(folder / "config.json", lambda config: config.update(num_hidden_layers=1))
    assert "model.layers.1." in refusal(folder)


def test_biases_that_the_config_excludes(folder):
    edit_json(
        folder / "config.json",
        lambda config: config.update(model_type="llama", architectures=["LlamaForCausalLM"]),
    )
    assert "q_proj.bias" in refusal(folder)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size"])
def test_config_without_a_field(folder, field):
    edit_json(folder / "config.json", lambda config: config.pop(field))
    assert f"{folder / 'config.json'}: the model's config.json lacks {field}" in refusal(folder)


def test_config_with_a_field_of_the_wrong_type(folder):
    edit_json(folder / "config.json", lambda config: config.update(hidden_size="wide"))
    assert str(folder / "config.json") in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", INDEX])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_json(folder, name, content):
    (folder / name).write_text(content)
    assert str(folder / name) in refusal(folder)


def test_index_that_points_out_of_the_folder(folder):
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({NAME: "../other.safetensors"}))
    assert "'../other.safetensors', which is not a file name" in refusal(folder)


def test_no_checkpoint_at_all(tmp_path):
    assert "there is no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    assert f"no model.safetensors or {INDEX} in {tmp_path}" in refusal(tmp_path)


def test_a_tied_matrix_written_twice_is_no_error(tmp_path):
    config = CONFIG.replace(tie_word_embeddings=True)
    save_hf(tmp_path, config, init_params(config, 0))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert "lm_head" not in load_hf(tmp_path)[1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(folder, value):
    def poison(tensors):
        tensors[NAME] = tensors[NAME].copy()
        tensors[NAME][3, 5] = value

    path = rewrite(folder, poison)
    assert f"{path}: {NAME} holds numbers that are not finite" in refusal(folder)

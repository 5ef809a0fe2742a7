"""Exports: what is in the folder, that it is complete or absent, and that another library can read it."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf_folders import byte_level, write_folder
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import GenerationConfig

from mlagent_jax.errors import UserError
from mlagent_jax.finite import NotFiniteError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save, save_hf
from mlagent_jax.models.qwen2 import abstract_params, init_params
from mlagent_jax.text.tokenizer import TokenizerError, load_tokenizer

CONFIG = Qwen2Config(301, 32, 48, 3, 4, 2)


@pytest.fixture(scope="module")
def params():
    """Random values everywhere, in biases and norms too."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), abstract_params(CONFIG)
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    raw = byte_level(vocab_size=256)  # bytes alone
    return load_tokenizer(write_folder(tmp_path_factory.mktemp("tokenizer"), raw))


def tensors_of(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_one_file_or_shards_hold_the_same(params, tmp_path):
    save_hf(tmp_path / "one", CONFIG, params)
    save_hf(tmp_path / "many", CONFIG, params, max_shard_bytes=30_000)
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    one, many = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(one[name].tobytes() == many[name].tobytes() for name in one)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "many" / file, "numpy") as content:
            assert name in content.keys()  # noqa: SIM118
            assert content.metadata() == {"format": "pt"}
    # Only a shard with a single tensor may be larger.
    for file in (tmp_path / "many").glob("*.safetensors"):
        assert sum(t.nbytes for t in load_file(file).values()) <= 30_000 or len(load_file(file)) == 1
    assert_same(load_hf(tmp_path / "one")[1], params)
    assert_same(load_hf(tmp_path / "many")[1], params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_of_the_export(params, tmp_path, dtype):
    save_hf(tmp_path / "hf", CONFIG, params, dtype=dtype)
    assert {str(tensor.dtype) for tensor in tensors_of(tmp_path / "hf").values()} == {dtype}
    assert json.loads((tmp_path / "hf/config.json").read_text())["torch_dtype"] == dtype
    for stored_as in ("float32", "bfloat16"):
        config, loaded = load_hf(tmp_path / "hf", param_dtype=stored_as)
        assert config.param_dtype == stored_as
        assert_same(loaded, jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(stored_as), params))  # noqa: B023


def test_an_unknown_dtype_is_refused(params, tmp_path):
    with pytest.raises(UserError, match="cannot export as 'int8'; choose one of float32, bfloat16, float16"):
        save_hf(tmp_path / "hf", CONFIG, params, dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_and_generation_config_are_exported(params, tokenizer, tmp_path):
    save_hf(tmp_path / "hf", CONFIG, params, tokenizer)
    again = load_tokenizer(tmp_path / "hf")
    assert again.encode("a b<|im_end|>") == tokenizer.encode("a b<|im_end|>")
    generation = GenerationConfig.from_pretrained(tmp_path / "hf")
    assert generation.eos_token_id == [258, 256] == list(tokenizer.stop_ids)
    assert generation.pad_token_id == 256 == tokenizer.pad_id


def test_a_tokenizer_too_large_is_refused(params, tokenizer, tmp_path):
    config = CONFIG.replace(vocab_size=100)
    with pytest.raises(TokenizerError, match=r"259 ids.*vocab_size 100 only"):
        save_hf(tmp_path / "hf", config, init_params(config, 0), tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_another_model_are_refused(params, tmp_path):
    with pytest.raises(ValueError, match=r"layers/mlp/up_proj/kernel is \(3, 32, 48\), not \(3, 32, 40\)"):
        save_hf(tmp_path / "hf", CONFIG.replace(intermediate_size=40), params)
    with pytest.raises(ValueError, match=r"extra is \(2,\), not part of the model"):
        save_hf(tmp_path / "hf", CONFIG, params | {"extra": jnp.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_keeps_the_older_one(params, tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "hf"
    save_hf(folder, CONFIG, params, tokenizer)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(path, specs, tensors):
        next(iter(tensors))
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "write_shard", fail)
    with pytest.raises(OSError, match="No space left"):
        save_hf(folder, CONFIG, init_params(CONFIG, 2), tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_an_export_replaces_the_older_one_completely(params, tokenizer, tmp_path):
    folder = tmp_path / "hf"
    save_hf(folder, CONFIG, params, tokenizer, max_shard_bytes=30_000)
    newer = init_params(CONFIG, 2)
    save_hf(folder, CONFIG, newer)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert list(tmp_path.iterdir()) == [folder]
    assert_same(load_hf(folder)[1], newer)


def test_a_folder_with_other_things_is_not_replaced(params, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes.md, which an export would remove"):
        save_hf(tmp_path, CONFIG, params)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]
    with pytest.raises(UserError, match="is not a folder"):
        save_hf(tmp_path / "notes.md", CONFIG, params)


KILLED = """
import sys
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import save_hf
from mlagent_jax.models.qwen2 import init_params
config = Qwen2Config(301, 32, 48, 3, 4, 2)
print("ready", flush=True)
for seed in range(10**6):
    save_hf(sys.argv[1], config, init_params(config, seed % 2), max_shard_bytes=30_000)
"""


def test_an_export_is_complete_whenever_it_is_killed(tmp_path):
    """kill -9 while one export after another is written: the folder holds one of them, never a mixture."""
    folder = tmp_path / "hf"
    possible = [init_params(CONFIG, seed) for seed in range(2)]
    save_hf(folder, CONFIG, possible[0])
    rng = np.random.default_rng(0)
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(2 + rng.random())
        writer.kill()
        writer.wait()
        writer.stdout.close()
        _, found = load_hf(folder)
        assert any(
            all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), found, one)))
            for one in possible
        )
    save_hf(folder, CONFIG, possible[1])
    assert list(tmp_path.iterdir()) == [folder]  # what the killed process left is gone


@pytest.mark.parametrize("value, dtype", [(jnp.nan, "float32"), (jnp.inf, "bfloat16"), (1e6, "float16")])
def test_weights_that_are_not_finite_in_the_export_keep_the_older_one(value, dtype, params, tmp_path):
    save_hf(tmp_path / "hf", CONFIG, params)
    before = tensors_of(tmp_path / "hf")
    poisoned = params | {"norm": {"scale": params["norm"]["scale"].at[3].set(value)}}
    with pytest.raises(
        NotFiniteError, match=rf"model\.norm\.weight holds a number that is not finite as {dtype}"
    ):
        save_hf(tmp_path / "hf", CONFIG, poisoned, dtype=dtype)
    after = tensors_of(tmp_path / "hf")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]

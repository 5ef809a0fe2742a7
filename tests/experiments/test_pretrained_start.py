"""A run that starts from a Hugging Face folder instead of from scratch."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from hf_folders import byte_level, write_folder
from ml_collections import ConfigDict

from experiments.experiment import Experiment
from experiments.settings import Settings
from experiments.workdir import Workdir
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save_hf
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import TokenizerError, train_sentencepiece

CONFIG = Qwen2Config(320, 32, 48, 2, 4, 2, dtype="bfloat16")


def experiment(folder: Path, tmp_path: Path) -> Experiment:
    config = tiny.get_config()
    config.model.pretrained = str(folder)
    config.model.shape = ConfigDict({"dtype": "bfloat16"})
    return Experiment(Settings.from_config(config), Workdir.at(str(tmp_path / "run")))


@pytest.fixture
def folder(tmp_path):
    tokenizer = train_sentencepiece(["score 0.5 of train.py\n"] * 20, 300, tmp_path / "tokenizer")
    save_hf(tmp_path / "start", CONFIG, init_params(CONFIG, 0), tokenizer)
    return tmp_path / "start"


def test_it_starts_from_the_checkpoint_and_exports_another(folder, tmp_path):
    with experiment(folder, tmp_path) as run:
        assert run.model == CONFIG.replace(unused_ids=((300, 320),))  # rows that no token has
        params = run.initial_params()
        jax.tree.map(np.testing.assert_array_equal, params, init_params(CONFIG, 0))
        shardings = param_shardings(CONFIG, run.mesh)
        assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings
        run.export("sft", jax.tree.map(lambda leaf: leaf + 1, params))
        assert run.tokenizer.encode("score") == experiment(
            tmp_path / "run/sft/hf", tmp_path
        ).tokenizer.encode("score")
    exported = load_hf(tmp_path / "run/sft/hf", dtype="bfloat16")[1]
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old + 1), exported, params)


def test_a_template_that_cannot_be_trained_with_is_refused(folder, tmp_path):
    """It leaves out what earlier answers thought: what was sampled would not be what is trained."""
    (folder / "sentencepiece.model").unlink()
    said = "{{ '' if m.role == 'assistant' and not loop.last else m.content }}"
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + said + "<|im_end|>\n{% endfor %}"
    write_folder(folder, byte_level(vocab_size=256), template)
    with (
        experiment(folder, tmp_path) as run,
        pytest.raises(ChatTemplateError, match=r"message 2 \(role 'assistant'\)"),
    ):
        _ = run.tokenizer


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    smaller = CONFIG.replace(vocab_size=299)
    save_hf(tmp_path / "other", smaller, init_params(smaller, 0))
    (tmp_path / "other/sentencepiece.model").write_bytes((folder / "sentencepiece.model").read_bytes())
    with (
        experiment(tmp_path / "other", tmp_path) as run,
        pytest.raises(TokenizerError, match=r"300 ids.*299"),
    ):
        _ = run.model

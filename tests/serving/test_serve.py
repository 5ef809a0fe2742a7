"""`python -m experiments.serve` on folders that cannot be served."""

import pytest
from absl import flags
from absl.testing import flagsaver
from safetensors.numpy import load_file, save_file

from experiments import serve
from mlagent_jax.models.hf import save_hf


@pytest.fixture
def folder(model, params, tokenizer, tmp_path):
    save_hf(tmp_path / "hf", model, params, tokenizer)
    return tmp_path / "hf"


def run(*words, **values):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["serve", "--checkpoint=x"])
    with flagsaver.flagsaver(**values):
        return serve.main(["serve", *words])


def test_weights_that_are_not_finite_are_refused_before_anything_listens(folder, capsys, monkeypatch):
    monkeypatch.setattr("mlagent_jax.serving.http_server.HttpServer.run", lambda self: None)
    assert run(checkpoint=str(folder), max_length=64, slots=1) == 0
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    name = next(name for name in weights if "down_proj" in name)
    weights[name][3, 5] = float("nan")
    save_file(weights, file, {"format": "pt"})
    assert run(checkpoint=str(folder), max_length=64, slots=1) == 1
    said = capsys.readouterr().err
    assert str(folder) in said and "down_proj" in said and "not finite" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "values", "says"),
    [
        (["runs/hf"], {}, "runs/hf is left over"),
        ([], {"checkpoint": "/nowhere"}, "/nowhere"),
        ([], {"slots": 0}, "slots of the engine is 0"),
        ([], {"max_length": 10**6}, "trained for"),
    ],
)
def test_commands_that_cannot_work_are_answered_in_one_sentence(folder, capsys, words, values, says):
    assert run(*words, **({"checkpoint": str(folder)} | values)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1

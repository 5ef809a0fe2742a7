"""`python -m experiments.serve` on folders that cannot be served."""

import importlib
import sys

import pytest
from absl import flags
from absl.testing import flagsaver
from safetensors.numpy import load_file, save_file

from mlagent_jax.errors import UserError
from mlagent_jax.models.hf import save_hf


@pytest.fixture(scope="module")
def serve():
    """The program, with its flags for these tests only: other programs have flags of the same names."""
    others = {name: flags.FLAGS[name] for name in ("checkpoint", "dtype", "name") if name in flags.FLAGS}
    for name in others:
        delattr(flags.FLAGS, name)
    before = set(flags.FLAGS)
    yield importlib.import_module("experiments.serve")
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    for name, flag in others.items():
        flags.FLAGS[name] = flag
    del sys.modules["experiments.serve"]


@pytest.fixture
def folder(model, params, tokenizer, tmp_path):
    save_hf(tmp_path / "hf", model, params, tokenizer)
    return tmp_path / "hf"


@pytest.fixture
def run(serve):
    def run(**values):
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["serve", "--checkpoint=x"])
        with flagsaver.flagsaver(**values):
            serve.serve()

    return run


def test_weights_that_are_not_finite_are_refused_before_anything_listens(run, folder, monkeypatch):
    listened = []
    monkeypatch.setattr("mlagent_jax.serving.http_server.HttpServer.run", lambda self: listened.append(self))
    run(checkpoint=str(folder), max_length=64, slots=1)
    assert len(listened) == 1
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    name = next(name for name in weights if "down_proj" in name)
    weights[name][3, 5] = float("nan")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"{folder}.*down_proj.*not finite"):
        run(checkpoint=str(folder), max_length=64, slots=1)
    assert len(listened) == 1


@pytest.mark.parametrize(
    ("values", "message"), [({"checkpoint": "/nowhere"}, "/nowhere"), ({"max_length": 10**6}, "trained for")]
)
def test_wrong_flags_are_reported_in_one_sentence(run, folder, values, message):
    with pytest.raises(UserError, match=message) as caught:
        run(**({"checkpoint": str(folder)} | values))
    assert "\n" not in str(caught.value)

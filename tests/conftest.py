"""Puts tests/ on the path, checks the shapes and dtypes in signatures at run time, and keeps compiled programs.

In the packages below, arguments and results are checked against jaxtyping's annotations; an axis has the same size
wherever its name occurs within a call. Jitted functions are checked while they are traced, so compiled code does not
become slower.

Most of a run of the tests is spent in XLA's compiler. So programs are compiled without most optimisations, which halves
its time; `optimised` below is for tests of what the compiler makes, or of much arithmetic. What it has compiled is kept
in .pytest_cache/jax, for all processes of this run and for the next one; `make clean` deletes it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Read by jax when it is imported, here and in the programs that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# How long an example takes depends on the machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

CHECKED_PACKAGES = [
    "mlagent_jax.nn",
    "mlagent_jax.models",
    "mlagent_jax.parallel",
    "mlagent_jax.generate",
    "mlagent_jax.ppo",
    "mlagent_jax.sft",
    "mlagent_jax.training",
    "mlagent_jax.text.packing",
    "mlagent_jax.grading",
    "mlagent_jax.tasks",
    "mlagent_jax.agent.model_policy",
]

install_import_hook(CHECKED_PACKAGES, "array_checks.check_arrays")


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs are compiled as in a run, in this process and in those that it starts."""
    import jax

    name = "JAX_DISABLE_MOST_OPTIMIZATIONS"
    given, before = os.environ[name], jax.config.values[name.lower()]
    os.environ[name] = "0"
    jax.config.update(name.lower(), False)
    yield
    os.environ[name] = given
    jax.config.update(name.lower(), before)

"""Puts tests/ on the path, checks the shapes and dtypes in signatures at run time, and keeps compiled programs.

In the packages below, arguments and results are checked against jaxtyping's annotations; an axis has the same size
wherever its name occurs within a call. Jitted functions are checked while they are traced, so compiled code does not
become slower.
"""

from jaxtyping import install_import_hook

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

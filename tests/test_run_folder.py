"""A name of a run's file is written in run_folder.py only, so that nothing looks for it in another place."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments.figures.imports import read_sources
from mlagent_jax import run_folder

HERE = "mlagent_jax.run_folder"
# Files that are not a run's: those of Hugging Face, and a cache of checks of tasks.
OTHER = {
    ("mlagent_jax.models.hf.checkpoint", "config.json"),
    ("mlagent_jax.text.checkpoint_files", "config.json"),
    ("experiments.planning.plans", "config.json"),
    ("mlagent_jax.sandbox.cache", "executions.sqlite"),
}


def strings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_names_of_files_are_written_once() -> None:
    sources = read_sources()
    names = {text for text in strings(sources[HERE]) if " " not in text and text.rpartition(".")[0]}
    names |= {run_folder.DAMAGED_SUFFIX}
    assert names >= {"done.json", "scores.json", "report.html", "executions.sqlite"}
    written = {
        (module, name)
        for module, tree in sources.items()
        if module != HERE
        for text in strings(tree)
        for name in names
        if text.rpartition("/")[2] == name or (name == run_folder.DAMAGED_SUFFIX and text.endswith(name))
    }
    assert written == OTHER

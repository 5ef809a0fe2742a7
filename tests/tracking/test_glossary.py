"""The glossary of metrics: as the code logs them, no more and no less, and its page is up to date."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import tiny
from scripted import run_stages, scripted

from mlagent_jax.llm.backend import Usage
from mlagent_jax.llm.usage import UsageLog
from mlagent_jax.tracking import glossary
from mlagent_jax.tracking.glossary import GLOSSARY, LLM, PPO, SFT, unknown_metrics, unlogged_metrics

ROOT = Path(__file__).parents[2]
QUICK = {
    "tasks.micro": True,
    "collect.episodes_per_task": 6,
    "sft.steps": 2,
    "sft.eval_every": 2,
    "ppo.updates": 1,
    "ppo.batch_size": 4,
    "ppo.minibatch_size": 4,
    "evaluate.agents": ("starter",),
    "tracking": ("jsonl",),
    "sampling.prefill_chunks": (256,),
}


def logged(path: Path) -> set[str]:
    return {name for line in path.read_text().splitlines() for name in json.loads(line)} - {"step"}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict[str, set[str]]:
    """Names that tiny runs log, by stage: a step-wise one, and an episode-wise one without fine-tuning."""
    folder = tmp_path_factory.mktemp("runs")
    with scripted(tiny.get_config(), folder / "states", **QUICK) as states:
        run_stages(states, ["ideas", "collect", "sft", "ppo"])
    episodes = {"rl.rollouts": "episodes", "rl.start": "base", "reward.episode_baseline": "best"}
    with scripted(tiny.get_config(), folder / "episodes", **QUICK, **episodes) as whole:
        run_stages(whole, ["ideas", "collect", "ppo"])
    return {
        SFT: logged(states.workdir.metrics("sft")),
        PPO: logged(states.workdir.metrics("ppo")) | logged(whole.workdir.metrics("ppo")),
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [SFT, PPO])
def test_every_metric_has_an_entry(metrics, stage):
    assert unknown_metrics(stage, metrics[stage]) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [SFT, PPO])
def test_every_entry_is_logged(metrics, stage):
    assert unlogged_metrics(stage, metrics[stage]) == []


def test_calls_of_language_models_are_logged_by_the_names_of_their_entries(tmp_path):
    log = UsageLog(tmp_path / "metrics.jsonl")
    log.add("coder", Usage(1.0, 10, 5))
    log.add_recorded("idea_writer")
    log.add_abandoned("coder", 0.5)
    names = logged(tmp_path / "metrics.jsonl")
    assert unknown_metrics(LLM, names) == [] == unlogged_metrics(LLM, names)


def test_the_page_is_up_to_date():
    assert glossary.PAGE.read_text() == glossary.page(), f"renew it by: {glossary.COMMAND}"


def test_formulas_are_where_the_glossary_says():
    for metrics in GLOSSARY.values():
        for metric in metrics:
            file, _, name = metric.where.partition(":")
            tree = ast.parse((ROOT / file).read_text())
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert name in defined, f"{metric.name}: {metric.where}"


def test_names_are_distinct_and_of_a_form_that_every_tracker_takes():
    for stage, metrics in GLOSSARY.items():
        names = [name for metric in metrics for name in metric.names]
        assert len(names) == len(set(names)), stage
        assert all(re.fullmatch(r"[A-Za-z0-9_./ -]+", name) for name in names)
        assert (
            unlogged_metrics(stage, [name.replace("TASK", "ames").replace("ROLE", "coder") for name in names])
            == []
        )
    assert unknown_metrics(SFT, ["train/loss", "train/los", "loss"]) == ["loss", "train/los"]
    assert unknown_metrics(PPO, ["reward/my task/mean", "reward/a/b/mean"]) == ["reward/a/b/mean"]

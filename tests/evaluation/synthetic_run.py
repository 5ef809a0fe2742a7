"""A small work directory with invented numbers and hostile texts, for tests of the scores and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlagent_jax.agent.trajectory import Step, Trajectory, to_json
from mlagent_jax.environment.state import Action, EnvState, Outcome
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.tasks.task import Task

PAYLOAD = "</script></pre><img src=x onerror=\"window.hacked='img'\"><script>window.hacked='script'</script>"
BIDI = "access\u202egnol\u202c ok\u200b \x1b[31mred\x1b[0m \x00 tail"
AGENTS = ("starter", "random", "expert", "sft", "ppo")  # of those that a run can write
OUTCOMES = (Outcome.SUCCESS, Outcome.NEUTRAL, Outcome.ERROR, Outcome.CORNER, Outcome.MALFORMED)
DIFF = """--- a/train.py
+++ b/train.py
@@ -3,3 +3,3 @@
 import pandas as pd
-model = LinearRegression()
+model = HistGradientBoostingRegressor()
--- not a file name, but a removed line that begins with dashes
"""


def make_task(name: str, split: str = "held_in", metric: str = "accuracy", m_best: float = 0.9) -> Task:
    return Task(
        name=name,
        title=f"Title of {name}",
        brief="brief",
        description="description",
        kind="tabular regression",
        split=split,
        metric=metric,
        id_column="id",
        target_columns=("y",),
        m_best=m_best,
        m_best_source="a strong model",
        starter="print(1)\n",
        limits=Limits(),
        show_public_score=True,
        data_dir=Path("public"),
        labels_path=Path("labels.csv"),
        data_digest="0",
    )


def make_step(
    outcome: Outcome = Outcome.SUCCESS,
    *,
    before: float = 0.5,
    after: float = 0.5,
    number: int = 0,
    reward: float | None = 0.25,
    text: str = "",
) -> Step:
    response = (
        f"Reflection: the last one was fine {text}\nResearch Plan and Status: try trees\nFact Check: none\n"
        'Thought: a stronger model\nAction: Edit Script (AI)\nAction Input: {"script_name": "train.py"}'
    )
    malformed = outcome is Outcome.MALFORMED
    graded = outcome is Outcome.SUCCESS
    return Step(
        before=EnvState(
            f"sha-{number}", before, before - 0.01, graded=False, steps=number, seconds=float(number)
        ),
        response="no action at all" + text if malformed else response,
        action=None
        if malformed
        else Action("Edit Script (AI)", {"script_name": "train.py" + text, "lines": 3}),
        outcome=outcome,
        feedback="Ran. Public score better." + text,
        after=EnvState(
            f"sha-{number + 1}", after, after - 0.01, graded=graded, steps=number + 1, seconds=number + 1.0
        ),
        reward=None if outcome is Outcome.INFRASTRUCTURE else reward,
        m_before=before,
        m_after=after,
        diff=DIFF if graded else "",
        output="" if malformed else f"validation accuracy: {after:.4f}\n{text}",
        status="" if malformed else "ok",
        tokens=(1, 2, 3),
        logprobs=(-0.5, -0.25, -0.75),
    )


def make_trajectory(
    agent: str,
    task: str,
    index: int,
    private: float,
    *,
    steps: tuple[Step, ...] = (),
    m_init: float = 0.5,
    valid: bool = True,
    ideas: tuple[str, ...] = (),
) -> Trajectory:
    return Trajectory(
        task=task,
        agent=agent,
        index=index,
        seed=1000 + index,
        ideas=ideas,
        steps=steps,
        m_init_public=m_init + 0.01,
        m_init_private=m_init,
        public_score=private + 0.01,
        private_score=private,
        valid=valid,
        ended="final_answer" if index % 2 else "step_limit",
    )


def invented_episodes(
    task: Task, agent: str, k: int, rng: np.random.Generator, text: str
) -> list[Trajectory]:
    lift = 0.02 * AGENTS.index(agent)
    sign = -1 if task.metric in ("mae", "rmsle") else 1
    episodes = []
    for index in range(k):
        steps, score = [], 0.51
        for number in range(0 if agent == "starter" else 2 + index % 5):
            outcome = OUTCOMES[int(rng.integers(len(OUTCOMES)))]
            after = score + sign * float(rng.normal(lift, 0.01)) if outcome is Outcome.SUCCESS else score
            reward = (
                float(np.clip(sign * (after - score) * 5, -1, 1)) if outcome is not Outcome.ERROR else -1.0
            )
            steps.append(
                make_step(
                    outcome,
                    before=score,
                    after=after,
                    number=number,
                    reward=reward,
                    text=text if number == 0 else "",
                )
            )
            score = after
        valid = any(step.outcome is Outcome.SUCCESS for step in steps)
        episodes.append(
            make_trajectory(agent, task.name, index, score - 0.01, steps=tuple(steps), valid=valid)
        )
    return episodes


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_workdir(
    workdir: Path, *, ppo: bool = True, k: int = 8, text: str = PAYLOAD + BIDI, seed: int = 0
) -> list[Task]:
    """Fills `workdir` as a run does, `text` wherever an agent or a script can write. Returns its tasks."""
    rng = np.random.default_rng(seed)
    tasks = [
        make_task("ames", metric="rmsle", m_best=0.3),
        make_task("digits8"),
        make_task("foods", metric="macro_f1"),
        make_task("hotel_rates", "held_out", metric="mae", m_best=0.2),
        make_task("mnist5k", "held_out"),
        make_task(f"odd {text}", "held_out"),
    ]
    agents = AGENTS if ppo else AGENTS[:-1]
    evaluated = [
        episode
        for agent in agents
        for task in tasks
        for episode in invented_episodes(task, agent, k, rng, text)
    ]
    broken = make_step(Outcome.INFRASTRUCTURE, text=text)
    evaluated[-1] = make_trajectory(agents[-1], tasks[-1].name, k - 1, 0.5, steps=(broken,), valid=False)
    collected = [
        make_trajectory(
            "expert", task.name, index, 0.55, steps=(make_step(text=text),), ideas=("use trees " + text,)
        )
        for task in tasks[:3]
        for index in range(4)
    ]
    start = {
        "time": "2026-01-02T00:00:00Z",
        "command": ["run.py", text],
        "python": "3.11.2",
        "versions": {"jax": "0.10.2"},
        "devices": ["cpu"],
        "seed": 7,
        "git": {"commit": "abc123" * 6, "dirty": True},
    }
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(
        json.dumps({"seed": 0, "sft": {"learning_rate": 1e-3, "rows": 8}, "name": text})
    )
    (workdir / "environment.json").write_text(
        json.dumps({"starts": [start | {"time": "2026-01-01T00:00:00Z"}, start]})
    )
    (workdir / "ideas").mkdir()
    for task in tasks[:2]:
        pool = {
            "schema": 1,
            "task": task.name,
            "version": "v2",
            "writer": "scripted",
            "embedder": "hash",
            "seed": 0,
            "kept": {"model": ["boosted trees " + text], "data": ["log target"]},
            "candidates": {
                "model": ["boosted trees " + text, "ridge"],
                "data": ["log target", "drop outliers"],
            },
        }
        (workdir / "ideas" / f"{task.name}.json").write_text(json.dumps(pool))
    write_lines(workdir / "collect/trajectories.jsonl", [to_json(each) for each in collected])
    write_lines(workdir / "sft/metrics.jsonl", sft_metrics(rng))
    if ppo:
        write_lines(workdir / "ppo/metrics.jsonl", ppo_metrics(rng))
        write_lines(workdir / "ppo/rollouts.jsonl", ppo_rollouts(text))
    write_lines(workdir / "evaluate/trajectories.jsonl", [to_json(each) for each in evaluated])
    write_scores(workdir / "evaluate/scores.json", score_trajectories(evaluated, tasks, resamples=500))
    summaries = {
        "sft": {"trajectories": 12, "trajectories_cut": 3, "trajectories_dropped": 1},
        "ppo": {"states": 1390, "states_left_out": {"too long for the policy's context": 105}},
    }
    for stage in ("ideas", "collect", "sft", *(("ppo",) if ppo else ()), "evaluate"):
        (workdir / stage / "done.json").write_text(json.dumps(summaries.get(stage, {})))
    return tasks


def sft_metrics(rng: np.random.Generator) -> list[dict[str, Any]]:
    records = []
    for step in range(1, 401):
        loss = 0.3 + 6 * float(np.exp(-step / 60)) + float(rng.normal(0, 0.05))
        record = {
            "step": step,
            "train/total_tokens": step * 2300,
            "train/loss": loss,
            "train/lr": 1e-3 * (1 - step / 400),
            "train/grad_norm": None,
        }
        if step % 40 == 0:
            record["val/loss"] = loss + 0.1
        records.append(record)
    return records


def ppo_rollouts(text: str) -> list[dict[str, Any]]:
    return [
        {
            "step": update,
            "task": task,
            "trajectory": f"expert/{task}/{number % 4}",
            "index": 0,
            "seed": number,
            "response": f"Thought: an action {text}\nAction: List Files\nAction Input: {{}}",
            "outcome": "neutral" if number % 2 else "malformed",
            "reward": 0.0 if number % 2 else -1.0,
            "m_before": 0.5,
            "m_after": 0.5,
            "snapshot_before": "a",
            "snapshot_after": "a",
            "tokens": 40,
        }
        for update in range(1, 21)
        for task in ("ames", "digits8")
        for number in range(4)
    ]


def ppo_metrics(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "critic/score/mean": 0.4 + 0.01 * step + float(rng.normal(0, 0.03)),
            "critic/score/std": 0.3,
            "rollout/actions": 32,
            "rollout/masked_actions": 1,
            "actor/ref_kl": 0.002 * step,
            "actor/entropy": 1.2 - 0.01 * step,
            "training/rollout_logprobs_diff_mean": 1e-6,
            "training/rollout_logprobs_diff_max": 3e-5,
            "outcome/success": 0.4,
            "outcome/neutral": 0.3,
            "outcome/error": 0.2,
            "outcome/malformed": 0.1,
            "actor/pg_clipfrac": 0.05,
        }
        for step in range(1, 21)
    ]

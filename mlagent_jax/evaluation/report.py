"""One self-contained `report.html` for a work directory, in which nothing that an agent wrote can run.

The page shows what a run has stored. A stage that has not run is named as missing; nothing is filled in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation import attribution, episodes, learning_curves, llm_costs, tables
from mlagent_jax.evaluation.along_training import gains_along_training
from mlagent_jax.evaluation.embed import script_json
from mlagent_jax.evaluation.flat_rows import flat_rows
from mlagent_jax.evaluation.read_run import Run, read_run
from mlagent_jax.evaluation.scores import ONE_OUTCOME
from mlagent_jax.evaluation.templates import page_templates, source
from mlagent_jax.files import write_atomically
from mlagent_jax.jsonl import Record

OPTIONAL = ("sft_filtered", "ppo_shuffled")  # stages that most runs do not have


def write_report(workdir: Path, out: Path) -> Path:
    """Writes the report of the run in `workdir` to `out`, atomically; the same files give the same bytes.

    Raises UserError if `workdir` is not a directory or one of its files is damaged.
    """
    write_atomically(out, render(read_run(workdir)))
    return out


def render(run: Run) -> str:
    """The page as HTML."""
    css, js = source("charts.css") + source("report.css"), source("report.js")
    index, chunks = episodes.build([("evaluate", run.evaluated), ("collect", run.collected)], run.rollouts)
    task_facts = run.scores["tasks"] if run.scores else {}
    agents = dict.fromkeys(entry["agent"] for entry in index)
    page = {
        "episodes": index,
        "tasks": task_facts,
        "agents": {name: tables.agent_title(name) for name in agents},
    }
    context: dict[str, Any] = {
        "run": run,
        "version": metadata.version("mlagent-jax"),
        "policy": _policy(css, js),
        "css": Markup(css),
        "js": Markup(js),
        "facts": headline_facts(run),
        "stages": stage_rows(run),
        "learning": _learning(run),
        "ideas": {name: _idea_pool(pool) for name, pool in run.ideas.items()},
        "episodes": {"index": index, "chunks": chunks},
        "llm_costs": llm_costs.rows(run),
        "episodes_json": Markup(script_json(page)),
        "config_rows": flat_rows(run.config),
        "environment_rows": flat_rows(run.environment),
        **_score_context(run),
    }
    return page_templates().get_template("report.html.jinja").render(context)


def _score_context(run: Run) -> Record:
    if run.scores is None:
        empty: Record = dict.fromkeys(
            (
                "matrix",
                "mean_tables",
                "execution_charts",
                "best_of_charts",
                "difference_tables",
                "task_details",
                "verdicts",
                "temperatures",
                "attribution",
            ),
            (),
        )
        return empty | {"scores": None, "masked": 0, "scored_tasks": (), "no_verdict": ""}
    counted: dict[tuple[str, str], list[float]] = {}
    for each in run.evaluated:
        if not each.is_masked:
            counted.setdefault((each.agent, each.task), []).append(each.private_score)
    return {
        "scores": run.scores,
        "masked": sum(row["masked"] for row in run.scores["per_task"]),
        "matrix": tables.matrix(run.scores),
        "mean_tables": tables.mean_tables(run.scores),
        "execution_charts": tables.execution_charts(run.scores),
        "best_of_charts": tables.best_of_charts(run.scores),
        "difference_tables": tables.difference_tables(run.scores),
        "task_details": tables.task_details(run.scores, counted),
        "verdicts": tables.verdicts(run.scores),
        "no_verdict": tables.no_verdict(run.scores),
        "temperatures": tables.temperatures(run.scores),
        "attribution": tables.attribution(attribution.shares(run.scores["tasks"], run.evaluated)),
        "scored_tasks": tuple(run.scores["tasks"]),
        "one_outcome": ONE_OUTCOME,
    }


def _learning(run: Run) -> list[Record]:
    stages = []
    sft, ppo = (learning_curves.SFT, "anything"), (learning_curves.PPO, "an update")
    for name, title, (plans, logged) in (
        ("sft", "Supervised fine-tuning", sft),
        ("sft_filtered", "Supervised fine-tuning on the best episodes", sft),
        ("ppo", "PPO", ppo),
        ("ppo_shuffled", "PPO with shuffled rewards", ppo),
    ):
        records = learning_curves.with_reward_error(run.metrics.get(name, []))
        if not records and name in OPTIONAL:
            continue
        charts, absent = learning_curves.charts(records, plans)
        charts += _along_training(run, name)
        stages.append(
            {
                "title": title,
                "recorded": bool(records),
                "missing": f"The {name} stage has not logged {logged} yet.",
                "older": learning_curves.of_older_version(records, plans),
                "charts": charts,
                "absent": absent,
                "others": learning_curves.others(records, plans),
                "change": learning_curves.reward_change(records),
            }
        )
    return stages


def _along_training(run: Run, stage: str) -> list[Record]:
    """Charts of the gain along the training of a stage, if it was evaluated and the run has scores."""
    trajectories = run.along_training.get(stage, ())
    if not trajectories or run.scores is None:
        return []
    records = gains_along_training(run.scores["tasks"], trajectories, run.metrics.get(stage, []))
    charts, _ = learning_curves.charts(records, learning_curves.ALONG_TRAINING)
    return charts


def stage_rows(run: Run) -> list[Record]:
    """What each stage has stored and left out, in words ("" for nothing), and whether it has finished."""
    details = {
        "ideas": _count(len(run.ideas), "pool"),
        "collect": _count(len(run.collected), "trajectory"),
        "sft": _count(_last_step(run.sft_metrics), "step"),
        "sft_filtered": _count(_last_step(run.metrics.get("sft_filtered", [])), "step"),
        "ppo": _count(_last_step(run.ppo_metrics), "update"),
        "ppo_shuffled": _count(_last_step(run.metrics.get("ppo_shuffled", [])), "update"),
        "evaluate": _count(len(run.evaluated), "episode"),
    }
    details = {name: detail for name, detail in details.items() if detail or name not in OPTIONAL}
    left_out = {
        "collect": _masked(run.collected),
        "sft": _left_out_of_sft(run),
        "ppo": _left_out_of_ppo(run),
        "evaluate": _masked(run.evaluated),
    }
    if run.evaluated and not run.scores:
        details["evaluate"] += ", not scored yet"
    return [
        {"name": name, "detail": detail, "done": name in run.done, "left_out": left_out.get(name, "")}
        for name, detail in details.items()
    ]


def _masked(trajectories: Sequence[Trajectory]) -> str:
    masked = sum(each.is_masked for each in trajectories)
    return f", {masked} masked, since infrastructure failures cut them short" if masked else ""


def _left_out_of_sft(run: Run) -> str:
    summary = run.summaries.get("sft", {})
    cut, dropped = summary.get("trajectories_cut"), summary.get("trajectories_dropped")
    return (
        f", {_count(cut, 'trajectory')} longer than a row and cut at a step, {dropped} of them dropped"
        if cut
        else ""
    )


def _left_out_of_ppo(run: Run) -> str:
    """States that are not in the pool, and samples that were not trained on."""
    summary = run.summaries.get("ppo", {})
    parts = [
        f"{_count(n, 'state')} left out of the pool: {why}"
        for why, n in summary.get("states_left_out", {}).items()
    ]
    for name, noun in (("rollout/masked_actions", "action"), ("rollout/masked_episodes", "episode")):
        lost = sum(record.get(name) or 0 for record in run.ppo_metrics)
        if lost:
            parts.append(f"{_count(lost, noun)} masked because of infrastructure failures")
    return "".join(f", {each}" for each in parts)


def _last_step(records: Sequence[Record]) -> int:
    return records[-1].get("step", len(records)) if records else 0


def _count(number: int, noun: str) -> str:
    """ "3 steps", "1 step", and "" for none."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}" if number else ""


def headline_facts(run: Run) -> list[tuple[str, Any]]:
    """The first facts that a reader wants, as far as they are known: of the last start, except for "begun"."""
    starts = (run.environment or {}).get("starts") or [{}]
    git = starts[-1].get("git") or {}
    facts = {
        "begun": starts[0].get("time"),
        "seed": starts[-1].get("seed"),
        "commit": (git.get("commit") or "")[:12] + (" with local changes" if git.get("dirty") else ""),
        "Python": starts[-1].get("python"),
        "jax": (starts[-1].get("versions") or {}).get("jax"),
        "devices": ", ".join(starts[-1].get("devices") or ()),
        "starts": len(starts) if len(starts) > 1 else None,
        "taken from": _origin_text(run.origin),
    }
    return [(name, value) for name, value in facts.items() if value not in (None, "")]


def _origin_text(origin: Record | None) -> str:
    """Which stages were taken from which run, and from where that one took its own."""
    if not origin:
        return ""
    start = origin.get("start") or {}
    commit = ((start.get("git") or {}).get("commit") or "")[:12]
    made = ", ".join(
        filter(None, (f"commit {commit}" if commit else "", f"seed {start['seed']}" if start else ""))
    )
    earlier = _origin_text(origin.get("origin"))
    return (
        f"{', '.join(origin['summaries'])} of {origin['folder']}"
        + (f" ({made})" if made else "")
        + (f", which took {earlier}" if earlier else "")
    )


def _idea_pool(pool: Record) -> Record:
    """An idea pool for the template: per axis its candidates, and whether each was kept."""
    kept, candidates = pool.get("kept", {}), pool.get("candidates", {})
    axes = []
    for axis, ideas in kept.items():
        chosen = set(ideas)
        dropped = [idea for idea in candidates.get(axis, ()) if idea not in chosen]
        axes.append((axis, [(idea, True) for idea in ideas] + [(idea, False) for idea in dropped]))
    return {
        "writer": pool.get("writer", "an unnamed writer"),
        "embedder": pool.get("embedder", "unnamed"),
        "version": pool.get("version", "unknown"),
        "kept_count": sum(map(len, kept.values())),
        "candidate_count": sum(map(len, candidates.values())),
        "axes": axes,
    }


def _policy(css: str, js: str) -> str:
    """A content security policy that allows the page's own style and script, and nothing else."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(js)}'; style-src 'sha256-{digest(css)}'; img-src "
        "data:; base-uri 'none'; form-action 'none'"
    )

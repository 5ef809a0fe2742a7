"""A finished run on one picture: its learning curves and the table of scores, as SVG for a page that shows no HTML."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import learning_curves, tables
from mlagent_jax.evaluation.read_run import Run
from mlagent_jax.evaluation.templates import page_templates, source

CHARTS = (("Supervised fine-tuning", "sft"), ("PPO", "ppo"))


def render(run: Run) -> str:
    """The picture as SVG. Raises UserError if the run has no scores or recorded no training."""
    if run.scores is None:
        raise UserError(f"run {run.name} has no evaluate/scores.json; let it finish, then draw it")
    return (
        page_templates()
        .get_template("picture.svg.jinja")
        .render(
            css=Markup(source("charts.css")),
            charts=_learning(run),
            matrix=tables.matrix(run.scores),
            scores=run.scores,
            made=made_with(run),
        )
    )


def _learning(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """The first chart of each stage that learns, with the stage's name."""
    records = {"sft": run.sft_metrics, "ppo": learning_curves.with_reward_error(run.ppo_metrics)}
    plans = {"sft": learning_curves.SFT[:1], "ppo": learning_curves.PPO[:1]}
    drawn = []
    for title, stage in CHARTS:
        chart, absent = learning_curves.charts(records[stage], plans[stage])
        if absent:
            raise UserError(
                f"run {run.name} recorded no {absent[0].lower()} in {stage}; let it finish, then draw it"
            )
        drawn.append((title, chart[0]))
    return drawn


def made_with(run: Run) -> str:
    """The code and versions that the run was made with, as far as it recorded them."""
    starts = (run.environment or {}).get("starts") or [{}]
    last = starts[-1]
    git = last.get("git") or {}
    facts = {
        "commit": (git.get("commit") or "")[:7] + ("+" if git.get("dirty") else ""),
        "seed": last.get("seed"),
        "Python": last.get("python"),
        "jax": (last.get("versions") or {}).get("jax"),
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))

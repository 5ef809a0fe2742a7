"""The page of results: made from tiny stored runs, it has every criterion, and the same runs give the same bytes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.configs.learning import CRITERIA
from experiments.figures import learning
from mlagent_jax.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for synthetic_run

from synthetic_run import write_workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """Three seeds, whose trained agents differ and whose other agents are those of the first."""
    folder = tmp_path_factory.mktemp("runs") / "learning"
    for seed in range(3):
        run = folder / f"seed_{seed}"
        write_workdir(run, k=3, text="", seed=seed)
        path = run / "evaluate/scores.json"
        scores = json.loads(path.read_text())
        choice = {"chosen": 0.3, "tried": [{"temperature": 0.3, "gain": 0.25, "tasks": {}, "episodes": 2}]}
        scores["temperatures"] = {"sft": choice, "ppo": choice}
        if seed:
            first = json.loads((folder / "seed_0/evaluate/scores.json").read_text())
            kept = [row for row in first["means"] if row["agent"] not in ("sft", "ppo")]
            scores["means"] = kept + [row for row in scores["means"] if row["agent"] in ("sft", "ppo")]
        path.write_text(json.dumps(scores))
        (run / "sft/done.json").write_text(json.dumps({"seconds": 1800.0 * (seed + 1)}))
    (folder / "config.json").write_text(json.dumps({"seeds": [0, 1, 2]}))
    return folder


def test_the_page_says_where_it_comes_from(workdir):
    page = learning.render_page(learning.read_seeds(workdir))
    assert "run.py" in page and "Commit abc123abc123 with local changes; seeds 0, 1, 2" in page
    assert "jax 0.10.2" in page and "0.5, 1.0, 1.5 hours, 3.0 in all" in page


def test_every_criterion_has_a_verdict_negative_ones_too(workdir):
    page = learning.render_page(learning.read_seeds(workdir))
    verdicts = {}
    for criterion in CRITERIA:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {criterion} |")]
        verdicts[str(criterion)] = line.split(" | ")[-1].strip(" |*")
    assert verdicts["held-in: SFT + PPO above Best constant"] == "Best constant not evaluated"
    assert verdicts["held-in: SFT + PPO above SFT"] in ("met", "not met")
    met = sum(verdict == "met" for verdict in verdicts.values())
    assert f"{met} of {len(CRITERIA)} criteria are met." in page


def test_what_was_evaluated_once_is_said_with_its_own_interval(workdir):
    page = learning.render_page(learning.read_seeds(workdir))
    assert "Evaluated once, with intervals over episodes: Starter, Random, Expert." in page
    gains = page[page.index("## Gains") : page.index("## Tasks")]
    assert re.search(r"^\| SFT \+ PPO \| [+−]?\d+\.\d % \[", gains, re.MULTILINE)


def test_temperatures_and_tasks_are_there(workdir):
    page = learning.render_page(learning.read_seeds(workdir))
    assert "| SFT + PPO | 0.3 (25 %) | 0.3 (25 %) | 0.3 (25 %) |" in page
    assert "| hotel_rates (held-out) |" in page


def test_the_picture_has_every_agent_on_both_splits(workdir):
    drawn = ElementTree.fromstring(learning.render_picture(learning.read_seeds(workdir)))
    said = [text.strip() for text in drawn.itertext() if text.strip()]
    assert {"Starter", "Random", "Expert", "SFT", "SFT + PPO", "Held-in", "Held-out"} <= set(said)
    assert len(drawn.findall(".//{*}circle")) == 10


def test_the_same_runs_give_the_same_bytes(workdir):
    pages = [learning.render_page(learning.read_seeds(workdir)) for _ in range(2)]
    pictures = [learning.render_picture(learning.read_seeds(workdir)) for _ in range(2)]
    assert pages[0] == pages[1] and pictures[0] == pictures[1]


def test_a_run_that_is_not_finished_is_one_sentence(workdir, tmp_path):
    with pytest.raises(UserError, match="holds no runs of several seeds"):
        learning.read_seeds(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"seeds": [7]}))
    (tmp_path / "seed_7").mkdir()
    with pytest.raises(UserError, match=r"seed 7 of .* is not evaluated yet"):
        learning.read_seeds(tmp_path)

"""Pages of ablations: made from stored runs, with a verdict for every row; those in the repository are up to date."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.ablations.suite import get_suite
from experiments.figures.ablation_pages import pages
from experiments.sweeps.suite import Group, Row, Suite, Variant
from experiments.sweeps.summary import finished_seeds, summarise
from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for synthetic_run

from synthetic_run import write_workdir

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SUMMARIES = sorted(path for path in RESULTS.glob("*.json"))
GROUP = Group(
    "parts",
    "Parts",
    "Each part is needed.",
    "table 9",
    (Row("full", "full", paper=(18.0, 16.0)), Row("less", "less")),
)
SUITE = Suite((0, 1, 2), (Variant("full", "f.py"), Variant("less", "f.py", takes="full:sft")), (GROUP,))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two of three seeds are finished; the runs of both variants are alike."""
    root = tmp_path_factory.mktemp("sweep")
    for variant in ("full", "less"):
        for seed in (0, 1) if variant == "less" else (0, 1, 2):
            write_workdir(root / variant / f"seed_{seed}", k=3, text="", seed=seed)
    return root


@pytest.fixture(scope="module")
def alike(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("alike")
    for variant in ("full", "less"):
        for seed in (0, 1, 2):
            write_workdir(root / variant / f"seed_{seed}", k=3, text="", seed=seed)
    return root


def test_only_seeds_that_every_variant_has_finished_count(sweep):
    assert finished_seeds(SUITE, GROUP, sweep) == [0, 1]
    assert summarise(SUITE, GROUP, sweep)["seeds"] == [0, 1]


def test_equal_runs_show_no_difference(alike):
    summary = summarise(SUITE, GROUP, alike)
    for split in ("held_in", "held_out"):
        cell = summary["rows"][1][split]
        assert (
            cell["difference"]["mean"] == 0 and cell["verdict"] == "no difference shown" and cell["p"] == 1.0
        )


@pytest.fixture(scope="module")
def unequal(tmp_path_factory) -> Path:
    """Three seeds in which the full variant is better than the other by about the same."""
    root = tmp_path_factory.mktemp("unequal")
    for seed in (0, 1, 2):
        for variant, lift in (("full", 0.08 + 0.001 * seed), ("less", 0.0)):
            folder = root / variant / f"seed_{seed}"
            facts = {task.name: task for task in write_workdir(folder, k=3, text="", seed=seed)}
            path = folder / "evaluate" / "trajectories.jsonl"
            records = [json.loads(line) for line in path.read_text().splitlines()]
            for record in records:
                if record["agent"] == "ppo":
                    sign = 1 if METRICS[facts[record["task"]].metric].higher_is_better else -1
                    record["private_score"] += sign * lift * record["m_init_private"]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return root


def test_what_gains_more_is_said_to_gain_more(unequal):
    turned = replace(GROUP, rows=tuple(reversed(GROUP.rows)))
    for group, sign, verdict, words in (
        (GROUP, 1, "gains more", "it gains more than"),
        (turned, -1, "gains less", "it gains less than"),
    ):
        summary = summarise(SUITE, group, unequal) | {"suite": "suite.py"}
        first, other = summary["rows"]
        for split in ("held_in", "held_out"):
            cell = other[split]
            direct = first[split]["gain"]["mean"] - cell["gain"]["mean"]
            assert sign * direct > 0.05 and cell["difference"]["mean"] == pytest.approx(direct, abs=0.02)
            assert cell["difference"]["low"] <= cell["difference"]["mean"] <= cell["difference"]["high"]
            assert cell["verdict"] == verdict
        assert words in pages(summary)[".md"]


def test_differences_are_tested_as_scipy_and_holm_do():
    from scipy import stats

    from experiments.sweeps.summary import _test

    runs = [[0.05, 0.06, 0.07], [0.01, -0.02, 0.03], [-0.30, -0.31, -0.32]]
    cells = [{"difference": {"mean": sum(each) / 3, "runs": each}} for each in runs]
    _test(cells)
    raw = [stats.ttest_rel(each, [0.0] * 3).pvalue for each in runs]
    assert [cell["verdict"] for cell in cells] == ["gains more", "no difference shown", "gains less"]
    assert cells[2]["p"] == pytest.approx(3 * raw[2]) and cells[0]["p"] == pytest.approx(2 * raw[0])


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_have_no_verdict(sweep, seeds):
    few = Suite(seeds, SUITE.variants, (GROUP,))
    assert summarise(few, GROUP, sweep)["rows"][1]["held_in"]["verdict"] == "too few seeds"


def test_unfinished_seeds_are_said(sweep):
    summary = summarise(SUITE, GROUP, sweep) | {"suite": "suite.py"}
    assert "**2 of 3 planned seeds are finished.**" in pages(summary)[".md"]


def test_without_a_finished_seed_it_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no seed of group parts has finished"):
        summarise(SUITE, GROUP, tmp_path)


def test_a_page_has_every_row_the_paper_and_where_it_comes_from(sweep):
    summary = summarise(SUITE, GROUP, sweep) | {"suite": "my/suite.py"}
    assert "commands" not in summary["provenance"]
    page, picture = pages(summary).values()
    assert "--suite=my/suite.py" in page and "an unrecorded number of parameters" in page
    assert (
        "+18.0 %" in page and "table 9" in page and "Commit abc123abc123" in page and "--only=parts" in page
    )
    assert "| less |" in page and "**too few seeds**" in page
    root = ElementTree.fromstring(picture)
    circles = [one.get("class") for one in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles.count("other") == 2 and circles.count("mean") == 4


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.stem)
def test_stored_pages_are_those_of_their_summaries(path):
    summary = json.loads(path.read_text())
    assert summary["name"] == path.stem and get_suite().group(path.stem)
    for suffix, text in pages(summary).items():
        assert path.with_suffix(suffix).read_text() == text

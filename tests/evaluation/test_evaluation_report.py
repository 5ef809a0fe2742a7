"""The report as a file: whole, self-contained, escaped, and plain about what is missing."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_run import PAYLOAD, make_step, make_task, make_trajectory, write_lines, write_workdir

from mlagent_jax.agent.response import ALL_FIELDS, Thoughts, render, split_fields
from mlagent_jax.agent.trajectory import to_json
from mlagent_jax.environment.state import Action
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.charts import Chart, Series, line_chart, ticks
from mlagent_jax.evaluation.embed import packed_json, script_json, shortened, visible
from mlagent_jax.evaluation.episodes import build, labelled_fields
from mlagent_jax.evaluation.learning_curves import PPO, charts, others, reward_change
from mlagent_jax.evaluation.numbers import format_score, format_signed
from mlagent_jax.evaluation.report import flat_rows, write_report


class Page(html.parser.HTMLParser):
    """Elements and attributes as an HTML parser of the standard library sees them."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._open: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open = dict(attributes) if tag == "script" else None

    def handle_data(self, data):
        if self._open is None:
            self.text += data
        else:
            self.scripts.append((self._open, data))

    def handle_endtag(self, tag):
        self._open = None


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, str]:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    write_workdir(workdir)
    out = write_report(workdir, workdir / "report.html")
    return workdir, out.read_text()


def test_payloads_make_no_elements(report) -> None:
    _, text = report
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag in {"img", "iframe", "object", "embed", "base"}]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    runnable = [content for attributes, content in page.scripts if "type" not in attributes]
    assert len(runnable) == 1, "only the page's own script may run"
    assert "hacked" not in runnable[0]
    assert PAYLOAD in page.text, "the payload is shown as text"


def test_the_page_loads_nothing(report) -> None:
    page = Page(report[1])
    loading = {"src", "srcset", "action", "data", "poster", "background", "formaction"}
    assert not [name for _, attributes in page.elements for name in attributes if name in loading]
    links = [attributes["href"] for _, attributes in page.elements if attributes.get("href")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "url(" not in report[1].split("</style>")[0]
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_every_trajectory_is_there_in_full(report) -> None:
    workdir, text = report
    page = Page(text)
    index = json.loads(
        next(content for attributes, content in page.scripts if attributes.get("id") == "index")
    )
    chunks = {
        str(attributes.get("id")): json.loads(gzip.decompress(base64.b64decode(content)))
        for attributes, content in page.scripts
        if str(attributes.get("id")).startswith("chunk-")
    }
    shown = {
        (e["stage"], e["agent"], e["task"], e["index"]): chunks[f"chunk-{e['chunk']}"][e["at"]]
        for e in index["episodes"]
    }
    stored = 0
    for stage in ("collect", "evaluate"):
        for line in (workdir / stage / "trajectories.jsonl").read_text().splitlines():
            record = json.loads(line)
            steps = shown[stage, record["agent"], visible(record["task"]), record["index"]]
            assert [step["response"] for step in steps] == [visible(s["response"]) for s in record["steps"]]
            assert [step["reward"] for step in steps] == [s["reward"] for s in record["steps"]]
            assert [step["feedback"] for step in steps] == [visible(s["feedback"]) for s in record["steps"]]
            stored += 1
    rollouts = [json.loads(line) for line in (workdir / "ppo/rollouts.jsonl").read_text().splitlines()]
    in_page = [step for (stage, *_), steps in shown.items() if stage == "ppo" for step in steps]
    assert sorted(step["response"] for step in in_page) == sorted(
        visible(each["response"]) for each in rollouts
    )
    assert stored == sum(stage != "ppo" for stage, *_ in shown) == 252


def test_the_same_files_give_the_same_bytes(report) -> None:
    workdir, text = report
    assert write_report(workdir, workdir / "again.html").read_text() == text


def test_an_empty_work_directory_is_reported_as_that(tmp_path) -> None:
    text = write_report(tmp_path, tmp_path / "report.html").read_text()
    page = Page(text)
    for words in (
        "The sft stage has not logged anything yet.",
        "The ppo stage has not logged an update yet.",
        "The evaluation has not been scored yet",
        "No trajectory has been stored yet.",
        "There is no config.json.",
    ):
        assert words in page.text
    assert page.text.count("not run yet") == 5


def test_a_run_without_ppo_says_so_and_shows_the_rest(tmp_path) -> None:
    write_workdir(tmp_path / "run", ppo=False, text="")
    page = Page(write_report(tmp_path / "run", tmp_path / "report.html").read_text())
    assert "The ppo stage has not logged an update yet." in page.text
    assert "SFT + PPO" not in page.text
    assert "No verdict on ppo against sft: ppo was not evaluated." in page.text
    assert "minus Expert" not in page.text  # nobody stands in


def test_stages_that_have_not_finished_are_called_so(tmp_path) -> None:
    write_workdir(tmp_path / "run", text="")
    (tmp_path / "run" / "ppo" / "done.json").unlink()
    page = Page(write_report(tmp_path / "run", tmp_path / "report.html").read_text())
    assert "20 updates, unfinished" in page.text
    assert page.text.count("unfinished") == 1


def test_damaged_files_are_named_and_nothing_is_written(tmp_path) -> None:
    with pytest.raises(UserError, match="there is no work directory"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")
    write_workdir(tmp_path / "run", text="")
    path = tmp_path / "run" / "evaluate" / "trajectories.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    lines[2] = '{"schema": 1, "task": "ames"}\n'
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=r"trajectories.jsonl, line 3 is not a trajectory"):
        write_report(tmp_path / "run", tmp_path / "report.html")
    path.write_text(whole)
    (tmp_path / "run" / "config.json").write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config.json is not valid JSON"):
        write_report(tmp_path / "run", tmp_path / "report.html")
    assert not list(tmp_path.glob("*.html"))


def test_a_line_cut_off_by_a_kill_is_passed_over(tmp_path) -> None:
    record = json.dumps(to_json(make_trajectory("expert", "ames", 0, 0.6, steps=(make_step(),)))) + "\n"
    path = tmp_path / "collect" / "trajectories.jsonl"
    path.parent.mkdir()
    path.write_text(record + record[:100])
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text())
    assert "1 trajectory" in page.text


# ---- text ----


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("Größe 模型 🙂 é", "Größe 模型 🙂 é"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u2066\u200b\ufeff", "a⟨U+2066⟩⟨U+200B⟩⟨U+FEFF⟩"),
        ("\x1b[31m\r\x00\x7f\x85", "⟨U+001B⟩[31m⟨U+000D⟩⟨U+0000⟩⟨U+007F⟩⟨U+0085⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041\u2028", "⟨U+E0041⟩⟨U+2028⟩"),
    ],
)
def test_what_would_not_show_is_written_out(text, shown) -> None:
    assert visible(text) == shown


def test_embedded_json_cannot_end_its_element() -> None:
    value = {"</script>": ["<!--", "]]>", "&lt;", "\u2028", float("nan")]}
    text = script_json(value)
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"</script>": ["<!--", "]]>", "&lt;", "⟨U+2028⟩", "nan"]}
    assert packed_json(value) == packed_json(value)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed_json(value))


def test_long_texts_keep_head_and_tail_and_say_what_is_gone() -> None:
    text = "a" * 600 + "b" * 600
    short = shortened(text, 1000)
    assert short.startswith("a" * 500 + "\n[... 200 characters left out")
    assert short.endswith("b" * 500)
    assert shortened(text, 1200) == text


def test_fields_agree_with_the_parser_and_survive_malformed_responses() -> None:
    thoughts = Thoughts("fine\nso far", "plan", "", "Research Plan and Status comes first")
    text = render(Action("Final Answer", {"final_answer": "done: Action"}), thoughts)
    assert dict(labelled_fields(text)) == split_fields(text)
    assert [name for name, _ in labelled_fields(text)] == list(ALL_FIELDS)
    assert labelled_fields("hm\nThought: go\nAction: Dance") == [
        ("", "hm"),
        ("Thought", "go"),
        ("Action", "Dance"),
    ]
    assert labelled_fields("") == []


def test_large_runs_are_cut_into_chunks() -> None:
    steps = tuple(make_step(number=number) for number in range(15))
    index, chunks = build(
        [("evaluate", [make_trajectory("sft", "ames", i, 0.5, steps=steps) for i in range(40)])]
    )
    assert len(chunks) == 4  # 13 episodes of 15 steps stay below 200
    assert [entry["at"] for entry in index[:14]] == [*range(13), 0]
    sizes = [len(json.loads(gzip.decompress(base64.b64decode(chunk)))) for chunk in chunks]
    assert sizes == [13, 13, 13, 1]


# ---- charts and numbers ----


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.13, 0.22) == [-0.1, 0.0, 0.1, 0.2]
    assert ticks(3, 3) == [3]
    assert len(ticks(0, 920_000)) in range(4, 8)


def test_a_chart_puts_larger_values_higher_and_skips_what_is_not_a_number() -> None:
    nan = float("nan")
    drawn = line_chart(Chart("t", "x", [Series("a", [0, 1, 2, 3], [1.0, nan, 3.0, 2.0])]))
    assert drawn is not None
    points = [tuple(map(float, point.split(","))) for point in drawn["series"][0]["path"][1:].split("L")]
    assert len(points) == 3
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2
    assert y0 > y2 > y1
    assert line_chart(Chart("t", "x", [Series("a", [0], [nan])])) is None


def test_long_series_are_averaged_and_say_so() -> None:
    xs = list(range(1000))
    drawn = line_chart(Chart("t", "x", [Series("a", xs, xs)]))
    assert drawn is not None
    assert drawn["series"][0]["path"].count("L") == 249
    assert "mean of 4 recorded" in drawn["note"]


def test_reward_change_compares_the_first_with_the_last_third() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(0.1 * (update >= 4), 0.5, 64) for update in range(6)]
    records = [
        {
            "critic/score/mean": x.mean(),
            "critic/score/std": x.std(),
            "rollout/actions": 70,
            "rollout/masked_actions": 6,
            "step": at,
        }
        for at, x in enumerate(samples)
    ]
    change = reward_change(records)
    assert change is not None
    first, last = np.concatenate(samples[:2]), np.concatenate(samples[4:])
    assert change["interval"]["mean"] == pytest.approx(last.mean() - first.mean())
    # The spread within updates is nearly that over all of them, and so the interval is nearly Welch's.
    welch = stats.ttest_ind(last, first, equal_var=False).confidence_interval(0.95)
    assert change["interval"]["high"] - change["interval"]["low"] == pytest.approx(
        welch.high - welch.low, rel=0.03
    )
    assert reward_change(records[:2]) is None
    assert reward_change([{"critic/score/mean": 0.1}] * 9) is None


def test_metrics_that_were_not_recorded_are_named() -> None:
    records = [
        {"step": step, "critic/score/mean": 0.1, "actor/ref_kl": None, "something_new": step}
        for step in (1, 2, 3)
    ]
    drawn, absent = charts(records, PPO)
    assert [chart["title"] for chart in drawn] == ["Mean step reward"]
    assert "KL to the SFT model" in absent
    assert [chart["title"] for chart in others(records, PPO)] == ["something_new"]


def test_metrics_of_an_older_version_are_not_an_empty_page(tmp_path) -> None:
    """Of a run that was written before the names were verl's, and of one that was resumed since."""
    write_workdir(tmp_path / "run", text="")
    page = Page(write_report(tmp_path / "run", tmp_path / "new.html").read_text())
    assert "An older version logged" not in page.text
    old = [{"step": step, "loss": 1 / step, "tokens": 100 * step} for step in (1, 2, 3)]
    write_lines(tmp_path / "run/sft/metrics.jsonl", old)
    page = Page(write_report(tmp_path / "run", tmp_path / "old.html").read_text())
    assert page.text.count("An older version logged these metrics under other names") == 1
    assert "2 more logged values" in page.text
    resumed = [{"step": step, "train/loss": 1 / step, "train/total_tokens": 100 * step} for step in (4, 5)]
    write_lines(tmp_path / "run/sft/metrics.jsonl", old + resumed)
    page = Page(write_report(tmp_path / "run", tmp_path / "both.html").read_text())
    assert page.text.count("An older version logged some of these metrics under other names") == 1


def test_number_formats() -> None:
    assert format_score(0.123456) == "0.1235"
    assert format_score(-1.5) == "−1.5"
    assert format_signed(-0.0004, 1, factor=100, unit=" %") == "0.0 %"
    assert format_signed(0.123, 1, factor=100, unit=" %") == "+12.3 %"
    assert format_signed(None, 1) == "–"


def test_flat_rows_name_every_leaf() -> None:
    record = {"a": {"b": 1, "c": {}}, "d": [{"e": None}, {"e": "x"}], "f": [1, 2], "g": ""}
    assert flat_rows(record) == [
        ("a.b", "1"),
        ("a.c", "{}"),
        ("d.0.e", "null"),
        ("d.1.e", "x"),
        ("f", "[1, 2]"),
        ("g", '""'),
    ]


def test_task_cards_draw_better_to_the_right(tmp_path) -> None:
    from mlagent_jax.evaluation import tables
    from mlagent_jax.evaluation.scores import score_trajectories

    trajectories = [make_trajectory("sft", "ames", index, score) for index, score in enumerate((0.45, 0.35))]
    scores = score_trajectories(trajectories, [make_task("ames", metric="rmsle", m_best=0.3)])
    (card,) = tables.task_details(scores, {("sft", "ames"): [0.45, 0.35]})
    worse, better = card["rows"][0]["strip"]
    assert card["marks"]["m_init"] < worse < better < card["marks"]["m_best"]


def test_collect_only_runs_are_browsable(tmp_path) -> None:
    write_lines(tmp_path / "collect/trajectories.jsonl", [to_json(make_trajectory("expert", "ames", 0, 0.6))])
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text())
    assert [attributes for attributes, _ in page.scripts if attributes.get("id") == "chunk-0"]

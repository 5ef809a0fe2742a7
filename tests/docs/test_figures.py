"""Pictures and tables of the pages agree with the imports and with a run; a failure names the command to renew them."""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from documents import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.figures import result, rooms
from experiments.figures.imports import room_imports
from experiments.figures.layers import draw, transitive_reduction, without_cycles
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import picture
from mlagent_jax.evaluation.read_run import read_run

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for synthetic_run

from synthetic_run import write_workdir


def texts(svg: str) -> list[str]:
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def test_the_picture_of_the_rooms_is_that_of_the_imports():
    assert not rooms.is_stale(), f"{rooms.PICTURE} is out of date; run {rooms.COMMAND}"


def test_the_picture_has_every_package():
    packages = {path.parent.name for path in (ROOT / "mlagent_jax").glob("*/__init__.py")}
    assert packages <= set(texts(rooms.PICTURE.read_text()))


def test_another_import_makes_another_picture():
    imports = room_imports()
    imports["text"] += Counter({"nn": 1})
    assert texts(rooms.render(imports)) != texts(rooms.render(room_imports()))


def test_a_picture_with_an_arrow_or_a_box_elsewhere_is_out_of_date():
    drawn = rooms.PICTURE.read_text()
    assert not rooms.differ(drawn, drawn)
    arrow = re.search(r'<path class="arrow" .*/>\n', drawn)
    assert arrow and rooms.differ(drawn, drawn.replace(arrow[0], ""))
    box = re.search(r"translate\((\d+)", drawn)
    assert box and rooms.differ(drawn, drawn.replace(box[0], f"translate({int(box[1]) + 2}", 1))
    assert rooms.differ(drawn, drawn.replace('class="box model"', 'class="box runs"', 1))


def test_a_room_without_a_description_is_named_with_the_command():
    with pytest.raises(UserError, match=r"lacks cellar; .* python -m experiments.figures.rooms"):
        rooms.render({**room_imports(), "cellar": Counter()})


def test_imports_are_counted_by_room(tmp_path):
    library = tmp_path / "mlagent_jax"
    (library / "attic").mkdir(parents=True)
    (tmp_path / "experiments").mkdir()
    (library / "__init__.py").write_text("")
    (library / "small.py").write_text("import os\n")
    (library / "attic" / "box.py").write_text(
        "from mlagent_jax import small\nimport mlagent_jax.small\nfrom mlagent_jax.attic import lid\nimport numpy\n"
    )
    (tmp_path / "experiments" / "run.py").write_text("def f():\n    from mlagent_jax.attic.box import lid\n")
    assert room_imports(tmp_path) == {
        "small": Counter(),
        "attic": Counter({"small": 2}),
        "experiments": Counter({"attic": 1}),
    }


def test_the_weakest_import_of_a_cycle_is_the_one_against_the_order():
    graph, against = without_cycles({"a": {"b": 3}, "b": {"c": 2}, "c": {"a": 1}})
    assert (graph, against) == ({"a": {"b"}, "b": {"c"}, "c": set()}, [("c", "a")])


def test_what_a_longer_path_implies_is_left_out():
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert transitive_reduction(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


@settings(deadline=None)
@given(st.integers(2, 9), st.data())
def test_arrows_point_down_and_boxes_do_not_overlap(size, data):
    nodes = [f"n{number}" for number in range(size)]
    pairs = st.sets(st.sampled_from([*itertools.combinations(nodes, 2)]))
    drawn = data.draw(pairs)
    graph = {node: {head for tail, head in drawn if tail == node} for node in nodes}
    widths = {node: data.draw(st.sampled_from([20.0, 60.0, 150.0])) for node in nodes}
    drawing = draw(graph, widths, gap=10)
    for tail, head in drawn:
        assert drawing.layer[tail] < drawing.layer[head]
        assert drawing.routes[tail, head][0] == tail and drawing.routes[tail, head][-1] == head
    for one, other in itertools.combinations(nodes, 2):
        if drawing.layer[one] == drawing.layer[other]:
            room = (widths[one] + widths[other]) / 2 + 10
            assert abs(drawing.x[one] - drawing.x[other]) >= room - 1e-6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    write_workdir(workdir)
    return read_run(workdir)


def test_a_runs_picture_and_table_have_its_scores(run):
    assert run.scores is not None
    drawn, table = texts(picture.render(run)), result.summary(run)
    for row in run.scores["per_task"]:
        score = f"{row['avg']:.4g}"
        assert score in drawn and f"| {score} |" in table
    assert "SFT + PPO" in drawn and "SFT + PPO" in table
    assert any("abc123a" in text for text in drawn) and "commit abc123a" in table


def test_nothing_that_an_agent_wrote_is_more_than_text_in_it(run):
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture.render(run)).iter()}
    assert names <= {"svg", "style", "g", "rect", "line", "path", "circle", "text", "tspan"}


def test_a_run_without_scores_is_refused(tmp_path):
    with pytest.raises(UserError, match="let it finish"):
        picture.render(read_run(tmp_path))


def test_the_page_keeps_all_but_its_table(run):
    page = f"before\n{result.BEGIN}\nold\n{result.END}\nafter\n"
    renewed = result.with_summary(page, "new")
    assert renewed == f"before\n{result.BEGIN}\nnew\n{result.END}\nafter\n"
    with pytest.raises(UserError, match="lacks the lines"):
        result.with_summary("a page without it", "new")


def test_the_picture_and_the_page_are_of_the_same_run():
    page = result.PAGE.read_text()
    table = page.partition(result.BEGIN)[2].partition(result.END)[0]
    drawn = " ".join(texts(result.PICTURE.read_text()))
    renew = f"they are not of one run; {result.COMMAND} DIR renews both"
    for row in re.findall(r"^\| \w+ \(held-.*\|$", table, re.MULTILINE):
        for score in re.findall(r"[−\d][\d.]*\d", row.partition("|")[2].partition("|")[2]):
            assert score in drawn, f"{result.PAGE.name} has {score}, {result.PICTURE.name} has not: {renew}"

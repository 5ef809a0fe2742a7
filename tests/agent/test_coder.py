"""The scripted coder behind the Coder interface."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.environment.coder import CoderError

TASKS = Path(__file__).parents[2] / "tasks"


def starter(name):
    return (TASKS / name / "train.py").read_text()


def test_it_writes_no_free_code():
    assert ScriptedCoder().writes_free_code is False


def test_an_edit():
    edited = ScriptedCoder().edit(starter("ames"), "Use 5 nearest neighbors")
    assert "    KNeighborsRegressor(n_neighbors=5),\n" in edited
    assert "from sklearn.neighbors import KNeighborsRegressor" in edited and "Boosting" not in edited


def test_an_edit_that_changes_nothing_gives_the_script_itself():
    assert ScriptedCoder().edit(starter("ames"), "Read all rows of the training data") == starter("ames")


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Ask a friend", "it can do things like"),
        ("Deskew the images", "suits no script"),
        ("Weigh neighbors by their distance", "boosting has no weights to set, as neighbors do."),
        ("Use 0 nearest neighbors", "n_neighbors must be a whole number from 1"),
    ],
)
def test_an_edit_that_cannot_be(instruction, said):
    with pytest.raises(CoderError, match=said):
        ScriptedCoder().edit(starter("ames"), instruction)


def test_a_script_of_anothers_is_not_edited():
    with pytest.raises(CoderError, match="no pipeline that can be edited"):
        ScriptedCoder().edit("print(1)\n", "Use 5 nearest neighbors")


def test_from_many_threads():
    """CPython 3.11 cannot parse in two threads at once."""
    coder = ScriptedCoder()
    lines = [f"Use a random forest of {trees} trees" for trees in range(1, 120)]
    with ThreadPoolExecutor(8) as pool:
        edited = list(pool.map(lambda line: coder.edit(starter("ames"), line), lines))
    assert all(f"n_estimators={trees}," in text for trees, text in enumerate(edited, 1))


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("ames", ("all rows", "HistGradientBoostingRegressor(max_iter=100, learning_rate=0.03)", "rmsle")),
        ("digits8", ("300 rows", "blurred(sigma=1.0)", "SVC(C=1.0)", "accuracy")),
        ("foods", ("CountVectorizer(max_features=100)", "60% validate (macro_f1), not refitted")),
        ("tate", ("columns title, medium", "RandomForestRegressor", "mae")),
    ],
)
def test_it_understands_a_starter(name, facts):
    told = ScriptedCoder().understand(starter(name), "what is the model?")
    assert all(fact in told for fact in facts)


def test_it_understands_what_it_edited():
    coder, text = ScriptedCoder(), starter("ames")
    for line in ("Read the first 200 rows only", "Standardize the features", "Standardize the target"):
        text = coder.edit(text, line)
    told = coder.understand(text, "")
    assert "first 200 rows" in told and "StandardScaler" in told and "target: standard" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,a,b\n1,2,3\n4,5,6\n", "A table of 2 rows and 3 columns: id, a, b."),
        (",".join(f"c{i}" for i in range(99)) + "\n1\n", "c11, ...."),
        ("only one line", "1 lines of text."),
        ("", "0 lines of text."),
        ("import os\nprint(1)\n", "2 lines of text."),
        (starter("ames").replace("model = ", "best = "), "lines of text."),
    ],
)
def test_other_files_are_described_by_their_form(text, told):
    assert told in ScriptedCoder().understand(text, "what is this?")

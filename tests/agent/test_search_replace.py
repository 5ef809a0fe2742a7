"""Search-and-replace blocks: applied as a careful person would, or refused by what is wrong with them."""

from __future__ import annotations

import pytest

from mlagent_jax.agent.search_replace import apply_blocks, find_blocks
from mlagent_jax.agent.whole_script import UnusableAnswerError

SCRIPT = """import pandas as pd
from sklearn.linear_model import Ridge

train = pd.read_csv("data/train.csv")


def fit(rows):
    model = Ridge(alpha=1.0)
    model.fit(rows, train["y"])
    return model


print("done")
"""


def block(search: str, replacement: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replacement}\n>>>>>>> REPLACE"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: f"Here you are.\n```python\n{text}\n```\nIt is better now.",
        lambda text: f"<think>{block('x', 'y')}</think>\n{text}",
        lambda text: text.replace("<<<<<<< SEARCH", "<<<<< SEARCH  ").replace("=======", "========="),
    ],
)
def test_blocks_are_applied_in_order_wherever_they_stand(wrap):
    text = "\n\n".join(
        (
            block("from sklearn.linear_model import Ridge", "from sklearn.svm import SVR"),
            block("    model = Ridge(alpha=1.0)", "    model = SVR(C=2.0)"),
        )
    )
    edited = apply_blocks(wrap(text), SCRIPT)
    assert edited == SCRIPT.replace("linear_model import Ridge", "svm import SVR").replace(
        "Ridge(alpha=1.0)", "SVR(C=2.0)"
    )


def test_lines_can_be_added_and_removed():
    added = apply_blocks(block('print("done")', 'print("more")\nprint("done")'), SCRIPT)
    assert added == SCRIPT.replace('print("done")', 'print("more")\nprint("done")')
    assert apply_blocks(block('print("more")\nprint("done")', 'print("done")'), added) == SCRIPT
    nothing = '<<<<<<< SEARCH\nprint("done")\n=======\n>>>>>>> REPLACE'
    assert apply_blocks(nothing, SCRIPT) == SCRIPT.replace('print("done")\n', "")


def test_spaces_at_the_end_do_not_matter_and_a_lost_indentation_is_given_back():
    assert "alpha=3.0" in apply_blocks(
        block("    model = Ridge(alpha=1.0)   ", "    model = Ridge(alpha=3.0)"), SCRIPT
    )
    edited = apply_blocks(block("model = Ridge(alpha=1.0)", "alpha = 3.0\nmodel = Ridge(alpha)"), SCRIPT)
    assert "    alpha = 3.0\n    model = Ridge(alpha)\n" in edited


def test_a_whole_script_is_taken_too():
    whole = SCRIPT.replace("1.0", "2.0")
    assert apply_blocks(f"```python\n{whole}```", SCRIPT) == whole


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            block("model = Lasso()", "x = 1"),
            r"its block searches for lines that the script does not have \(model = Lasso",
        ),
        (block("", "x = 1"), "searches for nothing"),
        (block("\n", "x = 1"), "searches for nothing"),
        ("<<<<<<< SEARCH\nimport pandas as pd\n=======\nimport numpy", "has no >>>>>>> REPLACE"),
        ("<<<<<<< SEARCH\nimport pandas as pd", "has no >>>>>>> REPLACE"),
        (f"<<<<<<< SEARCH\nx\n{block('a', 'b')}", "a block has no >>>>>>> REPLACE"),
        (block('print("done")', "print("), "after its blocks its script is not valid Python"),
        (block("    model = Ridge(alpha=1.0)", "    model = SVR()"), "does not define SVR"),
        (block('train = pd.read_csv("data/train.csv")', "train = None"), "nothing in it reads the data"),
        ("I would use a forest.", "it has no ```python fence"),
    ],
)
def test_what_does_not_fit_is_refused_by_what_is_wrong(answer, said):
    with pytest.raises(UnusableAnswerError, match=said):
        apply_blocks(answer, SCRIPT)


def test_lines_in_several_places_are_refused():
    twice = SCRIPT + 'print("done")\n'
    with pytest.raises(UnusableAnswerError, match="are in 2 places; include the lines before them"):
        apply_blocks(block('print("done")', "pass"), twice)
    edited = apply_blocks(block('print("done")\nprint("done")', 'print("once")'), twice)
    assert edited.endswith('print("once")\n')


def test_a_divider_within_the_replacement_is_a_line_of_it():
    (found,) = find_blocks(block("a", "b\n======="))
    assert found.replacement == ("b", "=======")

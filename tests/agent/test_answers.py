"""Answers of chat models in the formats that they use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.agent import response, whole_script
from mlagent_jax.agent.answers import excerpt, fence_content, fences, list_items, without_thinking
from mlagent_jax.agent.response import extract_response
from mlagent_jax.agent.whole_script import UnusableAnswerError, find_script, why_not_whole

WANTED = ["Use a random forest.", "Log the target.", "Scale 1.5 times."]


@pytest.mark.parametrize(
    "answer",
    [
        "1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.",
        "1) Use a random forest.\n2) Log the target.\n3) Scale 1.5 times.",
        "(1) Use a random forest.\n(2) Log the target.\n(3) Scale 1.5 times.",
        "1: Use a random forest.\n2: Log the target.\n3: Scale 1.5 times.",
        "**1.** Use a random forest.\n**2.** Log the target.\n**3.** Scale 1.5 times.",
        "1\\. Use a random forest.\n2\\. Log the target.\n3\\. Scale 1.5 times.",
        "- Use a random forest.\n* Log the target.\n+ Scale 1.5 times.",
        "• Use a random forest.\n– Log the target.\n• Scale 1.5 times.",
        "- [ ] Use a random forest.\n- [x] Log the target.\n- [ ] Scale 1.5 times.",
        "a) Use a random forest.\nb) Log the target.\nc) Scale 1.5 times.",
        "Idea 1: Use a random forest.\nIdea 2: Log the target.\nIdea 3: Scale 1.5 times.",
        "**Idea 1:** Use a random forest.\n\n**Idea 2:** Log the target.\n\n**Idea 3:** Scale 1.5 times.",
        "### 1. Use a random forest.\n### 2. Log the target.\n### 3. Scale 1.5 times.",
        '1. **Use a random forest.**\n2. `Log the target.`\n3. "Scale 1.5 times."',
        "Sure! Here are 3 ideas:\n\n1. Use a random forest.\n\n2. Log the target.\n\n3. Scale 1.5 times.\n\nGood luck!",
        "# Ideas\n\n---\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.\n***\nThat's it.",
        "- an earlier draft\n[advice]\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.",
        "**[Advice]:**\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.\n[advice]\n",
        "[advice]\nUse a random forest.\nLog the target.\nScale 1.5 times.",
        '["Use a random forest.", "Log the target.", "Scale 1.5 times."]',
        'Here:\n```json\n["Use a random forest.", "Log the target.", "Scale 1.5 times."]\n```\nDone.',
        '{"ideas": [{"idea": "Use a random forest."}, {"idea": "Log the target."}, {"idea": "Scale 1.5 times."}]}',
        "<think>\n1. Not this\n</think>\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.",
        "1. Not this\n</think>\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.",
        "```\n1. Use a random forest.\n2. Log the target.\n3. Scale 1.5 times.\n```",
        "1. Use a random forest.\n   - with 500 trees\n2. Log the target.\n   ```python\n   1. x\n   ```\n"
        "3. Scale 1.5 times.",
        "1. **Model:**\n   - Use a random forest.\n   - Log the target.\n2. **Data**\n   1. Scale 1.5 times.",
        "1. Use a\n   random forest.\n2. Log the target.\n3. Scale 1.5 times.\n4. use a random forest!",
        "> 1. Use a random forest.\n> 2. Log the target.\n> 3. Scale 1.5 times.",
        "1. Use a random forest.\r\n2. Log the target.\r\n3. Scale 1.5 times.\r\n",
    ],
)
def test_a_list_is_read_in_any_form(answer):
    assert list_items(answer) == WANTED


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I have no ideas.",
        "[advice]\nSorry.",
        "# Title\n\nSome words: none.",
        "```python\n- x\n```",
        "[1, 2]",
        "---",
    ],
)
def test_an_answer_without_a_list_has_no_ideas(answer):
    assert list_items(answer) == []


@given(st.text(st.sampled_from('1.)(-*# \n`~[]{}"aB<think>/\t\\')))
def test_no_answer_raises(text):
    list_items(text)
    for fence in fences(text):
        for end in fence.ends:
            fence_content(text, fence, end)
    assert "\n" not in excerpt(text) and len(excerpt(text)) <= 160
    try:
        assert why_not_whole(find_script(text, "x = 1"), "x = 1") == ""
    except UnusableAnswerError as error:
        assert str(error)


def test_thoughts_are_left_out_closed_or_not():
    assert without_thinking("<think>a</think>b<Thinking>c</Thinking>d") == "bd"
    assert without_thinking("a</think>b") == "b"
    assert without_thinking("b<think>never closed") == "b"
    assert without_thinking("if a < think: pass") == "if a < think: pass"


SCRIPT = '''"""A model."""
import pandas as pd
from sklearn.linear_model import Ridge

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def clean(rows):
    return rows.fillna(0)


model = Ridge()
model.fit(clean(train[["a"]]), train["y"])
pd.DataFrame({"id": test["id"], "y": model.predict(clean(test[["a"]]))}).to_csv("submission.csv", index=False)
'''
EDITED = SCRIPT.replace("Ridge()", "Ridge(alpha=3.0)")


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{EDITED}```",
        f"```py\n{EDITED}```\nIt uses alpha 3.",
        f"```Python3 title=train.py\n{EDITED}```",
        f"```{{.python}}\n{EDITED}```",
        f"```\n{EDITED}```",
        f"~~~python\n{EDITED}~~~",
        f"````python\n{EDITED}````",
        f"Sure: ```python\n{EDITED}```",
        f"```python\r\n{EDITED}```\r\n".replace("\n", "\r\n").replace("\r\r", "\r"),
        "1. The script:\n\n   ```python\n" + "".join(f"   {line}\n" for line in f"{EDITED}```".split("\n")),
        "- ```python\n" + "".join(f"  {line}\n" if line else "\n" for line in f"{EDITED}```".split("\n")),
        f"The old one was\n```python\n{SCRIPT}```\nand this is the new one:\n```python\n{EDITED}```",
        f"```python\n{EDITED}```\nThe change is:\n```python\nmodel = Ridge(alpha=3.0)\n```\nRun it:\n```bash\nls\n```",
        f"<think>\n```python\n{SCRIPT}```\n</think>\n```python\n{EDITED}```",
        EDITED,
    ],
)  # fmt: skip
def test_the_last_whole_script_counts(answer):
    assert find_script(answer, SCRIPT).strip() == EDITED.strip()


def test_a_fence_inside_of_a_docstring_ends_no_script():
    edited = EDITED.replace('"""A model."""', '"""A model.\n\n```\nRun it.\n```\n"""')
    assert find_script(f"Here:\n```python\n{edited}```\n", SCRIPT) == edited


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("I cannot.", "no ```python fence"),
        ("", "no ```python fence"),
        ("```bash\nls\n```", "no ```python fence"),
        (f"```python\n{EDITED}", "last fence is never closed"),
        (f"```python\n{SCRIPT}```\nBetter:\n```python\n{EDITED[:200]}", "last fence is never closed"),
        ("```python\n```", "its fence is empty"),
        ("```python\nmodel = Ridge(alpha=3.0)\n```", "nothing in it writes the submission"),
        ("```python\nopen('submission.csv')\n```", "nothing in it reads the data"),
        (f"```python\n{EDITED.replace('import pandas as pd', '')}```", "it does not define pd"),
        (f"```python\n{EDITED.replace('model = ', 'model == ')}```", "it does not define model"),
        (f"```python\n# ... imports as before\n{EDITED}```", "leaves out a part of the script"),
        (f"```python\n{EDITED}# The rest of the code stays the same\n```", "leaves out a part of the script"),
        (f"```python\n{EDITED.replace('model =', 'model =(')}```", r"not valid Python \(line"),
        (f"```diff\n-{SCRIPT}+{EDITED}```", "no ```python fence"),
    ],
)
def test_what_is_no_whole_script_is_refused(answer, said):
    with pytest.raises(UnusableAnswerError, match=said):
        find_script(answer, SCRIPT)


def test_edits_that_change_much_are_whole_all_the_same():
    short = 'import pandas as pd\ntest = pd.read_csv("data/test.csv")\n'
    short += 'test.assign(y=1.0)[["id", "y"]].to_csv("submission.csv", index=False)\n'
    assert find_script(f"```python\n{short}```", SCRIPT) == short
    assert why_not_whole("print(1)\n", "print(") == ""
    assert "lacks f" in why_not_whole("x = 1\n", "def f():\n    return 1\n\n\nprint(f())\n")
    walrus = "from math import *\nprint([y := 1, y, undefined_but_perhaps_starred])\n"
    assert why_not_whole(walrus, "x = 1\n") == ""
    match = "match [1, 2]:\n    case [a, *b]:\n        print(a, b)\n    case {**c}:\n        print(c)\n"
    assert why_not_whole(f"try:\n    pass\nexcept ValueError as e:\n    print(e)\n{match}", "x = 1\n") == ""


def test_an_answer_that_repeats_itself_without_end_is_read_in_time():
    """Each attempt costs a parse, so their number must stay linear in the length of the answer."""
    tries = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_script, "why_not_whole", lambda *given: tries.append(given) or "no")
        patch.setattr(response, "parse", lambda *given: tries.append(given))
        with pytest.raises(UnusableAnswerError):
            find_script("```\n" * 4000, "x = 1\n")
        extract_response("Reflection: a\n" * 4000)
    assert 16 < len(tries) <= 300
    assert without_thinking("<think>" * 10_000) == ""


@pytest.mark.parametrize("marks", ["{}、", "（{}）", "{}．"])
def test_lists_are_numbered_with_full_width_signs_too(marks):
    assert list_items("".join(f"{marks.format(i)}use {i} trees\n" for i in (1, 2))) == [
        "use 1 trees",
        "use 2 trees",
    ]

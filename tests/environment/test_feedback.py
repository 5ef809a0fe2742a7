"""Feedback is short, and what matters most comes last."""

from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.environment import feedback
from mlagent_jax.sandbox.interface import Limits, Result, Status


@given(st.text(max_size=60), st.integers(1, 60), st.floats(0, 1))
def test_clipping_keeps_head_and_tail(text, limit, head):
    cut = feedback.clip(text, limit, head)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
    elif limit > 5:
        _, mark, last = cut.partition(" ... ")
        assert mark or " ... " in text
        assert text.startswith(cut[: int((limit - 5) * head)]) and text.endswith(last[-1:] if last else "")


def test_clipping_by_example():
    assert feedback.clip("0123456789abcdefghij", 15) == "01234 ... fghij"
    assert feedback.clip("0123456789abcdefghij", 15, head=0.2) == "01 ... cdefghij"


@given(st.text("ab\n", max_size=60), st.integers(10, 60))
def test_clipping_by_lines_keeps_whole_lines(text, limit):
    cut = feedback.clip_lines(text, limit)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
    elif "\n...\n" in cut:
        head, _, tail = cut.partition("\n...\n")
        assert text.startswith(head + "\n") and text.endswith("\n" + tail)


def test_clipping_by_lines_by_example():
    text = "Saved.\nepoch 1\nepoch 2\nPublic mae 1.0."
    assert feedback.clip_lines(text, 35) == "Saved.\n...\nepoch 2\nPublic mae 1.0."
    assert feedback.clip_lines(text, 30) == "Saved.\n...\nPublic mae 1.0."
    assert feedback.clip_lines("x" * 50 + "the end", 20) == "xxxx ... xxxxthe end"


def test_a_diff_can_be_left_out_however_long():
    for diff in ("--- a\n+++ b\n-x\n+y", "+" * 9_999):
        shown = feedback.join(feedback.saved("b", diff), "printed")
        assert "+" in shown and feedback.without_diff(shown, diff) == "Saved to b.\nprinted"


def test_numbers_are_short_and_tell_scores_apart():
    assert [feedback.number(x) for x in (0.15234, 0.97, 0.0, 40.12346, -0.5)] == [
        "0.1523", "0.9700", "0.0000", "40.1235", "-0.5000",
    ]  # fmt: skip
    assert [feedback.number(x) for x in (21676.4321, 0.00012345678)] == ["21676.4", "0.000123457"]


def test_better_and_worse_follow_the_metric():
    assert feedback.comparison("rmsle", 0.1523, 0.2011, False) == "Public rmsle 0.1523, better than 0.2011."
    assert (
        feedback.comparison("accuracy", 0.1523, 0.2011, True) == "Public accuracy 0.1523, worse than 0.2011."
    )
    assert feedback.comparison("mae", 1.0, 1.0, False) == "Public mae 1.0000, same as 1.0000."


def test_failures_end_with_the_error_and_limits_with_the_limit():
    limits = Limits(wall_seconds=20.0, cpu_seconds=15, memory_mb=512)
    crash = Result(Status.FAILED, exit_code=1, output="x\n" * 9999 + "KeyError: 'area'\n")
    text = feedback.execution(crash, limits)
    assert text.startswith("ScriptError: exit code 1.\nx\n") and text.endswith("\nKeyError: 'area'")
    assert len(text) < feedback.MAX_OUTPUT_CHARS + 40
    assert feedback.execution(Result(Status.FAILED, signal=11), limits) == "ScriptError: signal 11."
    traced = "Traceback:\n  model.fit(X)\n  ~~~~~~~^^^\nKeyError: 1\n"
    crash = Result(Status.FAILED, exit_code=1, output=traced)
    assert feedback.execution(crash, limits).endswith("\n  model.fit(X)\nKeyError: 1")
    slow = Result(Status.TIMEOUT, output="epoch 1")
    assert feedback.execution(slow, limits) == "epoch 1\nResourceLimit: stopped after 15 s."
    assert (
        feedback.execution(Result(Status.OOM), limits) == "ResourceLimit: out of memory, 512 MB are allowed."
    )

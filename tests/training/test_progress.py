import logging

from mlagent_jax.training import progress
from mlagent_jax.training.progress import ProgressBar


def test_plain_lines_when_there_is_no_terminal(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "absl"), ProgressBar("sft", total=8, start=2) as bar:
        for _ in range(6):
            now[0] += 6.0
            bar.advance("loss 1.0")
    # At most every ten seconds, and at the end. The time left is estimated from the work since the start.
    assert [record.getMessage() for record in caplog.records] == [
        "sft 4/8, 12 s, 24 s left, loss 1.0",
        "sft 6/8, 24 s, 12 s left, loss 1.0",
        "sft 8/8, 36 s, 0 s left, loss 1.0",
    ]


def test_silent_on_all_but_the_main_process(caplog):
    with caplog.at_level(logging.INFO, "absl"), ProgressBar("sft", total=1, shown=False) as bar:
        bar.advance()
    assert not caplog.records


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar("ppo", total=3) as bar:
        bar.advance("reward [0.5]")  # brackets are not markup
        bar.advance()
    shown = capsys.readouterr().err
    assert "ppo" in shown and "2/3" in shown

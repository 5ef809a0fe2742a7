"""What `experiments.live` shows, with stand-ins for agent and coder: as it happens, and again after an interruption."""

from __future__ import annotations

import importlib
import io
import sys

import pytest
import tiny
from absl import flags
from fakes import DictatedCoder, ListPolicy, edit, final, say
from rich.console import Console
from scripted import scripted

from experiments.workdir import Workdir
from mlagent_jax.agent.trajectory_log import read_trajectories

LINES = [
    say(edit("print('a better model')", "better.py")),
    "no action",
    say(edit("impossible")),
    say(final()),
]


@pytest.fixture
def live(monkeypatch):
    """The program, with flags of its own: others of this process may have some of the same name."""
    own = flags.FlagValues()
    for define in ("DEFINE_string", "DEFINE_list", "DEFINE_integer", "DEFINE_float"):
        original = getattr(flags, define)
        monkeypatch.setattr(
            flags,
            define,
            lambda *args, original=original, **options: original(*args, flag_values=own, **options),
        )
    monkeypatch.delitem(sys.modules, "experiments.live", raising=False)
    program = importlib.import_module("experiments.live")
    monkeypatch.delitem(sys.modules, "experiments.live")
    own(["live"])
    return program


@pytest.fixture
def show(live, tmp_path):
    def show_them(policy):
        """What is shown, and the episodes that are stored then."""
        shown = io.StringIO()
        with scripted(tiny.get_config(), tmp_path / "run") as experiment:
            experiment.__dict__["coder"] = DictatedCoder()
            console = Console(file=shown, width=200)
            try:
                live.show(experiment, policy, console)
            except KeyboardInterrupt:
                print("interrupted", file=shown)
            live._report(experiment)
        return shown.getvalue(), list(read_trajectories(experiment.workdir.evaluation_trajectories))

    return show_them


def test_each_instruction_diff_output_and_score_is_shown_and_the_report_is_written(show, tmp_path):
    shown, episodes = show(ListPolicy(LINES))
    assert [episode.task for episode in episodes] == ["digits8", "hotel_rates"]
    assert "digits8 (held in)" in shown and "hotel_rates (held out)" in shown
    assert "step 1  train.py -> better.py: print('a better model')" in shown
    assert "    +print('a better model')" in shown and "    -submission.to_csv(" in shown
    assert "lines more" in shown and "| validation: 0." in shown
    step = episodes[0].steps[0]
    assert f"accuracy {step.m_before:.4f} -> {step.m_after:.4f}" in shown
    assert "step 2  Invalid response: lines must start with Reflection:" in shown
    assert "error: CoderError: I cannot do that." in shown
    assert "step 4  Final Answer: done" in shown
    assert f"digits8, accuracy: public {episodes[0].m_init_public:.4f} -> " in shown
    assert "digits8" in (tmp_path / "run" / "report.html").read_text()


def test_what_a_model_writes_cannot_command_the_terminal(show):
    hostile = "print('\x1b]52;c;aGk=\x07 \x1b[2J \x9b31m \u202e [/bold] [low, high]')"
    shown, _ = show(ListPolicy([say(edit(hostile)), say(final())]))
    assert "[/bold] [low, high]" in shown
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


def test_an_interruption_keeps_what_was_done_and_the_same_command_goes_on(show, tmp_path):
    class Interrupted(ListPolicy):
        def respond(self, situations):
            if situations[0].task.name == "hotel_rates":
                raise KeyboardInterrupt
            return super().respond(situations)

    shown, episodes = show(Interrupted(LINES))
    assert shown.endswith("interrupted\n") and [episode.task for episode in episodes] == ["digits8"]
    assert "digits8" in (tmp_path / "run" / "report.html").read_text()
    shown, episodes = show(ListPolicy(LINES))
    assert "digits8 (held in)" not in shown and "hotel_rates (held out)" in shown
    assert [episode.task for episode in episodes] == ["digits8", "hotel_rates"]
    shown, _ = show(ListPolicy(LINES))
    assert "another --workdir and --seed" in shown


def test_without_a_trained_policy_the_expert_acts_and_with_one_its_export(live, tmp_path):
    settings = live.live_settings(None)
    assert settings.models.coder.backend == "local" and settings.models.coder.model == "qwen2.5-coder-1.5b"
    assert settings.evaluate.agents == ("expert",) and not settings.model.pretrained
    run = Workdir.at(str(tmp_path / "run"))
    with run.claimed(tiny.settings_with(**{"prompt.observation_chars": 99})):
        settings = live.live_settings(run)
    assert settings.evaluate.agents == ("ppo",) and settings.prompt.observation_chars == 99
    assert settings.model.pretrained == str(tmp_path / "run" / "ppo" / "hf")

"""No word of a command line goes unread, in any program, and every command that the documents show can be given."""

from __future__ import annotations

import pytest
from programs import ROOT, run_programs

TINY = str(ROOT / "tests/experiments/tiny.py")
RUN = ["experiments.run", f"--config={TINY}"]
PROGRAMS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
TAKE_WORDS = {
    *(
        "experiments.ablations.compare",
        "experiments.figures.result",
        "experiments.import_gguf",
        "experiments.figures.learning",
        "experiments.figures.ablations",
    ),
    *("experiments.local_llm", "experiments.runs", "experiments.sandbox", "experiments.tasks"),
}

# (command, exit status, what is said)
REFUSED = [
    ([*RUN, "--config.tasks.micro", "false"], 2, "did you mean --config.tasks.micro=false?"),
    ([*RUN, "--noconfig.tasks.micro", "True"], 2, "did you mean --config.tasks.micro=true?"),
    ([*RUN, "config.ppo.updates=99"], 2, "did you mean --config.ppo.updates=99?"),
    ([*RUN, "ppo.updates=99"], 2, "did you mean --config.ppo.updates=99?"),
    ([*RUN, "updates=99"], 2, "did you mean --config.ppo.updates=99?"),
    ([*RUN, "workdir=/tmp/x"], 2, "did you mean --workdir=/tmp/x?"),
    ([*RUN, "--stages=sft", "ppo"], 2, "did you mean --stages=sft,ppo?"),
    ([*RUN, "--stages", "sft", "ppo"], 2, "the argument 'ppo' has no meaning here"),
    ([*RUN, "--config.evaluate.agents=sft", "ppo"], 2, "did you mean --config.evaluate.agents=sft,ppo?"),
    ([*RUN, "print_config"], 2, "did you mean --print_config?"),
    ([*RUN, "quickstart"], 2, "a flag is written --NAME=VALUE"),
    ([*RUN, "--", "--print_config"], 2, "the argument '--print_config' has no meaning here"),
    ([*RUN, "-"], 2, "the argument '-' has no meaning here"),
    ([*RUN, ""], 2, "the argument '' has no meaning here"),
    ([*RUN, "--workdir", "--stages=ideas"], 2, "--workdir has no value"),
    ([*RUN, "--workdir"], 2, "Missing value for flag --workdir"),
    ([*RUN, "--workdir=a", "--workdir=b"], 2, "give it once"),
    ([*RUN, "--config.seed=1", "--config.seed=2"], 2, "give it once"),
    ([*RUN, "--workdri=a"], 2, "did you mean --workdir?"),
    ([*RUN, "--config.ppo.updatess=3"], 2, "did you mean --config.ppo.updates?"),
    ([*RUN, "--config.performance=False"], 2, "did you mean --config.reward.performance?"),
    ([*RUN, "--config.model.lora.ranks=3"], 2, "did you mean --config.model.lora.rank?"),
    ([*RUN, "--config.model.lora=16"], 2, "set its fields one by one"),
    ([*RUN, "--config.reward=linear"], 2, "--config.reward is a section"),
    ([*RUN, "--num_processes=-1"], 2, "num_processes"),
    ([*RUN, "--num_processes=two"], 2, "num_processes"),
    ([*RUN, "--config.seed=-1"], 1, "config.seed is -1"),
    ([*RUN, "--config.tracking=jsonl,wanbd"], 1, "config.tracking has 'wanbd', but must be some of jsonl,"),
    ([*RUN, "--config.tracking=wanbd"], 1, "did you mean 'wandb'?"),
    ([*RUN, "--agent=sft"], 2, "there is no such flag"),
    ([*RUN, "--stages=idea"], 1, "there are the stages ideas, collect"),
    ([*RUN, "--stages="], 1, "it is empty"),
    ([*RUN, "--stages=ideas,ideas"], 1, "names 'ideas' twice"),
    ([*RUN, "--stages=ppo,sft"], 1, "write --stages=sft,ppo"),
    ([*RUN], 1, "--workdir is missing"),
    (["experiments.run"], 1, "--config is missing"),
    (
        ["experiments.plan", f"--config={TINY}", "--target=h100-8", "sft"],
        2,
        "the argument 'sft' has no meaning here",
    ),
    (["experiments.plan", f"--config={TINY}", "--targets=h100-8"], 1, "--targets is not a flag of"),
    (["experiments.plan", "--table", "--config.seed=3"], 1, "--config.seed is not a flag of --table"),
    (["experiments.plan", f"--config={TINY}", "--target=h100-8", "--stages=ppo,sft"], 1, "sft,ppo"),
    (["experiments.serve", "--checkpoint=/tmp", "8000"], 2, "the argument '8000' has no meaning here"),
    (["experiments.serve"], 2, "checkpoint"),
    (["experiments.local_llm", "a", "b"], 2, "expected one model, but got a b"),
    (["experiments.local_llm", "qwen"], 1, "'qwen' is no local model"),
    (["experiments.live", "--held_in="], 1, "config.tasks.held_in"),
    (["experiments.live", "--coder=qwen"], 1, "config.models.coder: 'qwen' is no local model"),
    (["experiments.tasks", "list", "--csv=a.csv"], 1, "--csv is not a flag of list"),
    (["experiments.tasks", "new", "x", "--suite=offline"], 1, "--suite is not a flag of new"),
    (["experiments.tasks", "list", "ames", "--suite=offline"], 1, "--suite=offline cannot be combined with"),
    (["experiments.tasks", "metrics", "rmse"], 1, "takes no arguments"),
    (["experiments.tasks", "lits"], 1, "'lits' is not a command"),
    (["experiments.tasks"], 1, "'' is not a command"),
    (["experiments.tasks", "grade", "ames", "a", "b"], 1, "grade takes a task and a submission file"),
    (["experiments.sandbox", "gc", "docker"], 1, "docker is not a work directory with snapshots"),
    (["experiments.sandbox", "gc", "--image=a"], 1, "--image is not a flag of gc without a DIR"),
    (["experiments.sandbox", "gc", "--quota_mb=5"], 1, "--quota_mb is not a flag of gc without a DIR"),
    (["experiments.sandbox", "gc", "/tmp", "--engine=a"], 1, "gc DIR, which takes --quota_mb"),
    (["experiments.sandbox", "doctor", "--quota_mb=5"], 1, "--quota_mb is not a flag of doctor"),
    (["experiments.import_gguf", "a", "b", "c"], 2, "expected a file and a folder, but got a b c"),
    (["experiments.ablations.compare", "full"], 1, "'full' is not of the form"),
    (["experiments.ablations.compare"], 1, "name runs to compare"),
]


NEEDED = {
    "experiments.serve": ["--checkpoint=/nowhere"],
    "experiments.benchmarks.coder": ["--workdir=/nowhere"],
}
WITH_A_STRAY_WORD = {program: [program, *NEEDED.get(program, []), "stray"] for program in PROGRAMS}


@pytest.fixture(scope="module")
def ended():
    """How each command of REFUSED and WITH_A_STRAY_WORD ended, by its words."""
    commands = [*(command for command, *_ in REFUSED), *WITH_A_STRAY_WORD.values()]
    return dict(zip(map(tuple, commands), run_programs(commands), strict=True))


@pytest.mark.parametrize(("command", "code", "said"), REFUSED, ids=lambda value: str(value)[-60:])
def test_it_is_refused_in_a_sentence(ended, command, code, said):
    end = ended[tuple(command)]
    assert said in end.error
    assert end.code == code


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_refuses_a_stray_word(ended, program):
    end = ended[tuple(WITH_A_STRAY_WORD[program])]
    assert end.code in (1, 2) and "stray" in end.error
    if program not in TAKE_WORDS:
        assert "the argument 'stray' has no meaning here" in end.error

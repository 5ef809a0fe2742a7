"""The paper's ablations at quickstart size, three seeds each. The paper's numbers stand beside them.

    python -m experiments.sweep --suite=experiments/ablations/suite.py --workdir=runs/ablations
    python -m experiments.figures.ablations runs/ablations

The second command writes the pages in experiments/results/. What counts was fixed before the suite was run: the full
system gains more than a variant on a split, as the paper claims, if the mean relative gains differ so by a two-sided
paired t test over the seeds with p < 0.05, adjusted by Holm's method within the group; it gains less, if they differ in
the other direction; else no difference is shown. With three seeds only large and steady differences can be.
"""

from experiments.sweeps.suite import Group, Row, Suite, Variant

_FULL = "experiments/ablations/full.py"
_RL_AGENTS = {"evaluate.agents": ("starter", "ppo")}


def get_suite() -> Suite:
    return Suite(
        seeds=(0, 1, 2), variants=_VARIANTS, groups=(_COMPONENTS, _RL_TASKS, _REWARD, _ADVANTAGES, _THOUGHT)
    )


def _rl(name: str, **changes: object) -> Variant:
    """RL with other settings, from the full system's SFT."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return Variant(name, _FULL, {**_RL_AGENTS, **named}, takes="full:sft")


_VARIANTS = (
    Variant("full", _FULL),
    Variant("no_sft", "experiments/ablations/no_sft.py", takes="full:collect"),
    Variant("no_stepwise", "experiments/ablations/no_stepwise.py", _RL_AGENTS, takes="full:sft"),
    Variant("no_reward", "experiments/ablations/no_reward.py", _RL_AGENTS, takes="full:sft"),
    _rl("rl_1", tasks__rl=("mlc_churn",)),
    _rl("rl_2", tasks__rl=("mlc_churn", "digits8")),
    _rl("no_performance", reward__performance=False),
    _rl("no_format", reward__format=False),
    _rl("no_corner", reward__corner=False),
    _rl("sigmoid", reward__form="sigmoid"),
    _rl("rloo", ppo__advantage="rloo", ppo__critic="none", ppo__samples_per_state=4),
    Variant("no_thought", _FULL, {"prompt.thought": False}, takes="full:ideas"),
)

_COMPONENTS = Group(
    "components",
    "Components",
    "Each of exploration-enriched fine-tuning, step-wise RL and the ML-specific reward is needed.",
    "arXiv 2505.23723 v2, table 2",
    (
        Row("full", "full", paper=(18.01, 15.91)),
        Row("without exploration-enriched fine-tuning", "no_sft", paper=(-0.66, -6.20)),
        Row("without step-wise RL", "no_stepwise", paper=(10.71, 2.86)),
        Row("without the ML-specific reward", "no_reward", paper=(9.77, -1.65)),
    ),
    note="Without fine-tuning RL starts from random weights here, and from Qwen2.5-7B in the paper.",
)
_RL_TASKS = Group(
    "rl_tasks",
    "Number of tasks in RL",
    "The more tasks RL is trained on, the more it gains, on held-out tasks too.",
    "arXiv 2505.23723 v1, figure 6",
    (
        Row("3 tasks (the paper: 9)", "full", paper=(18.01, 16.26)),
        Row("2 tasks (6)", "rl_2", paper=(12.81, 5.98)),
        Row("1 task (3)", "rl_1", paper=(10.32, 3.53)),
        Row("none: SFT", "full", agent="sft", paper=(8.35, 0.41)),
    ),
    note="SFT is on all three tasks in each row, as it is on all nine in the paper.",
)
_REWARD = Group(
    "reward",
    "Parts of the reward",
    "Each part of the reward (performance, format, corner cases) is needed.",
    "arXiv 2505.23723 v2, table 3, which has gains of eight single tasks and no means",
    (
        Row("full", "full"),
        Row("without R_perf: only the sign of a change", "no_performance"),
        Row("without R_format: malformed actions are neutral", "no_format"),
        Row("without R_corner: exhausted resources are an error", "no_corner"),
        Row("the sigmoid form of v1", "sigmoid"),
    ),
    note="The paper does not compare the two forms of its versions.",
)
_ADVANTAGES = Group(
    "advantages",
    "A critic, or other actions from the same state",
    "PPO is used, and compared with no other estimator of advantages.",
    "arXiv 2505.23723 v2",
    (
        Row("GAE with a critic, 64 states an update", "full"),
        Row("RLOO, 16 states with 4 actions each", "rloo"),
    ),
    note="The expectation here, from the critic's explained variance of about 0, was that RLOO gains more.",
)
_THOUGHT = Group(
    "thought",
    "A thought before each action",
    "With a thought in each response the agent gains more.",
    "arXiv 2505.23723 v2, table 11, which has gains of twelve single tasks and no means",
    (
        Row("with thought", "full"),
        Row("without", "no_thought"),
        Row("with thought, SFT alone", "full", agent="sft"),
    ),
    note="The scripted expert's thoughts are a phrase that names the idea, not reasoning.",
)

"""The report's charts of what the training stages logged; METRICS.md in `mlagent_jax/tracking` explains the names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlagent_jax.evaluation.charts import Chart, Series, line_chart
from mlagent_jax.evaluation.tables import SPLIT_TITLES
from mlagent_jax.jsonl import Record


@dataclass(frozen=True)
class Plan:
    """A chart of certain metrics.

    series: (label, metric name). band: metric names (low, high) around the first one, or (spread,) for both sides.
    coloured: whether labels are outcomes, which have the same colours everywhere.
    """

    title: str
    x: tuple[str, str]  # metric name, axis label
    series: tuple[tuple[str, str], ...]
    band: tuple[str, ...] = ()
    note: str = ""
    floor: float | None = None
    ceiling: float | None = None
    coloured: bool = False


_REWARD_STATISTICS = ("rollout/actions", "rollout/masked_actions", "critic/score/std")
TOKENS = ("train/total_tokens", "tokens seen")
UPDATE = ("step", "update")

SFT = (
    Plan(
        "Loss",
        TOKENS,
        (("train", "train/loss"), ("validation", "val/loss")),
        note="Mean negative log-likelihood of action tokens, in nats.",
    ),
)

PPO = (
    Plan(
        "Mean step reward",
        UPDATE,
        (("mean", "critic/score/mean"),),
        band=("reward_error",),
        note="The band is 1.96 standard errors of the mean on both sides.",
    ),
    Plan(
        "Spread of step rewards",
        UPDATE,
        (
            ("90th percentile", "critic/score/p90"),
            ("standard deviation", "critic/score/std"),
            ("10th percentile", "critic/score/p10"),
        ),
    ),
    Plan(
        "Outcomes of sampled steps",
        UPDATE,
        tuple((name, f"outcome/{name}") for name in ("success", "neutral", "corner", "error", "malformed")),
        note="Fractions of the steps that were scored.",
        floor=0.0,
        ceiling=1.0,
        coloured=True,
    ),
    Plan(
        "KL to the SFT model",
        UPDATE,
        (("mean log-ratio", "actor/ref_kl"), ("k3 estimate", "actor/ref_kl_k3")),
        note="Nats a token, over sampled tokens; both estimate the same, k3 is never negative.",
        floor=0.0,
    ),
    Plan(
        "How far an update moved the policy",
        UPDATE,
        (("KL to the policy before it", "actor/post_update_kl_k3"),),
        note="Nats a token, measured after the update's last step on a part of its tokens.",
        floor=0.0,
    ),
    Plan("Entropy of the policy", UPDATE, (("entropy", "actor/entropy"),), note="Nats a token.", floor=0.0),
    Plan(
        "Sampler against trainer",
        UPDATE,
        (
            ("mean", "training/rollout_logprobs_diff_mean"),
            ("largest", "training/rollout_logprobs_diff_max"),
        ),
        note="Absolute difference of a sampled token's log-probability between the two.",
        floor=0.0,
    ),
)


_GAIN_NOTE = (
    "Mean relative gain in %, with its 95% interval over episodes. Evaluations do not count in the hours."
)
HOURS = ("hours", "hours of training")
ALONG_TRAINING = tuple(
    Plan(f"{title} gain along training", x, ((title, split),), (f"{split}_low", f"{split}_high"), _GAIN_NOTE)
    for split, title in SPLIT_TITLES.items()
    for x in (UPDATE, HOURS)
)


def of_older_version(records: Sequence[Record], plans: Sequence[Plan]) -> bool:
    """Whether any of the records lacks the plans' main metric, as those of versions with other names do."""
    (_, metric), *_ = plans[0].series
    return any(metric not in record for record in records)


def with_reward_error(records: Sequence[Record]) -> list[Record]:
    """PPO records with `reward_error`, 1.96 standard errors of the mean reward, where it can be computed."""
    return [
        record | {"reward_error": 1.96 * math.sqrt(error)} if (error := _mean_variance(record)) else record
        for record in records
    ]


def reward_change(records: Sequence[Record]) -> Record | None:
    """Mean step reward of the last third of the updates minus that of the first third, with a 95% interval.

    Each update samples new states, so the interval covers the choice of states and the actions sampled in them, not
    another training seed. None with fewer than three updates.
    """
    known = [record for record in records if _mean_variance(record) is not None]
    third = len(known) // 3
    if not third:
        return None
    first, last = known[:third], known[-third:]
    means = [sum(record["critic/score/mean"] for record in part) / third for part in (first, last)]
    error = math.sqrt(sum(_mean_variance(record) or 0.0 for record in first + last)) / third
    change = means[1] - means[0]
    interval = {"mean": change, "low": change - 1.96 * error, "high": change + 1.96 * error}
    return {"interval": interval, "first": means[0], "last": means[1], "updates": third}


def _mean_variance(record: Record) -> float | None:
    """Variance of an update's mean reward, from the standard deviation over its scored actions."""
    if not all(_is_number(record.get(name)) for name in _REWARD_STATISTICS):
        return None
    actions, masked, deviation = (record[name] for name in _REWARD_STATISTICS)
    scored = actions - masked
    return deviation**2 / (scored - 1) if scored > 1 else None


def charts(records: Sequence[Record], plans: Sequence[Plan]) -> tuple[list[Record], list[str]]:
    """Charts of the plans whose metrics were logged, and the titles of the other plans."""
    drawn, absent = [], []
    for plan in plans:
        chart = line_chart(_chart(records, plan))
        if chart is None:
            absent.append(plan.title)
        else:
            drawn.append(chart)
    return drawn, absent


def others(records: Sequence[Record], plans: Sequence[Plan]) -> list[Record]:
    """A small chart of every other number that was logged, by name."""
    shown = {
        name for plan in plans for name in (plan.x[0], *plan.band, *(metric for _, metric in plan.series))
    }
    names = (
        {name for record in records for name, value in record.items() if _is_number(value)} - shown - {"step"}
    )
    made = (line_chart(Chart(name, "step", [_series(records, "step", name, name)])) for name in sorted(names))
    return [chart for chart in made if chart is not None]


def _chart(records: Sequence[Record], plan: Plan) -> Chart:
    x_name, x_label = plan.x
    series = [_series(records, x_name, metric, label) for label, metric in plan.series]
    if plan.coloured:
        series = [replace(line, colour=line.label) for line in series]
    if plan.band:
        edges = [_series(records, x_name, metric, "", like=plan.series[0][1]).y for metric in plan.band]
        first = series[0]
        if len(edges) == 1:
            low = [y - spread for y, spread in zip(first.y, edges[0], strict=True)]
            high = [y + spread for y, spread in zip(first.y, edges[0], strict=True)]
        else:
            low, high = list(edges[0]), list(edges[1])
        series[0] = replace(first, band=(low, high))
    return Chart(plan.title, x_label, series, plan.note, plan.floor, plan.ceiling)


def _series(records: Sequence[Record], x_name: str, metric: str, label: str, like: str = "") -> Series:
    """The points of records with both values; with `like`, of all records with that metric, nan if this is absent."""
    kept = [each for each in records if _is_number(each.get(x_name)) and _is_number(each.get(like or metric))]
    ys = [float(each[metric]) if _is_number(each.get(metric)) else math.nan for each in kept]
    return Series(label, [float(each[x_name]) for each in kept], ys)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

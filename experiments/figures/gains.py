"""A picture of mean gains: one line for each agent or variant, one panel for each split, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mlagent_jax.evaluation.charts import interval_rows
from mlagent_jax.evaluation.templates import page_templates, source

Interval = Mapping[str, Any]  # mean, low and high


@dataclass(frozen=True)
class Panel:
    """gains: one for each label, None where there is none. others: points to compare them with, if any."""

    title: str
    gains: Sequence[Interval | None]
    others: Sequence[float | None] = ()


def draw(
    labels: Sequence[str],
    panels: Sequence[Panel],
    *,
    caption: str,
    written: Callable[[float], str],
    left: int,
) -> str:
    """As SVG. caption: what the gains are. written: how one is written. left: width of the labels in pixels."""
    drawn = [_positions(panel, written) for panel in panels]
    return (
        page_templates()
        .get_template("gains.svg.jinja")
        .render(
            css=Markup(source("charts.css")),
            labels=labels,
            left=left,
            caption=caption,
            panels=[each for each in drawn if each is not None],
        )
    )


def _positions(panel: Panel, written: Callable[[float], str]) -> dict[str, Any] | None:
    """On an axis that holds the gains and the other points; None if there are no gains."""
    known = [gain for gain in panel.gains if gain is not None]
    others = [point for point in panel.others if point is not None]
    if not known:
        return None
    drawing = interval_rows(
        [("", gain["mean"], gain["low"], gain["high"]) for gain in known]
        + [("", point, None, None) for point in others]
    )
    assert drawing is not None
    rows = iter(drawing["rows"])
    own = [None if gain is None else next(rows) | {"text": written(gain["mean"])} for gain in panel.gains]
    marks = [None if point is None else next(rows)["mean"] for point in panel.others]
    return {"title": panel.title, "zero": drawing["zero"], "rows": own, "marks": marks}

"""The geometry of the report's charts; the templates draw it as inline SVG, escaped like everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 34
MAX_POINTS = 300
COLOURS = 12  # of the style sheet, s0 and so on


@dataclass(frozen=True)
class Series:
    """One line. x, y: (n,), nan where nothing was recorded. band: (low, high) around y, each (n,).

    colour: a class of the style sheet, such as an outcome's; "" for the next unused one.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    colour: str = ""


@dataclass(frozen=True)
class Chart:
    """A line chart. floor, ceiling: y values that the axis must include, such as a natural zero."""

    title: str
    x_label: str
    series: Sequence[Series]
    note: str = ""
    floor: float | None = None
    ceiling: float | None = None


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers in [low, high], at intervals of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def short_number(value: float) -> str:
    """The number as axes show it: 1200000 becomes "1.2M", 0.00012 becomes "1.2e-4"."""
    size = abs(value)
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.3g}{name}"
    if 0 < size < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-")
    return f"{value:.4g}"


def line_chart(chart: Chart) -> dict[str, Any] | None:
    """What the `line_chart` macro draws, or None if no series has a finite point.

    Series longer than `MAX_POINTS` are averaged over groups of consecutive points, and the note says so.
    """
    thinned = [_thin(series) for series in chart.series]
    drawn = [series for series in thinned if any(map(math.isfinite, series.y))]
    if not drawn:
        return None
    x_scale, y_scale = _x_scale(drawn), _y_scale(chart, drawn)
    return {
        "title": chart.title,
        "x_label": chart.x_label,
        "note": _note(chart),
        "x_ticks": _ticks(x_scale),
        "y_ticks": _ticks(y_scale),
        "series": [
            {
                "label": series.label,
                "colour": series.colour or f"s{number}",
                "path": _path(series.x, series.y, x_scale, y_scale),
                "band": _area(series, x_scale, y_scale) if series.band else "",
                "dots": _dots(series, x_scale, y_scale),
            }
            for number, series in enumerate(drawn)
        ],
        "readout": {
            "x": chart.x_label,
            "series": [
                {"label": series.label, "points": _readout_points(series, x_scale)} for series in drawn
            ],
        },
    }


def interval_rows(rows: Iterable[tuple[str, float, float | None, float | None]]) -> dict[str, Any] | None:
    """One line for each (label, mean, low, high), on a common axis from 0 to 100 that includes the value zero."""
    rows = list(rows)
    if not rows:
        return None
    edges = [0.0] + [edge for _, *values in rows for edge in values if edge is not None]
    margin = 0.05 * (max(edges) - min(edges)) or 1.0
    scale = _Scale(min(edges) - margin, max(edges) + margin, 0, 100)
    return {
        "zero": round(scale(0.0), 2),
        "rows": [
            {
                "label": label,
                "mean": round(scale(mean), 2),
                "low": None if low is None else round(scale(low), 2),
                "high": None if high is None else round(scale(high), 2),
            }
            for label, mean, low, high in rows
        ],
    }


def strip_rows(
    groups: Sequence[Sequence[float]], marks: Sequence[float], *, higher_is_better: bool
) -> dict[str, Any]:
    """Positions of scores, and of marks such as m_init, on a common axis from 0 (worst) to 100 (best)."""
    values = [*marks, *(value for group in groups for value in group)]
    if not values:
        return {"marks": [], "rows": [[] for _ in groups]}
    scale = _Scale(min(values), max(values), *((2, 98) if higher_is_better else (98, 2)))
    return {
        "marks": [round(scale(mark), 2) for mark in marks],
        "rows": [[round(scale(value), 2) for value in group] for group in groups],
    }


class _Scale:
    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high <= low:  # a single value goes into the middle
            low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
        self.low, self.high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)


def _x_scale(drawn: Sequence[Series]) -> _Scale:
    xs = [x for series in drawn for x in series.x]
    return _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)


def _y_scale(chart: Chart, drawn: Sequence[Series]) -> _Scale:
    """With a margin, except beside a floor or a ceiling that no value passes."""
    ys = [y for series in drawn for y in series.y if math.isfinite(y)]
    for series in drawn:
        if series.band:
            ys += [edge for edges in series.band for edge in edges if math.isfinite(edge)]
    bounds = [bound for bound in (chart.floor, chart.ceiling) if bound is not None]
    low, high = min(ys + bounds), max(ys + bounds)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return _Scale(
        low if chart.floor is not None and low >= chart.floor else low - margin,
        high if chart.ceiling is not None and high <= chart.ceiling else high + margin,
        HEIGHT - BOTTOM,
        TOP,
    )


def _ticks(scale: _Scale) -> list[tuple[float, str]]:
    """Positions and labels."""
    return [(round(scale(tick), 1), short_number(tick)) for tick in ticks(scale.low, scale.high)]


def _note(chart: Chart) -> str:
    longest = max(len(series.x) for series in chart.series)
    if longest <= MAX_POINTS:
        return chart.note
    return f"{chart.note} Each point is a mean of {math.ceil(longest / MAX_POINTS)} recorded ones.".strip()


def _readout_points(series: Series, x_scale: _Scale) -> list[list[float]]:
    """Position, x and y of each point that was recorded."""
    return [[round(x_scale(x), 1), x, y] for x, y in zip(series.x, series.y, strict=True) if math.isfinite(y)]


def _thin(series: Series) -> Series:
    run = math.ceil(len(series.x) / MAX_POINTS)
    if run <= 1:
        return series

    def means(values: Sequence[float]) -> list[float]:
        runs = ([v for v in values[at : at + run] if math.isfinite(v)] for at in range(0, len(values), run))
        return [sum(kept) / len(kept) if kept else math.nan for kept in runs]

    band = (means(series.band[0]), means(series.band[1])) if series.band else None
    return replace(series, x=means(series.x), y=means(series.y), band=band)


def _path(xs: Sequence[float], ys: Sequence[float], x_scale: _Scale, y_scale: _Scale) -> str:
    """Skips points that were not recorded, so that a sparse series, such as an eval loss, is a line too."""
    points = [(x_scale(x), y_scale(y)) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _area(series: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    assert series.band is not None
    rows = [row for row in zip(series.x, *series.band, strict=True) if all(map(math.isfinite, row))]
    if len(rows) < 2:
        return ""
    upper = [f"{x_scale(x):.1f},{y_scale(high):.1f}" for x, _, high in rows]
    lower = [f"{x_scale(x):.1f},{y_scale(low):.1f}" for x, low, _ in reversed(rows)]
    return "M" + "L".join(upper + lower) + "Z"


def _dots(series: Series, x_scale: _Scale, y_scale: _Scale) -> list[tuple[float, float]]:
    points = [
        (round(x_scale(x), 1), round(y_scale(y), 1))
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(y)
    ]
    return points if len(points) <= 40 else []

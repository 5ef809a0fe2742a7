"""How scores and gains are written, in the report and in plain text."""

from __future__ import annotations

MINUS = "−"
NONE = "–"


def format_score(value: float | None) -> str:
    """Four significant digits, as on leaderboards."""
    return NONE if value is None else f"{value:.4g}".replace("-", MINUS)


def format_signed(value: float | None, digits: int, *, factor: float = 1, unit: str = "") -> str:
    if value is None:
        return NONE
    text = f"{value * factor:+.{digits}f}"
    return (f"{text[1:]}" if float(text) == 0 else text).replace("-", MINUS) + unit


def format_gain(value: float | None) -> str:
    """A relative gain in per cent; from 100 % on without decimals."""
    return format_signed(value, 0 if value is not None and abs(value) >= 1 else 1, factor=100, unit=" %")


def format_percent(value: float | None) -> str:
    """A share in whole per cent."""
    return NONE if value is None else f"{100 * value:.0f} %".replace("-", MINUS)

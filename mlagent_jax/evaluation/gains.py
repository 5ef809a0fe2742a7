"""Gains of a score over the starter's, in the paper's units and in those of rewards."""

from __future__ import annotations


def relative_gain(score: float, m_init: float, *, higher_is_better: bool) -> float | None:
    """Delta_r = beta (p - p_init) / |p_init|, with beta = -1 if lower is better; None if p_init is 0.

    The paper divides by p_init, which is the same for its positive scores but flips the sign for negative ones.
    """
    if m_init == 0:
        return None
    return (1 if higher_is_better else -1) * (score - m_init) / abs(m_init)


def normalised_gain(score: float, m_init: float, m_best: float) -> float | None:
    """(p - m_init) / (m_best - m_init): 0 is the starter, 1 is m_best, in either direction of the metric."""
    return None if m_best == m_init else (score - m_init) / (m_best - m_init)

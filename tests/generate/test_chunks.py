"""A prompt is prefilled in chunks of the given sizes, with little padding and few calls."""

from __future__ import annotations

import pytest

from mlagent_jax.generate.config import EngineConfig

CONFIG = EngineConfig(prefill_chunks=(512, 64, 256, 128))


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (1, [64]),
        (64, [64]),
        (74, [128]),
        (200, [256]),
        (300, [256, 64]),
        (450, [512]),
        (512, [512]),
        (1400, [512, 512, 256, 128]),
    ],
)
def test_chunks_of_a_prompt(length: int, sizes: list[int]) -> None:
    assert [size for size, _ in chunks(CONFIG, length)] == sizes


def test_with_few_sizes_padding_costs_less_than_calls() -> None:
    config = EngineConfig(prefill_chunks=(64, 2048))
    assert [size for size, _ in chunks(config, 900)] == [64] * 15
    assert [size for size, _ in chunks(config, 1100)] == [2048]


def test_sizes_may_differ_widely() -> None:
    config = EngineConfig(page_size=16, prefill_chunks=(16, 32_768), max_length=40_000)
    assert config.chunk_at(0, 6_000) == (16, 16)
    assert config.chunk_at(0, 7_000) == (32_768, 7_000)


@pytest.mark.parametrize("length", range(1, 1600, 37))
def test_every_position_is_in_one_chunk(length: int) -> None:
    start = 0
    for size, end in chunks(CONFIG, length):
        assert 0 < end - start <= size
        assert {CONFIG.chunk_at(position, length) for position in range(start, end)} == {(size, end)}
        start = end
    assert start == length


def chunks(config: EngineConfig, length: int) -> list[tuple[int, int]]:
    """Size and end of each chunk."""
    found: list[tuple[int, int]] = []
    while not found or found[-1][1] < length:
        found.append(config.chunk_at(found[-1][1] if found else 0, length))
    return found

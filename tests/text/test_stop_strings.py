"""Streamed text adds up to the whole, whatever the pieces and wherever a stop string lies."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.text.stop_strings import TextStream
from mlagent_jax.text.tokenizer import train_sentencepiece


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["a b ab ba abba\n" * 50], 290, tmp_path_factory.mktemp("tokenizer"))


def pieces(ids, cuts):
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="ab é漢👍", max_size=24),
    cuts=st.lists(st.integers(0, 99), max_size=6),
    stops=st.lists(st.text(alphabet="ab 漢", min_size=1, max_size=3), max_size=2),
)
def test_pieces_add_up_to_the_text_before_the_first_stop(tokenizer, text, cuts, stops):
    ids = tokenizer.encode(text)
    stream, given = TextStream(tokenizer, stops), ""
    parts = pieces(ids, cuts)
    for number, part in enumerate(parts, 1):
        new = stream.push(part, last=number == len(parts))
        assert "\ufffd" not in new
        given += new
        if stream.stopped:
            break
    expected = before_the_first_stop(text, [tokenizer.decode(ids[:n]) for n in range(len(ids))], stops)
    assert given == stream.text == expected
    assert stream.stopped == any(stop in text for stop in stops)


def before_the_first_stop(text, prefixes, stops):
    """The stop that a token completes first counts, not one that begins before it and is completed later."""
    for so_far in (*prefixes, text):
        if found := [so_far.index(stop) for stop in stops if stop in so_far]:
            return text[: min(found)]
    return text


def test_of_two_stops_the_one_completed_first_counts(tokenizer):
    stream = TextStream(tokenizer, ["漢", "a漢a"])
    assert stream.push(tokenizer.encode("a漢a"), last=True) == "a"


def test_the_end_of_turn_is_no_text_and_broken_bytes_come_at_the_end(tokenizer):
    stream = TextStream(tokenizer)
    euro = tokenizer.encode("€")
    assert stream.push([*tokenizer.encode("ab"), *euro[:2]], last=False) == "ab"
    assert stream.push([tokenizer.im_end], last=True).startswith("\ufffd")


def test_the_token_that_completes_a_stop_is_the_last_that_counts(tokenizer):
    ids = tokenizer.encode("a漢b漢")
    stream = TextStream(tokenizer, ["漢"])
    assert stream.push(ids, last=True) == "a"
    assert stream.tokens < len(ids)

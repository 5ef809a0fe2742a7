"""Streamed text adds up to the whole text, however it is split and wherever a stop string is."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.text.detokenizer import IncrementalDetokenizer
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
    stream, given = IncrementalDetokenizer(tokenizer, stops), ""
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
    """The stop string that is completed first counts, even if another one begins before it."""
    for so_far in (*prefixes, text):
        if found := [so_far.index(stop) for stop in stops if stop in so_far]:
            return text[: min(found)]
    return text


def test_the_stop_string_that_is_completed_first_counts(tokenizer):
    stream = IncrementalDetokenizer(tokenizer, ["漢", "a漢a"])
    assert stream.push(tokenizer.encode("a漢a"), last=True) == "a"


def test_the_end_of_turn_is_hidden_and_incomplete_characters_come_at_the_end(tokenizer):
    stream = IncrementalDetokenizer(tokenizer)
    euro = tokenizer.encode("€")
    assert stream.push([*tokenizer.encode("ab"), *euro[:2]], last=False) == "ab"
    assert stream.push([tokenizer.im_end], last=True).startswith("\ufffd")


def test_the_token_that_completes_a_stop_string_is_the_last(tokenizer):
    ids = tokenizer.encode("a漢b漢")
    stream = IncrementalDetokenizer(tokenizer, ["漢"])
    assert stream.push(ids, last=True) == "a"
    assert stream.tokens < len(ids)


class CountingString(str):
    """A stop string that counts how often its characters are read."""

    reads = 0

    def __getitem__(self, index):
        CountingString.reads += 1
        return super().__getitem__(index)


class CountingTokenizer:
    """One character per token."""

    calls = 0

    def token_bytes(self, token):
        self.calls += 1
        return chr(token).encode()


@pytest.mark.parametrize("stop", ["never", "aaaaaaab", "a" * 500 + "b", "ab" * 100 + "c"])
def test_the_work_is_linear(stop):
    """Even for texts that almost match again and again."""
    for size in (2_000, 8_000):
        tokenizer, CountingString.reads = CountingTokenizer(), 0
        stream = IncrementalDetokenizer(tokenizer, [CountingString(stop)])
        text = (stop[:-1] + "x") * (size // len(stop) + 1)
        given = "".join(stream.push([ord(character)], last=False) for character in text[:size])
        assert tokenizer.calls == size
        assert CountingString.reads <= 4 * (size + len(stop))
        assert text.startswith(given) and size - len(given) < len(stop)


def test_stop_strings_have_no_effect_before_min_tokens():
    ids = [ord(character) for character in "ab..ab..ab"]
    stream = IncrementalDetokenizer(CountingTokenizer(), ["b."], min_tokens=3)
    assert stream.push(ids, last=True) == "ab..a" and stream.tokens == 7
    # The stop string begins within them and ends after.
    stream = IncrementalDetokenizer(CountingTokenizer(), ["b."], min_tokens=2)
    assert stream.push(ids, last=True) == "a" and stream.tokens == 3


def test_hidden_tokens_and_the_stop_token_are_not_in_the_text():
    ids = [ord(character) for character in "a<b."]
    stream = IncrementalDetokenizer(CountingTokenizer(), hidden_token_ids=frozenset([ord("<")]))
    assert stream.push(ids, last=True, hide_last=True) == stream.text == "ab" and stream.tokens == 4


def test_text_equals_that_of_the_tokenizer(tokenizer):
    """Even of bytes that are not characters, however they are split."""
    for seed in range(30):
        random = Random(seed)
        ids = [random.randrange(3, tokenizer.vocab_size) for _ in range(40)]
        stream = IncrementalDetokenizer(tokenizer)
        given = "".join(stream.push([one], last=number == 39) for number, one in enumerate(ids))
        assert given == stream.text == tokenizer.decode(ids)

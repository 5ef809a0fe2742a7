import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import cut_at_step, pack, pad_rows


def make(turns):
    """An Encoded with unique tokens. `turns`: pairs (number of context tokens, number of action tokens)."""
    action, ranges = [], []
    for context, spoken in turns:
        action += [False] * context
        ranges.append((len(action), len(action) + spoken))
        action += [True] * spoken
    return Encoded(np.arange(1, len(action) + 1, dtype=np.int32), np.array(action, bool), tuple(ranges))


sequences = st.lists(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4).map(make), max_size=12
)


@settings(deadline=None)
@given(sequences=sequences)
def test_every_sequence_comes_back_whole(sequences):
    packed = pack(sequences, 16)
    taken = np.zeros(packed.tokens.shape, int)
    for sequence, place in zip(sequences, packed.placements, strict=True):
        kept = cut_at_step(sequence, 16)
        assert place.length == len(kept.tokens)
        if place.row < 0:
            continue
        here = (place.row, slice(place.start, place.start + place.length))
        taken[here] += 1
        np.testing.assert_array_equal(packed.tokens[here], kept.tokens)
        np.testing.assert_array_equal(packed.positions[here], np.arange(place.length))
        assert len(set(packed.segment_ids[here])) == 1 and packed.segment_ids[here][0] > 0
        # Position i predicts token i + 1, but never across the border of two sequences.
        np.testing.assert_array_equal(packed.targets[here][:-1], kept.tokens[1:])
        np.testing.assert_array_equal(packed.action[here][:-1], kept.action[1:])
        assert not packed.action[here][-1]
    np.testing.assert_array_equal(taken > 0, packed.segment_ids > 0)
    assert taken.max(initial=0) <= 1
    for row in packed.segment_ids:
        segments = row[row > 0]
        assert (np.diff(segments) >= 0).all()  # adjacent sequences never share an id


def test_long_sequences_are_truncated_after_a_complete_action_and_counted():
    long, hopeless, short = make([(2, 3), (2, 3), (2, 9)]), make([(9, 9)]), make([(1, 1)])
    packed = pack([long, hopeless, short], 12)
    assert [place.length for place in packed.placements] == [10, 0, 2]
    assert (packed.cut, packed.dropped) == (2, 1)
    assert packed.action.sum() == 3 + 3 + 1
    assert packed.placements[1].row == -1


def test_best_fit_fills_rows():
    packed = pack([make([(n - 1, 1)]) for n in (9, 7, 6, 4, 3, 1)], 10)
    assert len(packed.tokens) == 3 and packed.fill == 1.0


def test_padding_rows_carry_no_loss():
    packed = pad_rows(pack([make([(2, 2)])], 8), 4)
    assert packed.tokens.shape == (4, 8)
    assert packed.action[1:].sum() == 0 and packed.segment_ids[1:].sum() == 0
    assert packed.take(np.array([0, 3]))["targets"].shape == (2, 8)

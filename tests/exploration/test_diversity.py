"""Both selection rules, compared with plain loops over SciPy's cosine distance."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cosine

from mlagent_jax.exploration.diversity import cosine_distances, farthest_point, top_by_mean_distance
from mlagent_jax.exploration.embedding import TfidfEmbedder

embeddings = st.tuples(st.integers(2, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0.125, 10))
)


def mean_distance(vectors, i):
    return np.mean([cosine(vectors[i], vectors[j]) for j in range(len(vectors)) if j != i])


@given(embeddings)
def test_distances_are_scipys(vectors):
    expected = [[cosine(a, b) for b in vectors] for a in vectors]
    np.testing.assert_allclose(cosine_distances(vectors), expected, atol=1e-9)


def test_a_zero_vector_is_at_distance_one_from_all_others():
    distances = cosine_distances(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]]))
    np.testing.assert_allclose(distances[0], [0, 1, 1])


@given(embeddings, st.data())
def test_v1_keeps_the_largest_mean_distances(vectors, data):
    k = data.draw(st.integers(1, len(vectors)))
    kept = top_by_mean_distance(vectors, k)
    means = [mean_distance(vectors, i) for i in range(len(vectors))]
    assert len(set(kept)) == k
    left = [means[i] for i in range(len(vectors)) if i not in kept]
    assert not left or min(means[i] for i in kept) >= max(left) - 1e-9
    assert all(means[a] >= means[b] - 1e-9 for a, b in itertools.pairwise(kept))


@given(embeddings, st.data())
def test_v2_takes_the_farthest_from_those_taken_each_time(vectors, data):
    k = data.draw(st.integers(1, len(vectors)))
    start = data.draw(st.integers(0, len(vectors) - 1))
    kept = farthest_point(vectors, k, start)
    assert kept[0] == start and len(set(kept)) == k
    for turn in range(1, k):
        taken = kept[:turn]
        gaps = {
            i: min(cosine(vectors[i], vectors[j]) for j in taken)
            for i in range(len(vectors))
            if i not in taken
        }
        assert gaps[kept[turn]] >= max(gaps.values()) - 1e-9


def test_v1_can_keep_a_cluster_of_outliers_where_v2_does_not():
    rng = np.random.default_rng(0)
    crowd = np.array([1.0, 0, 0]) + rng.normal(0, 0.05, (30, 3))
    other = np.array([0, 1.0, 0]) + rng.normal(0, 0.05, (10, 3))
    outliers = np.array([0, 0, 1.0]) + rng.normal(0, 0.001, (4, 3))
    vectors = np.concatenate([crowd, other, outliers])
    assert set(top_by_mean_distance(vectors, 4)) == {40, 41, 42, 43}
    assert len({i // 10 for i in farthest_point(vectors, 3, start=0)} & {4}) == 1
    assert sum(i >= 40 for i in farthest_point(vectors, 3, start=0)) == 1


def test_duplicates_may_be_selected():
    vectors = np.ones((4, 2))
    assert sorted(farthest_point(vectors, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("choose", [top_by_mean_distance, farthest_point])
def test_asking_for_more_than_there_is(choose):
    with pytest.raises(ValueError, match="keep 3 ideas out of 2"):
        choose(np.eye(2), 3)


def test_no_such_start():
    with pytest.raises(ValueError, match="start is 5"):
        farthest_point(np.eye(2), 1, start=5)


def test_tfidf_puts_similar_ideas_close_together():
    lines = ["Use a random forest with 50 trees", "Use a random forest with 200 trees", "Deskew the images"]
    distances = cosine_distances(TfidfEmbedder().embed(lines))
    assert distances[0, 1] < distances[0, 2]


def test_nothing_to_embed():
    with pytest.raises(ValueError, match="no ideas"):
        TfidfEmbedder().embed([])

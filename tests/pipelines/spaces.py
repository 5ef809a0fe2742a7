"""Hypothesis' strategies over pipelines."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from tiny_data import COLUMNS, FACTS

from mlagent_jax.pipelines.pipeline import KINDS
from mlagent_jax.pipelines.sampling import random_pipeline

examples = settings(max_examples=200, deadline=None)  # a busy machine is no fault


@st.composite
def pipelines(draw, kinds=KINDS):
    """Any pipeline of the space; hypothesis draws its kind, its facts and the seed of its choices."""
    kind = draw(st.sampled_from(kinds))
    facts = draw(st.sampled_from(FACTS[kind]))
    return random_pipeline(facts, COLUMNS.get(kind, ()), random.Random(draw(st.integers(0, 2**32))))

"""Hypothesis' strategies over pipelines."""

from hypothesis import settings
from hypothesis import strategies as st
from tiny_data import COLUMNS, FACTS

from mlagent_jax.pipelines.pipeline import KINDS
from mlagent_jax.pipelines.sampling import sample

examples = settings(max_examples=200, deadline=None)  # a busy machine is no fault


@st.composite
def pipelines(draw, kinds=KINDS):
    """Any pipeline of the space, choice by choice."""
    kind = draw(st.sampled_from(kinds))
    facts = draw(st.sampled_from(FACTS[kind]))
    return sample(facts, COLUMNS.get(kind, ()), lambda name, options: draw(st.sampled_from(list(options))))

"""Instructions: each wording is its own operation's and no other's, and what is none is refused with help."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import examples, pipelines
from tiny_data import COLUMNS, FACTS

from mlagent_jax.pipelines import grammar
from mlagent_jax.pipelines.instructions import apply_instruction, axis_of, lines, parse_instruction
from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.operations import catalogue, operations_for
from mlagent_jax.pipelines.pipeline import PipelineError
from mlagent_jax.pipelines.sampling import sample, suggest_at_random


def test_every_wording_with_every_offered_number_is_its_own_operation():
    for operation in catalogue().values():
        for wording in operation.wordings:
            for values in operation.param_grid():
                found = parse_instruction(operation.say(values, wording))
                assert found is not None and found[0] is operation
                assert found[1] == pytest.approx(values)


def test_no_two_operations_share_a_wording_and_each_has_several():
    said = [
        (grammar.normalise(wording), name) for name, one in catalogue().items() for wording in one.wordings
    ]
    assert len({form for form, _ in said}) == len(said)
    assert all(len(one.wordings) >= 2 for one in catalogue().values())


def test_about_a_quarter_of_the_wordings_is_held_out_and_some_of_each_operation():
    operations = catalogue().values()
    assert all(
        one.train_wordings and one.held_out and not set(one.train_wordings) & set(one.held_out)
        for one in operations
    )
    share = sum(len(one.held_out) for one in operations) / sum(len(one.wordings) for one in operations)
    assert 0.2 < share < 0.35
    taught, held = lines("table", "regression"), lines("table", "regression", held_out=True)
    assert taught and held and not set(taught) & set(held)


@pytest.mark.parametrize(
    "change", [str.upper, str.lower, lambda line: f"  {line}. ", lambda line: line.replace(" ", "  ")]
)
def test_letters_spaces_and_a_full_stop_do_not_matter(change):
    for operation in catalogue().values():
        line = operation.say(next(iter(operation.param_grid())))
        found = parse_instruction(change(line))
        assert found is not None and found[0] is operation


def test_no_random_recombination_of_words_is_an_instruction():
    rng = random.Random(0)
    own = {grammar.normalise(wording) for one in catalogue().values() for wording in one.wordings}
    words = sorted({word for form in own for word in form.split()})
    wordings = [wording for one in catalogue().values() for wording in one.wordings]
    for number in range(10_000):
        if number % 2:
            said = rng.choices(words, k=rng.randint(1, 12))
        else:  # one wording's words, shuffled, with some of another's
            said = [*rng.choice(wordings).split(), *rng.choice(wordings).split()[: rng.randint(0, 4)]]
            rng.shuffle(said)
        text = " ".join(said).replace("#", "3")
        if grammar.normalise(text) in own:  # shuffled into itself
            continue
        assert parse_instruction(grammar.normalise(text).replace("#", "3")) is None, text


@examples
@given(pipelines(), st.text(max_size=80))
def test_gibberish_never_changes_a_script_and_gets_help_that_can_be_followed(pipeline, text):
    with pytest.raises(PipelineError, match="does not understand") as caught:
        apply_instruction(pipeline, text)
    offered = [
        part for part in str(caught.value).split("do things like ")[1].split("'") if parse_instruction(part)
    ]
    assert len(offered) >= 2  # a wording with an apostrophe is quoted otherwise


def test_help_is_near_and_taught():
    pipeline = sample(FACTS["table"][0], COLUMNS["table"], suggest_at_random(random.Random(0)))
    with pytest.raises(PipelineError) as caught:
        apply_instruction(pipeline, "Use a random forest with many trees")
    assert "random forest of 50 trees" in str(caught.value)
    taught = set(lines("table", "regression"))
    assert all(part in taught for part in str(caught.value).split("'")[3::2])


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Use a random forest of 0 trees", "n_estimators must be a whole number from 1 to 2000, not 0"),
        ("Use a random forest of 2.5 trees", "n_estimators must be a whole number from 1 to 2000, not 2.5"),
        ("Hold out 99% of the rows", "holdout must be a number from 2 to 90, not 99"),
        ("Weight words by TF support vector machine with C = 1", "does not understand"),
        ("Standardize the features; use a random forest of 50 trees", "does not understand"),
        ("x" * 5000, "does not understand 'xxx"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(instruction, said):
    pipeline = sample(FACTS["table"][0], COLUMNS["table"], suggest_at_random(random.Random(0)))
    with pytest.raises(PipelineError, match=said) as caught:
        apply_instruction(pipeline, instruction)
    assert len(str(caught.value)) < 500


def test_axes():
    assert axis_of("Deskew the images") == "data" and axis_of("no such idea") == ""
    for kind, facts in FACTS.items():
        learnt = problem_type(facts[0].metric)
        for axis in ("data", "model", "learning"):
            for line in lines(kind, learnt, axis):
                assert axis_of(line) == axis
        assert len(set(lines(kind, learnt))) >= 2 * len(operations_for(kind, learnt))

"""The space: scripts are read back as what they were rendered from, and operations do what they say, no more."""

import ast
import contextlib
import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import examples, pipelines
from tiny_data import COLUMNS, FACTS

from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.operations import AXES, catalogue, operations_for
from mlagent_jax.pipelines.option import NumericParam
from mlagent_jax.pipelines.options import BY_NAME, OPTIONS
from mlagent_jax.pipelines.pipeline import KINDS, Choice, Pipeline, PipelineError, kind_of, problem_type_of
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.sampling import random_operation, sample, suggest_at_random
from mlagent_jax.pipelines.summary import summarise

ROOT = Path(__file__).parents[2]


@examples
@given(pipelines())
def test_a_script_is_read_back_as_the_pipeline_that_it_was_rendered_from(pipeline):
    assert read(render(pipeline)) == pipeline


@examples
@given(pipelines(), st.integers(0, 2**32))
def test_an_operation_changes_what_it_says_and_nothing_else(pipeline, seed):
    operation, values, changed = random_operation(pipeline, random.Random(seed))
    differing = {
        field.name
        for field in dataclasses.fields(pipeline)
        if getattr(pipeline, field.name) != getattr(changed, field.name)
    }
    assert differing == {operation.changes}
    assert read(render(changed)) == changed
    again = operation(changed, values) if not operation.id.startswith(("penalty", "size")) else changed
    assert again == changed, "a second time nothing is left to do"


@examples
@given(pipelines(), st.data())
def test_choosing_an_option_puts_it_into_its_slot(pipeline, data):
    options = [
        one
        for one in operations_for(pipeline.facts.kind, problem_type(pipeline.facts.metric))
        if one.id in _CHOICES
    ]
    operation = data.draw(st.sampled_from(options))
    values = data.draw(st.sampled_from(list(operation.param_grid())))
    slot, name = operation.id.split(".")
    try:
        changed = operation(pipeline, values)
    except PipelineError as error:
        assert slot == "ensemble" and pipeline.estimator.name in str(error)
        return
    choice = getattr(changed, slot)
    assert choice.name == name and values.items() <= dict(choice.params).items()


_CHOICES = {f"{option.slot}.{option.name}" for option in OPTIONS if option.slot != "views"}


@examples
@given(pipelines(), st.data())
def test_clearing_a_slot_leaves_it_empty(pipeline, data):
    operations = [
        one
        for one in operations_for(pipeline.facts.kind, problem_type(pipeline.facts.metric))
        if one.id in _CLEARED
    ]
    operation = data.draw(st.sampled_from(operations))
    assert getattr(operation(pipeline, {}), operation.id.removesuffix(".none")) is None


_CLEARED = {name for name in catalogue() if name.endswith(".none") and name != "refit.none"}


@examples
@given(pipelines())
def test_numbers_that_grow_by_a_factor_do(pipeline):
    for name, factor in (
        ("penalty.more", 10),
        ("penalty.less", 0.1),
        ("size.double", 2),
        ("size.halve", 0.5),
    ):
        try:
            changed = catalogue()[name](pipeline, {})
        except PipelineError:
            continue
        before, after = dict(pipeline.estimator.params), dict(changed.estimator.params)
        (key,) = [key for key in after if after[key] != before[key]] or [None]
        if key is not None:
            wanted = before[key] * (1 / factor if key == "C" else factor)
            assert after[key] == pytest.approx(wanted, abs=0.5 if isinstance(after[key], int) else 1e-9)


def test_an_operation_of_another_kind_is_refused_with_its_own_words():
    pipeline = sample(FACTS["text"][0], COLUMNS["text"], suggest_at_random(random.Random(0)))
    with pytest.raises(PipelineError, match="suits no script for classification of this kind \\(text\\)"):
        catalogue()["augmentation.mirror"](pipeline, {})


def test_a_parameter_that_the_model_has_not_is_refused_with_those_that_have_it():
    pipeline = dataclasses.replace(
        sample(FACTS["table"][0], COLUMNS["table"], suggest_at_random(random.Random(0))),
        estimator=Choice("ridge", (("alpha", 1.0),)),
    )
    with pytest.raises(PipelineError, match="ridge has no learning_rate to set, as boosting do"):
        catalogue()["rate"](pipeline, {"learning_rate": 0.1})


def test_the_last_input_cannot_be_left_out():
    pipeline = dataclasses.replace(
        sample(FACTS["image"][0], (), suggest_at_random(random.Random(0))), views=(Choice("pixels"),)
    )
    with pytest.raises(PipelineError, match="no inputs without pixels"):
        catalogue()["views.pixels.drop"](pipeline, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("X_fit, y_fit)", "X, y)"), "line"),
        (lambda text: text.replace('target = "price"', 'target = "price"  # euros'), "line"),
        (lambda text: text.replace("\nmodel = ", "\nbest = "), "it has no 'model ='"),
        (lambda text: text.replace("validation rmsle", "validation luck"), "metric"),
        (lambda text: text + "\nimport os\n", "line"),
        (lambda text: text.replace("model = ", "model = ("), "another form"),
        (lambda text: "", "it has no"),
        (lambda text: "id,a\n1,2\n", "it has no"),
        (lambda text: text.replace("import", "\0"), "line"),
    ],
)
def test_a_script_that_is_not_of_the_space_gets_a_sentence(change, said):
    text = render(sample(FACTS["table"][0], COLUMNS["table"], suggest_at_random(random.Random(3))))
    assert read(text)
    with pytest.raises(PipelineError, match="no pipeline that can be edited") as caught:
        read(change(text))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_step_that_is_set_as_no_option_is_gets_a_sentence():
    facts = FACTS["table"][0]
    pipeline = Pipeline(facts, Choice("ridge"), columns=("size",), gaps=Choice("median"))
    with pytest.raises(PipelineError, match="no pipeline that can be edited: line"):
        read(render(pipeline).replace('"median"', '"most_frequent"'))


@examples
@given(st.text(max_size=300), pipelines(), st.integers(0, 5000))
def test_no_text_put_into_a_script_raises_anything_else(text, pipeline, place):
    script = render(pipeline)
    with contextlib.suppress(PipelineError):
        read(script[:place] + text + script[place + len(text) :])


def test_scripts_are_as_ruff_would_have_them(tmp_path):
    rng = random.Random(0)
    for kind in KINDS:
        for number in range(40):
            pipeline = sample(rng.choice(FACTS[kind]), COLUMNS.get(kind, ()), suggest_at_random(rng))
            (tmp_path / f"{kind}_{number}.py").write_text(render(pipeline))
    for command in (["format", "--diff"], ["check"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                *command,
                "--no-cache",
                "--config",
                str(ROOT / "pyproject.toml"),
                str(tmp_path),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@examples
@given(pipelines())
def test_a_script_names_nothing_that_it_does_not_define_or_import(pipeline):
    text = render(pipeline)
    compile(text, "train.py", "exec")
    assert len(text.splitlines()) < 140
    assert json.dumps(pipeline.facts.title)[1:-1] in text


@examples
@given(pipelines())
def test_a_summary_is_one_true_line(pipeline):
    told = summarise(pipeline)
    assert "\n" not in told and len(told) < 500
    assert ("all rows" in told) == (pipeline.rows is None)
    assert ("not refitted" in told) == (not pipeline.refit)
    assert pipeline.facts.metric in told
    option = BY_NAME["estimator", pipeline.estimator.name]
    assert option.callee(problem_type(pipeline.facts.metric)) in told
    for name, value in pipeline.estimator.params:
        assert f"{name}={value}" in told


def test_ids_and_axes():
    operations = catalogue()
    assert all(operation.id == name and operation.axis in AXES for name, operation in operations.items())
    for kind in KINDS:
        for facts in FACTS[kind]:
            found = [one.axis for one in operations_for(kind, problem_type(facts.metric))]
            assert all(found.count(axis) >= 10 for axis in AXES), (kind, found)


def test_options_name_parameters_that_their_numbers_allow():
    for option in OPTIONS:
        for name, domain in option.params.items():
            if isinstance(domain, NumericParam):
                assert all(domain.low <= value <= domain.high for value in domain.candidates), (
                    option.name,
                    name,
                )
        ast.literal_eval(repr(dict(option.base)))


@pytest.mark.parametrize(
    ("task_kind", "kind", "learnt"),
    [
        ("tabular regression", "table", "regression"),
        ("text similarity", "pair", "regression"),
        ("image-to-image", "image_to_image", "regression"),
        ("graph node classification", "graph", "classification"),
        ("sound classification", "", "classification"),
    ],
)
def test_kinds_of_tasks(task_kind, kind, learnt):
    assert (kind_of(task_kind), problem_type_of(task_kind)) == (kind, learnt)

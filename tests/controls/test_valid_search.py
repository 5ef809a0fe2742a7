"""A search gives what may run on the task's own data, and nothing that is known to fail there."""

import pytest
from toys import TABLE, toy

from mlagent_jax.controls.valid_search import ValidSearch
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.validity import validation_errors


@pytest.mark.parametrize(("cell", "has_gaps"), [("2", False), ("", True)])
def test_gaps_need_filling_only_where_the_data_have_them(tmp_path, cell, has_gaps):
    task = toy(tmp_path)
    task.data_dir.mkdir(parents=True, exist_ok=True)
    (task.data_dir / "train.csv").write_text(f"id,a,b,y\n1,1,{cell},3\n2,5,6,7\n")
    search = ValidSearch("random", task, TABLE, seed=0)
    given = [read(search.next()) for _ in range(60)]
    assert search.given == 60 and search.skipped > 0
    assert not any(validation_errors(pipeline, has_gaps) for pipeline in given)
    unfilled = [pipeline for pipeline in given if validation_errors(pipeline, has_gaps=True)]
    assert bool(unfilled) is not has_gaps

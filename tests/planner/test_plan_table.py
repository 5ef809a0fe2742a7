"""The table in launch/README.md shows what is in launch/plans.json."""

import json

from experiments.planning.table import PLANS, README, table, with_table
from mlagent_jax.planner.targets import TARGETS


def test_the_readme_has_the_stored_plans():
    readme = README.read_text()
    assert with_table(readme, json.loads(PLANS.read_text())) == readme, (
        "run python -m experiments.plan --table"
    )


def test_a_target_without_a_plan_says_so():
    rows = [line for line in table({}).splitlines() if "not planned yet" in line]
    assert len(rows) == 2 * len(TARGETS)

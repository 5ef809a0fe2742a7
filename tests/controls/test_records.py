"""What is stored is read as it was, is not made again, and says so if it is damaged."""

import json

import numpy as np
import pytest

from mlagent_jax.controls.bandit_learning import LearntBandit
from mlagent_jax.controls.context import FEATURES
from mlagent_jax.controls.forward_selection import Selection, Trial
from mlagent_jax.controls.records import stored_bandit, stored_selection
from mlagent_jax.errors import UserError

SELECTION = Selection(
    ("Standardize the features",),
    {"ames": 0.25},
    ((Trial("Standardize the features", "scaling.standard", {"ames": 0.25}, 1),),),
    7,
)
BANDIT = LearntBandit({"Read all columns": np.linspace(0, 1 / 3, len(FEATURES))}, {"Read all columns": 4}, 3)


def unwanted():
    raise AssertionError("it was made again")


def test_it_is_made_once(tmp_path):
    path = tmp_path / "evaluate/constant.json"
    path.parent.mkdir()
    assert stored_selection(path, lambda: SELECTION) is SELECTION
    assert stored_selection(path, unwanted) == SELECTION
    other = tmp_path / "bandit.json"
    stored_bandit(other, lambda: BANDIT)
    read = stored_bandit(other, unwanted)
    assert (read.pulls, read.executions) == (BANDIT.pulls, 3)
    assert (read.weights["Read all columns"] == BANDIT.weights["Read all columns"]).all()


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({"features": ["old"], "weights": {}, "pulls": {}, "executions": 1})]
)
def test_damage_is_said(tmp_path, text):
    for name, stored in (("constant", stored_selection), ("bandit", stored_bandit)):
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        with pytest.raises(UserError, match=f"{name}.json is damaged .*: delete it"):
            stored(path, unwanted)

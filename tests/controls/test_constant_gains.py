"""The file of what a constant sequence brings: read back as written, and refused when it holds something else."""

import pytest

from mlagent_jax.controls.constant_gains import ConstantGains, read_constant_gains, write_constant_gains
from mlagent_jax.controls.forward_selection import ConstantConfig, Played
from mlagent_jax.errors import UserError

FOUND = ConstantGains(
    ConstantConfig(length=3, numbers="first", shortlist=10),
    ("Train on all rows of the training data", "Keep rows of any target"),
    {"one": "a1", "two": "b2"},
    {"one": Played((0.5, 0.4), (0.7, 0.3)), "two": Played((2.0, 2.0), (1.0, 1.5))},
)


def test_it_is_read_back_as_written(tmp_path):
    path = tmp_path / "constant.json"
    write_constant_gains(path, "the command", FOUND)
    assert read_constant_gains(path) == FOUND
    assert path.read_text().splitlines()[1].strip() == '"command": "the command",'


def test_shares_are_of_the_public_way_by_todays_m_best():
    assert FOUND.played["one"].shares(0.9) == pytest.approx((0.5, -0.25))
    assert FOUND.played["two"].shares(1.0) == pytest.approx((1.0, 0.5))  # lower is better
    assert FOUND.mean_shares({"one": 0.9, "two": 1.0}, ["one", "two"]) == pytest.approx((0.75, 0.125))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tasks": {"one": 1}}'])
def test_what_is_none_is_refused_with_what_to_do(tmp_path, text):
    path = tmp_path / "constant.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"constant\.json holds no gains .* run `tasks constant` again"):
        read_constant_gains(path)

"""A missing part skips a test on a laptop and fails it in CI."""

import pytest
from tests.support.requires import requires


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_program_skips_on_a_laptop_and_fails_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="no-such-program"):
        requires("sh", "no-such-program")


def test_what_is_there_is_no_obstacle(monkeypatch):
    monkeypatch.setenv("CI", "true")

    requires("sh")

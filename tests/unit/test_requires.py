"""A missing part skips a test on a laptop and fails it in CI; what is for a guest waits for the guest."""

import os
import subprocess
import sys

import pytest
from tests.support.requires import requires


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_program_skips_on_a_laptop_and_fails_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("ONELUN_LAB", raising=False)

    with pytest.raises(outcome, match="no-such-program"):
        requires("sh", "no-such-program")


def test_nothing_is_skipped_inside_a_guest(monkeypatch):
    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("ONELUN_LAB", "lvm")

    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        requires("no-such-program")


def test_what_is_there_is_no_obstacle(monkeypatch):
    monkeypatch.setenv("CI", "true")

    requires("sh")


ENGINES = """
import pytest
from tests.support.requires import guest

@pytest.mark.parametrize("engine", [
    "memory",
    pytest.param("lvm", marks=guest("lvm")),
    pytest.param("both", marks=guest("lvm", "lio")),
])
def test_an_engine(engine):
    print("ran", engine)
"""


def told(tmp_path, *, lab, ci="true"):
    """What pytest says of tests for several places, where ONELUN_LAB is `lab`."""
    (tmp_path / "conftest.py").write_text(
        "from tests.support.requires import pytest_collection_modifyitems, pytest_terminal_summary\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = guest\naddopts = --strict-markers\n")
    (tmp_path / "test_engines.py").write_text(ENGINES)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "CI": ci, "ONELUN_LAB": lab, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_for_a_guest_is_deselected_elsewhere_and_the_reason_is_told(tmp_path):
    said = told(tmp_path, lab="")

    assert "1 passed, 2 deselected" in said
    assert "(lio 1, lvm 2): scripts/lab test runs them" in said


def test_a_guest_runs_what_it_has_the_parts_for(tmp_path):
    assert "2 passed, 1 deselected" in told(tmp_path, lab="lvm")
    assert "3 passed" in told(tmp_path, lab="lvm,lio", ci="")

"""What is planned happens once, at its point, in the process that is meant; and nothing in one that has no faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import click
import pytest

from onelun.cli.serving import allow_faults
from onelun.config import Config
from onelun.faults.plan import PASSED, Plan, arm, disarm, fired
from onelun.faults.points import points

# losetup, of a file that is not there.
ATTACH = """
from onelun.compute.connectors.userspace import loop
from onelun.errors import OnelunError
for _ in range(2):
    try:
        asyncio.run(loop.attach("/absent", readonly=True))
    except OnelunError as error:
        print(error)
"""
LOSETUP = "compute.connectors.userspace.loop.attach/run"
# Three rows of a catalogue.
KEEP = """
from onelun.nas.catalogue import Catalogue
from onelun.nas.maintenance import Maintenance
catalogue = Catalogue(sys.argv[1] + "/catalogue")
kept = Maintenance(catalogue, ["tank"])
for reason in ("one", "two"):
    try:
        kept.change(["tank"], on=True, reason=reason)
    except Exception as error:
        print(type(error).__name__, error)
    print(kept.of("tank"))
"""
SET_META = "nas.maintenance.Maintenance.change/set_meta"


def test_a_command_that_is_to_fail_fails_once_as_commands_do(process, tmp_path):
    arm(str(tmp_path), Plan(LOSETUP, "fail"))

    first, second = process(ATTACH).stdout.splitlines()

    assert "failed with status 1: a fault" in first
    assert "a fault" not in second
    assert fired(str(tmp_path))


def test_who_dies_after_a_command_has_run_it(process, tmp_path):
    arm(str(tmp_path), Plan(LOSETUP, "die", "after", nth=2))

    done = process(ATTACH)

    assert done.returncode == -signal.SIGKILL


def test_a_write_that_is_to_fail_changes_nothing_and_the_next_one_does(process, tmp_path):
    arm(str(tmp_path), Plan(SET_META, "fail"))

    failed, nothing, second = process(KEEP).stdout.splitlines()

    assert failed == "OperationalError disk I/O error"
    assert nothing == "None"
    assert "two" in second


def test_what_fails_after_it_was_done_is_done(process, tmp_path):
    arm(str(tmp_path), Plan(SET_META, "fail", "after"))

    failed, done, _ = process(KEEP).stdout.splitlines()

    assert failed == "OperationalError disk I/O error"
    assert "one" in done


def test_a_plan_for_another_role_does_not_happen_here(process, tmp_path):
    arm(str(tmp_path), Plan(LOSETUP, "die", role="nas1"))

    assert process(ATTACH).returncode == 0
    assert not fired(str(tmp_path))


def test_a_process_notes_the_points_that_it_passes_by_the_names_of_the_list(process, tmp_path):
    (tmp_path / PASSED).touch()

    process(ATTACH + KEEP)

    noted = (tmp_path / PASSED).read_text().splitlines()
    assert noted == [f"node1 {name}" for name in (LOSETUP, LOSETUP, SET_META, SET_META)]
    assert {LOSETUP, SET_META} <= {point.name for point in points()}


def test_what_was_disarmed_does_not_happen(tmp_path):
    arm(str(tmp_path), Plan(LOSETUP, "die"))

    disarm(str(tmp_path))
    disarm(str(tmp_path))

    assert os.listdir(tmp_path) == []


def test_a_configuration_that_is_no_tests_refuses_faults(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELUN_FAULTS", str(tmp_path))

    with pytest.raises(click.ClickException, match="only a test may have faults: unset it"):
        allow_faults(Config(), "nas1")


def test_a_process_without_faults_does_not_even_know_of_them():
    code = "import sys, onelun.cli.nas, onelun.cli.frontend, onelun.cli.compute; print('onelun.faults' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "False\n"

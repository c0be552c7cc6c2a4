"""`onelun register` on real files: a copy of each, owner and mode kept, and nothing written unless all is well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.oned_conf import ONED_CONF, RELEASES, VMM_EXECRC

from onelun.cli.register import register


class Machine:
    """An OpenNebula below ONE_LOCATION."""

    def __init__(self, location: Path, release: tuple[int, int]) -> None:
        self.location = location
        self.conf = location / "etc/oned.conf"
        self.execrc = location / "etc/vmm_exec/vmm_execrc"
        self.execrc.parent.mkdir(parents=True)
        (location / "var/remotes").mkdir(parents=True)
        (location / "var/remotes/VERSION").write_text(f"{release[0]}.{release[1]}.0\n")
        self.conf.write_text(ONED_CONF[release])
        self.execrc.write_text(VMM_EXECRC)
        self.conf.chmod(0o640)

    def register(self, *options: str) -> Result:
        return CliRunner().invoke(register, options, env={"ONE_LOCATION": str(self.location), "ONELUN_CONFIG": "/none"})

    @property
    def texts(self) -> tuple[str, str]:
        return self.conf.read_text(), self.execrc.read_text()

    @property
    def copies(self) -> list[str]:
        return sorted(path.name for path in self.location.rglob("*.before-onelun-*"))


@pytest.fixture(params=RELEASES, ids=str)
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def test_without_apply_the_change_is_printed_and_nothing_written(machine: Machine) -> None:
    before = machine.texts

    result = machine.register()

    assert result.exit_code == 0
    assert '+    NAME = "onelun",' in result.output
    assert "kvm-onelun" in result.output
    assert machine.texts == before
    assert machine.copies == []


def test_applied_twice_and_removed_the_files_are_what_they_were(machine: Machine) -> None:
    before = machine.texts

    first = machine.register("--apply")
    applied = machine.texts
    second = machine.register("--apply")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert applied != before
    assert machine.texts == applied
    assert len(machine.copies) == 2, "a repeat that changes nothing keeps no copy"
    assert machine.conf.stat().st_mode & 0o777 == 0o640
    assert machine.register("--remove", "--apply").exit_code == 0
    assert machine.texts == before


def test_a_copy_of_the_file_as_it_was_is_kept(machine: Machine) -> None:
    before = machine.texts[0]

    machine.register("--apply")

    copy = next(machine.location.rglob("oned.conf.before-onelun-*"))
    assert copy.read_text() == before
    assert copy.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(machine: Machine) -> None:
    real = machine.location / "kept.conf"
    machine.conf.rename(real)
    machine.conf.symlink_to(real)

    assert machine.register("--apply").exit_code == 0

    assert machine.conf.is_symlink()
    assert "onelun" in real.read_text()


def test_bytes_that_are_no_utf8_stay(machine: Machine) -> None:
    machine.conf.write_bytes(machine.conf.read_bytes() + b"# caf\xe9\n")
    before = machine.conf.read_bytes()

    machine.register("--apply")
    machine.register("--remove", "--apply")

    assert machine.conf.read_bytes() == before


def test_one_file_that_cannot_be_read_leaves_both_as_they_are(machine: Machine) -> None:
    machine.execrc.write_text("LIVE_DISK_SNAPSHOTS=$ELSEWHERE\n")
    before = machine.texts

    result = machine.register("--apply")

    assert result.exit_code == 1
    assert "LIVE_DISK_SNAPSHOTS in line 1 is not one list in quotes" in result.output
    assert machine.texts == before


def test_a_release_that_nobody_tells_is_asked_for(machine: Machine) -> None:
    os.unlink(machine.location / "var/remotes/VERSION")

    result = machine.register()

    assert result.exit_code == 1
    assert "give it with --opennebula-version" in result.output
    assert machine.register("--opennebula-version", "7.0").exit_code == 0


def test_a_file_that_is_not_there_is_named(machine: Machine) -> None:
    result = machine.register("--oned-conf", "/nowhere/oned.conf")

    assert result.exit_code == 1
    assert "cannot read /nowhere/oned.conf: No such file or directory" in result.output

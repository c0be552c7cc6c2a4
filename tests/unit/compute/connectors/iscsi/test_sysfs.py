"""What the sysfs of the kernel's initiator is read as."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.support.sysfs import build, put

from onelun.compute.connectors.iscsi.disk import usable, waits
from onelun.compute.connectors.iscsi.sysfs import Sysfs, device_number

TGT = "devices/platform/host0/session7/target0:0:0"
MIB = 1 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture
def sysfs(tree: Path) -> Sysfs:
    return Sysfs(str(tree))


def test_sessions_tell_whose_they_are_and_where_they_lead(sysfs: Sysfs) -> None:
    first, second = sysfs.sessions()

    assert (first.number, first.host, first.target_id) == (7, 0, 0)
    assert first.iqn == "iqn.2026-11.io.onelun.nas1:tank.one-1.e1"
    assert (first.iface, first.initiator) == ("onelun.node1", "iqn.2026-11.io.onelun.host:node1")
    assert (first.address, first.port, first.state) == ("127.0.0.1", 26380, "LOGGED_IN")
    assert (second.number, second.host, second.iface) == (8, 1, "onelun.node2")


def test_sessions_come_in_the_order_of_their_numbers(tree: Path, sysfs: Sysfs) -> None:
    shutil.copytree(tree / "class/iscsi_session/session7", tree / "class/iscsi_session/session10", symlinks=True)

    assert [session.number for session in sysfs.sessions()] == [7, 8, 10]


def test_a_host_without_the_initiator_has_no_sessions(tmp_path: Path) -> None:
    assert Sysfs(str(tmp_path)).sessions() == []
    assert not Sysfs(str(tmp_path)).has_tcp()


def test_a_session_that_goes_while_it_is_read_is_none(tree: Path, sysfs: Sysfs) -> None:
    (tree / "class/iscsi_session/session7/targetname").unlink()

    assert [session.number for session in sysfs.sessions()] == [8]


def test_a_session_whose_device_goes_while_it_is_read_is_none(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str, **_: object) -> str:
        raise FileNotFoundError(path)

    # Between its look at a link and the reading of it the kernel may take the link away: Python raises that.
    monkeypatch.setattr(os, "readlink", gone)

    assert sysfs.sessions() == []


def test_what_is_no_session_is_passed_over(tree: Path, sysfs: Sysfs) -> None:
    put(tree / "class/iscsi_session/session7x/targetname", "iqn.2026-11.io.onelun.nas1:tank.one-9.e1")
    put(tree / "class/iscsi_session/uevent", "noise")

    assert [session.number for session in sysfs.sessions()] == [7, 8]


def test_a_session_of_an_adapter_behind_a_bus_is_found_too(tree: Path, sysfs: Sysfs) -> None:
    far = tree / "devices/pci0000:00/0000:00:1c.0/host5/session7"
    far.parent.mkdir(parents=True)
    os.rename(tree / "devices/platform/host0/session7", far)
    link = tree / "class/iscsi_session/session7/device"
    link.unlink()
    link.symlink_to(far)

    (session, _) = sysfs.sessions()

    assert session.host == 5
    assert [disk.name for disk in sysfs.disks(session)] == ["", "sda"]


def test_a_disk_is_the_disk_and_not_its_partition(sysfs: Sysfs) -> None:
    disk = sysfs.disk(sysfs.sessions()[0], 1)

    assert disk is not None
    assert (disk.hctl, disk.name, disk.node, disk.kind) == ("0:0:0:1", "sda", "/dev/sda", 0)
    assert (disk.size_bytes, disk.readonly, device_number(disk)) == (16 * MIB, False, (8, 0))


def test_the_luns_of_a_session_are_told_apart(sysfs: Sysfs) -> None:
    tgt, lio = sysfs.sessions()

    assert [(disk.lun, disk.kind, disk.name) for disk in sysfs.disks(tgt)] == [(0, 12, ""), (1, 0, "sda")]
    assert [(disk.lun, disk.kind, disk.name) for disk in sysfs.disks(lio)] == [(0, 0, "sdb")]
    assert sysfs.disk(lio, 1) is None


def test_two_digits_of_a_lun_are_one_number(tree: Path, sysfs: Sysfs) -> None:
    os.rename(tree / TGT / "0:0:0:1", tree / TGT / "0:0:0:11")

    session = sysfs.sessions()[0]

    assert sysfs.disk(session, 1) is None
    assert [disk.lun for disk in sysfs.disks(session)] == [0, 11]


def test_the_account_is_read_from_the_session_and_empty_without_one(tree: Path, sysfs: Sysfs) -> None:
    put(tree / "class/iscsi_session/session8/username", "(null)")
    put(tree / "class/iscsi_session/session8/password", "(null)")
    first, second = sysfs.sessions()

    assert sysfs.account(first) == ("one-1-e1", "not-the-secret-16")
    assert sysfs.account(second) == ("", "")
    assert "not-the-secret-16" not in repr(first)


@pytest.mark.parametrize(
    ("session_state", "disk_state", "takes", "holds"),
    [
        ("LOGGED_IN", "running", True, True),
        ("LOGGED_IN", "blocked", False, True),
        ("FAILED", "blocked", False, True),
        ("FAILED", "running", False, True),
        # After the replacement timeout commands fail, whatever comes back.
        ("FAILED", "transport-offline", False, False),
        ("LOGGED_IN", "offline", False, False),
        ("FREE", "running", False, False),
    ],
)
def test_states_tell_whether_a_disk_takes_or_holds_commands(
    tree: Path, sysfs: Sysfs, session_state: str, disk_state: str, takes: bool, holds: bool
) -> None:
    put(tree / "class/iscsi_session/session7/state", session_state)
    put(tree / TGT / "0:0:0:1/state", disk_state)

    session = sysfs.sessions()[0]
    disk = sysfs.disk(session, 1)

    assert (usable(session, disk), waits(session, disk)) == (takes, holds)


def test_a_lun_without_a_block_device_is_of_no_use(tree: Path, sysfs: Sysfs) -> None:
    shutil.rmtree(tree / TGT / "0:0:0:1/block")

    session = sysfs.sessions()[0]
    disk = sysfs.disk(session, 1)

    assert disk is not None
    assert (disk.name, disk.size_bytes, device_number(disk)) == ("", 0, None)
    assert not usable(session, disk)

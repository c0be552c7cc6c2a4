"""The node records that open-iscsi reads, as files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.records import Records, iface_of
from onelun.errors import CommandFailed, Rejected
from onelun.model import Portal

IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e1"
PORTAL = Portal("198.18.0.1", 3260)
EXPORT = Export(IQN, PORTAL, "iqn.2026-11.io.onelun.host:node1", user="one-1-e1", secret="secret-of-16-chr")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(str(tmp_path), iface_of("node1"))


def settings(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("# BEGIN RECORD 2.1.8", "# END RECORD")
    return dict(line.split(" = ") for line in lines[1:-1])


def test_a_record_tells_who_logs_in_where_and_how(tmp_path: Path, records: Records) -> None:
    records.put(EXPORT, PORTAL)

    found = settings(tmp_path / "nodes" / IQN / "198.18.0.1,3260")

    assert found["node.name"] == IQN
    assert (found["node.conn[0].address"], found["node.conn[0].port"]) == ("198.18.0.1", "3260")
    assert (found["iface.iscsi_ifacename"], found["iface.initiatorname"]) == ("onelun.node1", EXPORT.initiator)
    assert found["node.session.auth.authmethod"] == "CHAP"
    assert (found["node.session.auth.username"], found["node.session.auth.password"]) == (EXPORT.user, EXPORT.secret)
    assert (found["node.startup"], found["node.conn[0].startup"], found["node.session.scan"]) == ("manual",) * 3


async def test_a_cancelled_caller_leaves_a_whole_record_that_can_be_removed(tmp_path: Path, records: Records) -> None:
    making = asyncio.create_task(records.make(EXPORT, PORTAL))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making

    assert settings(tmp_path / "nodes" / IQN / "198.18.0.1,3260")["node.name"] == IQN
    records.remove(IQN)
    assert not (tmp_path / "nodes" / IQN).exists()


def test_only_root_reads_it_and_nothing_else_is_left(tmp_path: Path, records: Records) -> None:
    old = os.umask(0)
    try:
        records.put(EXPORT, PORTAL)
    finally:
        os.umask(old)

    path = tmp_path / "nodes" / IQN / "198.18.0.1,3260"

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path) == ["nodes"]


def test_without_an_account_no_authentication_is_asked_for(tmp_path: Path, records: Records) -> None:
    records.put(msgspec.structs.replace(EXPORT, user=None, secret=None), PORTAL)

    found = settings(tmp_path / "nodes" / IQN / "198.18.0.1,3260")

    assert not any(key.startswith("node.session.auth") for key in found)


def test_a_new_portal_takes_the_place_of_the_old_one(tmp_path: Path, records: Records) -> None:
    records.put(EXPORT, PORTAL)

    records.put(EXPORT, Portal("fd00::1", 3261))

    assert os.listdir(tmp_path / "nodes" / IQN) == ["fd00::1,3261"]


def test_a_removed_record_leaves_no_directory_and_an_absent_one_is_removed(tmp_path: Path, records: Records) -> None:
    records.put(EXPORT, PORTAL)

    records.remove(IQN)
    records.remove(IQN)

    assert os.listdir(tmp_path / "nodes") == []


def test_others_records_are_neither_listed_nor_removed(tmp_path: Path, records: Records) -> None:
    other = Records(str(tmp_path), iface_of("node2"))
    other.put(EXPORT, Portal("198.18.0.9", 3260))
    by_hand = tmp_path / "nodes" / IQN / "198.18.0.1,3260,1" / "default"
    by_hand.parent.mkdir()
    by_hand.write_text(
        "# BEGIN RECORD 2.1.8\niface.iscsi_ifacename = default\nnode.startup = automatic\n# END RECORD\n"
    )
    records.put(EXPORT, PORTAL)
    assert records.targets() == [IQN]

    records.remove(IQN)

    assert records.targets() == []
    assert records.automatic() == []
    assert other.targets() == [IQN]
    assert by_hand.exists()


def test_a_record_of_ours_in_the_other_form_is_removed_too(tmp_path: Path, records: Records) -> None:
    path = tmp_path / "nodes" / IQN / "198.18.0.1,3260,1" / "onelun.node1"
    path.parent.mkdir(parents=True)
    path.write_text("iface.iscsi_ifacename = onelun.node1\n")
    assert records.targets() == [IQN]

    records.remove(IQN)

    assert os.listdir(tmp_path / "nodes") == []


def test_a_record_that_would_log_in_by_itself_is_named(tmp_path: Path, records: Records) -> None:
    records.put(EXPORT, PORTAL)
    assert records.automatic() == []
    path = tmp_path / "nodes" / IQN / "198.18.0.1,3260"

    path.write_text(path.read_text().replace("node.startup = manual", "node.startup = automatic"))

    assert records.automatic() == [IQN]


def test_noise_in_the_database_is_passed_over(tmp_path: Path, records: Records) -> None:
    (tmp_path / "nodes" / "lost+found").mkdir(parents=True)
    (tmp_path / "nodes" / "stray").write_bytes(b"\xff\0")
    half = tmp_path / "nodes" / "iqn.2026-11.io.onelun.nas1:tank.one-2.e1"
    half.mkdir()
    (half / "198.18.0.1,3260").write_bytes(b"\xfe iface\n= = =\n")
    records.put(EXPORT, PORTAL)

    assert records.targets() == [IQN]


def test_what_a_kill_left_beside_is_cleared_away(tmp_path: Path, records: Records) -> None:
    (tmp_path / ".onelun.node1.0123456789abcdef").write_text("node.session.auth.password = x")
    (tmp_path / ".onelun.node12.0123456789abcdef").write_text("another agent's")

    records.clear_aside()

    assert os.listdir(tmp_path) == [".onelun.node12.0123456789abcdef"]


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "first\nnode.startup = automatic"},
        {"user": "two words"},
        {"initiator": "iqn.2026-11.io.onelun.host:node1\n"},
        {"secret": ""},
    ],
)
def test_a_word_that_would_be_another_setting_is_refused_and_not_shown(
    tmp_path: Path, records: Records, change: dict[str, str]
) -> None:
    with pytest.raises(Rejected) as caught:
        records.put(msgspec.structs.replace(EXPORT, **change), PORTAL)

    assert "automatic" not in caught.value.sentence
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("iqn", ["../../etc", "iqn.2026-11.io/..", "iqn.2026-11.io.onelun:a\n", "", "iqn.x y"])
def test_a_target_that_is_no_name_becomes_no_path(tmp_path: Path, records: Records, iqn: str) -> None:
    with pytest.raises(Rejected, match="no name of an iSCSI target"):
        records.put(msgspec.structs.replace(EXPORT, iqn=iqn), PORTAL)
    with pytest.raises(Rejected, match="no name of an iSCSI target"):
        records.remove(iqn)

    assert os.listdir(tmp_path) == []


def test_a_session_gets_a_record_to_be_logged_out_by_only_when_it_has_none(tmp_path: Path, records: Records) -> None:
    records.put(EXPORT, PORTAL)
    path = tmp_path / "nodes" / IQN / "198.18.0.1,3260"
    before = path.read_text()

    records.restore(IQN, PORTAL, EXPORT.initiator)
    assert path.read_text() == before

    records.remove(IQN)
    records.restore(IQN, PORTAL, EXPORT.initiator)
    assert settings(path)["iface.iscsi_ifacename"] == "onelun.node1"


def test_a_database_that_cannot_be_written_is_one_sentence(tmp_path: Path, records: Records) -> None:
    (tmp_path / "nodes").write_text("a file")

    with pytest.raises(CommandFailed, match="cannot write the record"):
        records.put(EXPORT, PORTAL)


def test_a_missing_database_is_named() -> None:
    assert "install open-iscsi" in (Records("/nonexistent", iface_of("node1")).trouble() or "")


def test_the_name_of_a_long_node_fits_and_stays_its_own() -> None:
    one, other = "a" * 62 + "b", "a" * 62 + "c"

    assert iface_of("node1") == "onelun.node1"
    assert len(iface_of(one)) <= 64
    assert iface_of(one) != iface_of(other)

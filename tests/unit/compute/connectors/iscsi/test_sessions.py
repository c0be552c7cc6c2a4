"""The end of a session: what counts is that it is gone, and not what iscsid says of it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.support.sysfs import build

from onelun.calls import Calls
from onelun.compute.connectors.iscsi import sessions as module
from onelun.compute.connectors.iscsi.admin import Iscsiadm
from onelun.compute.connectors.iscsi.notes import Note, Notes
from onelun.compute.connectors.iscsi.records import Records
from onelun.compute.connectors.iscsi.sessions import Sessions
from onelun.compute.connectors.iscsi.sysfs import Sysfs
from onelun.errors import CommandFailed
from onelun.model import Portal

IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e1"
IFACE = "onelun.node1"


class Refusing(Iscsiadm):
    """iscsid is just ending the session, as somebody before asked it to, and refuses to begin with that."""

    def __init__(self, place: Path, *, ends: bool) -> None:
        super().__init__()
        self._place = place
        self._ends = ends
        self.ending: asyncio.Task[None] | None = None

    async def logout(self, iqn: str, portal: Portal) -> None:
        if self._ends:
            self.ending = asyncio.create_task(self._end())
        raise CommandFailed("iscsiadm failed with status 4: in invalid state for logout")

    async def _end(self) -> None:
        await asyncio.sleep(0.05)
        shutil.rmtree(self._place)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """/sys with a session of ours whose disk is gone already."""
    built = build(tmp_path / "sys")
    shutil.rmtree(built / "devices/platform/host0/session7/target0:0:0")
    return built


def made(tree: Path, tmp_path: Path, *, ends: bool) -> tuple[Sessions, Records, Notes]:
    records, notes = Records(str(tmp_path / "iscsi"), IFACE), Notes(str(tmp_path / "run"))
    notes.put(Note(IQN, 7, 1))
    admin = Refusing(tree / "class/iscsi_session/session7", ends=ends)
    return Sessions(IFACE, Sysfs(str(tree)), records, notes, admin, Calls()), records, notes


async def test_a_session_that_somebody_else_ends_is_ended(tree: Path, tmp_path: Path) -> None:
    sessions, records, notes = made(tree, tmp_path, ends=True)

    await sessions.clear(IQN, force=False)

    assert (sessions.ours(), records.targets(), notes.targets()) == ([], [], [])


async def test_of_a_session_that_stays_it_is_told_what_iscsid_said(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GONE_S", 0.1)
    sessions, _, notes = made(tree, tmp_path, ends=False)

    with pytest.raises(CommandFailed, match="invalid state for logout"):
        await sessions.clear(IQN, force=False)

    assert notes.targets() == [IQN]

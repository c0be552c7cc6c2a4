"""What an agent that was killed left, and the next one finds."""

from __future__ import annotations

import os

from tests.support.blocks import leftovers
from tests.support.iscsi_connecting import comes, iscsiadm, open_up
from tests.support.iscsi_open import (
    OpenIscsiLab,
    records,
    sessions,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector

pytestmark = guest("iscsi")


async def test_a_start_clears_away_what_was_not_verified(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    kept, half = iscsi.offer("one-1", "node1"), iscsi.offer("one-2", "node1")
    await node1.connect(kept)
    await node1.connect(half)
    os.unlink(f"{iscsi.directory}/node1/{half.iqn}")

    await iscsi.connector("node1").settle()

    assert [(one.iqn, one.alive) for one in await node1.connections()] == [(kept.iqn, True)]
    assert len(sessions("node1")) == len(records("node1")) == 1


async def test_a_start_leaves_what_was_not_verified_and_is_open(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    _, descriptor = await open_up(node1, export)
    os.unlink(f"{iscsi.directory}/node1/{export.iqn}")

    await iscsi.connector("node1").settle()

    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)
    await node1.settle()
    assert leftovers(iscsi) == []


async def test_a_start_removes_records_and_notes_without_a_session(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    # As after a reboot: the database is on a disk, the sessions are not.
    iscsiadm("-m", "node", "-T", export.iqn, "-p", str(iscsi.portal), "--logout")
    await comes(lambda: sessions("node1") == [])
    assert len(records("node1")) == 1

    await iscsi.connector("node1").settle()

    assert leftovers(iscsi) == []


async def test_a_session_ends_although_its_record_is_gone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    iscsiadm("-m", "node", "-T", export.iqn, "-p", str(iscsi.portal), "--op", "delete", check=False)
    for path in records("node1"):
        os.unlink(path)

    await node1.disconnect(export.iqn)

    assert leftovers(iscsi) == []

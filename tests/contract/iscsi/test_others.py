"""Sessions, LUNs and records of others on the same host, which are none of ours."""

from __future__ import annotations

import os

from tests.support.blocks import leftovers, read
from tests.support.iscsi_connecting import FOREIGN, iscsiadm
from tests.support.iscsi_open import (
    NODES,
    OpenIscsiLab,
    sessions,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector

pytestmark = guest("iscsi")


async def test_a_session_whose_other_lun_is_in_use_stays_without_ours(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    other = iscsi.second_lun(export, 3)
    descriptor = os.open(other, os.O_RDONLY)

    await node1.disconnect(export.iqn)
    await node1.disconnect(export.iqn)

    assert await node1.connections() == []
    assert len(sessions("node1")) == 1
    assert len(os.pread(descriptor, 512, 0)) == 512
    assert len(read(await node1.connect(export), 512)) == 512
    assert [one.alive for one in await node1.connections()] == [True]
    os.close(descriptor)
    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []


async def test_sessions_and_records_of_others_are_left_alone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    by_hand = ("-m", "node", "-T", FOREIGN, "-p", str(iscsi.portal))
    with iscsi.foreign(FOREIGN):
        iscsiadm(*by_hand, "--op", "new")
        iscsiadm(*by_hand, "--login")
        try:
            await node1.settle()
            await node1.connect(export)
            assert [one.iqn for one in await node1.connections()] == [export.iqn]
            await node1.disconnect(export.iqn)
            await node1.disconnect(FOREIGN, force=True)
            await node1.settle()

            assert FOREIGN in iscsiadm("-m", "session")
            assert os.path.exists(f"{NODES}/{FOREIGN}")
        finally:
            iscsiadm(*by_hand, "--logout")
            iscsiadm(*by_hand, "--op", "delete")


async def test_one_hosts_sessions_are_none_of_anothers(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    other = iscsi.connector("node2")
    await node1.connect(iscsi.offer("one-1", "node1"))
    await other.connect(iscsi.offer("one-12", "node2"))

    await node1.settle()
    await node1.disconnect("iqn.2026-11.io.onelun.nas1:tank.one-12.e1", force=True)

    assert [one.iqn for one in await other.connections()] == ["iqn.2026-11.io.onelun.nas1:tank.one-12.e1"]
    assert [one.alive for one in await other.connections()] == [True]

"""Disconnecting from what is dead: nothing is lost unless it is forced, and then in bounded time."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from tests.support.blocks import content, leftovers, read, run, start_writer
from tests.support.cable import Cable
from tests.support.iscsi import LIMIT_S, MIB
from tests.support.iscsi_connecting import by, comes, paused, state
from tests.support.iscsi_open import (
    OpenIscsiLab,
    records,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.errors import CommandFailed

pytestmark = guest("iscsi")


async def test_a_flush_that_fails_removes_nothing(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    # Who looks at a disk when its target goes has it open until the kernel gives up.
    run("udevadm", "settle", "--timeout=60")
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(CommandFailed, match="flush"):
        await node1.disconnect(export.iqn)

    assert [one.iqn for one in await node1.connections()] == [export.iqn]
    assert len(records("node1")) == 1


async def test_force_frees_a_writer_whose_target_is_gone_and_drops_its_writes(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")
    writer = await start_writer(device)

    begun = time.monotonic()
    await node1.disconnect(export.iqn, force=True)

    assert time.monotonic() - begun < 30
    assert writer.wait(LIMIT_S) != 0
    assert leftovers(iscsi) == []
    iscsi.offer("one-1", "node1")
    assert len(read(await node1.connect(export), 512)) == 512
    assert content(iscsi.backing(export)) == bytes(16 * MIB)


async def test_force_frees_a_writer_behind_a_cut_cable_in_time(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    """The session does not know yet that it is dead: its commands are under way."""
    export = by(cable, iscsi.offer("one-1", "node1"))
    device = await node1.connect(export)
    cable.cut()
    writer = await start_writer(device)
    assert state(export) == "LOGGED_IN"

    begun = time.monotonic()
    await node1.disconnect(export.iqn, force=True)

    assert time.monotonic() - begun < 30
    assert writer.wait(LIMIT_S) != 0
    assert leftovers(iscsi) == []
    cable.heal()
    await asyncio.sleep(1)
    assert content(iscsi.backing(export)) == bytes(16 * MIB)


async def test_force_ends_in_time_without_an_answer_of_iscsid(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")
    writer = await start_writer(device)

    with paused():
        begun = time.monotonic()
        with pytest.raises(CommandFailed, match="iscsid does not answer"):
            await node1.disconnect(export.iqn, force=True)
        assert time.monotonic() - begun < 30
        # The writes are gone with the device, the rest waits for iscsid.
        assert writer.wait(LIMIT_S) != 0
        assert not os.path.exists(device)
        assert records("node1") == []

    await node1.disconnect(export.iqn, force=True)
    assert leftovers(iscsi) == []

"""A NAS that is away, and comes back: who had its disk open goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from pathlib import Path

import pytest
from tests.support.blocks import content, open_device, write, write_to
from tests.support.cable import Cable
from tests.support.iscsi import LIMIT_S
from tests.support.iscsi_connecting import by, comes, open_up, paused, state
from tests.support.iscsi_open import (
    OpenIscsiLab,
    sessions,
    without_iscsid,
)
from tests.support.requires import guest

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi import stop
from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.compute.tending import tending
from onelun.errors import NotFound, Unreachable

pytestmark = guest("iscsi")

# iscsid tries every few seconds, and twice or more the connector has to wake the session first.
BACK_S = 120


async def back(node1: IscsiConnector, export: Export) -> str:
    """Connect to what has just come back, as often as it takes."""
    until = time.monotonic() + BACK_S
    while True:
        try:
            return await node1.connect(export)
        except Unreachable:
            assert time.monotonic() < until


async def test_a_writer_goes_on_when_the_nas_is_back(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    # Opened before the NAS goes away: whoever opens a device only then may wait in the kernel, where nobody sees it.
    descriptor = open_device(await node1.connect(export), os.O_WRONLY)
    write_to(descriptor, b"1" * 4096)
    iscsi.restart()
    await comes(lambda: state(export) == "FAILED")

    writing = asyncio.create_task(asyncio.to_thread(write_to, descriptor, b"2" * 4096, 4096))
    async with tending(node1, every_s=1):
        # Refused by a NAS that is there and has no targets yet, which may leave it to the agent to wake the session.
        await asyncio.sleep(15)
        assert not writing.done()
        assert [one.alive for one in await node1.connections()] == [True]
        iscsi.offer("one-1", "node1")
        await asyncio.wait_for(writing, BACK_S)
    os.close(descriptor)

    assert content(iscsi.backing(export))[:8192] == b"1" * 4096 + b"2" * 4096


async def test_a_session_that_has_just_come_back_is_not_woken(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    """iscsid would not hear of it, and leave the session down for ever."""
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    handle = Path("/sys/class/iscsi_transport/tcp/handle").read_text().strip()
    (session,) = (one.split()[0].removeprefix("session") for one in sessions("node1"))

    stopping = await asyncio.create_subprocess_exec(sys.executable, stop.__file__, handle, session, "onelun.node1")

    assert await asyncio.wait_for(stopping.wait(), LIMIT_S) == errno.EISCONN
    assert state(export) == "LOGGED_IN"
    await asyncio.wait_for(asyncio.to_thread(write, device, b"2" * 4096), LIMIT_S)


async def test_a_session_survives_the_end_of_iscsid_and_then_that_of_the_nas(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    """A restarted iscsid takes the sessions over, and logs in by our record when the NAS is back."""
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)

    with without_iscsid():
        write(device, b"1" * 4096)
    iscsi.restart()
    await comes(lambda: state(export) == "FAILED")
    # iscsid may come to a NAS that has no targets yet, or be cut off while it takes the session over.
    async with tending(node1, every_s=1):
        iscsi.offer("one-1", "node1")
        await asyncio.wait_for(asyncio.to_thread(write, device, b"2" * 4096, 4096), BACK_S)

    assert content(iscsi.backing(export))[:8192] == b"1" * 4096 + b"2" * 4096


async def test_a_cut_cable_delays_a_writer_and_no_more(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    export = by(cable, iscsi.offer("one-1", "node1"))
    device = await node1.connect(export)
    cable.cut()
    writing = asyncio.create_task(asyncio.to_thread(write, device, b"2" * 4096))
    await comes(lambda: state(export) == "FAILED")

    # A login may be on its way when the cable heals, and come to nothing.
    async with tending(node1, every_s=1):
        cable.heal()
        await asyncio.wait_for(writing, BACK_S)

    assert content(iscsi.backing(export))[:4096] == b"2" * 4096


async def test_a_device_in_use_is_kept_while_its_nas_is_away(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    before = sessions("node1")
    iscsi.stop()
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(Unreachable):
        await node1.connect(export)
    assert [(one.device, one.alive) for one in await node1.connections()] == [(device, True)]
    # A login that is refused by a NAS without targets may leave it to the agent to wake the session.
    with paused():
        iscsi.restart()
        iscsi.offer("one-1", "node1")

    assert await back(node1, export) == device
    assert sessions("node1") == before
    os.close(descriptor)


async def test_a_device_in_use_is_kept_when_its_target_is_gone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    # Without any target, tgtd ends a login without a word.
    iscsi.offer("one-2", "node1")
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(NotFound):
        await node1.connect(export)

    assert [(one.device, one.alive) for one in await node1.connections()] == [(device, True)]
    os.close(descriptor)
    assert [one.alive for one in await node1.connections()] == [False]


async def test_a_dead_session_that_nobody_uses_is_made_anew(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    before = sessions("node1")
    with paused():
        iscsi.restart()
        await comes(lambda: state(export) == "FAILED")
        iscsi.offer("one-1", "node1")
    assert [one.alive for one in await node1.connections()] in ([False], [True])

    device = await node1.connect(export)

    write(device, b"n" * 4096)
    assert content(iscsi.backing(export))[:4096] == b"n" * 4096
    assert len(sessions("node1")) == len(before)


async def test_a_target_that_is_late_with_an_answer_keeps_its_session(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    before = sessions("node1")
    with paused(iscsi.pid):
        again = asyncio.create_task(node1.connect(export))
        await asyncio.sleep(7)

    assert await again == device
    assert sessions("node1") == before

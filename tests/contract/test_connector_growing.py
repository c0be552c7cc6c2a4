"""Growing under a connector, and what it says that a host lacks: what compute/connectors/base.py promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.support.blocks import HOSTS, content, forget, leftovers, read, write
from tests.support.iscsi import MIB, Lab

from onelun.compute.connectors.base import Connector
from onelun.errors import Busy, Conflict, NotFound


@pytest.fixture
async def host(lab: Lab) -> AsyncIterator[Connector]:
    yield lab.connector(HOSTS[0])
    await forget(lab)


async def test_a_grown_volume_is_seen_in_its_new_size_and_keeps_its_content(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1", size=16 * MIB)
    write(await host.connect(export), b"o" * 4096)
    lab.grow(export, 32 * MIB)

    device = await host.grow(export.iqn, 32 * MIB)

    assert read(device, 4096) == b"o" * 4096
    write(device, b"n" * 4096, 32 * MIB - 4096)
    assert content(lab.backing(export))[-4096:] == b"n" * 4096
    assert [(c.iqn, c.device, c.alive) for c in await host.connections()] == [(export.iqn, device, True)]
    assert await host.connect(msgspec.structs.replace(export, size_bytes=32 * MIB)) == device


async def test_growing_again_does_nothing(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1", size=16 * MIB)
    device = await host.connect(export)

    assert await host.grow(export.iqn, 16 * MIB) == device

    lab.grow(export, 32 * MIB)
    grown = await host.grow(export.iqn, 32 * MIB)
    assert await host.grow(export.iqn, 32 * MIB) == grown


async def test_growing_what_is_not_connected_is_not_found(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")

    with pytest.raises(NotFound):
        await host.grow(export.iqn, 32 * MIB)

    await host.connect(export)
    await host.disconnect(export.iqn)
    with pytest.raises(NotFound):
        await host.grow(export.iqn, 32 * MIB)
    assert leftovers(lab) == []


async def test_a_lun_of_another_size_is_a_conflict_and_stays_connected(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1", size=16 * MIB)
    device = await host.connect(export)

    with pytest.raises(Conflict):
        await host.grow(export.iqn, 32 * MIB)

    assert len(read(device, 4096)) == 4096
    assert [(c.device, c.alive) for c in await host.connections()] == [(device, True)]


async def test_an_open_device_grows_or_is_busy_and_is_never_cut_off(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1", size=16 * MIB)
    device = await host.connect(export)
    descriptor = os.open(device, os.O_RDWR)
    lab.grow(export, 32 * MIB)

    try:
        (grown,) = await asyncio.gather(host.grow(export.iqn, 32 * MIB), return_exceptions=True)
        assert grown == device or (isinstance(grown, Busy) and "in use" in str(grown))
        assert os.lseek(descriptor, 0, os.SEEK_END) == (32 * MIB if grown == device else 16 * MIB)
    finally:
        assert os.pwrite(descriptor, b"x" * 512, 0) == 512
        os.fsync(descriptor)
        os.close(descriptor)
    assert content(lab.backing(export))[:512] == b"x" * 512
    grown = await host.grow(export.iqn, 32 * MIB)
    assert len(read(grown, 4096, 32 * MIB - 4096)) == 4096


# Its LUN's number


async def test_the_lun_that_is_told_is_connected(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")

    device = await host.connect(msgspec.structs.replace(export, lun=lab.lun))

    assert len(read(device, 4096)) == 4096


async def test_another_lun_than_the_one_there_is_is_not_found(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), lun=lab.lun + 4)

    with pytest.raises(NotFound, match=f"LUN {lab.lun + 4}"):
        await host.connect(export)

    assert leftovers(lab) == []


# What is missing


async def test_of_a_host_in_order_nothing_is_said(lab: Lab, host: Connector) -> None:
    assert await host.check() == []

    await host.connect(lab.offer("one-1", "node1"))

    assert await host.check() == []


async def test_checking_a_host_changes_nothing(lab: Lab, host: Connector) -> None:
    await host.check()

    assert leftovers(lab) == []


async def test_each_thing_that_is_broken_is_one_sentence(lab: Lab, host: Connector) -> None:
    ways = lab.broken()
    assert ways

    for words, broken in ways:
        with broken:
            found = await host.check()
            assert len(found) == 1, words
            assert words in found[0]
            assert "\n" not in found[0]
        assert await host.check() == []
